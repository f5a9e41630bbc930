"""``hwsearch predict`` as it is typed; files are priced in a process that cannot import torch."""

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from own_place import Hwsearch

import hwsearch as package
from hwsearch import api
from hwsearch.cli.main import cli
from hwsearch.errors import BackboneError, UserError
from hwsearch.hardware.targets import load_profile


def write_net(path: Path, *, size: int | str = 32, operator: str = "Relu") -> Path:
    """A convolution, an activation, a pooling and a linear layer."""
    constants = {
        "stem.weight": np.ones((16, 3, 3, 3), dtype=np.float32),
        "head.weight": np.ones((10, 16), dtype=np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "stem.weight"], ["c"], strides=[2, 2], pads=[1] * 4),
        helper.make_node(operator, ["c"], ["r"], name="act"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "head.weight"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, size, size))],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    return path


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HWSEARCH_CONFIG", str(tmp_path / "configuration"))
    return write_net(tmp_path / "net.onnx")


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["predict", *arguments], catch_exceptions=False)


def accepts(content: object) -> bool:
    folder = resources.files("hwsearch.report")
    schema: dict[str, Any] = json.loads((folder / "predict.schema.json").read_text("utf-8"))
    return bool(jsonschema.Draft202012Validator(schema).is_valid(content))


def test_file_when_priced_prints_where_the_time_goes(net: Path, hwsearch: Hwsearch) -> None:
    ended = hwsearch("predict", "net.onnx", "--target", "jetson")
    assert ended.returncode == 0
    assert ended.stderr == "'jetson' means jetson-orin-nano\n"
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("net.onnx at 32 px in fp32 on jetson-orin-nano (TensorRT ")
    assert [line.split()[0] for line in lines[1:5]] == ["latency", "rate", "energy", "network"]
    assert "at 90 % confidence; predicted, evidence: derived" in lines[1]
    for title in ("costliest kernels", "by what binds them", "by kind"):
        assert title in lines
    row = next(line.split() for line in lines if line.strip().startswith("stem "))
    assert row[1:3] == ["conv", "fp32"]
    assert not any("…" in line for line in lines)


def test_json_when_asked_for_is_all_that_is_printed(net: Path, hwsearch: Hwsearch) -> None:
    options = "predict net.onnx --target jetson-nano,jetson-agx-orin --bits 16 --json"
    ended = hwsearch(*options.split())
    assert (ended.returncode, ended.stderr) == (0, "")
    content = json.loads(ended.stdout)
    assert accepts(content)
    assert [entry["target"] for entry in content] == ["jetson-nano", "jetson-agx-orin"]
    for entry in content:
        assert (entry["bits"], entry["input_px"], entry["model"]) == ("W16A16", 32, "net.onnx")
        assert entry["macs"] == 16 * 16 * 16 * 27 + 160
        assert entry["size_bytes"] == 2 * (16 * 27 + 160)


def test_size_when_the_file_leaves_it_open_is_asked_for(tmp_path: Path, net: Path) -> None:
    write_net(tmp_path / "open.onnx", size="side")
    ended = typed("open.onnx", "--target", "jetson", "--px", "64", "--json")
    assert json.loads(ended.stdout)["input_px"] == 64
    with pytest.raises(BackboneError, match="leaves the size of its picture open"):
        typed("open.onnx", "--target", "jetson")


def test_confidence_when_given_is_that_of_the_interval(net: Path) -> None:
    options = ("net.onnx", "--target", "jetson", "--json", "--confidence")
    narrow, wide = (json.loads(typed(*options, text).stdout) for text in ("0.5", "0.95"))
    assert wide["latency_ms"]["confidence"] == 0.95
    assert wide["latency_ms"]["high"] > narrow["latency_ms"]["high"]
    assert wide["latency_ms"]["value"] == narrow["latency_ms"]["value"]


def test_profile_when_a_file_without_energy_is_priced(tmp_path: Path, net: Path) -> None:
    import yaml

    own = load_profile("jetson-tx2").model_dump(mode="json") | {"name": "own", "energy": None}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    ended = typed("net.onnx", "--target", "own.yaml")
    assert "energy   not known: own has no energy model" in ended.stdout.splitlines()
    content = json.loads(typed("net.onnx", "--target", "own.yaml", "--json").stdout)
    assert content["energy_mj"] is None


def test_name_when_priced_is_traced_at_its_size() -> None:
    content = json.loads(typed("resnet18", "--target", "jetson", "--bits", "8", "--json").stdout)
    assert accepts(content)
    assert (content["model"], content["input_px"], content["bits"]) == ("resnet18", 224, "W8A8")
    assert content["macs"] == pytest.approx(1.814e9, rel=1e-3)
    smaller = typed("resnet18", "--target", "jetson", "--px", "64", "--json").stdout
    assert json.loads(smaller)["input_px"] == 64


def test_function_when_called_returns_what_the_command_prints(net: Path) -> None:
    assert package.predict is api.predict
    one = package.predict(net.name, target="jetson", bits=8)
    printed = typed("net.onnx", "--target", "jetson", "--bits", "8", "--json").stdout
    assert one.model_dump(mode="json") == json.loads(printed)
    several = package.predict(net, target=["jetson", "jetson-nano"], bits="W8A8")
    assert [found.target for found in several] == ["jetson-orin-nano", "jetson-nano"]
    assert several[0].latency_ms == one.latency_ms
    with pytest.raises(UserError, match="names jetson-orin-nano twice; keep one of them"):
        typed("net.onnx", "--target", "jetson,jetson-orin-nano")  # an alias of it


def test_function_when_of_a_file_imports_no_torch(net: Path, surroundings: dict[str, str]) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import hwsearch\n"
        "print(hwsearch.predict('net.onnx', target='jetson').macs)\n"
        "sys.exit(', '.join({'timm', 'optuna', 'sklearn'} & set(sys.modules)) or 0)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=net.parent,
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert int(ended.stdout) == 16 * 16 * 16 * 27 + 160
