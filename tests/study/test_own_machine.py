# ruff: noqa: ANN401 - fakes take whatever the real function is given
import datetime
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from study_fixtures import make_profile, make_settings
from tiny_network import OWN, make_data

from hwsearch import api
from hwsearch.bits import FP32, INT8
from hwsearch.errors import HostError, NothingFitsError
from hwsearch.hardware.measure import machine_speed
from hwsearch.hardware.measure.machine_speed import REFERENCE
from hwsearch.hardware.measure.protocol import MeasuredNet, MeasureReport, RefusedNet
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.recalibration import Recalibration, recalibrate
from hwsearch.report.stored import read_run_file
from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import dense
from hwsearch.study import coordinator, own_machine
from hwsearch.study.asked.preflight import Checked
from hwsearch.study.candidates.workbench import Workbench
from hwsearch.study.coordinator import Run
from hwsearch.study.finals.evidence import read_evidence
from hwsearch.study.finals.final_time import ship_s
from hwsearch.study.own_machine import recalibrated, timed_networks
from hwsearch.study.trials.progress import Silent
from hwsearch.study.written.output import SHIPPING

FACTOR = 1.7

pytestmark = pytest.mark.usefixtures("quick")


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
        asked = [name for name in files if name != REFERENCE]
        given.extend(asked)
        latencies = {name: FACTOR * predictor.latency_ms(networks[name]) for name in asked}
        return report({**latencies, REFERENCE: 1.0})

    monkeypatch.setattr(own_machine, "_written", written)
    monkeypatch.setattr(machine_speed, "measure", measure)
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
    assert len(timed) == 5
    assert all(name.startswith(OWN.replace(":", ".")) for name in timed)
    assert found.networks == 5
    # Five networks and a profile that is unsure of itself: not all of it is believed.
    assert all(1.4 < factor < FACTOR for factor in found.part_factors.values())


def test_networks_that_are_timed_are_of_both_ends_of_size_and_bits() -> None:
    of_space = bench()
    space = of_space.settings.space.model_copy(update={"input_px": (16, 24)})
    of_space.settings = of_space.settings.model_copy(update={"space": space})
    networks = [network for _, network in timed_networks(of_space)]
    assert {blueprint.trace.input_px for blueprint, _, _ in networks} == {16, 24}
    widths = [set(bits.values()) for _, _, bits in networks]
    assert widths.count({FP32}) == 3
    assert widths.count({INT8}) == 2
    whole = max(sum(kept.values()) for _, kept, _ in networks)
    most = min(sum(kept.values()) for _, kept, _ in networks)
    assert most < whole


def test_many_backbones_are_all_timed_and_not_in_all_variants() -> None:
    of_space = bench()
    (backbone,) = of_space.settings.space.backbones
    space = of_space.settings.space.model_copy(update={"backbones": (backbone,) * 10})
    of_space.settings = of_space.settings.model_copy(update={"space": space})
    networks = [network for _, network in timed_networks(of_space)]
    assert len(networks) == 24
    dense_bits = [set(bits.values()) for _, _, bits in networks[:20]]
    assert dense_bits == [{FP32}] * 10 + [{INT8}] * 10


def test_bits_go_by_what_was_timed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which integers are slow: what costs the least is in floats there."""
    own = bench()
    own.settings = own.settings.model_copy(update={"objectives": ("latency",)})
    own.recalibrate(Recalibration(machine_sigma_log=1.0))
    network = own.blueprint(dense(OWN, 16)).describe({})
    before = own.bit_costs.allocate(network, 1.0)
    assert INT8 in before.values()
    several = {
        name: blueprint.describe(kept, bits)
        for name, (blueprint, kept, bits) in timed_networks(own)
    }
    plain = CostPredictor(host())
    took = {
        name: plain.latency_ms(one) * (4.0 if one.weighted[0].bits == INT8 else 1.0)
        for name, one in several.items()
    }
    own.recalibrate(recalibrate(plain.predict_timed(several, took), machine_sigma_log=1.0))
    after = own.bit_costs.allocate(network, 1.0)
    assert INT8 not in after.values()
    in_int8 = network.with_bits(dict.fromkeys(after, INT8))
    assert own.predictor.latency_ms(in_int8) > own.predictor.latency_ms(network.with_bits(after))


def test_a_machine_that_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = (RefusedNet(name="one", reason="no such operator"),)
    monkeypatch.setattr(machine_speed, "measure", lambda *_, **__: report({}, refused))
    with pytest.raises(HostError, match="runs none of them; the first: no such operator"):
        recalibrated(bench(), lambda _: None)


def test_a_run_for_this_machine_corrects_its_predictions(timed: list[str], tmp_path: Path) -> None:
    listener = Listener()
    run = make_run(tmp_path / "run", listener, host())
    run.execute()
    assert len(timed) == 5
    known = run._bench.predictor.recalibration
    assert known is not None
    told = [note for note in listener.notes if "5 networks were timed here" in note]
    assert len(told) == 1
    assert "1.70 to 1.70 x what profile host predicts" in told[0]
    evidence = read_evidence(tmp_path / "run")
    assert told[0] in evidence.notes
    corrected = CostPredictor(host(), recalibration=known)
    candidates = {record.trial: record.candidate for record in run._store.records()}
    assert evidence.trials
    for network in evidence.networks:
        if network.trial is None:
            continue
        candidate = candidates[network.trial]
        assert candidate is not None
        described = run._bench.describe(candidate)
        assert network.cost.latency_ms.value == pytest.approx(corrected.latency_ms(described))
        assert network.cost.latency_ms.value > 1.4 * CostPredictor(host()).latency_ms(described)
    wall_s = run._bench.wall_s
    assert wall_s["timing here"] > 0


def test_a_resumed_run_prices_as_before_and_times_nothing_again(
    timed: list[str], tmp_path: Path
) -> None:
    first = make_run(tmp_path / "run", Silent(), host())
    first.execute()
    again = make_run(tmp_path / "run", Silent(), host())
    again.execute()
    assert len(timed) == 5
    assert again._bench.predictor.recalibration == first._bench.predictor.recalibration
    assert again._bench.predictor.recalibration is not None


def test_a_run_for_another_device_times_nothing(timed: list[str], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Silent(), make_profile())
    run.execute()
    assert timed == []
    assert run._bench.predictor.recalibration is None
    assert not any("timed here" in note for note in read_evidence(tmp_path / "run").notes)


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
    known = run._bench.predictor.recalibration
    assert known is not None
    assert known.networks == 5
    assert run._store.recalibration() == known
    assert timed


def test_one_factor_that_an_earlier_version_stored_is_read(
    timed: list[str], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", Silent(), host())
    run.execute()
    old = {"factor": 0.5, "sigma_share": 2.0, "networks": 4}
    run._store._study.set_user_attr("recalibration", old)
    found = run._store.recalibration()
    assert found is not None
    assert (found.factor, found.sigma_share, found.networks) == (0.5, 2.0, 4)
    again = make_run(tmp_path / "run", Silent(), host())
    again.execute()
    assert again._bench.predictor.recalibration == found
    assert len(timed) == 5, "a resumed run times nothing again"


# -- searching on after the files were timed -------------------------------------------------------


def with_trials(run: Run, trials: int) -> None:
    """Let a run go on to so many trials."""
    settings = run.checked.settings.model_copy(update={"trials": trials})
    run.checked = Checked(settings=settings, profile=run.checked.profile)


def predicted_ms(folder: Path) -> dict[int, float]:
    """Latencies of the trials that were trained to the end."""
    networks = read_evidence(folder).networks
    return {one.trial: one.cost.latency_ms.value for one in networks if one.trial is not None}


def files_of(run: Run, factor: float) -> dict[Candidate, float]:
    """What the networks of a front are to have taken: so many times what is predicted of them."""
    latencies_ms = predicted_ms(run.folder)
    return {
        record.candidate: factor * latencies_ms[record.trial]
        for record in run._store.records()
        if record.candidate is not None and record.trial in latencies_ms
    }


def test_a_run_that_goes_on_prices_all_its_trials_anew(timed: list[str], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Silent(), host())
    run.execute()
    first = predicted_ms(tmp_path / "run")
    before = run._bench.predictor.recalibration
    assert before is not None
    with_trials(run, 16)
    measured_ms = files_of(run, 1.25)
    assert run.go_on(measured_ms)
    again = predicted_ms(tmp_path / "run")
    known = run._bench.predictor.recalibration
    assert known is not None
    assert known == run._store.recalibration()
    assert known.networks == before.networks + len(measured_ms)
    assert {one.id for one in measured_ms} < {one.name for one in known.timed}
    assert len(timed) == 5, "the files were timed, not these networks again"
    assert len(run._store.records()) == 16
    assert first.keys() & again.keys()
    for trial in first.keys() & again.keys():
        assert 1.02 < again[trial] / first[trial] < 1.25


def test_evidence_stays_where_no_other_network_is_found(timed: list[str], tmp_path: Path) -> None:
    listener = Listener()
    run = make_run(tmp_path / "run", listener, host())
    run.execute()
    before = (tmp_path / "run" / "evidence.json").read_bytes()
    states = (tmp_path / "run" / "trials.csv").read_text("utf-8")
    run.shipped(12.5)
    assert not run.go_on(files_of(run, 1.25))
    assert (tmp_path / "run" / "evidence.json").read_bytes() == before
    again = (tmp_path / "run" / "trials.csv").read_text("utf-8")
    assert again.count("finalized") == states.count("finalized") > 0
    assert any("no other network was found" in note for note in listener.notes)
    assert read_run_file(tmp_path / "run").wall_s[SHIPPING] == 12.5
    assert timed


def test_evidence_stays_where_nothing_can_meet_the_budget_any_more(
    timed: list[str], tmp_path: Path
) -> None:
    listener = Listener()
    run = make_run(tmp_path / "run", listener, host())
    run.execute()
    stored = run._store.recalibration()
    before = (tmp_path / "run" / "evidence.json").read_bytes()
    with_trials(run, 24)
    assert not run.go_on(files_of(run, 1e6))
    assert (tmp_path / "run" / "evidence.json").read_bytes() == before
    assert run._store.recalibration() == stored, "a resumed run must not lose its front by it"
    assert any(note.startswith("search ended: no candidate of space") for note in listener.notes)
    assert timed


def test_what_files_take_is_learned_from_those_that_were_shipped(
    timed: list[str], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", Silent(), host())
    run.execute()
    files = len(run._store.finals())
    run.shipped(100.0 * files)
    assert ship_s(1.0, run._bench) == 100.0
    assert timed


@pytest.mark.parametrize("limit_s", [None, 3600.0])
def test_time_is_left_only_under_a_limit_that_is_not_used_up(
    limit_s: float | None, timed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", Silent(), host())
    run.execute()
    plain = run.checked.settings

    def has_time(trials: int | None) -> bool:
        settings = plain.model_copy(update={"time_limit_s": limit_s, "trials": trials})
        run.checked = Checked(settings=settings, profile=host())
        return run.has_time

    assert not has_time(8), "all trials that were asked for are done"
    assert has_time(None) == (limit_s is not None)
    monkeypatch.setattr(Run, "_spent_s", lambda _: 3599.9)
    assert not has_time(None)
    assert timed


class FakeWork:
    """A run with time for so many rounds of search."""

    def __init__(self, rounds: int) -> None:
        self.rounds, self.told = rounds, list[str]()
        self.folder, self.data, self.watcher = Path(), None, Silent()

    @property
    def has_time(self) -> bool:
        return self.rounds > 0

    def execute(self) -> None:
        self.told.append("search")

    def shipped(self, seconds: float) -> None:
        assert seconds >= 0

    def go_on(self, measured_ms: Mapping[str, float]) -> bool:
        self.rounds -= 1
        self.told.append(f"go on with {len(measured_ms)} files")
        return True


class Finished(FakeWork):
    """A run that finds nothing new although there is time."""

    def go_on(self, measured_ms: Mapping[str, float]) -> bool:
        super().go_on(measured_ms)
        return False


def search_and_ship(
    work: FakeWork, ship: Callable[..., str], fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ship as a fake does, always with something learned; it ends in a front only if it fits."""
    monkeypatch.setattr("hwsearch.ship.finish.ship_run", ship)
    monkeypatch.setattr("hwsearch.ship.measured.measured_latencies", lambda _: {"one": 1.5})
    if fits:
        result = api.search_and_ship(work)  # type: ignore[arg-type]
        assert result.front == "front"  # type: ignore[comparison-overlap]
    else:
        with pytest.raises(NothingFitsError, match="nothing fits"):
            api.search_and_ship(work)  # type: ignore[arg-type]


@pytest.mark.parametrize("rounds", [0, 2])
@pytest.mark.parametrize("fits", [True, False])
def test_api_searches_on_while_time_is_left(
    rounds: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = FakeWork(rounds)

    def ship(*_: Any) -> str:
        work.told.append("time")
        # Nothing met its budget when it was timed, but in the last round where it is to fit.
        if work.rounds or not fits:
            raise NothingFitsError("nothing fits")
        return "front"

    search_and_ship(work, ship, fits, monkeypatch)
    assert work.told == ["search", "time", *["go on with 1 files", "time"] * rounds]


def test_api_does_not_go_on_where_nothing_was_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    work = FakeWork(3)
    monkeypatch.setattr("hwsearch.ship.finish.ship_run", lambda *_: "front")
    monkeypatch.setattr("hwsearch.ship.measured.measured_latencies", lambda _: {})
    api.search_and_ship(work)  # type: ignore[arg-type]
    assert work.told == ["search"]


@pytest.mark.parametrize("fits", [True, False])
def test_api_ends_where_nothing_new_is_found(fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Finished(3)

    def ship(*_: Any) -> str:
        if not fits:
            raise NothingFitsError("nothing fits")
        return "front"

    search_and_ship(work, ship, fits, monkeypatch)
    assert work.told == ["search", "go on with 1 files"]
