"""How the time that a limit leaves after the search is shared among the finalists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from hwsearch.hardware.targets import HOST_TARGET
from hwsearch.space.candidate import Candidate
from hwsearch.study.asked.effort import (
    FEW_FINALISTS,
    GOOD_FINAL_PASSES,
    LEAST_FINAL_PASSES,
    LEAST_FINALISTS,
)
from hwsearch.study.candidates.pricing_context import FIXED_MACS, PricingContext
from hwsearch.study.candidates.training_context import TrainingContext
from hwsearch.study.clock import EXPORT, SHIP, Clock
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
    def of(
        cls, records: Sequence[Record], training: TrainingContext, clock: Clock
    ) -> "TuningTimes":
        """From completed trials; what one of them did not time goes by its MACs."""
        data, levels = training.data, training.settings.space.training.rung_steps
        pictures = len(data.test) / len(data.validation)
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
            trained = levels[-1] * (record.step_s or 0.0)
            settling[key] = max(0.0, record.train_s - trained - scored) + _export_s(clock)
            validation[key] = record.score_s or 0.0
            files[key] = pictures * validation[key]
        return cls(step_s=steps, settle_s=settling, validation_s=validation, file_score_s=files)


class FinalTime:
    """Shares out what a time limit leaves.

    Networks are trained in as many lanes as there are slots, one after the other in each.

    Args:
        clock: of the run, which has a limit.
        times: of the finalists.
        pricing: of the run.
        training: of the run.
        files: networks whose files are still to be made, scored and timed.
        slots: networks that are trained side by side.
    """

    def __init__(
        self,
        clock: Clock,
        times: TuningTimes,
        pricing: PricingContext,
        training: TrainingContext,
        files: Sequence[Candidate],
        slots: int,
    ) -> None:
        self._clock, self._times, self._slots = clock, times, slots
        self._steps_per_pass = max(1.0, 1 / training.passes(1))
        self._ship_s = SHIP_START_S + sum(
            ship_s(pricing.price(one).latency_ms.value, pricing, clock)
            + fmean(list(times.file_score_s.values()) or [0.0])
            for one in files
        )

    def affordable(self, ordered: Sequence[Candidate]) -> tuple[list[Candidate], float]:
        """The finalists that can be trained to the end, and the passes that each gets.

        Args:
            ordered: those that add the most first.
        """
        kept = list(ordered)
        while True:
            slots = min(self._slots, len(kept))
            free_s = slots * self._free_s() - self._around_s(kept)
            passes = free_s / (self._all_steps_s(kept) * self._steps_per_pass)
            enough = GOOD_FINAL_PASSES if len(kept) > FEW_FINALISTS else LEAST_FINAL_PASSES
            if passes >= enough or len(kept) <= LEAST_FINALISTS:
                return kept, max(0.0, passes)
            kept.pop()

    def lanes(self, candidates: Sequence[Candidate]) -> list[list[Candidate]]:
        """Shares networks out so that all lanes take about as long; order is kept in each."""
        lanes: list[list[Candidate]] = [[] for _ in range(min(self._slots, len(candidates)))]
        for one in sorted(candidates, key=lambda one: -self._times.step_s[one.id]):
            min(lanes, key=self._all_steps_s).append(one)
        place = {one.id: at for at, one in enumerate(candidates)}
        return [sorted(lane, key=lambda one: place[one.id]) for lane in lanes]

    def seconds_for(self, lane: Sequence[Candidate]) -> float:
        """Seconds of training for the first of those that are still to be trained in a lane.

        All of a lane get as many steps; what one leaves goes to the others.
        """
        share = self._times.step_s[lane[0].id] / self._all_steps_s(lane)
        return max(0.0, (self._free_s() - self._around_s(lane)) * share)

    def _free_s(self) -> float:
        left_s = self._clock.left_s
        assert left_s is not None
        return left_s - self._ship_s

    def _around_s(self, networks: Sequence[Candidate]) -> float:
        return sum(
            self._times.settle_s[one.id] + self._times.validation_s[one.id] for one in networks
        )

    def _all_steps_s(self, networks: Sequence[Candidate]) -> float:
        # Steps may be too short for the clock to see.
        return max(_SHORTEST_S, sum(self._times.step_s[one.id] for one in networks))


def expected_s(
    chosen: Sequence[Record],
    pricing: PricingContext,
    training: TrainingContext,
    clock: Clock,
    slots: int,
) -> float:
    """Seconds that finalists and their files will take where no clock decides."""
    times = TuningTimes.of(chosen, training, clock)
    training_s, files_s = 0.0, SHIP_START_S
    for record in chosen:
        if record.candidate is not None and record.cost is not None:
            key = record.candidate.id
            training_s += times.step_s[key] * training.final_steps + times.settle_s[key]
            training_s += times.validation_s[key]
            files_s += times.file_score_s[key]
            files_s += ship_s(record.cost.latency_ms.value, pricing, clock)
    return training_s / max(1, min(slots, len(chosen))) + files_s


def ship_s(latency_ms: float, pricing: PricingContext, clock: Clock) -> float:
    """Seconds that the file of a network takes, without being scored."""
    if pricing.profile.name != HOST_TARGET:
        return _export_s(clock) + _SHIP_S
    known_s = clock.mean_s(SHIP)
    if known_s is not None:
        return known_s
    return _export_s(clock) + _SHIP_TIMED_S + _TIMED_RUNS * latency_ms / 1e3


def _export_s(clock: Clock) -> float:
    """What an export took when backbones were examined; 0 if none was."""
    return clock.mean_s(EXPORT) or 0.0


def _effort(record: Record) -> float:
    assert record.cost is not None
    return record.cost.macs + FIXED_MACS
