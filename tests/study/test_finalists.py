import itertools
from dataclasses import replace

import pytest
from study_fixtures import make_bench, make_candidate, make_cost, make_knobs, make_record
from tiny_network import OWN

from hwsearch.accuracy.training import Score
from hwsearch.bits import FP32, INT8
from hwsearch.study.finals.finalists import (
    Planned,
    baseline_candidates,
    by_gain,
    finalists,
    plan,
    runners_up,
)
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
    chosen = finalists([*last, *farther, *far, *behind, *front], make_bench())
    assert [r.trial for r in chosen] == [10 * layer + n for layer in range(4) for n in range(3)]


def test_finalists_when_the_front_is_long_keeps_both_ends() -> None:
    chosen = finalists([point(n, 10 + n, 1.0 + n) for n in range(30)], make_bench())
    assert len(chosen) == 14
    assert (chosen[0].trial, chosen[-1].trial) == (0, 29)


def test_finalists_when_trials_did_not_complete() -> None:
    states = ("stopped", "duplicate", "over_budget", "failed")
    records = [point(n, 90, 0.1, state=state) for n, state in enumerate(states)]
    assert finalists(records, make_bench()) == []
    assert [r.trial for r in finalists([*records, point(9, 1, 9.0)], make_bench())] == [9]


def test_finalists_include_a_baseline_that_short_scores_would_leave_out() -> None:
    bench = make_bench()
    better = [point(n, 30 + n, 1.0 + n) for n in range(30)]
    int8 = bench.baseline(make_knobs(), INT8)
    behind = replace(point(40, 1, 50.0), candidate=int8)
    stopped = replace(point(41, 1, 50.0, state="stopped"), candidate=int8)
    chosen = finalists([*better, behind, stopped], bench)
    assert len(chosen) == 15
    assert chosen[-1] is behind


def contested(noise: int) -> tuple[list[Record], dict[str, Score]]:
    """Ten tuned networks, of which short scores say more or less, and four dearer ones behind them.

    Short scores of 45 to 90 % end at 61 to 72 %, give or take the noise; those behind are at 42 to
    51 %.
    """
    tuned: dict[str, Score] = {}
    records = []
    for at in range(14):
        percent = 45 + 5 * at if at < 10 else 42 + 3 * (at - 10)
        candidate = replace(make_candidate(), backbone=f"net{at}")
        short = Score(correct=10 * percent, total=1000)
        plain = point(at, percent, 1.0 + at)
        records.append(replace(plain, candidate=candidate, scores=(short,) * 3))
        if at < 10:
            full = 500 + 10 * (percent // 4 + (noise if at % 2 else -noise))
            tuned[candidate.id] = Score(correct=full, total=1000)
    return records, tuned


def test_runners_up_are_those_that_may_yet_be_better() -> None:
    records, tuned = contested(noise=1)
    assert runners_up(records, tuned, make_bench()) == []
    records, tuned = contested(noise=14)
    found = [record.trial for record in runners_up(records, tuned, make_bench())]
    assert found, "where short scores say little, others keep a chance"
    assert set(found) <= {10, 11, 12, 13}
    assert found == sorted(found)


def test_runners_up_without_anything_learned_are_the_best_few() -> None:
    records = [
        replace(
            point(at, 50 + at, 1.0 + at),
            candidate=replace(make_candidate(), backbone=f"net{at}"),
            scores=(Score(correct=50 + at, total=100),) * 3,
        )
        for at in range(20)
    ]
    found = runners_up(records, {}, make_bench())
    assert len(found) == 14
    assert 19 in [record.trial for record in found]


def test_baselines_when_sizes_tie_take_the_smaller() -> None:
    records = [make_record(n, knobs=make_knobs(input_px=px)) for n, px in enumerate((24, 16))]
    found = baseline_candidates(records, make_bench())
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
    bench = make_bench()
    guessed = round(300 / len(bench.data.class_names))
    records = [
        make_record(
            trial, scores=(Score(correct=guessed + right, total=300),), cost=make_cost(2.0**power)
        )
        for trial, (power, right) in enumerate(points)
    ]
    found = [record.trial for record in by_gain([records[at] for at in order], bench)]
    assert found[0] == 2, "the most accurate"
    for done in range(1, len(points)):
        taken, left = found[:done], found[done:]
        volumes = [volume([points[at] for at in (*taken, trial)], 6) for trial in left]
        assert volumes[0] == max(volumes)


def test_equal_finalists_stay_in_the_order_of_their_trials() -> None:
    assert by_gain([], make_bench()) == []
    records = [point(trial, 50, 1.0) for trial in (2, 0, 1)]
    assert [record.trial for record in by_gain(records, make_bench())] == [0, 1, 2]


def test_plan_puts_baselines_ahead_of_the_finalists_of_their_backbone() -> None:
    bench = make_bench()
    own = make_candidate(kept=8)
    other = replace(make_candidate(kept=16), backbone="other")
    fast_other = replace(make_candidate(kept=8), backbone="other")
    chosen = [
        replace(point(0, 90, 8.0), candidate=own),
        replace(point(1, 80, 2.0), candidate=other, knobs=make_knobs(backbone="other")),
        replace(point(2, 70, 1.9), candidate=fast_other, knobs=make_knobs(backbone="other")),
    ]
    dense = [bench.baseline(make_knobs(), bits) for bits in (FP32, INT8)]
    dense_other = [replace(one, backbone="other") for one in dense]
    assert plan(chosen, [*dense_other, *dense], bench) == [
        Planned(candidate=own),
        *(Planned(candidate=one, baseline=True) for one in dense),
        *(Planned(candidate=one, needed=False, baseline=True) for one in dense_other),
        Planned(candidate=other, needed=False),
        Planned(candidate=fast_other, needed=False),
    ]
    assert plan([], [], bench) == []
