import json
from pathlib import Path

import onnx
import pytest
from own_place import Hwsearch


@pytest.mark.slow
def test_export_when_run_prints_the_files(
    finished_copy: tuple[Path, Path], there: Hwsearch
) -> None:
    place, folder = finished_copy
    pick = json.loads((folder / "front.json").read_text())["pick"]
    ended = there(place, "export", str(folder), "--trial", "pick", "--dynamic-batch")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{folder}/models/trial_{pick:04d}/model.onnx\n"
    [value] = onnx.load(ended.stdout.strip()).graph.input
    assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
