"""What full fine-tuning and what follows are expected to take, from what trials took."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from hwsearch.hardware.targets import HOST_TARGET
from hwsearch.space.candidate import Candidate
from hwsearch.study.candidates.workbench import Workbench
from hwsearch.study.finals.finalists import MOST_FINALISTS, baseline_candidates, by_gain, finalists
from hwsearch.study.trials.records import Record

#: On what finalization is expected to take: other programs come and go, and a limit of 20 minutes
#: was overrun by 15 s of 230 s without it.
MARGIN: Final = 1.15
#: What starting the process that scores the files takes, and exporting and scoring a file of a
#: small network: 10 files took 2.8 s together on a busy core.
SHIP_START_S: Final = 4.0
_SHIP_S: Final = 0.5
#: The same of a file that is timed as well, since this machine is the target, until this run has
#: timed files itself; and inferences that its timing takes, with half of the extra rounds.
_SHIP_TIMED_S: Final = 2.5
_TIMED_RUNS: Final = 240


def finalization_s(
    records: Sequence[Record],
    bench: Workbench,
    done: Collection[str] = (),
    room_s: float = math.inf,
    *,
    known: Callable[[Candidate], bool] = lambda _: False,
) -> float:
    """Seconds to keep for finalization, export and verification if the search ends now.

    From what the trials so far took: the time of an optimizer step is multiplied by the steps of
    full fine-tuning, that of a scoring by its pictures, and the rest comes once. A baseline takes
    what the largest network of its backbone took, more by as much as it has more MACs: the time
    grows by no more than those. One more finalist is allowed for, which the next trial may bring.

    Args:
        records: of all trials so far.
        bench: of the run.
        done: ids of networks that were finalized before; they are only verified again.
        room_s: no more than this is kept, but for what is needed: the most accurate finalist and
            the baselines of its backbone.
        known: whether a baseline need not be fine-tuned, since an earlier run did that.
    """
    chosen = finalists(records, bench)
    if not chosen:
        return 0.0
    best = by_gain(chosen, bench)[0]
    whole = [_network_s(record, record.candidate, 1.0, bench) for record in chosen]
    times = [
        _verified_s(record, bench)
        if record.candidate is not None and record.candidate.id in done
        else seconds
        for record, seconds in zip(chosen, whole, strict=True)
    ]
    needed_s = times[chosen.index(best)]
    if done or len(chosen) < MOST_FINALISTS:
        times.append(max(whole))
    own = {record.candidate.id for record in chosen if record.candidate is not None}
    for _, candidate in baseline_candidates(chosen, bench):
        if candidate.id in own:
            continue
        largest, factor = _like(candidate, records, bench)
        times.append(
            _verified_s(largest, bench)
            if candidate.id in done or known(candidate)
            else _network_s(largest, candidate, factor, bench)
        )
        if candidate.backbone == best.knobs.backbone:
            needed_s += times[-1]
    every_s, least_s = (SHIP_START_S + MARGIN * seconds for seconds in (sum(times), needed_s))
    return max(least_s, min(every_s, room_s))


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What networks take, as far as trials tell.

    Attributes:
        tuning_s: seconds of full fine-tuning and scoring, by candidate id.
        scoring_s: of scoring one on held-out pictures, in the mean.
    """

    tuning_s: Mapping[str, float]
    scoring_s: float


def expected_times(
    records: Sequence[Record],
    chosen: Sequence[Record],
    baselines: Sequence[Candidate],
    bench: Workbench,
) -> Expected:
    """What finalists and baselines will take.

    Args:
        records: of all trials.
        chosen: those that are finalists; at least one.
        baselines: of their backbones.
        bench: of the run.
    """
    expected = {}
    for candidate in baselines:
        largest, factor = _like(candidate, records, bench)
        expected[candidate.id] = factor * _tuned_s(largest, candidate, bench)
    for record in chosen:
        if record.candidate is not None:
            expected[record.candidate.id] = _tuned_s(record, record.candidate, bench)
    scoring_s = fmean(_held_out_s(record, bench) for record in chosen)
    return Expected(tuning_s=expected, scoring_s=scoring_s)


def _like(baseline: Candidate, records: Sequence[Record], bench: Workbench) -> tuple[Record, float]:
    """The largest completed trial of a baseline's backbone, and how much longer that one takes."""
    same = [r for r in records if r.state == "completed" and r.knobs.backbone == baseline.backbone]
    largest = max(same, key=_macs)
    return largest, max(1.0, bench.describe(baseline).macs / _macs(largest))


def _network_s(
    record: Record, candidate: Candidate | None, factor: float, bench: Workbench
) -> float:
    """Seconds that a network takes until its file is verified.

    Args:
        record: of a completed trial.
        candidate: of the trial, or another one of its backbone.
        factor: by which that one takes longer.
        bench: of the run.
    """
    return factor * (_tuned_s(record, candidate, bench) + _verified_s(record, bench))


def _tuned_s(record: Record, candidate: Candidate | None, bench: Workbench) -> float:
    """The same until it is scored."""
    training = bench.settings.space.training
    last, scorings = training.rung_steps[-1], len(training.rung_steps) + 1
    # Finding where outputs are rounded, and moving biases, takes what an export check takes.
    found_s = bench.export_s if _rounds(candidate, bench) else 0.0
    if record.step_s is None or record.score_s is None:  # as if a trial were made of steps alone
        return found_s + record.train_s * max(1.0, bench.final_steps / last)
    # It is made and settled no more often than in a trial.
    rest = max(0.0, record.train_s - record.step_s * last - record.score_s * scorings)
    tuned = record.step_s * bench.final_steps + rest + record.score_s + _held_out_s(record, bench)
    return found_s + tuned


def _rounds(candidate: Candidate | None, bench: Workbench) -> bool:
    """Whether outputs of a network are rounded in its file."""
    if candidate is None or bench.fusion is None:
        return False
    bits = candidate.layer_bits.values()
    return any(max(one.weight_bits, one.activation_bits) <= 8 for one in bits)


def _verified_s(record: Record, bench: Workbench) -> float:
    """Seconds that the file takes: scoring it is no slower than fake quantization in torch is."""
    assert record.cost is not None
    return ship_s(record.cost.latency_ms.value, bench) + _held_out_s(record, bench)


def _held_out_s(record: Record, bench: Workbench) -> float:
    pictures = len(bench.data.test) / len(bench.data.validation)
    return (record.score_s or 0.0) * pictures


def ship_s(latency_ms: float, bench: Workbench) -> float:
    """Seconds that the file of a network takes, without being scored."""
    if bench.profile.name != HOST_TARGET:
        return bench.export_s + _SHIP_S
    if bench.ship_s is not None:
        return bench.ship_s
    return bench.export_s + _SHIP_TIMED_S + _TIMED_RUNS * latency_ms / 1e3


def _macs(record: Record) -> int:
    assert record.cost is not None
    return record.cost.macs
