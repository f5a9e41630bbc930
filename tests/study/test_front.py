import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_fixtures import baseline_entry, model_entry

from hwsearch.study.finals.dominance import never_worse, non_dominated, objectives
from hwsearch.study.finals.pick import choose, more_accurate_notes, pick, pick_reason
from hwsearch.units import parse_budgets

POINTS = st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), max_size=12)


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """The textbook definition: no worse in any, better in one."""
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@given(POINTS)
def test_non_dominated_when_held_against_the_definition(points: list[tuple[float, ...]]) -> None:
    kept = {points[at] for at in non_dominated(points)}
    assert kept == {p for p in points if not any(dominates(other, p) for other in points)}


@given(POINTS)
def test_non_dominated_when_points_are_equal_keeps_the_first(
    points: list[tuple[float, ...]],
) -> None:
    at = non_dominated(points)
    assert at == sorted(at)
    assert all(points.index(points[position]) == position for position in at)


@given(POINTS, st.randoms(use_true_random=False))
def test_non_dominated_when_the_order_changes(
    points: list[tuple[float, ...]], random: st.DataObject
) -> None:
    shuffled = list(points)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    before = {points[at] for at in non_dominated(points)}
    assert {shuffled[at] for at in non_dominated(shuffled)} == before


def test_non_dominated_when_nothing_is_given() -> None:
    assert non_dominated([]) == []


@pytest.mark.parametrize("position", [0, 1])
def test_non_dominated_when_a_value_is_nan(position: int) -> None:
    point = [1.0, 1.0]
    point[position] = float("nan")
    with pytest.raises(ValueError, match="NaN has no rank"):
        non_dominated([(0.0, 0.0), (point[0], point[1])])


def test_objectives_when_there_are_three() -> None:
    values = objectives(model_entry(1, 0.75, 2.5, 3000), ("latency", "size"))
    assert values == pytest.approx((0.25, 2.5, 3000.0))


def test_objectives_when_a_cost_is_missing() -> None:
    with pytest.raises(ValueError, match="has no energy"):
        objectives(model_entry(1, 0.75, 2.5), ("latency", "energy"))


def test_never_worse_when_a_baseline_beats_a_model() -> None:
    good, beaten = model_entry(1, 0.95, 1.0), model_entry(2, 0.80, 0.9)
    baseline = baseline_entry(0.85, 0.8)
    offered, refused = never_worse([good, beaten], [baseline], ("latency",))
    assert [model.trial for model in offered] == [1]
    ((model, reason),) = refused
    assert model.trial == 2
    assert "dense-fp32" in reason


def test_never_worse_when_another_model_beats_a_model() -> None:
    models = [model_entry(1, 0.9, 2.0), model_entry(2, 0.9, 1.0)]
    offered, refused = never_worse(models, [], ("latency",))
    assert [model.trial for model in offered] == [2]
    assert refused[0][1] == "another model of the front is better"


def test_never_worse_when_a_model_equals_the_baseline_keeps_it() -> None:
    offered, refused = never_worse(
        [model_entry(1, 0.9, 1.0)], [baseline_entry(0.9, 1.0)], ("latency",)
    )
    assert len(offered) == 1
    assert refused == []


def test_never_worse_when_the_baseline_is_larger_and_as_accurate_keeps_the_model() -> None:
    models, baseline = [model_entry(1, 0.9, 1.0, 500)], baseline_entry(0.9, 0.9, 600)
    assert never_worse(models, [baseline], ("latency", "size"))[0] == models
    assert never_worse(models, [baseline], ("latency",))[0] == []


def test_never_worse_when_a_small_model_is_slower_and_less_accurate_drops_it() -> None:
    models, baseline = [model_entry(1, 0.8, 1.0, 500)], baseline_entry(0.9, 0.9, 600)
    offered, refused = never_worse(models, [baseline], ("latency", "size"))
    assert offered == []
    assert "is better" in refused[0][1]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(1, 9)), max_size=8),
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(1, 9)), max_size=3),
)
def test_never_worse_offers_nothing_slower_and_less_accurate(
    points: list[tuple[int, int, int]], base: list[tuple[int, int, int]]
) -> None:
    models = [model_entry(n, a / 10, ms, size) for n, (a, ms, size) in enumerate(points)]
    baselines = [baseline_entry(a / 10, ms, size) for a, ms, size in base]
    offered, refused = never_worse(models, baselines, ("latency", "size"))
    assert len(offered) + len(refused) == len(models)
    for model in offered:
        for baseline in baselines:
            slower = model.latency_ms.value > baseline.latency_ms.value
            assert not (slower and model.accuracy < baseline.accuracy)


@given(
    st.lists(st.tuples(st.integers(0, 10), st.integers(1, 10)), min_size=1, max_size=8),
    st.tuples(st.integers(0, 10), st.integers(1, 10)),
)
def test_never_worse_when_models_are_random(
    models: list[tuple[int, int]], against: tuple[int, int]
) -> None:
    entries = [model_entry(n, a / 10, float(ms)) for n, (a, ms) in enumerate(models)]
    baseline = baseline_entry(against[0] / 10, float(against[1]))
    offered, refused = never_worse(entries, [baseline], ("latency",))
    assert len(offered) + len(refused) == len(entries)
    latencies = [entry.latency_ms.value for entry in offered]
    assert latencies == sorted(latencies)
    points = [objectives(entry, ("latency",)) for entry in offered]
    points.append(objectives(baseline, ("latency",)))
    assert not any(dominates(a, b) for a, b in itertools.permutations(points, 2) if b != points[-1])


def test_pick_when_nothing_is_offered() -> None:
    assert pick([]) is None
    assert pick_reason([], None, parse_budgets(("10ms",))) == "nothing met the budget"


def test_pick_when_accuracies_tie_takes_the_faster() -> None:
    front = [model_entry(1, 0.9, 3.0), model_entry(2, 0.9, 2.0), model_entry(3, 0.8, 1.0)]
    picked = pick(front)
    assert picked is not None
    assert picked.trial == 2


def test_pick_reason_when_a_faster_one_is_within_the_uncertainty() -> None:
    budgets = parse_budgets(("10ms", "1MB"))
    picked, near, far = (
        model_entry(1, 0.9, 3.0),
        model_entry(2, 0.89, 2.0),
        model_entry(3, 0.5, 1.0),
    )
    text = pick_reason([picked, near, far], picked, budgets)
    assert "trial 1 is the most accurate of 3 that meet 10ms and 1MB" in text
    assert "trial 2 is faster (2.00 ms)" in text
    assert "faster" not in pick_reason([picked, far], picked, budgets)


@pytest.mark.parametrize(
    ("accuracies", "admitted", "told"),
    [
        ((0.91, 0.93), (True, True), "93.0 % against 90.0 %, at 4.00 ms"),
        ((0.91, 0.93), (True, False), "91.0 % against 90.0 %, at 3.00 ms"),
        ((0.91, 0.93), (False, False), None),
        ((0.90, 0.80), (True, True), None),
    ],
)
def test_baseline_that_is_more_accurate_than_the_pick_is_told(
    accuracies: tuple[float, float], admitted: tuple[bool, bool], told: str | None
) -> None:
    baselines = [baseline_entry(one, 3.0 + at) for at, one in enumerate(accuracies)]
    found = more_accurate_notes(model_entry(1, 0.9, 1.0), baselines, admitted)
    assert len(found) == (told is not None)
    assert all(note.startswith("more accurate than the pick") for note in found)
    assert all(told in note for note in found if told is not None)


def test_baselines_are_not_told_where_there_is_no_pick() -> None:
    assert more_accurate_notes(None, [baseline_entry(0.9, 1.0)], [True]) == []


#: Of 1,000 pictures the 95 % interval of 60 % reaches 3 points up and down, and both count.
@pytest.mark.parametrize(
    ("accuracy", "admitted", "position"),
    [(0.70, True, 0), (0.65, True, 0), (0.63, True, None), (0.70, False, None), (0.5, True, None)],
)
def test_choice_is_a_baseline_where_it_is_clearly_more_accurate(
    accuracy: float, admitted: bool, position: int | None
) -> None:
    models = [model_entry(1, 0.5, 1.0), model_entry(2, 0.6, 2.0)]
    baseline = baseline_entry(accuracy, 3.0)
    choice = choose(models, [baseline], [admitted], parse_budgets(("10ms",)), ("latency",))
    assert choice.baseline == position
    assert choice.picked == (models[1] if position is None else None)
    if position is not None:
        assert choice.reason == (
            f"dense-fp32 of {baseline.backbone} meets the budget and is more accurate than all "
            f"searched models, by more than is uncertain ({100 * accuracy:.1f} % against 60.0 %, "
            "at 3.00 ms)"
        )


def test_choice_without_models_is_the_best_baseline_or_nothing() -> None:
    baselines = [baseline_entry(0.5, 1.0), baseline_entry(0.6, 2.0)]
    choice = choose([], baselines, [True, True], parse_budgets(("10ms",)), ("latency",))
    assert (choice.picked, choice.baseline) == (None, 1)
    assert choice.reason.startswith("no searched model is better than the baselines")
    nothing = choose([], baselines, [False, False], parse_budgets(("1ms",)), ("latency",))
    assert (nothing.picked, nothing.baseline) == (None, None)
    assert nothing.reason == "nothing met the budget"


def test_baselines_that_no_model_beats_are_told() -> None:
    models = [model_entry(1, 0.5, 1.0), model_entry(2, 0.6, 4.0)]
    between, beaten, equal = (0.58, 3.0), (0.59, 5.0), (0.6, 4.0)
    baselines = [baseline_entry(*at) for at in (between, beaten, equal, between)]
    budgets = parse_budgets(("10ms",))
    choice = choose(models, baselines, [True, True, True, False], budgets, ("latency",))
    assert choice.picked == models[1]
    assert choice.notes == (
        "no model beats these baselines, which meet the budget: dense-fp32 of "
        f"{baselines[0].backbone} (58.0 % at 3.00 ms)",
    )
    assert choose(models, baselines, [False] * 4, budgets, ("latency",)).notes == ()


@pytest.mark.parametrize(("best", "picked"), [(0.61, True), (0.9, False)])
def test_each_baseline_is_told_once(best: float, picked: bool) -> None:
    models = [model_entry(1, 0.5, 1.0), model_entry(2, 0.6, 4.0)]
    baselines = [baseline_entry(0.58, 3.0), baseline_entry(best, 6.0)]
    choice = choose(models, baselines, [True, True], parse_budgets(("10ms",)), ("latency",))
    assert (choice.picked is None) is not picked
    text = " ".join((choice.reason, *choice.notes))
    assert text.count("at 3.00 ms") == text.count("at 6.00 ms") == 1
