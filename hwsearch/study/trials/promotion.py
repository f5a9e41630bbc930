"""Who goes on to the next rung of the ladder, and why others do not.

A trial goes on while its score so far leaves it a chance to be more accurate, at the top of the
short ladder, than every trial that costs no more. What a rung foretells of the top is learned from
the trials that reached it (``hwsearch.sampler.fidelity``). Of 1,458 networks trained on pictures of
CIFAR-10 (``benchmarks/search/joint_truth.py``) the score without a step foretells the one after 40
steps within 2.4 points (standard deviation), after 12 steps within 1.6, which is the noise of a
score on 750 pictures; before anything is learned, only what lies far behind is stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hwsearch.accuracy.training import Score
from hwsearch.sampler.fidelity import Line

#: A trial that has less of a chance is stopped.
_LEAST_CHANCE: Final = 0.05
#: Accuracy that a rung's score may still gain on a rival's while nothing was learned: heavily
#: pruned networks start anywhere; on digits some went from 9 % at rung 0 over 80 % after 12 steps
#: to 96 % after 40.
_SLACK: Final = (0.5, 0.1)


@dataclass(frozen=True, kw_only=True)
class Climb:
    """How far a trial came on the ladder.

    Attributes:
        trial: its number.
        costs: known before it, all going down.
        scores: one for each rung that it reached.
    """

    trial: int
    costs: tuple[float, ...]
    scores: tuple[Score, ...]


def stop_reason(climb: Climb, others: Sequence[Climb], rungs: int) -> str | None:
    """Why a trial is not worth its next rung; None if it is.

    Args:
        climb: a trial that has at least one score, and not that of the top.
        others: the trials before it.
        rungs: of the whole ladder.

    Returns:
        One clause for the record.
    """
    rung, score = len(climb.scores) - 1, climb.scores[-1]
    cheaper = [
        other
        for other in others
        if all(a <= b for a, b in zip(other.costs, climb.costs, strict=True))
    ]
    top = [other for other in others if len(other.scores) == rungs]
    line = Line.fit(
        [other.scores[rung].accuracy for other in top],
        [other.scores[-1].accuracy for other in top],
        least_residual=score.standard_error,
    )
    if line is None:
        return _far_behind(score, rung, cheaper)
    rivals = [other for other in cheaper if len(other.scores) == rungs]
    if not rivals:
        return None
    best = max(rivals, key=lambda other: other.scores[-1].accuracy)
    forecast = line.foretell(score.accuracy)
    if forecast.probability_above(best.scores[-1].accuracy) >= _LEAST_CHANCE:
        return None
    return (
        f"stopped at rung {rung}: expected to reach {100 * forecast.mean:.1f} %, and trial "
        f"{best.trial} is cheaper and has {100 * best.scores[-1].accuracy:.1f} %"
    )


def _far_behind(score: Score, rung: int, cheaper: Sequence[Climb]) -> str | None:
    for other in cheaper:
        if len(other.scores) <= rung:
            continue
        theirs = other.scores[rung]
        margin = _SLACK[min(rung, len(_SLACK) - 1)]
        margin += (score.standard_error**2 + theirs.standard_error**2) ** 0.5
        if theirs.accuracy >= score.accuracy + margin:
            return f"stopped at rung {rung}: trial {other.trial} is cheaper and more accurate"
    return None
