import itertools

import pytest
from study_fixtures import make_bench, make_cost, make_knobs, make_record
from tiny_network import OWN

from hwsearch.accuracy.training import Score
from hwsearch.study.asked.effort import MOST_FINALISTS, Effort
from hwsearch.study.finals.finalists import baseline_candidates, by_gain, finalists
from hwsearch.study.trials.records import Record


def point(trial: int, right: int, latency_ms: float, *, state: str = "completed") -> Record:
    scores = (Score(correct=right, total=100),)
    cost = make_cost(latency_ms)
    return make_record(trial, state, scores=scores, cost=cost)  # type: ignore[arg-type]


def test_finalists_when_the_front_is_small_adds_the_next_layers() -> None:
    front = [point(n, 50 + n, 1.0 + n) for n in range(3)]
    behind = [point(10 + n, 40 + n, 1.0 + n) for n in range(3)]
    far = [point(20 + n, 20 + n, 1.0 + n) for n in range(3)]
    farther = [point(30 + n, 10 + n, 1.0 + n) for n in range(3)]
    last = [point(40 + n, 1 + n, 1.0 + n) for n in range(3)]
    pricing = make_bench(effort="thorough").pricing
    chosen = finalists([*last, *farther, *far, *behind, *front], pricing)
    assert [r.trial for r in chosen] == [10 * layer + n for layer in range(4) for n in range(3)]


def test_finalists_when_the_front_is_long_keeps_both_ends() -> None:
    chosen = finalists([point(n, 10 + n, 1.0 + n) for n in range(30)], make_bench().pricing)
    assert len(chosen) == 8
    assert (chosen[0].trial, chosen[-1].trial) == (0, 29)


def test_finalists_when_trials_did_not_complete() -> None:
    states = ("stopped", "duplicate", "over_budget", "failed")
    records = [point(n, 90, 0.1, state=state) for n, state in enumerate(states)]
    assert finalists(records, make_bench().pricing) == []
    assert [r.trial for r in finalists([*records, point(9, 1, 9.0)], make_bench().pricing)] == [9]


@pytest.mark.parametrize(("effort", "most"), [("quick", 4), ("standard", 8), ("thorough", 12)])
def test_finalists_when_there_are_many_are_as_many_as_the_effort_says(
    effort: Effort, most: int
) -> None:
    records = [point(n, 10 + n, 1.0 + n) for n in range(30)]
    assert len(finalists(records, make_bench(effort=effort).pricing)) == most
    assert len(finalists(records, make_bench(time_limit_s=60.0).pricing)) == MOST_FINALISTS


def test_baselines_when_sizes_tie_take_the_smaller() -> None:
    records = [make_record(n, knobs=make_knobs(input_px=px)) for n, px in enumerate((24, 16))]
    found = baseline_candidates(records, make_bench().pricing)
    assert [(label, c.backbone, c.input_px) for label, c in found] == [
        ("dense-fp32", OWN, 16),
        ("uniform-int8", OWN, 16),
    ]


def volume(points: list[tuple[int, int]], highest: int) -> float:
    """In octaves x pictures, counted octave by octave; costs are powers of two."""
    return sum(
        max((right for power, right in points if power <= octave), default=0)
        for octave in range(highest)
    )


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_each_next_finalist_adds_the_most_to_the_front(order: tuple[int, ...]) -> None:
    # Latency in powers of two, and right answers above guessing, of which 0 counts nothing.
    points = [(0, 10), (3, 40), (5, 45), (6, 44)]
    pricing = make_bench().pricing
    guessed = round(300 / pricing.backbones.classes)
    records = [
        make_record(
            trial, scores=(Score(correct=guessed + right, total=300),), cost=make_cost(2.0**power)
        )
        for trial, (power, right) in enumerate(points)
    ]
    found = [record.trial for record in by_gain([records[at] for at in order], pricing)]
    assert found[0] == 2, "the most accurate"
    for done in range(1, len(points)):
        taken, left = found[:done], found[done:]
        volumes = [volume([points[at] for at in (*taken, trial)], 6) for trial in left]
        assert volumes[0] == max(volumes)


def test_equal_finalists_stay_in_the_order_of_their_trials() -> None:
    assert by_gain([], make_bench().pricing) == []
    records = [point(trial, 50, 1.0) for trial in (2, 0, 1)]
    assert [record.trial for record in by_gain(records, make_bench().pricing)] == [0, 1, 2]
