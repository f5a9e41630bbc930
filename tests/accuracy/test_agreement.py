import itertools

import numpy as np
import pytest
from scipy.stats import kendalltau

from hwsearch.accuracy.agreement import agreement


def brute_force_tau(first: list[float], second: list[float]) -> float:
    """Kendall 1945: concordant less discordant pairs, over those untied in each."""
    pairs = list(itertools.combinations(range(len(first)), 2))
    one = [np.sign(first[a] - first[b]) for a, b in pairs]
    two = [np.sign(second[a] - second[b]) for a, b in pairs]
    agreeing = sum(x * y for x, y in zip(one, two, strict=True))
    return float(agreeing / np.sqrt(sum(x != 0 for x in one) * sum(y != 0 for y in two)))


def test_tau_is_that_of_the_definition_with_ties() -> None:
    generator = np.random.default_rng(0)
    first = generator.integers(8, size=20).astype(float).tolist()
    second = generator.integers(8, size=20).astype(float).tolist()
    found = agreement(first, second)
    assert found is not None
    assert found.tau == pytest.approx(brute_force_tau(first, second))
    assert found.networks == 20


def test_interval_is_that_of_the_taus_of_the_draws() -> None:
    generator = np.random.default_rng(3)
    first = generator.integers(5, size=9).astype(float)
    second = first + generator.integers(4, size=9)
    found = agreement(first.tolist(), second.tolist(), seed=4)
    draws = np.random.default_rng(4).integers(9, size=(2000, 9))
    taus = [
        kendalltau(first[at], second[at]).statistic
        for at in draws
        if len(set(first[at])) > 1 and len(set(second[at])) > 1
    ]
    assert found is not None
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(taus, (0.05, 0.95))))


def test_one_order_is_told_as_such() -> None:
    found = agreement([0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0])
    assert found is not None
    assert (found.tau, found.low, found.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("short", "full"), [([0.5] * 5, [1, 2, 3, 4, 5]), ([], []), ([1], [1])])
def test_there_is_none_without_an_order(short: list[float], full: list[float]) -> None:
    assert agreement(short, full) is None


@pytest.mark.parametrize(
    ("short", "full", "message"),
    [([1.0], [1.0, 2.0], "1 short scores for 2"), ([1.0, float("nan")], [1, 2], "not finite")],
)
def test_scores_that_do_not_fit_are_refused(
    short: list[float], full: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        agreement(short, full)
