"""How the time that a limit leaves after the search is shared among the finalists."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from hwsearch.hardware.targets import HOST_TARGET
from hwsearch.space.candidate import Candidate
from hwsearch.study.asked.effort import LEAST_FINAL_PASSES, LEAST_FINALISTS
from hwsearch.study.candidates.workbench import FIXED_MACS, Workbench
from hwsearch.study.trials.records import Record

#: What starting the process that scores the files takes, and exporting and scoring a file of a
#: small network: 10 files took 2.8 s together on a busy core.
SHIP_START_S: Final = 4.0
_SHIP_S: Final = 0.5
#: The same of a file that is timed as well, since this machine is the target, until this run has
#: timed files itself (10 files took 6.7 s in all on a busy core); and inferences that its timing
#: takes, with half of the extra rounds.
_SHIP_TIMED_S: Final = 0.8
_TIMED_RUNS: Final = 240
_SHORTEST_S: Final = 1e-9


@dataclass(frozen=True, kw_only=True)
class TuningTimes:
    """What networks take, as far as trials tell.

    Attributes:
        step_s: seconds of an optimizer step, by candidate id.
        settle_s: of making, settling and rounding a network, by candidate id.
        validation_s: of scoring one on the validation split, by candidate id.
        file_score_s: of scoring its file on the held-out split, by candidate id.
    """

    step_s: Mapping[str, float]
    settle_s: Mapping[str, float]
    validation_s: Mapping[str, float]
    file_score_s: Mapping[str, float]

    @classmethod
    def of(cls, records: Sequence[Record], bench: Workbench) -> "TuningTimes":
        """From completed trials; what one of them did not time goes by its MACs."""
        pictures = len(bench.data.test) / len(bench.data.validation)
        efforts = {record.trial: _effort(record) for record in records}
        timed = [record for record in records if record.step_s is not None]
        per_effort = fmean([(one.step_s or 0.0) / efforts[one.trial] for one in timed] or [0.0])
        steps, settling, validation, files = {}, {}, {}, {}
        for record in records:
            if record.candidate is None:
                continue
            key = record.candidate.id
            steps[key] = record.step_s or per_effort * efforts[record.trial] or record.train_s
            scored = len(record.scores) * (record.score_s or 0.0)
            trained = bench.settings.space.training.rung_steps[-1] * (record.step_s or 0.0)
            settling[key] = max(0.0, record.train_s - trained - scored) + bench.export_s
            validation[key] = record.score_s or 0.0
            files[key] = pictures * validation[key]
        return cls(step_s=steps, settle_s=settling, validation_s=validation, file_score_s=files)


class FinalTime:
    """Shares out what a time limit leaves.

    Args:
        left_s: seconds that are left of the limit.
        times: of the finalists.
        bench: of the run.
        files: networks whose files are still to be made, scored and timed.
    """

    def __init__(
        self,
        left_s: Callable[[], float],
        times: TuningTimes,
        bench: Workbench,
        files: Sequence[Candidate],
    ) -> None:
        self._left_s, self._times, self._bench = left_s, times, bench
        self._ship_s = SHIP_START_S + sum(
            ship_s(bench.price(one).latency_ms.value, bench)
            + fmean(list(times.file_score_s.values()) or [0.0])
            for one in files
        )

    def affordable(self, ordered: Sequence[Candidate]) -> tuple[list[Candidate], float]:
        """The finalists that can be trained to the end, and the passes that each gets.

        Args:
            ordered: those that add the most first.
        """
        training = self._bench.settings.space.training
        steps_per_pass = max(1.0, len(self._bench.data.train) / training.batch_size)
        kept = list(ordered)
        while True:
            passes = self._free_s(kept) / (self._all_steps_s(kept) * steps_per_pass)
            if passes >= LEAST_FINAL_PASSES or len(kept) <= LEAST_FINALISTS:
                return kept, max(0.0, passes)
            kept.pop()

    def seconds_for(self, rest: Sequence[Candidate]) -> float:
        """Seconds of training for the first of those that are still to be trained.

        All get as many steps; what one leaves goes to the others.
        """
        share = self._times.step_s[rest[0].id] / self._all_steps_s(rest)
        return max(0.0, self._free_s(rest) * share)

    def _free_s(self, rest: Sequence[Candidate]) -> float:
        around = sum(
            self._times.settle_s[one.id] + self._times.validation_s[one.id] for one in rest
        )
        return self._left_s() - self._ship_s - around

    def _all_steps_s(self, rest: Sequence[Candidate]) -> float:
        # Steps may be too short for the clock to see.
        return max(_SHORTEST_S, sum(self._times.step_s[one.id] for one in rest))


def expected_s(chosen: Sequence[Record], bench: Workbench) -> float:
    """Seconds that finalists and their files will take where no clock decides."""
    times = TuningTimes.of(chosen, bench)
    total_s = SHIP_START_S
    for record in chosen:
        if record.candidate is not None and record.cost is not None:
            key = record.candidate.id
            total_s += times.step_s[key] * bench.final_steps + times.settle_s[key]
            total_s += times.validation_s[key] + times.file_score_s[key]
            total_s += ship_s(record.cost.latency_ms.value, bench)
    return total_s


def ship_s(latency_ms: float, bench: Workbench) -> float:
    """Seconds that the file of a network takes, without being scored."""
    if bench.profile.name != HOST_TARGET:
        return bench.export_s + _SHIP_S
    if bench.ship_s is not None:
        return bench.ship_s
    return bench.export_s + _SHIP_TIMED_S + _TIMED_RUNS * latency_ms / 1e3


def _effort(record: Record) -> float:
    assert record.cost is not None
    return record.cost.macs + FIXED_MACS
