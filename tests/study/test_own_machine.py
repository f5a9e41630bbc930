# ruff: noqa: ANN401 - fakes take whatever the real function is given
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from study_fixtures import make_profile, make_settings, make_space
from tiny_network import OWN

from hwsearch.bits import FP32, INT8
from hwsearch.errors import HostError
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.measure import machine_speed
from hwsearch.hardware.measure.machine_speed import REFERENCE
from hwsearch.hardware.measure.protocol import MeasuredNet, MeasureReport, RefusedNet
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.recalibration import Recalibration, recalibrate
from hwsearch.space.knobs import dense
from hwsearch.study import coordinator, own_machine
from hwsearch.study.asked.preflight import Checked
from hwsearch.study.candidates.pricing_context import PricingContext
from hwsearch.study.clock import Clock
from hwsearch.study.coordinator import Run, Shipped
from hwsearch.study.finals.evidence import read_evidence
from hwsearch.study.own_machine import recalibrated, timed_networks
from hwsearch.study.trials.progress import Silent

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


def make_pricing(**changes: Any) -> PricingContext:
    return PricingContext(make_settings(**changes), host(), classes=3)


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


def make_run(folder: Path, watcher: Silent, profile: HardwareProfile, **changes: Any) -> Run:
    folder.mkdir(exist_ok=True)
    return Run(
        checked=Checked(settings=make_settings(**changes), profile=profile),
        folder=folder,
        command="hwsearch run",
        watcher=watcher,
        clock=Clock(),
    )


def ship_nothing(*_: Any) -> Shipped:
    return Shipped(measured_ms={}, refused=None)


def before_search(timed: list[str]) -> list[str]:
    """Those that stand for the whole space; the others are candidates, named by their ids."""
    return [name for name in timed if name.startswith(OWN.replace(":", "."))]


def test_networks_that_are_timed_are_dense_and_pruned_in_two_widths(timed: list[str]) -> None:
    found = recalibrated(make_pricing(), lambda _: None)
    assert len(timed) == 5
    assert all(name.startswith(OWN.replace(":", ".")) for name in timed)
    assert found.networks == 5
    # Five networks and a profile that is unsure of itself: not all of it is believed.
    assert all(1.4 < factor < FACTOR for factor in found.part_factors.values())


def test_networks_that_are_timed_are_of_both_ends_of_size_and_bits() -> None:
    pricing = make_pricing(space=make_space(input_px=[16, 24]))
    networks = [network for _, network in timed_networks(pricing)]
    assert {blueprint.trace.input_px for blueprint, _, _ in networks} == {16, 24}
    widths = [set(bits.values()) for _, _, bits in networks]
    assert widths.count({FP32}) == 3
    assert widths.count({INT8}) == 2
    whole = max(sum(kept.values()) for _, kept, _ in networks)
    most = min(sum(kept.values()) for _, kept, _ in networks)
    assert most < whole


def test_many_backbones_are_all_timed_and_not_in_all_variants() -> None:
    (backbone,) = make_space().backbones
    space = make_space().model_copy(update={"backbones": (backbone,) * 10})
    networks = [network for _, network in timed_networks(make_pricing(space=space))]
    assert len(networks) == 24
    dense_bits = [set(bits.values()) for _, _, bits in networks[:20]]
    assert dense_bits == [{FP32}] * 10 + [{INT8}] * 10


def test_bits_go_by_what_was_timed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which integers are slow: what costs the least is in floats there."""
    own = make_pricing(objectives=("latency",))
    own.recalibrate(Recalibration(machine_sigma_log=1.0))
    network = own.backbones.blueprint(dense(OWN, 16)).describe({})
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
        recalibrated(make_pricing(), lambda _: None)


def test_a_run_for_this_machine_corrects_its_predictions(timed: list[str], tmp_path: Path) -> None:
    listener = Listener()
    run = make_run(tmp_path / "run", listener, host())
    run.execute(ship_nothing)
    assert len(before_search(timed)) == 5
    known = run._pricing.predictor.recalibration
    assert known is not None
    told = [note for note in listener.notes if "5 networks were timed here" in note]
    assert len(told) == 1
    assert "1.70 to 1.70 x what profile host predicts" in told[0]
    evidence = read_evidence(tmp_path / "run")
    assert known.told("host") in evidence.notes
    corrected = CostPredictor(host(), recalibration=known)
    candidates = {record.trial: record.candidate for record in run._store.records()}
    assert evidence.trials
    for network in evidence.networks:
        if network.trial is None:
            continue
        candidate = candidates[network.trial]
        assert candidate is not None
        described = run._pricing.backbones.describe(candidate)
        assert network.cost.latency_ms.value == pytest.approx(corrected.latency_ms(described))
        assert network.cost.latency_ms.value > 1.4 * CostPredictor(host()).latency_ms(described)
    assert run.clock.wall_s()["timing here"] > 0


def test_a_resumed_run_prices_as_before_and_times_nothing_again(
    timed: list[str], tmp_path: Path
) -> None:
    first = make_run(tmp_path / "run", Silent(), host())
    first.execute(ship_nothing)
    again = make_run(tmp_path / "run", Silent(), host())
    before = len(timed)
    again.execute(ship_nothing)
    assert len(timed) == before > 5
    assert again._pricing.predictor.recalibration == first._pricing.predictor.recalibration
    assert again._pricing.predictor.recalibration is not None


def test_a_run_for_another_device_times_nothing(timed: list[str], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Silent(), make_profile())
    run.execute(ship_nothing)
    assert timed == []
    assert run._pricing.predictor.recalibration is None
    assert not any("timed here" in note for note in read_evidence(tmp_path / "run").notes)


def test_a_machine_that_cannot_be_timed_keeps_its_profile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any) -> Recalibration:
        raise HostError("the machine is too noisy")

    monkeypatch.setattr(coordinator, "recalibrated", refuse)
    listener = Listener()
    run = make_run(tmp_path / "run", listener, host())
    run.execute(ship_nothing)
    assert "host was not held to this machine: the machine is too noisy" in listener.notes
    assert run._pricing.predictor.recalibration is None


def test_what_is_stored_is_read_back(timed: list[str], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Silent(), host())
    run.execute(ship_nothing)
    known = run._pricing.predictor.recalibration
    assert known is not None
    assert known.networks == len(timed)
    assert run._store.recalibration() == known


def test_one_factor_that_an_earlier_version_stored_is_read(
    timed: list[str], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", Silent(), host())
    run.execute(ship_nothing)
    old = {"factor": 0.5, "sigma_share": 2.0, "networks": 4}
    run._store._study.set_user_attr("recalibration", old)
    found = run._store.recalibration()
    assert found is not None
    assert (found.factor, found.sigma_share, found.networks) == (0.5, 2.0, 4)
    again = make_run(tmp_path / "run", Silent(), host())
    again.execute(ship_nothing)
    known = again._pricing.predictor.recalibration
    assert known is not None
    assert (known.factor, known.earlier_networks) == (0.5, 4)
    assert len(before_search(timed)) == 5, "a resumed run does not time the space again"


def test_the_front_is_timed_before_it_is_trained_and_chosen_by_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Integer networks are ten times slower here than any prediction says."""
    networks: dict[str, NetworkDesc] = {}
    plain_write, predictor = own_machine._written, CostPredictor(host())

    def written(*arguments: Any) -> Any:
        found = plain_write(*arguments)
        networks.update(found[0])
        return found

    def measure(files: Mapping[str, Path], *_: Any, **__: Any) -> MeasureReport:
        latencies = {REFERENCE: 1.0}
        for name in files:
            if name != REFERENCE:
                candidate = not name.startswith(OWN.replace(":", "."))
                integer = any(one.bits == INT8 for one in networks[name].weighted)
                slow = 10.0 if candidate and integer else 1.0
                latencies[name] = slow * predictor.latency_ms(networks[name])
        return report(latencies)

    monkeypatch.setattr(own_machine, "_written", written)
    monkeypatch.setattr(machine_speed, "measure", measure)
    run = make_run(tmp_path / "run", Silent(), host(), objectives=("latency",))
    run.execute(ship_nothing)
    known = run._pricing.predictor.recalibration
    assert known is not None
    took_ms = {one.name: one.measured_ms for one in known.timed}
    candidates = {record.trial: record.candidate for record in run._store.records()}
    chosen = [candidates[trial] for trial in read_evidence(tmp_path / "run").trials]
    assert chosen
    fastest = min(took_ms[one.id] for one in chosen if one is not None)
    assert fastest == min(value for name, value in took_ms.items() if not name.startswith("tiny_"))


# -- searching on after the files were timed -------------------------------------------------------


def predicted_ms(folder: Path) -> dict[int, float]:
    """Latencies of the trials that were trained to the end."""
    networks = read_evidence(folder).networks
    return {one.trial: one.cost.latency_ms.value for one in networks if one.trial is not None}


def go_on(run: Run, factor: float, trials: int) -> bool:
    """Let a run that ended search on, its files so many times slower than predicted."""
    latencies_ms = predicted_ms(run.folder)
    measured_ms = {
        record.candidate: factor * latencies_ms[record.trial]
        for record in run._store.records()
        if record.candidate is not None and record.trial in latencies_ms
    }
    settings = run.checked.settings.model_copy(update={"trials": trials})
    run.checked = Checked(settings=settings, profile=run.checked.profile)
    run._pricing.settings = settings
    return run._go_on(Shipped(measured_ms=measured_ms, refused=None))


def test_a_run_that_goes_on_prices_all_its_trials_anew(timed: list[str], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Silent(), host())
    run.execute(ship_nothing)
    first = predicted_ms(tmp_path / "run")
    before = run._pricing.predictor.recalibration
    assert before is not None
    assert go_on(run, 1.25, 16)
    again = predicted_ms(tmp_path / "run")
    known = run._pricing.predictor.recalibration
    assert known is not None
    assert known == run._store.recalibration()
    assert {one.name for one in before.timed} <= {one.name for one in known.timed}
    assert len(before_search(timed)) == 5, "the space is not timed again"
    assert len(run._store.records()) == 16
    assert first.keys() & again.keys()
    for trial in first.keys() & again.keys():
        assert 1.02 < again[trial] / first[trial] < 1.25


def test_evidence_stays_where_no_other_network_is_found(timed: list[str], tmp_path: Path) -> None:
    listener = Listener()
    run = make_run(tmp_path / "run", listener, host())
    run.execute(ship_nothing)
    before = (tmp_path / "run" / "evidence.json").read_bytes()
    states = (tmp_path / "run" / "trials.csv").read_text("utf-8")
    assert not go_on(run, 1.25, 8)
    assert (tmp_path / "run" / "evidence.json").read_bytes() == before
    again = (tmp_path / "run" / "trials.csv").read_text("utf-8")
    assert again.count("finalized") == states.count("finalized") > 0
    assert any("no other network was found" in note for note in listener.notes)
    assert timed


def test_evidence_stays_where_nothing_can_meet_the_budget_any_more(
    timed: list[str], tmp_path: Path
) -> None:
    listener = Listener()
    run = make_run(tmp_path / "run", listener, host())
    run.execute(ship_nothing)
    stored = run._store.recalibration()
    before = (tmp_path / "run" / "evidence.json").read_bytes()
    assert not go_on(run, 1e6, 24)
    assert (tmp_path / "run" / "evidence.json").read_bytes() == before
    assert run._store.recalibration() == stored, "a resumed run must not lose its front by it"
    assert any(note.startswith("search ended: no candidate of space") for note in listener.notes)
    assert timed
