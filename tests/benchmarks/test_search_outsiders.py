import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import end_to_end
import numpy as np
import outsiders
import pytest
from score_files import HeldOut, accuracy_percent, input_px

from hwsearch.accuracy.data.sources import load_data


def test_outsiders_know_nothing_of_hwsearch() -> None:
    code = "import sys, outsiders; print('hwsearch' in sys.modules)"
    folder = Path(outsiders.__file__).parent
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "False"


def write_file(path: Path, *, metadata: dict[str, object] | None = None) -> None:
    """A network of two classes that says whether the mean of the first channel is above 0."""
    import onnx
    from onnx import helper, numpy_helper

    weight = np.zeros((3, 2), np.float32)
    weight[0] = -1, 1
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("input", [1, 3, 8, 8]), ("logits", [1, 2]))
    ]
    graph = helper.make_graph(
        nodes, "sign", ends[:1], ends[1:], [numpy_helper.from_array(weight, "weight")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata is not None:
        helper.set_model_props(model, {"hwsearch.input": json.dumps(metadata)})
    path.write_bytes(model.SerializeToString())


def held_out(px: int = 8) -> HeldOut:
    """Grey levels around 100 of 255, three of four above."""
    levels = np.array([90, 110, 120, 130], np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (4, 3, px, px))
    third = np.full(3, 0.5, np.float32)
    mean = np.full(3, 100 / 255, np.float32)
    return HeldOut(images=images, labels=np.array([0, 1, 1, 1]), mean=mean, std=third)


@pytest.mark.parametrize(
    ("metadata", "percent"),
    [
        (None, 100),
        ({"normalization": "(x / 255 - mean) / std", "mean": [0.45] * 3, "std": [1.0] * 3}, 75),
        ({"normalization": "in the file", "mean": [0.45] * 3, "std": [1.0] * 3}, 75),
    ],
)
def test_file_is_fed_as_it_says(
    metadata: dict[str, object] | None, percent: float, tmp_path: Path
) -> None:
    path = tmp_path / "some.onnx"
    write_file(path, metadata=metadata)
    assert input_px(path) == 8
    assert accuracy_percent(path, held_out()) == percent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arm", "files", "package"),
    [
        ("quantize-static", 2, "onnxruntime"),
        ("nncf", 2, "nncf"),
        ("torch-pruning", 12, "torch_pruning"),
        ("modelopt", 8, "modelopt"),  # a tenth of the operations is out of reach of test_resnet
    ],
)
def test_arm_makes_files_of_real_training(
    arm: str, files: int, package: str, tmp_path: Path
) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not here")
    split, out = tmp_path / "split.npz", tmp_path / "out"
    end_to_end.write_split(load_data("digits", px=32), split)
    command = [sys.executable, outsiders.__file__, str(split), str(out), "--arms", arm]
    subprocess.run(
        [*command, "--minutes", "0.01", "--nets", "test_resnet"], check=True, capture_output=True
    )
    outcome = json.loads((out / outsiders.OUTCOME_FILE).read_text())[arm]
    assert [input_px(out / name) for name in outcome["files"]] == [32] * files
    assert outcome["others_s"] == 0
