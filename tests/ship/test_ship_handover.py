import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.bits import FP16, FP32, INT8
from hwsearch.deploy.input_contract import InputContract
from hwsearch.errors import RunError
from hwsearch.hardware.runtimes import Family, runtime_facts
from hwsearch.ship.handover.convert import conversion_text
from hwsearch.ship.handover.python_scripts import onnxruntime_script, openvino_script
from hwsearch.ship.handover.tensorrt import tensorrt_script
from hwsearch.ship.handover.write import write_handover
from hwsearch.ship.trtexec_log import read_log

NAMES = ("red", 'it\'s "blue"', "grün\n", "$side {x}")


def contract(*, baked: bool = False, batch: int | None = 1) -> InputContract:
    return InputContract(
        name="picture", input_px=16, batch=batch, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3),
        baked=baked, class_names=NAMES,
    )  # fmt: skip


@pytest.mark.parametrize("script", [onnxruntime_script, openvino_script])
@pytest.mark.parametrize("baked", [False, True])
def test_python_script_when_read_is_python(script: object, baked: bool) -> None:
    text = script(contract(baked=baked))  # type: ignore[operator]
    tree = ast.parse(text)
    [classes] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CLASSES"
    ]
    assert tuple(classes) == NAMES
    assert max(map(len, text.splitlines())) <= 100
    assert ("takes values from 0 to 255" in text) is baked


@pytest.fixture
def folder(shipped: dict[str, Path]) -> Path:
    return shipped["host"] / "models" / "trial_0003"


@pytest.mark.parametrize("name", ["run_onnxruntime.py", "run_openvino.py"])
def test_python_script_when_run_names_the_class(
    name: str, folder: Path, pictures: DataSet, tmp_path: Path
) -> None:
    if name == "run_openvino.py":
        pytest.importorskip("openvino")
    files = []
    for at in range(6):
        pixels = pictures.test.images[at].permute(1, 2, 0).numpy()
        # What is left and right of the middle square is cut off.
        wide = np.zeros((16, 20, 3), np.uint8)
        wide[:, 2:18] = pixels
        files.append(str(tmp_path / f"{at}.png"))
        Image.fromarray(wide).save(files[-1])
    ended = subprocess.run(
        [sys.executable, str(folder / name), *files],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "OPENVINO_TELEMETRY": "0"},
    )
    lines = ended.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == files
    named = [line.split(": ", 1)[1].rsplit(" (", 1)[0] for line in lines]
    assert set(named) <= set(pictures.class_names)


def test_python_script_when_run_without_a_picture_says_how(folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(folder / "run_onnxruntime.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.strip() == "usage: python run_onnxruntime.py PICTURE ..."


MIXED = {"stem": INT8, "a.b": FP16, "c": FP32, "d, e": FP32}


FAKE = """#!/bin/sh
if [ "$1" = --help ]; then
    echo "&&&& RUNNING TensorRT.trtexec [TensorRT {version}] # trtexec"
    exit 0
fi
echo "$@" >> "$CALLS"
echo "&&&& RUNNING TensorRT.trtexec [TensorRT {version}] # trtexec $*"
echo "[04/21/2025-16:34:20] [I] Selected Device: Orin"
{then}
echo "[04/21/2025-16:34:30] [I] GPU Compute Time: min = 5.3 ms, max = 13.3 ms, \
mean = 7.5 ms, median = 7.1 ms, percentile(99%) = 12.9 ms"
"""


def run_script(
    place: Path, version: str, text: str, then: str = ":"
) -> tuple["subprocess.CompletedProcess[str]", list[str]]:
    """Run a script with a ``trtexec`` that only writes down how it is called."""
    tool, script = place / "trtexec", place / "build_tensorrt.sh"
    tool.write_text(FAKE.format(version=version, then=then))
    tool.chmod(0o755)
    script.write_text(text)
    calls = place / "calls"
    ended = subprocess.run(
        ["sh", str(script), str(tool)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CALLS": str(calls)},
        cwd="/",
    )
    return ended, calls.read_text().splitlines() if calls.exists() else []


@pytest.mark.parametrize(
    ("version", "said", "types"),
    [
        ("v8601", "8.6", "--int8 --fp16 --precisionConstraints=obey --layerPrecisions=c:fp32"),
        ("v100300", "10.3", "--stronglyTyped"),
        ("v110100] [b106", "11.1", ""),
        ("v11.1.0.106] [b48", "11.1", ""),
    ],
)
def test_tensorrt_script_when_run_gives_each_version_its_options(
    version: str, said: str, types: str, tmp_path: Path
) -> None:
    ended, calls = run_script(tmp_path, version, tensorrt_script(contract(), MIXED))
    assert ended.returncode == 0, ended.stderr
    assert f"TensorRT {said}" in ended.stdout.splitlines()
    build, *loads = calls
    expected = f"--onnx=model.onnx --saveEngine=model.engine {types}".split()
    assert build.split()[: len(expected)] == expected
    assert "--timingCacheFile=timing.cache" in build
    assert ("--fp16" in build, "--stronglyTyped" in build) == (
        "--fp16" in types,
        "--stronglyTyped" in types,
    )
    assert len(loads) == 5
    assert all(load.startswith("--loadEngine=model.engine --useSpinWait") for load in loads)
    log = read_log(tmp_path / "trtexec.log")
    assert (log.device, log.medians_ms) == ("Orin", (7.1,) * 5)


def test_tensorrt_script_when_the_version_is_too_old_says_so(tmp_path: Path) -> None:
    ended, calls = run_script(tmp_path, "v8502", tensorrt_script(contract(), MIXED))
    assert ended.returncode == 3
    assert "is too old for this file; 8.6 or later is needed" in ended.stderr
    assert calls == []


def test_tensorrt_script_when_the_engine_is_not_built_says_why(tmp_path: Path) -> None:
    then = 'echo "[09/25/2026-10:00:02] [E] [TRT] no kernel for /Sub"; exit 1'
    ended, calls = run_script(tmp_path, "v100300", tensorrt_script(contract(), MIXED), then)
    assert ended.returncode == 1
    assert "no kernel for /Sub" in ended.stderr
    assert "all of it is in build.log" in ended.stderr
    assert len(calls) == 1


def test_tensorrt_script_when_there_is_no_tool_says_so(tmp_path: Path) -> None:
    script = tmp_path / "build_tensorrt.sh"
    script.write_text(tensorrt_script(contract(), MIXED))
    (tmp_path / "bin").mkdir()
    for tool in ("dirname", "sh"):
        (tmp_path / "bin" / tool).symlink_to(f"/usr/bin/{tool}")
    ended = subprocess.run(
        ["/bin/sh", str(script)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(tmp_path / "bin")},
    )
    assert ended.returncode == 3
    assert "trtexec was not found; give its path" in ended.stderr


def test_tensorrt_script_when_the_batch_is_open_gives_its_shape() -> None:
    text = tensorrt_script(contract(batch=None), MIXED)
    assert text.count("--shapes=picture:1x3x16x16") == 2
    assert "--shapes" not in tensorrt_script(contract(), MIXED)


@pytest.mark.parametrize("family", ["tflite", "edgetpu", "other"])
@pytest.mark.parametrize("baked", [False, True])
def test_conversion_says_what_is_not_known(family: Family, baked: bool) -> None:
    text = conversion_text(family, contract(baked=baked), MIXED, runtime="TFLite 2.7.1")
    assert text.startswith("# TFLite 2.7.1 does not read ONNX")
    assert "neither scored nor timed it" in text
    assert "W8A8 x 1" in text
    assert ("edgetpu_compiler" in text) is (family == "edgetpu")
    assert ("onnx2tf -i model_float.onnx" in text) is (family != "other")
    if family != "other":
        expected = '"[[[[0,0,0]]]]"' if baked else '"[[[[0.5,0.4,0.3]]]]"'
        assert expected in text
    assert "{" not in text


@pytest.mark.parametrize(
    ("runtime", "names"),
    [
        ("ONNX Runtime 1.x", {"run_onnxruntime.py", "run_openvino.py"}),
        ("TensorRT 10.3", {"run_onnxruntime.py", "build_tensorrt.sh"}),
        ("TFLite 2.7.1", {"run_onnxruntime.py", "CONVERT.md"}),
        ("TFLite Edge TPU delegate", {"run_onnxruntime.py", "CONVERT.md"}),
    ],
)
def test_handover_when_written_is_that_of_the_runtime(
    runtime: str, names: set[str], tmp_path: Path
) -> None:
    for earlier in ("build_tensorrt.sh", "run_openvino.py", "CONVERT.md", "other.txt"):
        (tmp_path / earlier).write_text("old")
    facts = runtime_facts(runtime)
    files = write_handover(tmp_path, facts, contract(), MIXED, runtime_name="what it is")
    assert {path.name for path in files} == names
    assert {path.name for path in tmp_path.iterdir()} == {*names, "other.txt"}
    assert facts.takes_float_file is ("CONVERT.md" in names)


def test_handover_when_the_folder_is_gone_says_so(tmp_path: Path) -> None:
    facts = runtime_facts("ONNX Runtime")
    with pytest.raises(RunError, match="cannot be written"):
        write_handover(tmp_path / "gone", facts, contract(), MIXED, runtime_name="x")
