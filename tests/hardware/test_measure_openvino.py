"""OpenVINO as the runner sees it: a stand-in, and the real one where it is installed."""

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measure_fixtures import write_nets

from hwsearch.errors import HostError
from hwsearch.hardware.measure import runner
from hwsearch.hardware.measure.places import LocalPlace
from hwsearch.hardware.measure.protocol import measure

JOB = {"runtime": "openvino", "threads": 3, "warm_up": 1}
INSTALLED = importlib.util.find_spec("openvino") is not None


class FakeRequest:
    def __init__(self, core: "FakeCore") -> None:
        self.core = core
        size = types.SimpleNamespace
        self.model_inputs = [
            types.SimpleNamespace(
                any_name="x",
                partial_shape=[
                    size(is_static=False, get_length=lambda: 0),
                    size(is_static=True, get_length=lambda: 3),
                ],
                element_type=types.SimpleNamespace(get_type_name=lambda: core.kind),
            )
        ]

    def set_tensor(self, port: Any, tensor: Any) -> None:  # noqa: ANN401
        self.core.fed.append((port.any_name, tensor.shape, str(tensor.dtype)))

    def infer(self) -> None:
        self.core.runs += 1


class FakeCore:
    def __init__(self, kind: str = "f32") -> None:
        self.kind, self.runs = kind, 0
        self.fed: list[tuple[str, tuple[int, ...], str]] = []
        self.options: dict[str, object] = {}

    def compile_model(self, file: str, device: str, options: dict[str, object]) -> Any:  # noqa: ANN401
        assert device == "CPU"
        if file == "bad.onnx":
            raise RuntimeError("Unable to read\nthe model")
        self.options = options
        return types.SimpleNamespace(create_infer_request=lambda: FakeRequest(self))


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> FakeCore:
    made = FakeCore()
    module = types.ModuleType("openvino")
    module.__dict__.update(
        Core=lambda: made, __version__="2026.4.1-22982-abc", Tensor=lambda value: value
    )
    monkeypatch.setitem(sys.modules, "openvino", module)
    monkeypatch.setitem(sys.modules, "openvino_telemetry", types.ModuleType("openvino_telemetry"))
    return made


def test_it_runs_on_the_asked_threads_without_choosing_cores(core: FakeCore) -> None:
    net = runner.OpenVino(JOB).load("good.onnx", JOB)
    assert core.options["INFERENCE_NUM_THREADS"] == 3
    assert core.options["NUM_STREAMS"] == 1
    assert core.options["ENABLE_CPU_PINNING"] is False
    assert core.fed == [("x", (1, 3), "float32")]
    before = core.runs
    assert net.round(4, 1.0)["runs"] >= 4
    assert core.runs > before
    assert net.energy_mj() is None


def test_its_version_is_short_and_there_is_no_energy(core: FakeCore) -> None:
    start = runner.OpenVino(JOB).start()
    assert (start["runtime"], start["runtime_version"]) == ("openvino", "2026.4.1")
    assert start["energy"] is False
    assert core.runs == 0


def test_it_reports_to_nobody(core: FakeCore) -> None:
    runner.OpenVino(JOB)
    # With None there, importing it fails, and openvino takes a stub that sends nothing.
    blocked: object = sys.modules["openvino_telemetry"]
    assert blocked is None
    assert core.runs == 0


def test_a_file_that_it_cannot_read_is_refused_in_one_line(core: FakeCore) -> None:
    with pytest.raises(runner.NetError, match="Unable to read the model"):
        runner.OpenVino(JOB).load("bad.onnx", JOB)


def test_an_input_of_an_unknown_type_is_refused(core: FakeCore) -> None:
    core.kind = "u1"
    with pytest.raises(runner.NetError, match=r"input 'x' is a tensor\(\?\); known are"):
        runner.OpenVino(JOB).load("good.onnx", JOB)


def test_a_machine_without_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(runner.JobError, match="cannot import openvino; install openvino for it"):
        runner.OpenVino(JOB)


def test_every_type_of_an_input_has_a_name_that_the_runner_knows() -> None:
    rng = np.random.default_rng(0)
    for name in runner.OPENVINO_TYPES.values():
        assert runner.random_input(rng, "x", f"tensor({name})", [1, 2]).shape == (1, 2)


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="openvino is not installed (an extra)")
def test_the_real_one_measures_nets(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        try:
            (tmp_path / "text.onnx").write_text("no net")
            report = measure(
                write_nets(tmp_path, 2) | {"text": tmp_path / "text.onnx"},
                LocalPlace(),
                runtime="openvino",
                rounds=6,
            )
        except HostError as error:
            if "% is refused" in str(error):
                pytest.skip("this machine is too busy to be measured")
            raise
    assert report.runtime == "openvino"
    assert [net.name for net in report.nets] == ["net0", "net1"]
    assert [net.name for net in report.refused] == ["text"]
    assert list(home.iterdir()) == [], "it left a file in the home folder"
