"""The tables of ``own_machine.py``, from networks whose truth is made up."""

import math
import random

import pytest
from network_builder import NetworkBuilder
from own_machine import (
    Measured,
    errors,
    methods_of,
    with_one_factor,
)

from hwsearch.bits import FP32, INT8
from hwsearch.hardware.cost import Prediction
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.targets import load_profile

PREDICTOR = CostPredictor(load_profile("host"))
PARTS = "a factor for each part, 5 networks each"


def network(rng: random.Random) -> NetworkDesc:
    """A few layers, each in fp32 or in int8."""
    build = NetworkBuilder(FP32)
    px, channels = 32, 16
    build.conv(3, channels, px, window=3)
    for _ in range(rng.randint(2, 8)):
        build.bits = rng.choice((FP32, INT8))
        wider = rng.choice((16, 32, 64, 128))
        px = build.conv(channels, wider, px, window=rng.choice((1, 3)), stride=rng.choice((1, 2)))
        channels = wider
    build.linear(channels, 10)
    return build.network("net", 32)


def took(one: NetworkDesc) -> float:
    """On a machine that takes twice as long in integers."""
    kernels = PREDICTOR.kernels(one)
    slower = sum(kernel.latency_ms for kernel in kernels if kernel.bits == INT8)
    return PREDICTOR.latency_ms(one) + slower


def measured(count: int, seed: int, kinds: tuple[str, ...]) -> list[Measured]:
    rng = random.Random(seed)
    networks = [network(rng) for _ in range(count)]
    return [
        Measured(
            backbone="first" if number % 2 else "second",
            input_px=32,
            kind=kinds[number % len(kinds)],
            draw=number // len(kinds),
            network=one,
            latency_ms=took(one),
        )
        for number, one in enumerate(networks)
    ]


@pytest.fixture(scope="module")
def timed() -> list[Measured]:
    return [
        *measured(20, 1, ("before the search",)),
        *measured(6, 2, ("dense fp32", "dense int8", "half cheapest")),
    ]


@pytest.fixture(scope="module")
def asked() -> list[Measured]:
    return measured(24, 3, ("fp32", "int8", "mixed", "saving"))


def test_errors_of_all_methods_are_told_with_and_without_a_backbone(
    timed: list[Measured], asked: list[Measured]
) -> None:
    rows = errors(methods_of(PREDICTOR), timed, asked)
    assert {row["timed"] for row in rows} == {"all backbones", "all but that one"}
    assert {row["method"] for row in rows} == set(methods_of(PREDICTOR))
    small = {
        str(row["method"]): row
        for row in rows
        if row["part"] == "below 0.1 ms" and row["timed"] == "all backbones"
    }
    expected = sum(one.latency_ms < 0.1 for one in asked)
    assert {row["networks"] for row in small.values()} == {expected}
    rms = {method: float(str(row["rms_log_percent"])) for method, row in small.items()}
    assert rms[PARTS] < 0.5 * min(value for method, value in rms.items() if method != PARTS)


def test_one_factor_is_the_mean_of_the_ratios_but_for_what_is_known_before() -> None:
    def prediction(value: float) -> Prediction:
        return Prediction.lognormal(median=value, sigma_log=0.1, confidence=0.9)

    known = [prediction(value) for value in (1.0, 2.0, 4.0)]
    (found,) = with_one_factor(known, [1.5, 3.0, 6.0], [prediction(10.0)])
    own = 4 * 0.01 / 6
    expected = math.exp(3 * math.log(1.5) / own / (1 + 3 / own))
    assert found.value == pytest.approx(10.0 * expected)
    assert found.sigma_log == pytest.approx(math.sqrt(own + 1 / (1 + 3 / own)))
