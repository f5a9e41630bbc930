"""A profile of a machine from about thirty nets: which ones, their files, their times, the fit."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from hwsearch.bits import FP16, INT8, LayerBits
from hwsearch.calibrate.fitting import Fitted, Identity, fit_target
from hwsearch.calibrate.make import write_net
from hwsearch.calibrate.pool import Blueprints, PoolNet, draw_pool
from hwsearch.errors import HostError, UserError
from hwsearch.hardware.file_model import Provenance
from hwsearch.hardware.kernel_table import kernel_table
from hwsearch.hardware.kernels import KernelKind
from hwsearch.hardware.learned.choose import choose_networks
from hwsearch.hardware.learned.fit import LEAST_NETWORKS
from hwsearch.hardware.learned.terms import classify, latency_terms, sum_terms
from hwsearch.hardware.measure.places import Place
from hwsearch.hardware.measure.protocol import (
    WARN_PERCENT,
    MeasuredNet,
    MeasureProgress,
    MeasureReport,
    measure,
    noise_floor_percent,
)
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import Energy, HardwareProfile
from hwsearch.hardware.runtimes import RUNNER_NAMES, Runner, runner_facts

#: Nets that are drawn for each one that is measured.
_POOL_FACTOR: Final = 8
#: Before the first round a net runs about so often, and in all rounds about so often.
_RUNS: Final = 260
#: Where the tensors of a process come to lie makes a net up to a tenth slower, round after round
#: (399 nets on a virtual machine: 1 % apart within a process, 2.8 % in the median between two).
_PASSES: Final = 2
#: Time that the fit takes, kept back from the measuring.
_FIT_S: Final = 25.0

#: What ONNX files can say of a layer's bits.
_EXPORTED: Final = (FP16, INT8)


class Watcher(Protocol):
    """Is told what happens, in order; must not raise."""

    def phase(self, text: str) -> None:
        """Something longer begins."""

    def progress(self, share: float, text: str) -> None:
        """So much of the phase is done, from 0 to 1."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be measured.

    Attributes:
        name: of the profile.
        base: whose rates the fit starts from, and which bits are tried.
        nets: how many.
        runtime: None takes that of the place.
        time_limit_s: of everything; see ``measure``.
        seed: of the pool, the weights and the fit.

    Raises:
        UserError: too few nets or too little time.
    """

    name: str
    place: Place
    base: HardwareProfile
    nets: int = 30
    threads: int = 1
    runtime: Runner | None = None
    time_limit_s: float = 600.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.nets < LEAST_NETWORKS:
            raise UserError(
                f"{self.nets} nets are too few to fit a profile; give at least {LEAST_NETWORKS}"
            )

    @property
    def runs_in(self) -> Runner:
        """What runs the nets."""
        return self.runtime or self.place.default_runtime


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A fitted profile and what it was fitted to."""

    fitted: Fitted
    report: MeasureReport
    measurements: tuple[Measurement, ...]


def measure_target(plan: Plan, work: Path, watcher: Watcher) -> Measured:
    """Choose nets, write their files, time them, and fit the profile.

    Args:
        plan: what is measured where.
        work: folder of the files and of finished measurements; with the same plan, a killed
            measurement goes on there.
        watcher: is told what happens.

    Raises:
        UserError: a setting that does not go.
        HostError: the place cannot be measured on, or is too noisy.
    """
    begun = time.monotonic()
    blueprints = Blueprints()
    chosen = choose(plan, blueprints, watcher)
    files = _files(plan, chosen, blueprints, work, watcher)
    left_s = max(0.0, plan.time_limit_s - _FIT_S - (time.monotonic() - begun))
    watcher.phase(f"measure {len(files)} nets on {plan.place.name}")

    def on_progress(progress: MeasureProgress) -> None:
        watcher.progress(progress.share, progress.text)

    reports = []
    for number in range(_PASSES):
        if number:
            watcher.phase("measure them again, in another process")
        reports.append(
            measure(
                files,
                plan.place,
                threads=plan.threads,
                runtime=plan.runs_in,
                time_limit_s=left_s / _PASSES,
                work_folder=work / f"pass{number}",
                on_progress=on_progress,
            )
        )
    report = merged(reports)
    for warning in report.warnings:
        watcher.note(warning)
    watcher.phase("fit the profile")
    measurements = _measurements(chosen, report)
    if len(measurements) < LEAST_NETWORKS:
        raise HostError(
            f"{plan.place.name} ran {len(measurements)} of {len(chosen)} nets, too few to fit; "
            f"the first that it refused: {report.refused[0].reason}"
        )
    base = _with_energy(plan.base, report, measurements)
    fitted = fit_target(
        base,
        identity(plan, report),
        measurements,
        provenance=_provenance(report),
        noise_floor_percent=float(f"{report.noise_floor_percent:.2g}"),
        seed=plan.seed,
    )
    return Measured(fitted=fitted, report=report, measurements=tuple(measurements))


def merged(reports: Sequence[MeasureReport]) -> MeasureReport:
    """One report of several passes: the least latency of each net that all of them have.

    Its noise floor is how far the passes lie apart, if that is more than they differ by inside.

    Args:
        reports: of the same files under the same conditions, one at least.
    """
    by_name = [{net.name: net for net in report.nets} for report in reports]
    names = [net.name for net in reports[0].nets if all(net.name in one for one in by_name)]
    nets = tuple(_least([one[name] for one in by_name]) for name in names)
    floors = [report.noise_floor_percent for report in reports]
    warnings = dict.fromkeys(warning for report in reports for warning in report.warnings)
    if len(reports) > 1 and nets:
        apart = noise_floor_percent([[one[name].latency_ms for one in by_name] for name in names])
        if apart > max((WARN_PERCENT, *floors)):
            warnings[
                f"measured again in another process, the times differ by {apart:.1f} % (median); "
                "close other programs and measure again"
            ] = None
        floors.append(apart)
    return dataclasses.replace(
        reports[0],
        nets=nets,
        noise_floor_percent=max(floors),
        kept_nets=max(report.kept_nets for report in reports),
        warnings=tuple(warnings),
    )


def _least(passes: Sequence[MeasuredNet]) -> MeasuredNet:
    best = min(passes, key=lambda net: net.latency_ms)
    energies = [net.energy_mj for net in passes if net.energy_mj is not None]
    rounds = tuple(value for net in passes for value in net.round_latencies_ms)
    return dataclasses.replace(
        best,
        round_latencies_ms=rounds,
        minimum_ms=min(net.minimum_ms for net in passes),
        energy_mj=min(energies) if energies else None,
    )


def choose(plan: Plan, blueprints: Blueprints, watcher: Watcher) -> list[PoolNet]:
    """The nets to measure, the most informative first.

    Raises:
        UserError: there are not enough that the time is sufficient for.
    """
    watcher.phase(f"choose {plan.nets} nets that tell the most")
    pool = draw_pool(
        _POOL_FACTOR * plan.nets,
        widths=_widths(plan.base),
        granularity=plan.base.channel_granularity,
        seed=plan.seed,
        blueprints=blueprints,
        on_drawn=lambda done, total: watcher.progress(done / total, f"net {done} of {total}"),
    )
    longest_ms = 1e3 * plan.time_limit_s / plan.nets / _RUNS
    costs = CostPredictor(plan.base).predict_all([net.network for net in pool])
    short = [
        net for net, cost in zip(pool, costs, strict=True) if cost.latency_ms.value <= longest_ms
    ]
    if len(short) < plan.nets:
        raise UserError(
            f"by {plan.base.name} only {len(short)} of {len(pool)} nets are short enough to "
            f"measure {plan.nets} in {plan.time_limit_s:.0f} s; give a longer --time-limit or "
            "fewer --nets"
        )
    rows = classify(plan.base, kernel_table([net.network for net in short]))
    terms = sum_terms(rows, *latency_terms(plan.base, rows))
    return [short[at] for at in choose_networks(terms, plan.nets)]


def identity(plan: Plan, report: MeasureReport) -> Identity:
    """What the profile says that it describes; no name of a machine, user or folder."""
    features = f" ({', '.join(report.cpu_features)})" if report.cpu_features else ""
    device = report.device + (features if report.device == report.cpu else "")
    threads = f"{report.threads} thread" + ("" if report.threads == 1 else "s")
    runtime = RUNNER_NAMES[report.runtime]
    return Identity(
        name=plan.name,
        summary=f"{report.device}, {runtime}, {threads}, as measured",
        device=device,
        runtime=runtime,
        runtime_version=report.runtime_version,
        power_mode=f"{report.power_mode or 'default'}, {threads}",
    )


def _widths(base: HardwareProfile) -> tuple[LayerBits, ...]:
    """Bits beside fp32 that the base can price and a file can say."""
    priced = base.kernels.by_kind[KernelKind.CONV]
    return tuple(bits for bits in _EXPORTED if bits in priced)


def _files(
    plan: Plan, chosen: Sequence[PoolNet], blueprints: Blueprints, work: Path, watcher: Watcher
) -> dict[str, Path]:
    """The ONNX files by name, the most informative first; those that are there are kept."""
    watcher.phase("export them")
    folder = work / plan.runs_in
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"{folder}: cannot be made ({error.strerror}); name another") from None
    files = {}
    for number, net in enumerate(chosen, start=1):
        path = folder / f"{net.recipe.name}.onnx"
        if not path.exists():
            write_net(
                net.recipe,
                blueprints.of(net.recipe.ref, net.recipe.input_px),
                path,
                scheme=plan.base.activation_quantization,
                fusion=runner_facts(plan.runs_in).fusion,
                seed=plan.seed,
            )
        files[net.recipe.name] = path
        watcher.progress(number / len(chosen), net.recipe.name)
    return files


def _measurements(chosen: Sequence[PoolNet], report: MeasureReport) -> list[Measurement]:
    by_name = {net.name: net for net in report.nets}
    return [
        Measurement(
            network=net.network,
            latency_ms=by_name[net.recipe.name].latency_ms,
            energy_mj=by_name[net.recipe.name].energy_mj,
            group=net.recipe.backbone,
        )
        for net in chosen
        if net.recipe.name in by_name
    ]


def _provenance(report: MeasureReport) -> Provenance:
    drift = "" if report.drift_percent is None else f", drift {report.drift_percent:.1f} %"
    return Provenance(
        source="measured",
        reference=(
            f"hwsearch profile measure: {len(report.nets)} nets, {RUNNER_NAMES[report.runtime]} "
            f"{report.runtime_version}, {report.threads} pinned, the least of the medians of "
            f"interleaved rounds; noise floor {report.noise_floor_percent:.2g} %{drift}"
        ),
        date=report.date,
    )


def _with_energy(
    base: HardwareProfile, report: MeasureReport, measurements: Sequence[Measurement]
) -> HardwareProfile:
    """The base with an energy section for what was measured, or with none."""
    boundary = report.energy_boundary
    if boundary is None:
        fewer = {"energy": None}
        return base.model_copy(update=fewer) if base.fit is None else _without_energy(base)
    watts = sorted(
        one.energy_mj / one.latency_ms for one in measurements if one.energy_mj is not None
    )
    energy = Energy(
        provenance=Provenance(
            source="measured",
            reference="the least mean power over one of the measured nets; the rest is declared",
            date=report.date,
        ),
        boundary=boundary,
        baseline_w=float(f"{watts[0]:.3g}"),
        active_pj_per_mac=dict.fromkeys(base.compute.by_bits, 1.0),
        active_pj_per_byte=20.0,
    )
    return base.model_copy(update={"energy": energy})


def _without_energy(base: HardwareProfile) -> HardwareProfile:
    assert base.fit is not None
    fit = base.fit.model_copy(update={"energy": None})
    return base.model_copy(update={"energy": None, "fit": fit})
