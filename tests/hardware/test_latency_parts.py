import numpy as np
import pytest
from learned_fixtures import random_networks, small_fit
from test_predictor import conv, net, profile

from hwsearch.bits import FP16, FP32, INT8
from hwsearch.hardware.kernel_table import kernel_table
from hwsearch.hardware.latency_parts import PARTS
from hwsearch.hardware.learned.predictor import LearnedPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.roofline import Roofline
from hwsearch.hardware.targets import load_profile

NETWORKS = random_networks(12, seed=3, bits=(FP32, FP16, INT8))


def pricing(target: HardwareProfile) -> Roofline | LearnedPredictor:
    return Roofline(target) if target.fit is None else LearnedPredictor(target)


@pytest.mark.parametrize("target", [profile(), small_fit()])
def test_parts_add_up_to_the_latency_and_to_that_of_the_kernels(target: HardwareProfile) -> None:
    costs, terms = pricing(target).predict_terms(NETWORKS)
    parts, kernels = terms.of_networks, terms.of_kernels
    assert parts.shape == (len(NETWORKS), len(PARTS))
    assert parts.sum(1) == pytest.approx([cost.latency_ms.value for cost in costs])
    again = pricing(target).terms(kernel_table(NETWORKS)).latency_ms
    assert again == pytest.approx(parts.sum(1))
    assert (kernels[:, 0] == 0).all()
    expected = [
        kernel.latency_ms for network in NETWORKS for kernel in pricing(target).kernels(network)
    ]
    assert kernels.sum(1) == pytest.approx(expected)


def test_parts_of_a_kernel_when_computed_by_hand() -> None:
    (parts,) = Roofline(profile()).predict_terms([net(conv())])[1].of_networks
    found = dict(zip(PARTS, parts.tolist(), strict=True))
    assert found["overhead"] == pytest.approx(0.1)
    assert found["floor of floats"] == pytest.approx(0.01)
    assert found["compute of floats"] == pytest.approx(1_179_648 / 1e6)
    # Three quarters of the memory time hide behind the arithmetic.
    assert found["memory of floats"] == pytest.approx(0.25 * 98_432 / 1e6)
    assert sum(value for part, value in found.items() if part.endswith("integers")) == 0


def test_arithmetic_hides_behind_memory_where_that_takes_longer() -> None:
    small = conv(macs=1000)
    (parts,) = Roofline(profile()).predict_terms([net(small)])[1].of_networks
    found = dict(zip(PARTS, parts.tolist(), strict=True))
    assert found["memory of floats"] == pytest.approx(98_432 / 1e6)
    assert found["compute of floats"] == pytest.approx(0.25 * 1000 / 1e6)


def test_integers_have_parts_of_their_own() -> None:
    mixed = net(conv(), conv(bits=INT8))
    (parts,) = Roofline(profile()).predict_terms([mixed])[1].of_networks
    found = dict(zip(PARTS, parts.tolist(), strict=True))
    assert found["compute of integers"] == pytest.approx(found["compute of floats"] / 4)
    half = net(conv(bits=FP16))
    (parts,) = Roofline(profile()).predict_terms([half])[1].of_networks
    assert sum(parts[PARTS.index("floor of integers") :]) == 0, "16 bits are floats"


def test_kernels_that_run_apart_are_a_part() -> None:
    target = load_profile("host")
    curved = net(conv(bits=INT8, curved=True))
    (parts,) = LearnedPredictor(target).predict_terms([curved])[1].of_networks
    assert parts[PARTS.index("apart of integers")] > 0
    straight = net(conv(bits=INT8))
    (less,) = LearnedPredictor(target).predict_terms([straight])[1].of_networks
    assert less.sum() < parts.sum()
    assert np.all(parts >= 0)
