import numpy as np
import pytest
from scipy.stats import norm

from hwsearch.sampler import improvement
from hwsearch.sampler.improvement import (
    Front,
    expected_improvement,
    hypervolume_improvement,
    non_dominated,
)
from hwsearch.sampler.priced import Floats


def make_front(points: int, costs: int, seed: int = 0) -> Front:
    generator = np.random.default_rng(seed)
    return Front(
        values=generator.uniform(0.0, 1.0, points),
        costs=generator.uniform(0.0, 1.0, (points, costs)),
        reference_value=0.1,
        reference_costs=np.full(costs, 0.9),
    )


def volume(values: Floats, costs: Floats, front: Front) -> float:
    """Dominated volume up to the reference, by the cells of the full grid; the definition."""
    axes = [
        np.unique(np.r_[costs[:, axis], limit][np.r_[costs[:, axis], limit] <= limit])
        for axis, limit in enumerate(front.reference_costs)
    ]
    total = 0.0
    for cell in np.ndindex(*[len(axis) - 1 for axis in axes]):
        low = np.array([axis[at] for axis, at in zip(axes, cell, strict=True)])
        size = np.prod([axis[at + 1] - axis[at] for axis, at in zip(axes, cell, strict=True)])
        reached = values[(costs <= low).all(axis=1)]
        total += size * max(0.0, reached.max(initial=-np.inf) - front.reference_value)
    return float(total)


def by_definition(mean: float, deviation: float, cost: Floats, front: Front) -> float:
    """Mean gain in volume over 400 equally likely outcomes."""
    before = volume(front.values, front.costs, front)
    outcomes = norm.ppf((np.arange(400) + 0.5) / 400, loc=mean, scale=deviation)
    gains = [
        volume(np.r_[front.values, outcome], np.vstack([front.costs, cost]), front) - before
        for outcome in outcomes
    ]
    return float(np.mean(gains))


def candidates(count: int, costs: int, seed: int = 1) -> tuple[Floats, Floats, Floats]:
    generator = np.random.default_rng(seed)
    return (
        generator.uniform(0.0, 1.2, count),
        generator.uniform(0.02, 0.4, count),
        generator.uniform(-0.1, 0.9, (count, costs)),
    )


def test_expected_improvement_when_there_is_no_doubt_is_the_difference() -> None:
    found = expected_improvement(np.array([1.0, 0.2]), np.array([1e-9, 1e-9]), 0.5)
    assert found == pytest.approx([0.5, 0.0], abs=1e-8)


def test_expected_improvement_agrees_with_the_integral() -> None:
    outcomes = norm.ppf((np.arange(100_000) + 0.5) / 100_000, loc=0.3, scale=0.5)
    expected = np.maximum(outcomes - 0.6, 0.0).mean()
    found = expected_improvement(np.array([0.3]), np.array([0.5]), 0.6)
    assert found == pytest.approx([expected], rel=1e-3)


@pytest.mark.parametrize(("costs", "points"), [(1, 0), (1, 7), (2, 0), (2, 6), (3, 4)])
def test_improvement_agrees_with_the_definition(costs: int, points: int) -> None:
    front = make_front(points, costs)
    means, deviations, where = candidates(4, costs)
    found = hypervolume_improvement(means, deviations, where, front)
    expected = [
        by_definition(mean, deviation, cost, front)
        for mean, deviation, cost in zip(means, deviations, where, strict=True)
    ]
    assert found == pytest.approx(expected, rel=0.01, abs=1e-4)


def test_improvement_without_costs_is_that_over_the_best() -> None:
    front = make_front(5, 0)
    means, deviations, where = candidates(6, 0)
    best = float(front.values.max())
    found = hypervolume_improvement(means, deviations, where, front)
    assert found == pytest.approx(expected_improvement(means, deviations, best))


def test_improvement_does_not_depend_on_the_order_or_on_dominated_points() -> None:
    front = make_front(9, 2)
    means, deviations, where = candidates(5, 2)
    found = hypervolume_improvement(means, deviations, where, front)
    order = np.random.default_rng(3).permutation(9)
    more = Front(
        values=np.r_[front.values[order], front.values[0] - 0.05],
        costs=np.vstack([front.costs[order], front.costs[0] + 0.05]),
        reference_value=front.reference_value,
        reference_costs=front.reference_costs,
    )
    assert hypervolume_improvement(means, deviations, where, more) == pytest.approx(found)


def test_improvement_scales_with_the_costs() -> None:
    front, (means, deviations, where) = make_front(6, 2), candidates(5, 2)
    wider = Front(
        values=front.values,
        costs=front.costs * [10.0, 3.0],
        reference_value=front.reference_value,
        reference_costs=front.reference_costs * [10.0, 3.0],
    )
    found = hypervolume_improvement(means, deviations, where * [10.0, 3.0], wider)
    assert found == pytest.approx(30 * hypervolume_improvement(means, deviations, where, front))


def test_improvement_falls_with_the_cost_and_rises_with_the_mean() -> None:
    front = make_front(6, 1)
    costs = np.linspace(0.0, 0.89, 20)[:, None]
    found = hypervolume_improvement(np.full(20, 0.6), np.full(20, 0.2), costs, front)
    assert (np.diff(found) <= 1e-12).all()
    means = np.linspace(0.0, 1.5, 20)
    found = hypervolume_improvement(means, np.full(20, 0.2), np.full((20, 1), 0.3), front)
    assert (np.diff(found) > 0).all()


def test_improvement_beyond_the_reference_is_nothing() -> None:
    front = make_front(4, 2)
    costs = np.array([[0.95, 0.1], [0.1, 0.9], [0.1, 0.1]])
    found = hypervolume_improvement(np.full(3, 2.0), np.full(3, 0.1), costs, front)
    assert found[:2].tolist() == [0.0, 0.0]
    assert found[2] > 0
    assert hypervolume_improvement(np.ones(1), np.ones(1), costs[:1], front).tolist() == [0.0]


def test_improvement_of_a_large_front_in_three_costs_is_near_the_exact_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    front, (means, deviations, where) = make_front(30, 3), candidates(20, 3)
    exact = hypervolume_improvement(means, deviations, where, front)
    monkeypatch.setattr(improvement, "_LARGEST_TABLE", 0)
    near = hypervolume_improvement(means, deviations, where, front)
    assert near == pytest.approx(exact, rel=0.05, abs=2e-3)
    assert not np.array_equal(near, exact)


def test_non_dominated_keeps_the_first_of_equal_points() -> None:
    values = np.array([0.5, 0.9, 0.5, 0.4, 0.9])
    costs = np.array([[1.0], [2.0], [1.0], [1.5], [3.0]])
    assert non_dominated(values, costs).tolist() == [1, 0]
    assert non_dominated(np.zeros(0), np.zeros((0, 1))).tolist() == []


@pytest.mark.parametrize("count", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_non_dominated_equals_the_definition(count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 5, 40).astype(float)
    costs = generator.integers(0, 5, (40, count)).astype(float)
    points = [(-value, *cost) for value, cost in zip(values, costs.tolist(), strict=True)]

    def beaten(at: int) -> bool:
        return any(
            all(one <= other for one, other in zip(points[by], points[at], strict=True))
            and (points[by] != points[at] or by < at)
            for by in range(len(points))
            if by != at
        )

    kept = non_dominated(values, costs).tolist()
    assert sorted(kept) == [at for at in range(len(points)) if not beaten(at)]
    assert values[kept].tolist() == sorted(values[kept], reverse=True)
