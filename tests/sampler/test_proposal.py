import numpy as np
import pytest

from hwsearch.sampler.proposal import MOST_POINTS, _gaps, _representative


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_gaps_are_to_the_best_at_no_higher_cost(count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 9, 50).astype(float)
    costs = generator.integers(0, 9, (50, count)).astype(float)
    expected = [
        max(v for v, c in zip(values, costs, strict=True) if (c <= cost).all()) - value
        for value, cost in zip(values, costs, strict=True)
    ]
    assert _gaps(costs, values).tolist() == expected


def test_of_many_observations_the_front_and_some_of_all_stay() -> None:
    generator = np.random.default_rng(0)
    count = 3 * MOST_POINTS
    costs, values = generator.uniform(size=(count, 1)), generator.uniform(size=count)
    kept = _representative(costs, values)
    assert len(kept) == len(set(kept.tolist())) == MOST_POINTS
    assert set(np.flatnonzero(_gaps(costs, values) == 0)) <= set(kept.tolist())
    assert {0, count - 1} <= set(kept.tolist())
    few = np.arange(4.0)
    assert _representative(few[:, None], few).tolist() == [0, 1, 2, 3]
