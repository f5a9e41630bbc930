import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Hwsearch = Callable[..., "subprocess.CompletedProcess[str]"]
Finished = tuple[Path, "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(finished: Finished, tmp_path: Path) -> Path:
    """A copy of a finished run, to be changed."""
    (made,) = (finished[0] / "results").iterdir()
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.mark.slow
def test_report_when_made_again_is_the_same_and_needs_no_torch(
    hwsearch: Hwsearch, folder: Path
) -> None:
    table = (folder / "front.csv").read_bytes()
    # The first report of a run cannot know how long it took itself; all later ones are equal.
    hwsearch("report", "run")
    report = (folder / "report.md").read_bytes()
    for name in ("report.md", "front.csv", "pareto.svg", "pareto.png"):
        (folder / name).unlink()
    ended = hwsearch("report", "run")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (folder / "report.md").read_bytes() == report
    assert (folder / "front.csv").read_bytes() == table
    assert (folder / "pareto.svg").is_file()
    assert (folder / "pareto.png").is_file()
    assert "Report: run/report.md" in ended.stdout
    assert "Pick: " in ended.stdout


@pytest.mark.slow
def test_report_when_made_again_changes_no_stored_result(hwsearch: Hwsearch, folder: Path) -> None:
    stored = ("front.json", "run.json", "trials.csv")
    before = [(folder / name).read_bytes() for name in stored]
    hwsearch("report", "run")
    assert [(folder / name).read_bytes() for name in stored] == before


@pytest.mark.slow
def test_report_when_a_result_was_spoilt_names_the_file(hwsearch: Hwsearch, folder: Path) -> None:
    front = json.loads((folder / "front.json").read_text(encoding="utf-8"))
    del front["target"]
    (folder / "front.json").write_text(json.dumps(front))
    ended = hwsearch("report", "run")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "front.json" in ended.stderr
    assert "target" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("make", [True, False])
def test_report_when_there_is_no_run_is_refused(
    make: bool, hwsearch: Hwsearch, tmp_path: Path
) -> None:
    if make:
        (tmp_path / "run").mkdir()
    ended = hwsearch("report", "run")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("hwsearch: ")
    assert ended.stderr.count("\n") == 1
    assert "run" in ended.stderr
    assert (tmp_path / "run").exists() == make
