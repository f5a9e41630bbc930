"""The whole way from a pool to a profile, on a place that only pretends to measure."""

import shutil
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from calibrate_fixtures import SMALL, Told, bare_host

from hwsearch.bits import FP16, INT8, LayerBits
from hwsearch.calibrate import measuring
from hwsearch.calibrate.measuring import Plan, choose, measure_target, merged
from hwsearch.calibrate.pool import Blueprints, PoolNet, draw_pool
from hwsearch.errors import HostError, UserError
from hwsearch.hardware.kernels import KernelKind
from hwsearch.hardware.measure.process import Event
from hwsearch.hardware.measure.protocol import MeasuredNet, MeasureReport
from hwsearch.hardware.onnx_network import read_onnx
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile_file import write_profile
from hwsearch.hardware.runtimes import Runner
from hwsearch.hardware.targets import load_profile


@dataclass
class Pretending:
    """Answers with what the host's rates predict of the files that it is given.

    Attributes:
        scatter: of the second round.
        stops_after: nets, then it is gone.
        refuses: so many of the first nets.
    """

    name: str = "pretended"
    default_runtime: Runner = "onnxruntime"
    energy: bool = False
    scatter: float = 1.01
    stops_after: int | None = None
    refuses: int = 0
    jobs: list[dict[str, Any]] = field(default_factory=list)

    def run(
        self, job: Mapping[str, object], files: Mapping[str, Path]
    ) -> Generator[Event, None, None]:
        self.jobs.append({**job, "files": list(files)})
        yield {
            "event": "start",
            "runtime_version": "1.2.3",
            "device": "Some Processor",
            "cpu": "Some Processor",
            "cpu_features": ["avx2", "avx512_vnni"],
            "power_mode": None,
            "energy": self.energy,
            "no_energy": "no counter",
        }
        predictor = CostPredictor(bare_host())
        for number, (name, path) in enumerate(files.items()):
            if number == self.stops_after:
                raise HostError("the connection was lost")
            if number < self.refuses:
                yield {"event": "refused", "id": name, "reason": "no kernel for it"}
                continue
            best = 2 * predictor.predict(read_onnx(path)).latency_ms.value
            rounds = [best, best * self.scatter]
            for at, value in enumerate(rounds):
                yield {"event": "round", "id": name, "round": at, "median_ms": value}
            if name == job["anchor"]:
                yield {"event": "anchor", "id": name, "latency_ms": best}
            energy = 30.0 * best if self.energy else None
            yield {
                "event": "net", "id": name, "latency_ms": best, "rounds_ms": rounds,
                "minimum_ms": best, "energy_mj": energy,
            }  # fmt: skip
        yield {"event": "done"}


BLUEPRINTS = Blueprints()


@cache
def small(count: int, widths: tuple[LayerBits, ...]) -> list[PoolNet]:
    return draw_pool(
        count, widths=widths, granularity=8, seed=0, blueprints=BLUEPRINTS, families=SMALL
    )


def use_small(patch: pytest.MonkeyPatch) -> None:
    """A pool that is drawn once for all tests."""

    def drawn(count: int, *, widths: tuple[LayerBits, ...], **_: object) -> list[PoolNet]:
        return small(count, widths)

    patch.setattr(measuring, "draw_pool", drawn)
    patch.setattr(measuring, "Blueprints", lambda: BLUEPRINTS)


@pytest.fixture(autouse=True)
def small_families(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small(monkeypatch)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the plan that most tests have."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        use_small(patch)
        measure_target(plan(Pretending()), folder, Told())
    for kept in folder.rglob("measured.jsonl"):
        kept.unlink()
    return folder


@pytest.fixture
def work(exported: Path, tmp_path: Path) -> Path:
    """A work folder that holds the files and no results."""
    shutil.copytree(exported, tmp_path / "work")
    return tmp_path / "work"


def plan(place: Pretending, nets: int = 10, **changes: Any) -> Plan:  # noqa: ANN401
    return Plan(**{"name": "bench", "place": place, "base": bare_host(), "nets": nets, **changes})


def test_a_machine_becomes_a_profile(work: Path, tmp_path: Path) -> None:
    told = Told()
    measured = measure_target(plan(Pretending(), nets=10), work, told)
    profile = measured.fitted.profile
    assert profile.name == "bench"
    assert profile.device == "Some Processor (avx2, avx512_vnni)"
    assert (profile.runtime, profile.runtime_version) == ("ONNX Runtime", "1.2.3")
    assert profile.power_mode == "default, 1 thread"
    assert profile.fit is not None
    assert profile.fit.latency.networks == 10
    assert profile.fit.noise_floor_percent == pytest.approx(1.0, abs=0.01)
    assert profile.fit.latency.provenance.date == date.today()
    assert "10 nets, ONNX Runtime 1.2.3, 1 pinned" in profile.fit.latency.provenance.reference
    assert len(measured.measurements) == 10
    write_profile(profile, tmp_path / "bench.yaml", ["a test"])
    assert load_profile(str(tmp_path / "bench.yaml")) == profile
    assert told.phases == [
        "choose 10 nets that tell the most", "export them",
        "measure 10 nets on pretended", "measure them again, in another process",
        "fit the profile",
    ]  # fmt: skip
    assert all(0 <= share <= 1 for share in told.shares)


def test_the_chosen_nets_differ_from_the_first_of_the_pool() -> None:
    blueprints, told = Blueprints(), Told()
    chosen = choose(plan(Pretending(), nets=6), blueprints, told)
    again = choose(plan(Pretending(), nets=6), Blueprints(), Told())
    assert [net.recipe for net in chosen] == [net.recipe for net in again]
    assert len({net.recipe for net in chosen}) == 6
    kinds = {kernel.kind for net in chosen for kernel in net.network.kernels}
    assert {KernelKind.CONV, KernelKind.DEPTHWISE, KernelKind.GROUPED} <= kinds


def test_nets_that_take_too_long_are_left_out() -> None:
    with pytest.raises(UserError, match="nets are short enough to measure 6 in 0 s; give a longer"):
        choose(plan(Pretending(), nets=6, time_limit_s=0.05), Blueprints(), Told())


def test_a_killed_measurement_goes_on(work: Path) -> None:
    broken = Pretending(stops_after=4)
    with pytest.raises(HostError, match="4 of 10 nets are kept, run it again to go on"):
        measure_target(plan(broken), work, Told())
    files = {path: path.stat().st_mtime_ns for path in work.rglob("*.onnx")}
    assert len(files) == 10
    whole = Pretending()
    measured = measure_target(plan(whole), work, Told())
    # In the first pass; the second had not begun. The anchor may be among the kept ones.
    assert measured.report.kept_nets == 4
    assert [len(job["files"]) in (6, 7, 10) for job in whole.jobs if job["files"]] == [True, True]
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*.onnx")} == files


def test_a_noisy_machine_is_refused_and_a_restless_one_warned_of(work: Path) -> None:
    with pytest.raises(HostError, match="the times repeat to 33 % only"):
        measure_target(plan(Pretending(scatter=1.4)), work, Told())
    told = Told()
    measured = measure_target(plan(Pretending(scatter=1.08)), work, told)
    assert any("the times repeat to 7.7 % only" in note for note in told.notes)
    assert measured.report.warnings == tuple(told.notes)


def test_refused_nets_are_told_and_the_others_fitted(work: Path) -> None:
    told = Told()
    measured = measure_target(plan(Pretending(refuses=3)), work, told)
    assert len(measured.measurements) == 7
    assert any("onnxruntime does not run 3 nets" in note for note in told.notes)


def test_a_runtime_that_refuses_nearly_all_has_no_profile(work: Path) -> None:
    with pytest.raises(HostError, match=r"ran 3 of 10 nets, too few to fit; .*no kernel for it"):
        measure_target(plan(Pretending(refuses=7)), work, Told())


def test_energy_of_a_gpu_is_fitted_with_its_boundary(work: Path) -> None:
    place = Pretending(energy=True, default_runtime="onnxruntime-cuda")
    profile = measure_target(plan(place), work, Told()).fitted.profile
    assert profile.energy is not None
    assert profile.energy.boundary == "board"
    assert profile.energy.baseline_w == pytest.approx(30.0)
    assert profile.fit is not None
    assert profile.fit.energy is not None
    assert profile.runtime == "ONNX Runtime, CUDA"


def test_energy_of_the_base_is_not_that_of_another_machine(work: Path) -> None:
    base = load_profile("raspberry-pi-4")
    assert base.energy is not None
    profile = measure_target(plan(Pretending(), base=base), work, Told()).fitted.profile
    assert profile.energy is None
    assert profile.fit is not None
    assert profile.fit.energy is None


def test_the_file_is_for_the_runtime_that_runs_it(tmp_path: Path) -> None:
    measure_target(plan(Pretending(), runtime="openvino"), tmp_path, Told())
    assert len(list((tmp_path / "openvino").glob("*.onnx"))) == 10
    assert not (tmp_path / "onnxruntime").exists()


def test_the_bits_tried_are_those_that_the_base_prices_and_a_file_can_say() -> None:
    orin = choose(
        plan(Pretending(), nets=8, base=load_profile("jetson-agx-orin")), Blueprints(), Told()
    )
    found = {bits for net in orin for bits in net.recipe.layer_bits}
    assert {FP16, INT8} <= found


def test_too_few_nets_are_refused_at_once() -> None:
    with pytest.raises(UserError, match="4 nets are too few to fit a profile; give at least 5"):
        plan(Pretending(), nets=4)


def report_of(latencies_ms: dict[str, float], noise: float = 1.0, **changes: Any) -> MeasureReport:  # noqa: ANN401
    nets = tuple(
        MeasuredNet(
            name=name, latency_ms=ms, round_latencies_ms=(ms, 1.01 * ms), minimum_ms=0.9 * ms,
            energy_mj=10 * ms,
        )
        for name, ms in latencies_ms.items()
    )  # fmt: skip
    plain: dict[str, Any] = {
        "nets": nets, "refused": (), "noise_floor_percent": noise, "drift_percent": None,
        "place": "host", "runtime": "onnxruntime", "runtime_version": "1", "device": "board",
        "cpu": "processor", "cpu_features": (), "power_mode": None, "energy_boundary": None,
        "threads": 1, "rounds": 20, "runs": 5, "date": date(2026, 11, 27), "kept_nets": 0,
        "warnings": (),
    }  # fmt: skip
    return MeasureReport(**{**plain, **changes})


def test_the_least_of_all_passes_counts() -> None:
    one = merged([report_of({"a": 1.0, "b": 2.0}), report_of({"a": 1.1, "b": 1.9, "c": 5.0})])
    assert [(net.name, net.latency_ms) for net in one.nets] == [("a", 1.0), ("b", 1.9)]
    assert one.nets[0].round_latencies_ms == (1.0, 1.01, 1.1, 1.01 * 1.1)
    assert one.nets[1].minimum_ms == pytest.approx(0.9 * 1.9)
    assert one.nets[1].energy_mj == pytest.approx(19.0)


def test_the_noise_is_how_far_the_passes_lie_apart() -> None:
    apart = merged([report_of({"a": 1.0}, noise=0.5), report_of({"a": 1.1}, noise=0.7)])
    assert apart.noise_floor_percent == pytest.approx(100 * 0.1 / 1.05)
    assert "measured again in another process, the times differ by 9.5 %" in apart.warnings[0]
    close = merged([report_of({"a": 1.0}, noise=0.5), report_of({"a": 1.001}, noise=0.7)])
    assert close.noise_floor_percent == 0.7
    assert close.warnings == ()
