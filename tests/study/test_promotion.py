from collections.abc import Sequence

import numpy as np
import pytest

from hwsearch.accuracy.training import Score
from hwsearch.study.trials.promotion import Climb, stop_reason

RUNGS = 3


def climb(trial: int, cost: float, *percent: float) -> Climb:
    scores = tuple(Score(correct=round(10 * one), total=1000) for one in percent)
    return Climb(trial=trial, costs=(cost,), scores=scores)


def learned(noise: float = 0.5) -> list[Climb]:
    """Trials up to the top; each point at rung 0 is half a point there, less or more."""
    generator = np.random.default_rng(0)
    low = np.linspace(20, 50, 12)
    high = 30 + low / 2 + generator.normal(0, noise, len(low))
    return [
        climb(at, 1.0 + at, first, (first + last) / 2, last)
        for at, (first, last) in enumerate(zip(low, high, strict=True))
    ]


def test_a_trial_that_cannot_reach_a_cheaper_one_is_stopped_and_says_why() -> None:
    others = learned()
    reason = stop_reason(climb(20, 30.0, 25.0), others, RUNGS)
    assert reason is not None
    best = 100 * others[-1].scores[-1].accuracy
    assert reason.startswith("stopped at rung 0: expected to reach 42.")
    assert reason.endswith(f"trial 11 is cheaper and has {best:.1f} %")
    assert stop_reason(climb(20, 30.0, 25.0, 34.0), others, RUNGS) is not None


@pytest.mark.parametrize(
    ("cost", "percent"),
    [(0.5, (20.0,)), (30.0, (50.0,)), (30.0, (47.0,)), (2.5, (24.0,))],
    ids=["cheaper than all", "as good as the best", "within the noise", "best at its cost"],
)
def test_a_trial_that_has_a_chance_goes_on(cost: float, percent: Sequence[float]) -> None:
    assert stop_reason(climb(20, cost, *percent), learned(), RUNGS) is None


def test_the_less_a_rung_foretells_the_more_go_on() -> None:
    trial = climb(20, 30.0, 36.0)
    assert stop_reason(trial, learned(noise=0.5), RUNGS) is not None
    assert stop_reason(trial, learned(noise=8.0), RUNGS) is None


def test_rivals_cost_no_more_in_any_cost() -> None:
    others = [
        Climb(trial=one.trial, costs=(one.costs[0], 10.0), scores=one.scores) for one in learned()
    ]
    poor = climb(20, 30.0, 25.0).scores
    assert stop_reason(Climb(trial=20, costs=(30.0, 9.0), scores=poor), others, RUNGS) is None
    assert stop_reason(Climb(trial=20, costs=(30.0, 10.0), scores=poor), others, RUNGS) is not None


def test_before_anything_is_learned_only_what_is_far_behind_is_stopped() -> None:
    rival = climb(3, 1.0, 90.0, 95.0, 96.0)
    reason = "stopped at rung 0: trial 3 is cheaper and more accurate"
    assert stop_reason(climb(4, 2.0, 30.0), [rival], RUNGS) == reason
    assert stop_reason(climb(4, 2.0, 42.0), [rival], RUNGS) is None
    assert stop_reason(climb(4, 2.0, 42.0, 80.0), [rival], RUNGS) == reason.replace("0:", "1:")
    assert stop_reason(climb(4, 0.5, 30.0), [rival], RUNGS) is None
    # One that was itself stopped below is no rival here.
    assert stop_reason(climb(4, 2.0, 42.0, 50.0), [climb(3, 1.0, 90.0)], RUNGS) is None


def test_how_many_good_trials_are_stopped_is_what_was_promised() -> None:
    """Of trials that come out just above the best cheaper one, about a twentieth is stopped."""
    generator = np.random.default_rng(2)
    stopped = 0
    for _ in range(400):
        low = generator.uniform(20, 50, 12)
        high = 30 + low / 2 + generator.normal(0, 4, 12)
        others = [
            climb(at, 1.0, first, last, last)
            for at, (first, last) in enumerate(zip(low, high, strict=True))
        ]
        best = max(one.scores[-1].accuracy for one in others)
        # Its top score is the best; so its low score is what goes with that, give or take.
        first = 2 * (100 * best - 30 - generator.normal(0, 4))
        stopped += stop_reason(climb(20, 2.0, min(first, 100.0)), others, RUNGS) is not None
    assert stopped / 400 < 0.1
