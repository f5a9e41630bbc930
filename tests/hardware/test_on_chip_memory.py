"""Weights that do not fit on the chip travel for every inference."""

import numpy as np
import pytest
from pydantic import ValidationError
from test_predictor import conv, net, profile

from hwsearch.bits import FP32, INT8
from hwsearch.hardware.kernel_table import kernel_table
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.learned.terms import classify
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.rates import TERMS, weight_slowdown

#: 2 GB/s, of which half is reached.
REACHED_GB_PER_S = 1.0


def target(
    on_chip_mb: float | None = 0.05, off_chip_gb_per_s: float | None = 0.1
) -> HardwareProfile:
    memory = profile().memory.model_dump(mode="json")
    return profile(
        memory=memory | {"on_chip_mb": on_chip_mb, "off_chip_gb_per_s": off_chip_gb_per_s}
    )


def layers(count: int, **changes: object) -> NetworkDesc:
    """18 464 weights each."""
    return net(*[conv(**changes) for _ in range(count)])


def weight_ms(device: HardwareProfile, network: NetworkDesc) -> float:
    rows = classify(device, kernel_table([network]))
    return float(rows.priced.values[:, TERMS.index("weight")].sum())


def test_weights_when_all_fit_cost_what_they_cost_elsewhere() -> None:
    network = layers(2, bits=INT8)
    assert network.size_bytes < 0.05e6
    assert CostPredictor(target()).latency_ms(network) == CostPredictor(profile()).latency_ms(
        network
    )
    assert weight_ms(target(), network) == weight_ms(profile(), network)


def test_weights_when_some_do_not_fit_travel_over_the_link() -> None:
    network = layers(2, bits=FP32)
    total = 2 * 18_464 * 4
    # 1e9 bytes per second are 1e6 per ms.
    by_hand_ms = 0.05e6 / (REACHED_GB_PER_S * 1e6) + (total - 0.05e6) / (0.1 * 1e6)
    assert weight_ms(target(), network) == pytest.approx(by_hand_ms)


def test_weights_when_another_network_is_large_are_priced_alone() -> None:
    small, large = layers(1, bits=INT8), layers(9, bits=FP32)
    both = classify(target(), kernel_table([small, large])).priced.values
    alone = [classify(target(), kernel_table([one])).priced.values for one in (small, large)]
    assert both == pytest.approx(np.concatenate(alone))


def test_energy_and_traffic_when_weights_travel_stay() -> None:
    network = layers(3, bits=FP32)
    streamed = classify(target(), kernel_table([network]))
    plain = classify(profile(), kernel_table([network]))
    assert np.array_equal(streamed.priced.bytes, plain.priced.bytes)
    others = [at for at, term in enumerate(TERMS) if term != "weight"]
    assert np.array_equal(streamed.priced.values[:, others], plain.priced.values[:, others])


def test_slowdown_when_given_many_networks() -> None:
    sizes = np.array([1.0, 0.05e6, 0.1e6, 1e12])
    found = weight_slowdown(target(), sizes)
    assert found == pytest.approx([1, 1, 1 + 0.5 * 9, 10])
    assert weight_slowdown(profile(), sizes).tolist() == [1.0] * 4


def test_memory_when_half_described_is_refused() -> None:
    with pytest.raises(ValidationError, match="on_chip_mb and off_chip_gb_per_s go together"):
        target(off_chip_gb_per_s=None)
    with pytest.raises(ValidationError, match="on_chip_mb and off_chip_gb_per_s go together"):
        target(on_chip_mb=None)


def test_memory_when_the_link_is_faster_than_the_memory_is_refused() -> None:
    with pytest.raises(ValidationError, match="is faster than the 1 that kernels reach"):
        target(off_chip_gb_per_s=1.5)
