import json
import math
import random
from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_fixtures import random_networks, small_fit
from scipy.stats import multivariate_normal
from test_predictor import conv, net

from hwsearch.bits import FP32, INT8
from hwsearch.hardware.cost import Cost, Prediction
from hwsearch.hardware.kernel_table import Floats, kernel_table
from hwsearch.hardware.latency_parts import PARTS
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.recalibration import (
    Recalibration,
    TimedNetwork,
    _posterior,
    recalibrate,
)

SMALL: Mapping[str, float] = {"overhead": 2.0, "floor of floats": 1.3, "floor of integers": 1.5}
BITS: Mapping[str, float] = {
    part: 1.6 if part.endswith("integers") else 0.7 for part in PARTS if part != "overhead"
}


def predicted(value: float, sigma_log: float = 0.1, *, extrapolated: bool = False) -> Prediction:
    return Prediction.lognormal(
        median=value, sigma_log=sigma_log, confidence=0.9, extrapolated=extrapolated
    )


def cost_of(latency: Prediction) -> Cost:
    return Cost(latency_ms=latency, energy_mj=predicted(7.0), size_bytes=5, macs=6)


def random_parts(count: int, seed: int) -> Floats:
    """Networks of 0.03 to 3 ms, each with shares of its own."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(np.log(0.03), np.log(3.0), count))
    parts = rng.dirichlet(np.full(len(PARTS), 0.7), count) * sizes[:, None]
    # The overhead is the same in each, so that it is most of the small ones.
    parts[:, 0] = 0.01
    return parts


def take(parts: Floats, factors: Mapping[str, float], noise: float, seed: int) -> Floats:
    """What networks take on a machine with these factors, 1 for parts that are not named."""
    every = np.array([factors.get(part, 1.0) for part in PARTS])
    rng = np.random.default_rng(seed)
    measured: Floats = parts @ every * np.exp(noise * rng.standard_normal(len(parts)))
    return measured


def timed(parts: Floats, measured_ms: Floats, sigma_log: float = 0.1) -> list[TimedNetwork]:
    return [
        TimedNetwork(
            name=f"net{number}",
            parts_ms=tuple(row.tolist()),
            sigma_log=sigma_log,
            measured_ms=float(took),
        )
        for number, (row, took) in enumerate(zip(parts, measured_ms, strict=True))
    ]


def machine(
    factors: Mapping[str, float], noise: float = 0.02, count: int = 24, seed: int = 0
) -> Recalibration:
    parts = random_parts(count, seed)
    return recalibrate(timed(parts, take(parts, factors, noise, seed + 1)), machine_sigma_log=1.0)


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_a_machine_that_is_slower_or_faster_as_a_whole(factor: float) -> None:
    found = machine(dict.fromkeys(PARTS, factor))
    assert found.part_factors == pytest.approx(dict.fromkeys(PARTS, factor), rel=0.05)
    assert found.networks == 24
    # Networks lie closer together than the profile says, and the interval narrows with them.
    assert found.sigma_log is not None
    assert 0.03 <= found.sigma_log < 0.1


@pytest.mark.parametrize("factors", [SMALL, BITS, {**BITS, **SMALL}])
def test_a_bias_by_size_and_bits_is_recovered(factors: Mapping[str, float]) -> None:
    found = machine(factors, count=48)
    parts = random_parts(400, 7)
    left = np.log(take(parts, factors, 0.0, 8) / found.latencies_ms(parts))
    one = machine(dict.fromkeys(PARTS, 1.0)).latencies_ms(parts)
    before = np.log(take(parts, factors, 0.0, 8) / one)
    assert abs(left.mean()) < 0.02
    assert np.sqrt((left**2).mean()) < 0.05 < before.std()


@pytest.mark.parametrize("factors", [SMALL, BITS])
def test_intervals_hold_what_they_say(factors: Mapping[str, float]) -> None:
    inside = []
    for seed in range(8):
        found = machine(factors, noise=0.1, seed=seed)
        parts = random_parts(100, 50 + seed)
        truth = take(parts, factors, 0.1, 90 + seed)
        costs = [cost_of(predicted(float(row.sum()))) for row in parts]
        for cost, took in zip(found.correct(costs, parts), truth, strict=True):
            inside.append(cost.latency_ms.low <= took <= cost.latency_ms.high)
    assert 0.85 < np.mean(inside) < 0.97


def test_order_of_networks_does_not_matter() -> None:
    parts = random_parts(20, 0)
    networks = timed(parts, take(parts, BITS, 0.1, 1))
    found = recalibrate(networks, machine_sigma_log=1.0)
    random.Random(0).shuffle(networks)
    again = recalibrate(networks, machine_sigma_log=1.0)
    assert again == found
    assert again.part_factors == found.part_factors


@pytest.mark.parametrize("count", [1, 2])
def test_few_networks_tell_one_factor(count: int) -> None:
    parts = random_parts(count, 4)
    found = recalibrate(timed(parts, 1.5 * parts.sum(1)), machine_sigma_log=1.0)
    factors = list(found.part_factors.values())
    assert max(factors) / min(factors) < 1.001
    assert 1.45 < factors[0] < 1.5


def test_posterior_of_one_part_is_that_of_a_normal_mean() -> None:
    ratios, sigma, spread = np.array([0.3, 0.5, 0.1]), 0.2, 0.6
    parts = np.zeros((3, len(PARTS)))
    parts[:, 0] = 2.0
    found = _posterior(parts, np.log(2.0) + ratios, spread**2 * np.eye(len(PARTS)), sigma)
    variance = 1 / (1 / spread**2 + 3 / sigma**2)
    assert found.theta[0] == pytest.approx(variance * ratios.sum() / sigma**2)
    assert found.theta[1:] == pytest.approx(0.0)
    assert found.covariance[0, 0] == pytest.approx(variance)
    marginal = multivariate_normal(cov=sigma**2 * np.eye(3) + spread**2 * np.ones((3, 3)))
    expected = float(marginal.logpdf(ratios)) + 1.5 * math.log(2 * math.pi)
    assert found.evidence == pytest.approx(expected)


@cache
def in_bits() -> Recalibration:
    """A machine on which networks also scatter."""
    return machine(BITS, noise=0.2, count=8)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, len(PARTS) - 1), st.floats(1.001, 3.0), st.integers(0, 1000))
def test_what_is_predicted_to_take_longer_takes_longer(part: int, more: float, seed: int) -> None:
    found = in_bits()
    parts = random_parts(1, seed)
    longer = parts.copy()
    longer[0, part] *= more
    assert found.latencies_ms(longer)[0] > found.latencies_ms(parts)[0]


def test_an_interval_is_never_narrower_than_measurements_repeat() -> None:
    parts = random_parts(30, 0)
    found = recalibrate(timed(parts, parts.sum(1), 0.001), machine_sigma_log=1.0)
    (cost,) = found.correct([cost_of(predicted(1.0, 0.001))], parts[:1])
    assert cost.latency_ms.sigma_log >= 0.03


@pytest.mark.parametrize("times", [0.1, 10.0])
def test_intervals_widen_beyond_the_sizes_that_were_timed(times: float) -> None:
    found = machine({}, noise=0.05)
    sizes = sorted(one.predicted_ms for one in found.timed)
    inside = np.full((1, len(PARTS)), sizes[0 if times < 1 else -1] / len(PARTS))
    costs = [cost_of(predicted(1.0))]
    (within,), (beyond,) = found.correct(costs, inside), found.correct(costs, times * inside)
    assert beyond.latency_ms.sigma_log == pytest.approx(
        math.hypot(within.latency_ms.sigma_log, 0.1 * math.log(10))
    )


def test_a_cost_is_corrected_but_not_its_energy() -> None:
    found = machine(dict.fromkeys(PARTS, 1.5), count=40)
    parts = random_parts(1, 3)
    cost = cost_of(predicted(float(parts.sum())))
    (corrected,) = found.correct([cost], parts)
    assert corrected.latency_ms.value == pytest.approx(1.5 * cost.latency_ms.value, rel=0.05)
    assert corrected.latency_ms.confidence == 0.9
    rest = (corrected.energy_mj, corrected.size_bytes, corrected.macs)
    assert rest == (cost.energy_mj, 5, 6)


def test_an_extrapolated_interval_is_not_narrowed() -> None:
    found = machine({}, noise=0.02)
    parts = random_parts(1, 3)
    (corrected,) = found.correct([cost_of(predicted(2.0, 0.5, extrapolated=True))], parts)
    assert corrected.latency_ms.extrapolated
    assert corrected.latency_ms.sigma_log == pytest.approx(0.5)


def test_predictor_corrects_all_that_it_says() -> None:
    plain = CostPredictor(small_fit())
    several = random_networks(16, seed=5, bits=(FP32, INT8))
    named = {str(number): network for number, network in enumerate(several)}
    took = {name: (2 + int(name) % 2) * plain.latency_ms(one) for name, one in named.items()}
    known = recalibrate(plain.predict_timed(named, took), machine_sigma_log=1.0)
    corrected = CostPredictor(small_fit(), recalibration=known)
    network = net(conv(), conv(bits=INT8))
    (cost,) = corrected.predict_all([network])
    value = cost.latency_ms.value
    assert value > 1.5 * plain.predict(network).latency_ms.value
    assert corrected.predict(network) == cost
    assert corrected.latency_ms(network) == pytest.approx(value)
    assert corrected.latencies_ms(kernel_table([network])) == pytest.approx([value])
    kernels = corrected.kernels(network)
    overhead = plain.latency_ms(network) - sum(k.latency_ms for k in plain.kernels(network))
    expected = known.part_factors["overhead"] * overhead
    assert value - sum(k.latency_ms for k in kernels) == pytest.approx(expected)
    assert corrected.predict_all([]) == []
    assert corrected.predict_timed({}, {}) == []
    # What a network is held against is what the profile alone says of it, whatever is known.
    assert corrected.predict_timed(named, took) == plain.predict_timed(named, took)


def test_networks_that_are_timed_later_are_learned_from_as_well() -> None:
    parts = random_parts(20, 0)
    networks = timed(parts, take(parts, BITS, 0.1, 1))
    whole = recalibrate(networks, machine_sigma_log=1.0)
    first = recalibrate(networks[:12], machine_sigma_log=1.0)
    assert first.with_timed(networks[12:]) == whole
    assert whole.with_timed(networks[3:5]) == whole, "the same networks count once"
    again = timed(parts[:1], np.array([9.0]))
    (changed,) = [one for one in whole.with_timed(again).timed if one.name == "net0"]
    assert changed.measured_ms == 9.0


def test_what_was_learned_is_stored_and_read_back() -> None:
    found = machine(BITS)
    stored = json.loads(json.dumps(found.to_json()))
    assert Recalibration.from_json(stored) == found


def test_one_factor_of_an_earlier_version_is_read_and_learned_on_from() -> None:
    old = Recalibration.from_json({"factor": 1.5, "sigma_share": 0.5, "networks": 9})
    parts = random_parts(1, 3)
    value = float(parts.sum())
    (corrected,) = old.correct([cost_of(predicted(value))], parts)
    assert corrected.latency_ms.value == pytest.approx(1.5 * value)
    assert corrected.latency_ms.sigma_log == pytest.approx(0.05)
    (unlike,) = old.correct([cost_of(predicted(value, extrapolated=True))], parts)
    assert unlike.latency_ms.sigma_log == pytest.approx(0.1)
    assert "9 networks were timed here" in old.told("host")
    assert "1.5 x what profile host predicts" in old.told("host")
    assert Recalibration.from_json(old.to_json()) == old
    several = random_parts(12, 8)
    more = old.with_timed(timed(several, 3.0 * several.sum(1)))
    assert more.networks == 21
    assert more.part_factors == pytest.approx(dict.fromkeys(PARTS, 3.0), rel=0.03)


def test_what_was_learned_is_told_with_its_range() -> None:
    parts = random_parts(2, 0)
    found = recalibrate(timed(parts, np.array([0.5, 2.0]) * parts.sum(1)), machine_sigma_log=1.0)
    assert found.told("host").startswith(
        "2 networks were timed here and took 0.50 to 2.00 x what profile host predicts"
    )


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_numbers_that_cannot_be(value: float) -> None:
    for name in ("factor", "sigma_share", "machine_sigma_log"):
        with pytest.raises(ValueError, match="not positive and finite"):
            Recalibration(**{"machine_sigma_log": 1.0, name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"net0: .* is not positive and finite"):
        timed(random_parts(1, 0), np.array([value]))


def test_networks_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least one network"):
        recalibrate([], machine_sigma_log=1.0)
    with pytest.raises(ValueError, match="are not the parts of a latency"):
        TimedNetwork(name="one", parts_ms=(1.0, 2.0), sigma_log=0.1, measured_ms=3.0)
    networks = tuple(timed(random_parts(2, 0), np.array([1.0, 2.0])))
    with pytest.raises(ValueError, match="sorted by name"):
        Recalibration(machine_sigma_log=1.0, timed=networks[::-1])
