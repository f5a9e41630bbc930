"""The tables of ``own_machine.py``, from networks whose truth is made up."""

import dataclasses
import math

import pytest
from learned_fixtures import random_networks, small_fit
from own_machine import (
    Measured,
    admissions,
    cheapest_bits,
    errors,
    methods_of,
    with_one_factor,
)

from hwsearch.bits import FP32, INT8
from hwsearch.hardware.cost import Prediction
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.predictor import CostPredictor

PREDICTOR = CostPredictor(small_fit())
PARTS = "a factor for each part, 5 networks each"


def measured(count: int, seed: int, kinds: tuple[str, ...]) -> list[Measured]:
    """A machine that takes twice as long in integers; sizes around 0.1 ms."""
    networks = random_networks(count, seed=seed, bits=(FP32, INT8))
    median = sorted(took(one) for one in networks)[count // 2]
    assert median > 0
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


def took(network: NetworkDesc) -> float:
    overhead = PREDICTOR.latency_ms(network) - sum(
        kernel.latency_ms for kernel in PREDICTOR.kernels(network)
    )
    return overhead + sum(
        kernel.latency_ms * (2.0 if kernel.bits == INT8 else 1.0)
        for kernel in PREDICTOR.kernels(network)
    )


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
    large = {
        row["method"]: row
        for row in rows
        if row["part"] == "from 0.1 ms" and row["timed"] == "all backbones"
    }
    assert {row["networks"] for row in large.values()} == {
        sum(one.latency_ms >= 0.1 for one in asked)
    }
    rms = {method: row["rms_log_percent"] for method, row in large.items()}
    assert isinstance(rms[PARTS], float)
    assert rms[PARTS] == min(rms.values(), key=lambda value: float(str(value)))


def test_admitted_networks_are_counted_with_those_that_hold_the_budget(
    timed: list[Measured], asked: list[Measured]
) -> None:
    # The sizes of the made-up networks have nothing to do with the budgets.
    scale = 0.1 / sorted(one.latency_ms for one in asked)[len(asked) // 2]
    assert scale > 0
    for row in admissions(methods_of(PREDICTOR), timed, asked):
        counts = [row[name] for name in ("within", "admitted", "admitted_and_within")]
        assert all(isinstance(count, int) for count in counts)
        assert int(str(counts[2])) <= min(int(str(count)) for count in counts[:2])


def test_cheapest_bits_are_told_over_the_faster_of_fp32_and_int8() -> None:
    plain = measured(4, 5, ("fp32", "int8", "cheapest, profile alone", "cheapest, corrected"))
    latencies_ms = (2.0, 1.0, 1.1, 0.9)
    one = [
        dataclasses.replace(each, backbone="first", latency_ms=latency_ms)
        for each, latency_ms in zip(plain, latencies_ms, strict=True)
    ]
    (of_backbone, of_all) = cheapest_bits(one)
    assert of_backbone["fp32_over_best"] == pytest.approx(2.0)
    assert of_backbone["cheapest_profile_alone_over_best"] == pytest.approx(1.1)
    assert of_backbone["cheapest_corrected_over_best"] == pytest.approx(0.9)
    assert {**of_all, "backbone": "first"} == of_backbone


def test_one_factor_is_the_mean_of_the_ratios_but_for_what_is_known_before() -> None:
    def prediction(value: float) -> Prediction:
        return Prediction.lognormal(median=value, sigma_log=0.1, confidence=0.9)

    known = [prediction(value) for value in (1.0, 2.0, 4.0)]
    (found,) = with_one_factor(known, [1.5, 3.0, 6.0], [prediction(10.0)])
    own = 4 * 0.01 / 6
    expected = math.exp(3 * math.log(1.5) / own / (1 + 3 / own))
    assert found.value == pytest.approx(10.0 * expected)
    assert found.sigma_log == pytest.approx(math.sqrt(own + 1 / (1 + 3 / own)))
