import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_fixtures import make_cost, make_profile

from hwsearch.errors import TargetError
from hwsearch.study.asked.admission import (
    admission,
    check_energy,
    prediction_of,
    upper_of,
    value_of,
)
from hwsearch.units import parse_budgets


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(0.01, 1), st.floats(0.05, 0.99))
def test_admission_when_held_against_the_normal_distribution(
    median: float, limit: float, sigma: float, confidence: float
) -> None:
    log_latency = NormalDist(mu=math.log(median), sigma=sigma)
    held = admission(make_cost(median, sigma_log=sigma), parse_budgets((f"{limit}ms",)), confidence)
    assert held.probability == pytest.approx(log_latency.cdf(math.log(limit)), abs=1e-9)
    bound = math.exp(log_latency.inv_cdf(confidence))
    assert held.violations["latency"] == pytest.approx(bound / limit - 1, abs=1e-9)


@given(st.floats(0.2, 5), st.floats(0.55, 0.99))
def test_admission_when_the_probability_reaches_the_confidence(
    limit: float, confidence: float
) -> None:
    held = admission(make_cost(1.0), parse_budgets((f"{limit}ms",)), confidence)
    if abs(held.probability - confidence) > 1e-6:
        assert held.admitted == (held.probability > confidence)


def test_admission_when_one_of_two_budgets_fails() -> None:
    budgets = parse_budgets(("2ms", "1kB"))
    held = admission(make_cost(1.0, size_bytes=1500), budgets, 0.9)
    assert not held.admitted
    assert held.worst == held.violations["size"] == pytest.approx(0.5)
    assert held.violations["latency"] < 0
    assert held.probability == 0.0


def test_admission_when_both_are_uncertain_takes_the_least_probability() -> None:
    cost = make_cost(1.0, energy_mj=4.0, sigma_log=0.3)
    held = admission(cost, parse_budgets(("1.2ms", "4mJ")), 0.5)
    assert held.probability == pytest.approx(0.5)
    assert held.probability == min(
        admission(cost, parse_budgets((text,)), 0.5).probability for text in ("1.2ms", "4mJ")
    )


def test_admission_when_a_size_meets_the_limit_exactly() -> None:
    held = admission(make_cost(size_bytes=1000), parse_budgets(("1kB",)), 0.9)
    assert held.admitted
    assert held.probability == 1.0


def test_check_energy_when_the_profile_has_none() -> None:
    profile = make_profile(energy=None)
    check_energy(profile, parse_budgets(("1ms",)))
    with pytest.raises(TargetError, match=r"round has no energy model.*hwsearch targets"):
        check_energy(profile, parse_budgets(("1mJ",)))
    check_energy(make_profile(), parse_budgets(("1mJ",)))


def test_prediction_of_when_there_is_no_energy() -> None:
    with pytest.raises(TargetError, match="no energy model"):
        prediction_of(make_cost(), "energy")


def test_value_and_upper_when_quantities_differ() -> None:
    cost = make_cost(2.0, size_bytes=77, energy_mj=5.0, sigma_log=0.1)
    assert [value_of(cost, q) for q in ("latency", "energy", "size")] == [2.0, 5.0, 77.0]
    assert upper_of(cost, "size", 0.9) == 77.0
    factor = math.exp(0.1 * NormalDist().inv_cdf(0.9))
    assert upper_of(cost, "latency", 0.9) == pytest.approx(2.0 * factor)
    assert upper_of(cost, "energy", 0.9) == pytest.approx(5.0 * factor)
