import math
import random

import numpy as np
import pytest
from learned_fixtures import small_fit
from test_predictor import conv, net

from hwsearch.hardware.cost import Cost, Prediction
from hwsearch.hardware.kernel_table import kernel_table
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.recalibration import Recalibration, recalibrate


def predicted(value: float, sigma_log: float = 0.1, *, extrapolated: bool = False) -> Prediction:
    return Prediction.lognormal(
        median=value, sigma_log=sigma_log, confidence=0.9, extrapolated=extrapolated
    )


def machine(factor: float, noise: float, count: int, seed: int = 0) -> Recalibration:
    draw = random.Random(seed)
    values = [draw.uniform(0.1, 5) for _ in range(count)]
    measured = [value * factor * math.exp(draw.gauss(0, noise)) for value in values]
    return recalibrate([predicted(value) for value in values], measured, machine_sigma_log=1.0)


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_a_machine_that_is_slower_or_faster_as_a_whole(factor: float) -> None:
    found = machine(factor, 0.02, 12)
    assert found.factor == pytest.approx(factor, rel=0.05)
    assert found.networks == 12
    # Networks lie closer together than the profile says, and the interval narrows with them.
    assert 0.3 <= found.sigma_share < 1


def test_networks_that_scatter_widen_the_interval() -> None:
    shares = [machine(1.0, noise, 12).sigma_share for noise in (0.02, 0.1, 0.3)]
    assert shares == sorted(shares)
    assert shares[-1] > 2


def test_few_networks_leave_the_machine_uncertain() -> None:
    shares = [machine(1.0, 0.0, count).sigma_share for count in (1, 3, 12)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 1, "one network says little of a machine and nothing of the scatter"


def test_a_machine_known_beforehand_is_hardly_moved() -> None:
    found = recalibrate([predicted(1.0)], [2.0], machine_sigma_log=0.01)
    assert found.factor == pytest.approx(1.0, abs=0.02)


def test_factor_is_the_mean_of_the_posterior_by_integration() -> None:
    ratios, said, spread = [0.3, 0.5, 0.1], 0.2, 0.6
    values = [predicted(2.0, said) for _ in ratios]
    found = recalibrate(
        values, [2.0 * math.exp(ratio) for ratio in ratios], machine_sigma_log=spread
    )
    mean = sum(ratios) / 3
    own = (4 * said**2 + sum((ratio - mean) ** 2 for ratio in ratios)) / (4 + 3 - 1)
    shift = np.linspace(-3, 3, 20001)
    log_density = -0.5 * (shift / spread) ** 2
    for ratio in ratios:
        log_density -= 0.5 * (ratio - shift) ** 2 / own
    weights = np.exp(log_density - log_density.max())
    expected = float((weights * shift).sum() / weights.sum())
    variance = float((weights * (shift - expected) ** 2).sum() / weights.sum())
    assert math.log(found.factor) == pytest.approx(expected, abs=1e-6)
    assert found.sigma_share == pytest.approx(math.sqrt(own + variance) / said, rel=1e-6)


def test_an_interval_is_never_narrower_than_measurements_repeat() -> None:
    exact = [predicted(1.0, 0.001) for _ in range(50)]
    found = recalibrate(exact, [1.0] * 50, machine_sigma_log=1.0)
    assert 0.001 * found.sigma_share == pytest.approx(0.03)


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_a_cost_is_corrected_but_not_its_energy(share: float) -> None:
    energy = predicted(7.0)
    cost = Cost(latency_ms=predicted(2.0), energy_mj=energy, size_bytes=5, macs=6)
    found = Recalibration(factor=1.5, sigma_share=share, networks=9).of(cost)
    assert found.latency_ms.value == pytest.approx(3.0)
    assert found.latency_ms.sigma_log == pytest.approx(0.1 * share)
    assert (found.energy_mj, found.size_bytes, found.macs) == (energy, 5, 6)


def test_an_extrapolated_interval_is_not_narrowed() -> None:
    cost = Cost(latency_ms=predicted(2.0, extrapolated=True), energy_mj=None, size_bytes=5, macs=6)
    found = Recalibration(factor=1.5, sigma_share=0.5, networks=9).of(cost)
    assert found.latency_ms.extrapolated
    assert found.latency_ms.sigma_log == pytest.approx(0.1)


def test_predictor_corrects_all_that_it_says() -> None:
    known = Recalibration(factor=1.5, sigma_share=0.5, networks=9)
    network = net(conv(), conv())
    plain, corrected = CostPredictor(small_fit()), CostPredictor(small_fit(), recalibration=known)
    expected = 1.5 * plain.predict(network).latency_ms.value
    assert corrected.predict(network).latency_ms.value == pytest.approx(expected)
    (one,) = corrected.predict_all([network])
    assert one == corrected.predict(network)
    assert corrected.latency_ms(network) == pytest.approx(expected)
    assert corrected.latencies_ms(kernel_table([network])) == pytest.approx([expected])
    inside = [sum(k.latency_ms for k in each.kernels(network)) for each in (plain, corrected)]
    assert inside[1] == pytest.approx(1.5 * inside[0])


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_numbers_that_cannot_be(value: float) -> None:
    with pytest.raises(ValueError, match="not positive and finite"):
        Recalibration(factor=value, sigma_share=1.0, networks=3)
    with pytest.raises(ValueError, match="not positive and finite"):
        Recalibration(factor=1.0, sigma_share=value, networks=3)


def test_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match="0 predictions for 0"):
        recalibrate([], [], machine_sigma_log=1.0)
    with pytest.raises(ValueError, match="1 predictions for 2"):
        recalibrate([predicted(1.0)], [1.0, 2.0], machine_sigma_log=1.0)
