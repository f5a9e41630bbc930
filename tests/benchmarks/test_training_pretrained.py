import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import safetensors.torch

from hwsearch.accuracy.data.sources import load_data
from hwsearch.accuracy.training import Recipe
from hwsearch.nets.backbone import BackboneRef, build

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training" / "pretrained.py"
_BACKBONE = "test_resnet"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The benchmark with a small network."""
    spec = importlib.util.spec_from_file_location("training_pretrained", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BACKBONE", _BACKBONE)
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    return module


def test_each_arm_is_a_row_and_is_not_run_again(script: ModuleType, tmp_path: Path) -> None:
    data = script.some_of(load_data("digits", px=16), 85)
    assert (len(data.train), len(data.validation)) == (85, 15)
    weights, out = tmp_path / "weights.safetensors", tmp_path / "rows.csv"
    state = build(BackboneRef(name=_BACKBONE, classes=7), 16).state_dict()
    safetensors.torch.save_file(state, weights)
    recipe = Recipe(steps=2, batch_size=16)
    for _ in range(2):
        for arm in script.ARMS:
            script.add_row(out, data, 16, recipe, arm, weights, 40)
    rows = script.rows_of(out)
    assert [(row["arm"], row["steps"]) for row in rows] == [
        ("probe", "0"),
        ("base", "2"),
        ("scratch", "2"),
    ]
    assert [row["reestimated_percent"] != "" for row in rows] == [False, True, False]
    assert all(row["held_out_pictures"] == "40" for row in rows)
    assert float(rows[1]["validation_percent"]) >= float(rows[0]["validation_percent"])
