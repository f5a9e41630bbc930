# ruff: noqa: ANN401 - fakes take whatever the real function is given
import dataclasses
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from study_fixtures import make_profile, make_settings
from tiny_network import OWN, make_data

from hwsearch.errors import HostError
from hwsearch.hardware.measure.protocol import MeasuredNet, MeasureReport, RefusedNet
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.recalibration import Recalibration
from hwsearch.report.stored import SEARCHED_FILE, read_front
from hwsearch.study import coordinator, own_machine, pictures
from hwsearch.study.coordinator import Run
from hwsearch.study.own_machine import recalibrated
from hwsearch.study.preflight import Checked
from hwsearch.study.progress import Silent
from hwsearch.study.workbench import Workbench

FACTOR = 1.7


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pictures, "load_data", lambda *_, seed, **__: make_data(seed))


class Listener(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def host() -> HardwareProfile:
    """The round device as if it were this machine."""
    return make_profile(name="host")


def bench() -> Workbench:
    return Workbench(
        make_settings(),
        host(),
        make_data(),
        on_phase=lambda _: None,
        on_step=lambda _done, _total: None,
    )


def report(
    latencies_ms: Mapping[str, float], refused: tuple[RefusedNet, ...] = ()
) -> MeasureReport:
    nets = tuple(
        MeasuredNet(
            name=name,
            latency_ms=value,
            minimum_ms=value,
            round_latencies_ms=(value, value),
            energy_mj=None,
        )
        for name, value in latencies_ms.items()
    )
    return MeasureReport(
        nets=nets,
        refused=refused,
        noise_floor_percent=0.5,
        drift_percent=None,
        place="host",
        runtime="onnxruntime",
        runtime_version="1",
        device="a machine",
        cpu="a machine",
        cpu_features=(),
        power_mode=None,
        energy_boundary=None,
        threads=1,
        rounds=2,
        runs=2,
        date=datetime.date(2026, 11, 27),
        kept_nets=0,
        warnings=(),
    )


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine that is slower than its profile says by a factor; what it was given to time."""
    given: list[str] = []
    predictor = CostPredictor(host())
    plain_write, networks = own_machine._written, {}

    def written(*arguments: Any) -> Any:
        found = plain_write(*arguments)
        networks.update(found[0])
        return found

    def measure(files: Mapping[str, Path], *_: Any, **__: Any) -> MeasureReport:
        for path in files.values():
            onnx.checker.check_model(onnx.load(path))
        given.extend(files)
        return report({name: FACTOR * predictor.latency_ms(networks[name]) for name in files})

    monkeypatch.setattr(own_machine, "_written", written)
    monkeypatch.setattr(own_machine, "measure", measure)
    return given


def make_run(folder: Path, watcher: Silent, profile: HardwareProfile) -> Run:
    folder.mkdir(exist_ok=True)
    return Run(
        checked=Checked(settings=make_settings(), profile=profile),
        folder=folder,
        command="hwsearch run",
        watcher=watcher,
    )


def test_networks_that_are_timed_are_dense_and_pruned_in_two_widths(timed: list[str]) -> None:
    found = recalibrated(bench(), lambda _: None)
    assert len(timed) == 3
    assert all(name.startswith(OWN.replace(":", ".")) for name in timed)
    assert found.networks == 3
    # Three networks and a profile that is unsure of itself: not all of it is believed.
    assert 1.4 < found.factor < FACTOR


def test_a_machine_that_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = (RefusedNet(name="one", reason="no such operator"),)
    monkeypatch.setattr(own_machine, "measure", lambda *_, **__: report({}, refused))
    with pytest.raises(HostError, match="ran none of them; the first: no such operator"):
        recalibrated(bench(), lambda _: None)


def test_a_run_for_this_machine_corrects_its_predictions(timed: list[str], tmp_path: Path) -> None:
    listener = Listener()
    run = make_run(tmp_path / "run", listener, host())
    front = run.execute()
    assert len(timed) == 3
    known = run._bench.predictor.recalibration
    assert known is not None
    assert known.factor > 1.4
    told = [note for note in listener.notes if "3 networks were timed here" in note]
    assert len(told) == 1
    assert f"{known.factor:.3g} x what profile host predicts" in told[0]
    searched = read_front(tmp_path / "run", SEARCHED_FILE)
    assert told[0] in front.notes
    assert told[0] in searched.notes
    plain = CostPredictor(host())
    candidates = {record.trial: record.candidate for record in run._store.records()}
    assert searched.front
    for model in searched.front:
        candidate = candidates[model.trial]
        assert candidate is not None
        expected = plain.latency_ms(run._bench.describe(candidate))
        assert model.latency_ms.value == pytest.approx(known.factor * expected)
    wall_s = run._bench.wall_s
    assert wall_s["timing here"] > 0


def test_a_resumed_run_prices_as_before_and_times_nothing_again(
    timed: list[str], tmp_path: Path
) -> None:
    first = make_run(tmp_path / "run", Silent(), host())
    first.execute()
    again = make_run(tmp_path / "run", Silent(), host())
    again.execute()
    assert len(timed) == 3
    assert again._bench.predictor.recalibration == first._bench.predictor.recalibration
    assert again._bench.predictor.recalibration is not None


def test_a_run_for_another_device_times_nothing(timed: list[str], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Silent(), make_profile())
    front = run.execute()
    assert timed == []
    assert run._bench.predictor.recalibration is None
    assert not any("timed here" in note for note in front.notes)


def test_a_machine_that_cannot_be_timed_keeps_its_profile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any) -> Recalibration:
        raise HostError("the machine is too noisy")

    monkeypatch.setattr(coordinator, "recalibrated", refuse)
    listener = Listener()
    run = make_run(tmp_path / "run", listener, host())
    run.execute()
    assert "host was not held to this machine: the machine is too noisy" in listener.notes
    assert run._bench.predictor.recalibration is None


def test_what_is_stored_is_read_back(timed: list[str], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Silent(), host())
    run.execute()
    known = Recalibration(factor=0.5, sigma_share=2.0, networks=4)
    run._store.set_recalibration(known)
    assert run._store.recalibration() == known
    assert dataclasses.asdict(known) == {"factor": 0.5, "sigma_share": 2.0, "networks": 4}
    assert timed
