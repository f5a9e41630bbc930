import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from hwsearch.cli.export_verb import command

Hwsearch = Callable[..., "subprocess.CompletedProcess[str]"]
Finished = tuple[Path, "subprocess.CompletedProcess[str]"]


def test_export_when_the_folder_is_none_is_one_line(hwsearch: Hwsearch) -> None:
    ended = hwsearch("export", "missing", torch=True)
    assert ended.returncode == 2
    [line] = [line for line in ended.stderr.splitlines() if line.startswith("hwsearch: ")]
    assert line == ("hwsearch: missing is not a folder; give a run folder, as they are in results/")


def test_export_when_asked_for_help_names_its_options() -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    for option in ("--trial", "--dynamic-batch", "--bake-normalization"):
        assert option in text


@pytest.mark.slow
def test_export_when_run_prints_the_files(
    finished: Finished, there: Hwsearch, tmp_path: Path
) -> None:
    # Others look at the finished run, which this changes.
    place = Path(shutil.copytree(finished[0], tmp_path / "place"))
    [folder] = (place / "results").iterdir()
    pick = json.loads((folder / "front.json").read_text())["pick"]
    ended = there(place, "export", str(folder), "--trial", "pick", "--dynamic-batch")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{folder}/models/trial_{pick:04d}/model.onnx\n"
    [value] = onnx.load(ended.stdout.strip()).graph.input
    assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
