import ast
import itertools
import json
import math
import os
import subprocess
import sys
import time
import types
from importlib.metadata import version
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure_fixtures import JOB, Recorder, ScriptedRuntime, write_net, write_nets

from hwsearch.hardware.measure import runner
from hwsearch.hardware.measure.process import RUNNER

#: As TensorRT 10.3 prints it on an Orin board.
LOG_10 = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v100300] [b17] # trtexec --loadEngine=a.engine
[03/02/2026-10:00:00] [I] === Device Information ===
[03/02/2026-10:00:00] [I] Selected Device: Orin
[03/02/2026-10:00:00] [I] TensorRT version: 10.3.0
[03/02/2026-10:00:04] [I] Average on 10 runs - GPU latency: 4.24171 ms - Host latency: 4.29793 ms
[03/02/2026-10:00:04] [I] === Performance summary ===
[03/02/2026-10:00:04] [I] Throughput: 234.19 qps
[03/02/2026-10:00:04] [I] Latency: min = 4.27838 ms, max = 5.82495 ms, mean = 4.29966 ms, \
median = 4.29718 ms, percentile(90%) = 4.30725 ms, percentile(95%) = 4.31128 ms
[03/02/2026-10:00:04] [I] Enqueue Time: min = 1.29205 ms, max = 9.09888 ms, mean = 1.81459 ms, \
median = 1.80123 ms, percentile(99%) = 2.5 ms
[03/02/2026-10:00:04] [I] H2D Latency: min = 0.0065918 ms, max = 0.0698242 ms, mean = 0.01222 ms, \
median = 0.00814819 ms, percentile(90%) = 0.0253906 ms
[03/02/2026-10:00:04] [I] GPU Compute Time: min = 4.22363 ms, max = 5.77344 ms, mean = 4.243 ms, \
median = 4.24121 ms, percentile(90%) = 4.2507 ms, percentile(95%) = 4.25293 ms
[03/02/2026-10:00:04] [I] D2H Latency: min = 0.00390625 ms, max = 0.110596 ms, mean = 0.01001 ms, \
median = 0.00439453 ms
[03/02/2026-10:00:04] [I] Total GPU Compute Time: 2.96536 s
&&&& PASSED TensorRT.trtexec [TensorRT v100300] [b17] # trtexec --loadEngine=a.engine
"""

#: The form of TensorRT 7 to 8.1, as JetPack 4.6 has it on a Nano.
LOG_8_0 = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v8001] # trtexec --loadEngine=a.engine
[05/21/2021-09:59:29] [I] Selected Device: NVIDIA Tegra X1
[05/21/2021-09:59:29] [I] Host Latency
[05/21/2021-09:59:29] [I] min: 638.401 ms (end to end 638.401 ms)
[05/21/2021-09:59:29] [I] max: 646.992 ms (end to end 646.992 ms)
[05/21/2021-09:59:29] [I] mean: 643.169 ms (end to end 643.169 ms)
[05/21/2021-09:59:29] [I] median: 643.202 ms (end to end 643.202 ms)
[05/21/2021-09:59:29] [I] percentile: 646.992 ms at 99% (end to end 646.992 ms at 99%)
[05/21/2021-09:59:29] [I] throughput: 0 qps
[05/21/2021-09:59:29] [I] GPU Compute
[05/21/2021-09:59:29] [I] min: 637.5 ms
[05/21/2021-09:59:29] [I] max: 645 ms
[05/21/2021-09:59:29] [I] mean: 642.1 ms
[05/21/2021-09:59:29] [I] median: 642.25 ms
[05/21/2021-09:59:29] [I] percentile: 645 ms at 99%
"""


def start_runner(job: dict[str, Any], **environment: str) -> tuple[int, list[dict[str, Any]]]:
    """Run it as users of a board would: a job on stdin, lines of JSON on stdout."""
    done = subprocess.run(
        [sys.executable, str(RUNNER)],
        input=json.dumps({**JOB, "nets": [], **job}),
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def items(files: dict[str, Path]) -> list[dict[str, str]]:
    return [{"id": name, "file": str(path)} for name, path in files.items()]


# --- one file for old boards


def test_the_runner_is_python_3_8() -> None:
    ast.parse(RUNNER.read_text("utf-8"), feature_version=(3, 8))


def test_the_runner_imports_nothing_that_a_board_lacks() -> None:
    # At its top; onnxruntime, numpy and pynvml are imported where they are needed.
    tree = ast.parse(RUNNER.read_text("utf-8"))
    names = {"__future__"}
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    assert names <= {"__future__", *sys.stdlib_module_names}
    assert "hwsearch" not in RUNNER.read_text("utf-8").replace("hwsearch-engines-", "").replace(
        "nothing of hwsearch", ""
    )


# --- cores


def test_the_fastest_cores_are_chosen() -> None:
    big_little = {0: 1800, 1: 1800, 2: 2400, 3: 2400}
    ranks = dict.fromkeys(range(4), 0)
    assert runner.choose_cores([0, 1, 2, 3], big_little, ranks, 2) == [2, 3]
    assert runner.choose_cores([0, 1, 2, 3], big_little, ranks, 3) == [1, 2, 3]


def test_one_hyper_thread_of_each_core_is_chosen_first() -> None:
    khz = dict.fromkeys(range(4), 0)
    assert runner.choose_cores([0, 1, 2, 3], khz, {0: 0, 1: 1, 2: 0, 3: 1}, 2) == [0, 2]


def test_core_0_is_left_to_interrupts() -> None:
    zeros = dict.fromkeys(range(4), 0)
    assert runner.choose_cores([0, 1, 2, 3], zeros, zeros, 1) == [3]


# --- rounds


@given(st.floats(1e-3, 1e5), st.integers(3, 100), st.floats(0.01, 10))
def test_runs_in_a_round_keep_their_limits(one_ms: float, runs: int, seconds: float) -> None:
    count = runner.runs_in_round(one_ms, runs, seconds)
    assert runner.FEWEST_RUNS <= count <= runner.MOST_RUNS
    assert count == runner.FEWEST_RUNS or count * one_ms <= seconds * 1e3


@pytest.mark.parametrize(
    ("one_ms", "count"), [(0.001, 1000), (0.1, 50), (5.0, 16), (100.0, 16), (500.0, 4), (1e4, 3)]
)
def test_fast_nets_run_more_often_and_slow_ones_less(one_ms: float, count: int) -> None:
    assert runner.runs_in_round(one_ms, 16, 2.0) == count


def test_a_net_is_settled_when_both_halves_agree() -> None:
    assert runner.is_settled([1.0, 1.009])
    assert not runner.is_settled([1.0, 1.02])
    assert runner.is_settled([1.0, 1.02, 5.0, 1.0])
    assert not runner.is_settled([1.0, 1.02, 0.9, 1.0])


@given(st.lists(st.integers(0, 50)), st.integers(1, 60), st.integers(1, 5))
def test_groups_hold_every_net_once_within_the_limits(
    sizes: list[int], limit: int, count: int
) -> None:
    groups = runner.make_groups(sizes, limit, count)
    assert list(itertools.chain(*groups)) == list(range(len(sizes)))
    for group in groups:
        assert 1 <= len(group) <= count
        assert len(group) == 1 or sum(sizes[index] for index in group) <= limit
    # No group could have taken the first net of the next one.
    for group, after in itertools.pairwise(groups):
        together = sum(sizes[index] for index in group) + sizes[after[0]]
        assert len(group) == count or together > limit


def test_the_limit_of_a_group_depends_on_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "read_text", lambda path: "MemAvailable:     600000 kB")
    assert runner.group_limit_bytes() == 102_400_000
    monkeypatch.setattr(runner, "read_text", lambda path: "MemAvailable:  600000000 kB")
    assert runner.group_limit_bytes() == runner.MOST_FILE_BYTES
    monkeypatch.setattr(runner, "read_text", lambda path: "")
    assert runner.group_limit_bytes() == runner.MOST_FILE_BYTES


# --- inputs


def test_an_open_batch_is_one() -> None:
    assert runner.input_shape("x", ["batch", 3, 8, 8]) == [1, 3, 8, 8]
    assert runner.input_shape("x", [None, 3]) == [1, 3]
    assert runner.input_shape("x", []) == []


def test_another_open_size_is_refused() -> None:
    with pytest.raises(runner.NetError, match=r"input 'x' has the open shape .*fixed sizes"):
        runner.input_shape("x", [1, 3, "height", 8])


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("tensor(float)", "float32"),
        ("tensor(float16)", "float16"),
        ("tensor(double)", "float64"),
        ("tensor(uint8)", "uint8"),
        ("tensor(int8)", "int8"),
        ("tensor(int64)", "int64"),
        ("tensor(bool)", "bool"),
    ],
)
def test_an_input_has_the_type_of_the_file(kind: str, dtype: str) -> None:
    value = runner.random_input(np.random.default_rng(0), "x", kind, ["n", 5])
    assert (value.shape, str(value.dtype)) == ((1, 5), dtype)


def test_an_input_of_another_type_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(runner.NetError, match=r"input 'x' is a tensor\(string\); known are"):
        runner.random_input(rng, "x", "tensor(string)", [1])


# --- the process


def test_the_runner_reports_nets_rounds_and_what_it_refuses(tmp_path: Path) -> None:
    files = {
        **write_nets(tmp_path, 2),
        "batch": write_net(tmp_path / "batch.onnx", batch="n"),
        "open": write_net(tmp_path / "open.onnx", side="s"),
        "newer": write_net(tmp_path / "newer.onnx", opset=999),
        "text": tmp_path / "text.onnx",
    }
    files["text"].write_text("no net")
    code, events = start_runner({"nets": items(files), "anchor": "net0", "rounds": 3})
    assert code == 0
    assert [event["event"] for event in (events[0], events[-1])] == ["start", "done"]
    refused = {event["id"]: event["reason"] for event in events if event["event"] == "refused"}
    assert set(refused) == {"open", "newer", "text"}
    assert "export it with fixed sizes" in refused["open"]
    rounds = [(e["id"], e["round"]) for e in events if e["event"] == "round"]
    names = ["net0", "net1", "batch"]
    there, back = names, names[::-1]  # to and fro
    assert rounds == [(n, 0) for n in there] + [(n, 1) for n in back] + [(n, 2) for n in there]
    nets = {event["id"]: event for event in events if event["event"] == "net"}
    for name, net in nets.items():
        medians = [e["median_ms"] for e in events if e["event"] == "round" and e["id"] == name]
        assert net["rounds_ms"] == medians
        assert net["latency_ms"] == min(medians)
        assert 0 < net["minimum_ms"] <= net["latency_ms"]
        assert net["energy_mj"] is None
    [anchor] = [event for event in events if event["event"] == "anchor"]
    assert anchor["latency_ms"] == nets["net0"]["latency_ms"]


def test_a_probe_says_what_there_is() -> None:
    code, [start, done] = start_runner({"mode": "probe"})
    assert (code, done) == (0, {"event": "done"})
    assert start["runtime"] == "onnxruntime"
    assert start["runtime_version"] == version("onnxruntime")
    assert len(start["cores"]) == 1
    assert set(start["cores"]) <= os.sched_getaffinity(0)
    assert start["device"]
    assert not start["energy"]


def test_onnxruntime_reports_to_nobody(tmp_path: Path) -> None:
    # With its telemetry on, it leaves a file there with the number of the session.
    assert start_runner({"mode": "probe"}, TMPDIR=str(tmp_path))[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_the_anchor_is_measured_in_every_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets = items(write_nets(tmp_path, 3))
    job = {**JOB, "rounds": 1, "anchor": "net1", "nets": nets}
    monkeypatch.setattr(runner, "MOST_NETS", 2)
    runtime, first, second = ScriptedRuntime(lambda file: repeat(1.0)), Recorder(), Recorder()
    runner.measure(runtime, job, first)
    assert first.names("net") == ["net0", "net1", "net2"]
    assert first.names("anchor") == ["net1", "net1"]
    runner.measure(runtime, {**job, "only_anchor": ["net1"]}, second)
    assert second.names("net") == ["net0", "net2"]
    assert second.names("anchor") == ["net1"]


def test_unsettled_nets_have_extra_rounds() -> None:
    rounds_ms = {
        "calm": [1.0, 1.0],
        "late": [3.0, 1.0, 2.0, 1.0, 1.0],
        "never": [2.0, 1.0, 2.0, 1.0, 2.0, 1.0],
    }
    runtime, recorder = ScriptedRuntime(lambda file: iter(rounds_ms[file])), Recorder()
    job = {**JOB, "extra_rounds": 4}
    entries = [{"id": name, "file": name} for name in rounds_ms]
    runner.measure_group(runtime, job, entries, set(rounds_ms), recorder, math.inf)
    assert recorder.rounds() == {"calm": 2, "late": 5, "never": 6}


def test_a_file_that_is_gone_is_an_error_of_the_job(tmp_path: Path) -> None:
    code, events = start_runner({"nets": items({"a": tmp_path / "gone.onnx"})})
    assert code == 3
    assert events[-1]["event"] == "error"
    assert "gone.onnx cannot be read (No such file or directory)" in events[-1]["message"]


# --- energy


def fake_nvml(**functions: object) -> types.ModuleType:
    module = types.ModuleType("pynvml")
    counter = itertools.count(1000, 250)
    defaults: dict[str, object] = {
        "NVMLError": type("NVMLError", (Exception,), {}),
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByIndex": lambda index: ("index", index),
        "nvmlDeviceGetHandleByUUID": lambda uuid: ("uuid", uuid),
        "nvmlDeviceGetName": lambda handle: b"Fake GPU",
        "nvmlDeviceGetTotalEnergyConsumption": lambda handle: next(counter),
    }
    module.__dict__.update({**defaults, **functions})
    return module


def test_energy_is_the_rise_of_the_counter_per_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    monkeypatch.setattr(runner, "ENERGY_LOOP_S", 0.0)
    gpu, reason = runner.open_nvml()
    assert gpu is not None
    assert (gpu.name, reason) == ("Fake GPU", "")
    ticks = iter([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(runner, "ENERGY_LOOP_S", 0.5)
    net = runner.TimedNet(lambda: None, gpu)
    assert net.energy_mj() == pytest.approx(250 / 4)  # four runs before the clock says 1.0


@pytest.mark.parametrize(
    ("visible", "handle"),
    [("0", ("index", 0)), ("3,1", ("index", 3)), ("GPU-a", ("uuid", "GPU-a"))],
)
def test_the_gpu_is_the_first_that_cuda_sees(
    monkeypatch: pytest.MonkeyPatch, visible: str, handle: object
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu, _ = runner.open_nvml()
    assert gpu is not None
    assert gpu.handle == handle


def test_a_gpu_without_a_counter_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_nvml()

    def refuse(handle: object) -> None:
        raise module.NVMLError("Not Supported")

    module.__dict__["nvmlDeviceGetTotalEnergyConsumption"] = refuse
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert runner.open_nvml() == (None, "NVML has no energy of this GPU (Not Supported)")


def test_a_missing_pynvml_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert runner.open_nvml() == (None, "pynvml is not installed (package nvidia-ml-py)")


# --- a GPU


class FakeBinding:
    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def bind_ortvalue_input(self, name: str, value: str) -> None:
        self.calls.append(("input", name, value))

    def bind_output(self, name: str, device: str) -> None:
        self.calls.append(("output", name, device))

    def synchronize_outputs(self) -> None:
        self.calls.append(("synchronize",))


class FakeSession:
    def __init__(self) -> None:
        self.binding = FakeBinding()

    def get_inputs(self) -> list[Any]:
        return [types.SimpleNamespace(name="x", type="tensor(float)", shape=["n", 3])]

    def get_outputs(self) -> list[Any]:
        return [types.SimpleNamespace(name="y")]

    def run(self, names: list[str] | None, feed: dict[str, Any]) -> list[Any]:
        raise AssertionError("inputs would be copied to the GPU at every run")

    def io_binding(self) -> FakeBinding:
        return self.binding

    def run_with_iobinding(self, binding: object) -> None:
        assert binding is self.binding
        self.binding.calls.append(("run",))


def test_inputs_and_outputs_stay_on_the_gpu_and_each_run_is_waited_for() -> None:
    def on_gpu(value: Any, device: str, number: int) -> str:  # noqa: ANN401
        return f"{value.shape} on {device} {number}"

    runtime = types.SimpleNamespace(
        on_gpu=True,
        numpy=np,
        ort=types.SimpleNamespace(OrtValue=types.SimpleNamespace(ortvalue_from_numpy=on_gpu)),
    )
    session = FakeSession()
    net = runner.TimedNet(runner.session_call(runtime, session))  # type: ignore[arg-type]
    assert session.binding.calls == [("input", "x", "(1, 3) on cuda 0"), ("output", "y", "cuda")]
    net.warm_up(1)
    assert session.binding.calls[2:] == [("run",), ("synchronize",)] * 2
    assert net.round(3, 1.0)["runs"] >= 3
    assert net.energy_mj() is None


def test_a_silent_fall_back_to_the_processor_is_refused(tmp_path: Path) -> None:
    # onnxruntime goes on without a GPU when CUDA cannot be loaded.
    job = {"runtime": "onnxruntime", "threads": 1, "warm_up": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORT_DISABLE_TELEMETRY", "1")
        runtime = runner.OnnxRuntime(job)
        patch.setattr(runtime, "providers", ["CUDAExecutionProvider", "CPUExecutionProvider"])
        net = str(write_net(tmp_path / "a.onnx"))
        with pytest.warns(UserWarning, match="CUDAExecutionProvider"):  # noqa: SIM117
            with pytest.raises(runner.JobError, match="found no usable GPU; check the driver"):
                runtime.load(net, job)


# --- the machine


def test_the_processor_is_named_as_the_kernel_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        runner, "read_text", lambda path: "processor: 0\nmodel name\t: Fast CPU 9\n"
    )
    assert runner.cpu_name() == "Fast CPU 9"
    arm = "processor\t: 0\nBogoMIPS: 62\nHardware\t: BCM2711\nModel\t\t: Raspberry Pi 4 Model B\n"
    monkeypatch.setattr(runner, "read_text", lambda path: arm)
    assert runner.cpu_name() == "Raspberry Pi 4 Model B"
    monkeypatch.setattr(runner, "read_text", lambda path: "")
    assert runner.cpu_name()


def test_a_system_file_that_is_missing_is_empty(tmp_path: Path) -> None:
    assert runner.read_text(str(tmp_path / "none")) == ""
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano\0")
    assert runner.read_text(str(tmp_path / "model")) == "NVIDIA Jetson Orin Nano"


def test_the_power_mode_of_a_jetson_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvpmodel"
    tool.write_text('#!/bin/sh\necho "NV Power Mode: MAXN_SUPER"\necho 2\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runner.power_mode() == "MAXN_SUPER"


def test_the_governor_stands_for_the_power_mode_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(runner, "read_text", lambda path: "powersave")
    assert runner.power_mode() == "powersave"
    monkeypatch.setattr(runner, "read_text", lambda path: "")
    assert runner.power_mode() is None


# --- trtexec


def test_the_summary_of_trtexec_is_read() -> None:
    assert runner.parse_trtexec(LOG_10) == {
        "version": [10, 3, 0],
        "device": "Orin",
        "minimum_ms": 4.22363,
        "median_ms": 4.24121,
        "latency_minimum_ms": 4.27838,
        "latency_median_ms": 4.29718,
    }


def test_the_summary_of_an_old_trtexec_is_read() -> None:
    assert runner.parse_trtexec(LOG_8_0) == {
        "version": [8, 0, 1],
        "device": "NVIDIA Tegra X1",
        "minimum_ms": 637.5,
        "median_ms": 642.25,
        "latency_minimum_ms": 638.401,
        "latency_median_ms": 643.202,
    }


def test_a_log_without_a_summary_has_no_times() -> None:
    result = runner.parse_trtexec(LOG_10.split("[03/02/2026-10:00:04]")[0])
    assert result["version"] == [10, 3, 0]
    assert result["median_ms"] is None
    assert runner.parse_trtexec("command not found")["version"] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8201", [8, 2, 1]), ("8601", [8, 6, 1]), ("100800", [10, 8, 0]), ("101602", [10, 16, 2]),
     ("110000", [11, 0, 0]), ("11.1.0.106", [11, 1, 0, 106])],
)  # fmt: skip
def test_the_version_of_trtexec_is_read(text: str, expected: list[int]) -> None:
    assert runner.trtexec_version(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{text}]") == expected


def test_precision_options_end_with_tensorrt_11() -> None:
    assert runner.precision_options([8, 6, 1], ["fp16"]) == ["--fp16"]
    assert runner.precision_options([10, 3, 0], ["fp16", "int8"]) == ["--fp16", "--int8"]
    assert runner.precision_options([11, 0, 0], ["fp16", "int8"]) == []


def test_precision_options_of_a_typed_file_are_its_own_from_tensorrt_10_on() -> None:
    typed = ["int8", "fp16", "typed"]
    assert runner.precision_options([8, 6, 1], typed) == ["--int8", "--fp16"]
    assert runner.precision_options([10, 3, 0], typed) == ["--stronglyTyped"]
    assert runner.precision_options([11, 1, 0], typed) == []


@pytest.fixture
def trtexec(tmp_path: Path) -> Path:
    """A tool in a folder of its own that prints the log, and keeps its arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "log").write_text(LOG_10)
    (folder / "trtexec").write_text(
        '#!/bin/sh\nhere=$(dirname "$0")\necho "$@" >>"$here/calls"\n'
        'case "$1" in *bad*) echo "[x] [E] Error[4]: no such layer"; exit 1;; esac\n'
        'cat "$here/log"\n'
    )
    (folder / "trtexec").chmod(0o755)
    return folder


def test_trtexec_builds_once_and_runs_every_round(trtexec: Path, tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    engines.mkdir()
    files = {"a": tmp_path / "a.onnx", "bad": tmp_path / "bad.onnx"}
    for path in files.values():
        path.write_text("never read by this tool")
    job = {
        "runtime": "trtexec",
        "nets": items(files),
        "precisions": ["fp16", "int8"],
        "folder": str(engines),
    }
    code, events = start_runner(job, PATH=f"{trtexec}:{os.environ['PATH']}")
    assert code == 0
    start = events[0]
    assert (start["runtime"], start["runtime_version"]) == ("trtexec", "10.3.0")
    [refused] = [event for event in events if event["event"] == "refused"]
    assert (refused["id"], refused["reason"]) == ("bad", "Error[4]: no such layer")
    [net] = [event for event in events if event["event"] == "net"]
    assert net["rounds_ms"] == [4.24121, 4.24121]
    assert net["minimum_ms"] == 4.22363
    probe, build, bad, *rounds = (trtexec / "calls").read_text().splitlines()
    assert probe == "--help"
    assert build.startswith(f"--onnx={files['a']} --saveEngine={engines}/hwsearch-engines-")
    assert "--fp16 --int8" in build
    assert "bad.onnx" in bad
    assert len(rounds) == 2
    for call in rounds:
        assert call.startswith("--loadEngine=")
        assert call.endswith(
            "a.engine --useSpinWait --noDataTransfers --warmUp=200 --duration=0 --iterations=3"
        )
    assert list(engines.iterdir()) == []  # the engines are removed


def test_a_missing_trtexec_is_explained(tmp_path: Path) -> None:
    if any(Path(path).exists() for path in runner.TRTEXEC_PLACES):
        pytest.skip("TensorRT is installed here")
    code, [error] = start_runner({"runtime": "trtexec", "mode": "probe"}, PATH=str(tmp_path))
    assert code == 3
    assert error["message"].startswith("trtexec is neither in PATH nor at /usr/src/tensorrt")


def test_another_tool_of_that_name_is_refused(trtexec: Path) -> None:
    (trtexec / "log").write_text("usage: trtexec")
    path = f"{trtexec}:{os.environ['PATH']}"
    code, [error] = start_runner({"runtime": "trtexec", "mode": "probe"}, PATH=path)
    assert code == 3
    assert "does not say its version; is it TensorRT's trtexec?" in error["message"]
