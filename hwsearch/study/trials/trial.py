"""One trial, from knobs to a record. Read this first: it is the whole tool in one screen."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from torch import nn

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.ladder import advance, inherit, validation_score
from hwsearch.accuracy.training import Recipe, Score
from hwsearch.errors import BackboneError
from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import Knobs
from hwsearch.study.asked.admission import admission
from hwsearch.study.asked.settings import derived_seed
from hwsearch.study.candidates.workbench import Workbench
from hwsearch.study.trials.promotion import Climb, stop_reason
from hwsearch.study.trials.records import Record


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a trial works with.

    Attributes:
        history: records of the trials before it.
        on_step: is called with each optimizer step.
    """

    number: int
    bench: Workbench
    history: Sequence[Record]
    on_step: Callable[[int, int], None]

    def run(self, knobs: Knobs) -> Record:
        """Evaluate knobs; a network whose training fails is recorded, not raised."""
        bench = self.bench
        cost, _ = bench.cheapest(knobs)
        bound = admission(cost, bench.settings.budgets, bench.settings.confidence)
        if not bound.admitted:
            return Record(
                trial=self.number, state="over_budget", knobs=knobs, candidate=None, cost=cost,
                probability=bound.probability, reason="even the smallest of this backbone",
            )  # fmt: skip
        candidate = bench.expand(knobs)
        cost = bench.price(candidate)
        admitted = admission(cost, bench.settings.budgets, bench.settings.confidence)
        record = Record(
            trial=self.number, state="completed", knobs=knobs, candidate=candidate, cost=cost,
            probability=admitted.probability,
        )  # fmt: skip
        original = self._same(candidate)
        if original is not None:
            return replace(
                record, state="duplicate", original=original.trial, scores=original.scores,
                reason=f"same network as trial {original.trial}",
            )  # fmt: skip
        if not admitted.admitted:
            return replace(record, state="over_budget", reason="predicted over the budget")
        start, pace = time.perf_counter(), Pace()
        with bench.timed("rungs"):
            try:
                record = self._climb(record, candidate, pace)
            except (BackboneError, RuntimeError) as error:
                reason = " ".join(str(error).split())[:300]
                record = replace(record, state="failed", scores=(), reason=reason)
        spent = time.perf_counter() - start
        return replace(record, train_s=spent, step_s=pace.step_s, score_s=pace.score_s)

    def _climb(self, record: Record, candidate: Candidate, pace: "Pace") -> Record:
        """Go up the ladder until a rung shows that others are better."""
        count = len(self.bench.settings.space.training.rung_steps) + 1
        others = [self._climbed(r) for r in self.history if r.cost and r.state != "duplicate"]
        for score in rungs(candidate, self.bench, pace, self.on_step):
            record = replace(record, scores=(*record.scores, score))
            if len(record.scores) == count:
                break
            reason = stop_reason(self._climbed(record), others, count)
            if reason is not None:
                return replace(record, state="stopped", reason=reason)
        return record

    def _climbed(self, record: Record) -> Climb:
        assert record.cost is not None
        costs = self.bench.values(record.cost)
        return Climb(trial=record.trial, costs=costs, scores=record.scores)

    def _same(self, candidate: Candidate) -> Record | None:
        return next(
            (
                record
                for record in self.history
                if record.candidate is not None
                and record.candidate.id == candidate.id
                and record.state not in {"duplicate", "failed"}
            ),
            None,
        )


def rungs(
    candidate: Candidate,
    bench: Workbench,
    pace: "Pace",
    on_step: Callable[[int, int], None],
) -> Iterator[Score]:
    """Scores of a candidate from the lowest rung up; a rung is trained when it is asked for."""
    training = bench.settings.space.training
    data, px = bench.data, candidate.input_px
    model = inherit(bench.plan(candidate), data, batch_size=training.batch_size)
    yield pace.timed_score(model, data, px)
    done = 0
    for rung, steps in enumerate(training.rung_steps):
        recipe = Recipe(
            steps=steps - done,
            batch_size=training.batch_size,
            learning_rate=bench.fine_tuning_rate(candidate),
            seed=derived_seed(bench.settings.seed, candidate.id, rung),
        )
        advance(model, data, px, recipe, on_step=pace.timing(on_step))
        done = steps
        yield pace.timed_score(model, data, px)


class Pace:
    """How long the parts of a trial take, in the mean."""

    def __init__(self) -> None:
        self._steps_s: list[float] = []
        self._scores_s: list[float] = []

    @property
    def step_s(self) -> float | None:
        """Seconds of an optimizer step; None if no two were taken in a row."""
        return fmean(self._steps_s) if self._steps_s else None

    @property
    def score_s(self) -> float | None:
        """Seconds of a scoring; None if there was none."""
        return fmean(self._scores_s) if self._scores_s else None

    def timed_score(self, model: nn.Module, data: DataSet, px: int) -> Score:
        """Score a network on the validation split."""
        start = time.perf_counter()
        score = validation_score(model, data, px)
        self._scores_s.append(time.perf_counter() - start)
        return score

    def timing(self, on_step: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """What is to be called with each step of one training: it hands on what it is told.

        A step takes the time between two calls; what lies before the first one is none.
        """
        last: float | None = None

        def timed(done: int, total: int) -> None:
            nonlocal last
            now = time.perf_counter()
            if last is not None:
                self._steps_s.append(now - last)
            last = now
            on_step(done, total)

        return timed
