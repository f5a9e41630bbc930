"""The job of a trial: short fine-tuning, level by level, with a score after each.

Read this first: it is what the search spends its time on.
"""

import time
from collections.abc import Generator
from dataclasses import dataclass
from statistics import fmean

from torch import nn

from hwsearch.accuracy.ladder import advance, inherit, validation_score
from hwsearch.accuracy.training import Score
from hwsearch.space.candidate import Candidate
from hwsearch.study.candidates.training_context import Base, OnStep, TrainingContext
from hwsearch.study.jobs.report import Report


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score a candidate at one fidelity level after the other.

    The job pauses with a ``Score`` after each level and goes on where it is answered true.
    """

    base: Base
    candidate: Candidate


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long the parts of a trial took.

    Attributes:
        train_s: all of it.
        step_s: mean of an optimizer step; None if no two were taken in a row.
        score_s: mean of a scoring on the validation split.
    """

    train_s: float
    step_s: float | None
    score_s: float


def evaluate(
    job: Evaluate, context: TrainingContext, report: Report
) -> Generator[Score, bool, Pace]:
    """Run an ``Evaluate`` job.

    Raises:
        BackboneError: the network cannot be made, or its training diverges.
        HostError: the base network is gone.
        RuntimeError: torch cannot run the network.
    """
    begin_s = time.perf_counter()
    data, px, training = context.data, job.candidate.input_px, context.settings.space.training
    timer, scores_s = StepTimer(report.step), []

    def score(model: nn.Module) -> Score:
        start_s = time.perf_counter()
        found = validation_score(model, data, px)
        scores_s.append(time.perf_counter() - start_s)
        return found

    model = inherit(context.plan(job.candidate, job.base), data, batch_size=training.batch_size)
    goes_on = yield score(model)
    done = 0
    for level, steps in enumerate(training.rung_steps):
        if not goes_on:
            break
        recipe = context.recipe(job.base, steps - done, job.candidate.id, level)
        advance(model, data, px, recipe, on_step=timer.of_one_training())
        done = steps
        goes_on = yield score(model)
    return Pace(train_s=time.perf_counter() - begin_s, step_s=timer.mean_s, score_s=fmean(scores_s))


class StepTimer:
    """Times the steps of trainings, and hands on what it is told.

    Args:
        on_step: is called with each step.
    """

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._steps_s: list[float] = []

    @property
    def mean_s(self) -> float | None:
        """Seconds of a step; None if no two were taken in a row."""
        return fmean(self._steps_s) if self._steps_s else None

    def of_one_training(self) -> OnStep:
        """What is to be called with each step of one training.

        A step takes the time between two calls; what lies before the first one is none.
        """
        last_s: float | None = None

        def timed(done: int, total: int) -> None:
            nonlocal last_s
            now_s = time.perf_counter()
            if last_s is not None:
                self._steps_s.append(now_s - last_s)
            last_s = now_s
            self._on_step(done, total)

        return timed
