"""Measuring nets so that the figures can be trusted, and saying how far they can.

The runner (``hwsearch.hardware.measure.runner``) times interleaved rounds; here they become a
report: the latency of a net is the least of the medians of its rounds, the noise floor says how
well that repeats, and finished nets are kept so that a killed measurement goes on.
"""

import contextlib
import datetime
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from hwsearch.errors import HostError, UserError
from hwsearch.hardware.measure.kept import KeptResults, content_hash, result_key
from hwsearch.hardware.measure.places import Place
from hwsearch.hardware.measure.process import Event
from hwsearch.hardware.runtimes import Runner

Precision = Literal["fp16", "int8", "typed"]

#: A machine whose figures repeat worse than this is reported with a warning, or refused.
WARN_PERCENT: Final = 5.0
REFUSE_PERCENT: Final = 20.0

_QUIETER: Final = (
    "close other programs, plug the machine in, fix its clocks (performance governor, or "
    "jetson_clocks), and measure with more rounds"
)


@dataclass(frozen=True, kw_only=True)
class MeasureJob:
    """How nets are timed.

    Attributes:
        threads: of one net, each on a core of its own; ``trtexec`` leaves them to TensorRT.
        rounds: interleaved over the nets; at least 2, since halves are compared. Many short ones
            find the undisturbed moments of a busy machine (figures: the runner's module).
        extra_rounds: at most so many more for nets whose halves differ by more than 1 %.
        runs: of a net in a round, more for a net of microseconds.
        warm_up: runs before the first round.
        seconds_per_round: a slow net has fewer runs than ``runs``, but 3 at least.
        precisions: that ``trtexec`` before TensorRT 11 may use beside fp32; "typed" for a file that
            says them itself, which TensorRT 10 holds to.

    Raises:
        UserError: a number out of range, or precisions for another runtime.
    """

    runtime: Runner = "onnxruntime"
    threads: int = 1
    rounds: int = 20
    extra_rounds: int = 40
    runs: int = 5
    warm_up: int = 3
    seconds_per_round: float = 2.0
    precisions: tuple[Precision, ...] = ()

    def __post_init__(self) -> None:
        if self.runtime not in get_args(Runner):
            allowed = ", ".join(get_args(Runner))
            raise UserError(f"runtime '{self.runtime}' cannot be measured; pick from {allowed}")
        least = {"threads": 1, "rounds": 2, "runs": 3, "warm_up": 1, "extra_rounds": 0}
        for name, limit in least.items():
            if getattr(self, name) < limit:
                raise UserError(f"{name} {getattr(self, name)} is too few; give at least {limit}")
        if not 0 < self.seconds_per_round < math.inf:
            raise UserError(f"seconds_per_round {self.seconds_per_round} is not above zero")
        odd = set(self.precisions) - set(get_args(Precision))
        if odd or (self.precisions and self.runtime != "trtexec"):
            raise UserError(
                f"precisions {', '.join(self.precisions)} with {self.runtime}: only trtexec takes "
                "them, fp16 and int8; elsewhere the ONNX file alone decides"
            )


@dataclass(frozen=True, kw_only=True)
class MeasuredNet:
    """What one net takes.

    Attributes:
        latency_ms: of one inference, the least of ``round_latencies_ms``.
        round_latencies_ms: the median of each round.
        minimum_ms: the fastest single run.
        energy_mj: of one inference, None where it was not read.

    Raises:
        ValueError: a figure that is not positive and finite, or that does not fit the others.
    """

    name: str
    latency_ms: float
    round_latencies_ms: tuple[float, ...]
    minimum_ms: float
    energy_mj: float | None = None

    def __post_init__(self) -> None:
        energy = () if self.energy_mj is None else (self.energy_mj,)
        for value in (self.latency_ms, *self.round_latencies_ms, self.minimum_ms, *energy):
            if not 0 < value < math.inf:
                raise ValueError(f"{self.name}: {value} is not positive and finite")
        if len(self.round_latencies_ms) < 2 or self.latency_ms != min(self.round_latencies_ms):
            raise ValueError(f"{self.name}: latency_ms is not the least of two rounds or more")


@dataclass(frozen=True, kw_only=True)
class RefusedNet:
    """A net that the runtime does not run."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class MeasureProgress:
    """Where a measurement is.

    Attributes:
        text: for people.
        finished_nets: kept ones included.
        total_nets: asked for.
        share: of the work, from 0 to 1; nets finish all at once at the end of a group.
    """

    text: str
    finished_nets: int
    total_nets: int
    share: float


@dataclass(frozen=True, kw_only=True)
class MeasureReport:
    """Measured nets and under what conditions.

    Attributes:
        nets: in the order in which they were given.
        refused: nets that the runtime does not run.
        noise_floor_percent: median over the nets of how far two halves of the rounds differ.
        drift_percent: how far the anchor net differed between groups of nets; None when it was
            measured once.
        device: the board or GPU, or the processor where that is all there is to say.
        cpu_features: instruction sets that matter, as the kernel names them.
        power_mode: of a Jetson, else the governor of the clock, else None.
        energy_boundary: what ``energy_mj`` is drawn by; None where there is no energy.
        kept_nets: how many of ``nets`` come from an earlier run in the same work folder.
        warnings: what to know before the figures are used; one line each.
    """

    nets: tuple[MeasuredNet, ...]
    refused: tuple[RefusedNet, ...]
    noise_floor_percent: float
    drift_percent: float | None
    place: str
    runtime: Runner
    runtime_version: str
    device: str
    cpu: str
    cpu_features: tuple[str, ...]
    power_mode: str | None
    energy_boundary: Literal["board"] | None
    threads: int
    rounds: int
    runs: int
    date: datetime.date
    kept_nets: int
    warnings: tuple[str, ...]


def noise_floor_percent(rounds: Sequence[Sequence[float]]) -> float:
    """How well the figures repeat: two measurements with half of the rounds each, compared.

    Args:
        rounds: for each net the medians of its rounds, two at least.

    Returns:
        The median over the nets of ``|a - b| / mean(a, b)`` in percent, where a and b are the
        minima over the rounds of even and of odd number. Half of the rounds repeat less well
        than all do, but nets that differ have extra rounds until they do not, which flatters.

    Raises:
        ValueError: no nets, or a net with one round.
    """
    if not rounds or min(map(len, rounds)) < 2:
        raise ValueError("the noise floor takes nets with two rounds at least")
    halves = [(min(net[0::2]), min(net[1::2])) for net in rounds]
    return 100 * statistics.median(abs(a - b) / ((a + b) / 2) for a, b in halves)


def drift_percent(anchors: Sequence[float]) -> float | None:
    """How far the anchor's largest latency is above its least; None for fewer than two."""
    return None if len(anchors) < 2 else 100 * (max(anchors) / min(anchors) - 1)


def measure(
    files: Mapping[str, Path],
    place: Place,
    *,
    threads: int = 1,
    rounds: int | None = None,
    runs: int | None = None,
    runtime: Runner | None = None,
    precisions: tuple[Precision, ...] = (),
    time_limit_s: float | None = None,
    work_folder: Path | None = None,
    on_progress: Callable[[MeasureProgress], None] | None = None,
) -> MeasureReport:
    """Time ONNX files on a place.

    Args:
        files: the nets by name.
        place: see ``hwsearch.hardware.measure.places.parse_place``.
        threads: see ``MeasureJob``.
        rounds: None takes 20; 5 of ``trtexec``, which takes seconds to start for each. Nets that
            do not repeat have twice as many more (``trtexec``: as many).
        runs: None takes 5; 50 of ``trtexec``.
        runtime: None takes what the place has by default, ONNX Runtime.
        precisions: see ``MeasureJob``.
        time_limit_s: rounds are left out when it is over, all but the first 4 of each net.
        work_folder: finished nets are kept here; a net of the same content under the same
            conditions (settings, runtime version, device, power mode) is not measured again.
        on_progress: called at every finished round.

    Raises:
        UserError: no files, a file that is missing, or a setting out of range.
        HostError: the place cannot be reached, cannot run anything, or is too noisy (the kept
            results of these nets are dropped then).
    """
    if not files:
        raise UserError("no nets to measure; give ONNX files")
    runtime = place.default_runtime if runtime is None else runtime
    standard_rounds, standard_runs, extra_share = (5, 50, 1) if runtime == "trtexec" else (20, 5, 2)
    rounds = standard_rounds if rounds is None else rounds
    job = MeasureJob(
        runtime=runtime,
        threads=threads,
        rounds=rounds,
        extra_rounds=max(0, extra_share * rounds),
        runs=standard_runs if runs is None else runs,
        precisions=precisions,
    )
    hashes = {name: content_hash(path) for name, path in files.items()}
    kept = KeptResults(work_folder)
    measuring = _Measuring(files, place, job, kept, on_progress, time_limit_s)
    measuring.identify(hashes)
    measuring.run()
    return measuring.report()


def reach(place: Place, *, runtime: Runner | None = None, threads: int = 1) -> None:
    """Ask a place to answer, before anything long is done for it.

    Args:
        place: where nets are to be measured.
        runtime: None takes what the place has by default.
        threads: see ``MeasureJob``.

    Raises:
        HostError: it cannot be reached, or lacks what its runtime needs.
    """
    _answer(place, MeasureJob(runtime=runtime or place.default_runtime, threads=threads))


def _answer(place: Place, job: MeasureJob) -> Event:
    """What a place says of itself."""
    found: Event = {}
    with contextlib.closing(place.run(_payload(job, "probe", None), {})) as events:
        for event in events:
            if event["event"] == "start":
                found = event
    if not found:
        raise HostError(
            f"{place.name}: nothing answered; it must allow commands to be run over ssh"
        )
    return found


def _payload(
    job: MeasureJob, mode: Literal["probe", "measure"], time_limit_s: float | None
) -> dict[str, object]:
    limit = {"time_limit_s": time_limit_s}  # no condition of a result
    return {**asdict(job), **limit, "mode": mode, "anchor": None}


class _Measuring:
    """The state of one call of ``measure``."""

    def __init__(
        self,
        files: Mapping[str, Path],
        place: Place,
        job: MeasureJob,
        kept: KeptResults,
        on_progress: Callable[[MeasureProgress], None] | None,
        time_limit_s: float | None,
    ) -> None:
        self.files, self.place, self.job, self.kept = files, place, job, kept
        self.on_progress, self.time_limit_s = on_progress, time_limit_s
        self.seen_rounds = 0
        self.start: Event = {}
        self.keys: dict[str, str] = {}
        self.finished: dict[str, MeasuredNet] = {}
        self.refused: dict[str, RefusedNet] = {}
        self.kept_nets = 0
        # One net of medium size (a tiny one is noise, a huge one is slow), the same in every run.
        by_size = sorted(files, key=lambda name: (files[name].stat().st_size, name))
        self.anchor = by_size[len(by_size) // 2]

    def identify(self, hashes: Mapping[str, str]) -> None:
        """Ask the place what it is, and find what was measured there before."""
        self.start = _answer(self.place, self.job)
        names = ("runtime_version", "device", "cpu", "power_mode")
        conditions = {
            **asdict(self.job),
            "place": self.place.name,
            **{name: self.start[name] for name in names},
        }
        for name, file_hash in hashes.items():
            self.keys[name] = result_key(file_hash, conditions)
            result = self.kept.get(self.keys[name], "net")
            if result is not None:
                self.finished[name] = _measured_net(name, result)
        self.kept_nets = len(self.finished)

    def run(self) -> None:
        """Measure what is not finished.

        Raises:
            HostError: it broke off; the message says what is kept.
        """
        todo = {name: path for name, path in self.files.items() if name not in self.finished}
        if not todo:
            return
        payload = {**_payload(self.job, "measure", self.time_limit_s), "anchor": self.anchor}
        if self.anchor not in todo:
            payload["only_anchor"] = [self.anchor]
            todo[self.anchor] = self.files[self.anchor]
        try:
            with contextlib.closing(self.place.run(payload, todo)) as events:
                for event in events:
                    self._take(event)
        except HostError as error:
            raise HostError(f"{error}{self._kept_hint()}") from None

    def report(self) -> MeasureReport:
        """The report.

        Raises:
            HostError: the runtime refuses every net, or the figures do not repeat.
        """
        nets = tuple(self.finished[name] for name in self.files if name in self.finished)
        if not nets:
            reason = next(iter(self.refused.values())).reason
            raise HostError(
                f"{self.place.name}: {self.job.runtime} {self.start['runtime_version']} runs none "
                f"of the {len(self.files)} nets ({reason}); export them for this version"
            )
        noise = noise_floor_percent([net.round_latencies_ms for net in nets])
        if noise > REFUSE_PERCENT:
            self.kept.forget(set(self.keys.values()))
            raise HostError(
                f"{self.place.name}: the times repeat to {noise:.0f} % only, more than "
                f"{REFUSE_PERCENT:.0f} % is refused; {_QUIETER}"
            )
        anchors = self.kept.all(self.keys[self.anchor], "anchor")
        drift = drift_percent([anchor["latency_ms"] for anchor in anchors])
        has_energy = any(net.energy_mj is not None for net in nets)
        return MeasureReport(
            nets=nets,
            refused=tuple(self.refused.values()),
            noise_floor_percent=noise,
            drift_percent=drift,
            place=self.place.name,
            runtime=self.job.runtime,
            runtime_version=self.start["runtime_version"],
            device=self.start["device"],
            cpu=self.start["cpu"],
            cpu_features=tuple(self.start["cpu_features"]),
            power_mode=self.start["power_mode"],
            energy_boundary="board" if has_energy else None,
            threads=self.job.threads,
            rounds=self.job.rounds,
            runs=self.job.runs,
            date=datetime.date.today(),
            kept_nets=self.kept_nets,
            warnings=tuple(self._warnings(noise, drift)),
        )

    def _warnings(self, noise: float, drift: float | None) -> list[str]:
        warnings = []
        if noise > WARN_PERCENT:
            warnings.append(f"the times repeat to {noise:.1f} % only; {_QUIETER}")
        if drift is not None and drift > WARN_PERCENT:
            warnings.append(f"the machine drifted by {drift:.1f} % meanwhile; {_QUIETER}")
        if self.refused:
            names = ", ".join(self.refused)
            warnings.append(f"{self.job.runtime} does not run {len(self.refused)} nets: {names}")
        if self.job.runtime == "onnxruntime-cuda" and not self.start["energy"]:
            warnings.append(f"no energy was measured: {self.start['no_energy']}")
        return warnings

    def _take(self, event: Event) -> None:
        kind = event["event"]
        if kind == "round":
            self.seen_rounds += 1
            text = f"{event['id']} round {event['round'] + 1}: {event['median_ms']:.3g} ms"
            self._progress(text)
        elif kind == "net":
            result = {name: value for name, value in event.items() if name not in ("event", "id")}
            self.finished[event["id"]] = _measured_net(event["id"], result)
            self.kept.add(self.keys[event["id"]], "net", result)
        elif kind == "anchor":
            self.kept.add(self.keys[self.anchor], "anchor", {"latency_ms": event["latency_ms"]})
        elif kind == "refused":
            name = event["id"]
            if name in self.finished:
                raise HostError(f"{name} was measured before and is refused now: {event['reason']}")
            self.refused[name] = RefusedNet(name=name, reason=event["reason"])
            self._progress(f"{name} is refused: {event['reason']}")
        elif kind not in ("start", "done"):
            raise HostError(f"the runner reported '{kind}', which this hwsearch does not know")

    def _progress(self, text: str) -> None:
        if self.on_progress is not None:
            self.on_progress(
                MeasureProgress(
                    text=text,
                    finished_nets=len(self.finished),
                    total_nets=len(self.files),
                    share=self._share(),
                )
            )

    def _share(self) -> float:
        """As if half of the extra rounds were needed, which is what was seen on a busy machine."""
        todo = max(1, len(self.files) - self.kept_nets)
        rounds = todo * (self.job.rounds + self.job.extra_rounds / 2)
        done = min(
            1.0, max(self.seen_rounds / rounds, (len(self.finished) - self.kept_nets) / todo)
        )
        return 1 - (1 - done) * todo / len(self.files)

    def _kept_hint(self) -> str:
        if self.kept.path is None:
            return ""
        return f"; {len(self.finished)} of {len(self.files)} nets are kept, run it again to go on"


def _measured_net(name: str, result: Mapping[str, Any]) -> MeasuredNet:
    try:
        return MeasuredNet(
            name=name,
            latency_ms=result["latency_ms"],
            round_latencies_ms=tuple(result["rounds_ms"]),
            minimum_ms=result["minimum_ms"],
            energy_mj=result["energy_mj"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise HostError(f"a result of {name} makes no sense ({error}); measure again") from None
