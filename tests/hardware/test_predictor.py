import dataclasses
import math
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.errors import TargetError
from hwsearch.hardware.cost import Prediction
from hwsearch.hardware.kernels import WEIGHTED_KINDS, KernelDesc, KernelKind, NetworkDesc
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import load_profile

_TEMPLATE = load_profile("jetson-orin-nano").model_dump(mode="json")


def profile(**changes: object) -> HardwareProfile:
    """A device of round numbers: 1000 MAC/us in fp32, 1000 B/us, a floor of 10 us."""
    data = {**_TEMPLATE, "name": "round", "aliases": [], "power_modes": None, "fit": None}
    proof = data["memory"]["provenance"]
    rate = {"compute_efficiency": 0.5}
    cells: dict[str, Any] = {"W32A32": rate, "W16A16": rate, "W8A8": rate}
    data["compute"] = {
        "provenance": proof,
        "by_bits": {
            "W32A32": {"peak_gmac_per_s": 2.0, "channel_block": 1},
            "W16A16": {"peak_gmac_per_s": 4.0, "channel_block": 8},
            "W8A8": {"peak_gmac_per_s": 8.0, "channel_block": 16},
        },
    }
    data["memory"] = {"provenance": proof, "bandwidth_gb_per_s": 2.0}
    data["kernels"] = {
        "provenance": proof,
        "network_overhead_us": 100.0,
        "floor_us": 10.0,
        "bandwidth_fraction": 0.5,
        "unhidden_fraction": 0.25,
        "by_kind": {
            **{kind.value: dict(cells) for kind in KernelKind},
            "linear": {**cells, "W8A8": {"runs_as": "W16A16", "slowdown": 1.5}},
            "softmax": {**cells, "W8A8": {"runs_as": "W16A16"}},
        },
    }
    data["energy"] = {
        "provenance": proof,
        "boundary": "board",
        "baseline_w": 5.0,
        "active_pj_per_mac": {"W32A32": 100.0, "W16A16": 50.0, "W8A8": 25.0},
        "active_pj_per_byte": 1000.0,
    }
    return HardwareProfile.model_validate(data | changes)


def conv(**changes: object) -> KernelDesc:
    """64 to 32 channels, 3x3, on 8x8: 1 179 648 MACs, 24 608 elements."""
    plain = KernelDesc(
        name="conv",
        kind=KernelKind.CONV,
        in_channels=64,
        out_channels=32,
        kernel_size=(3, 3),
        in_size=(8, 8),
        out_size=(8, 8),
        macs=64 * 32 * 9 * 64,
        input_elements=64 * 64,
        output_elements=32 * 64,
        weight_elements=64 * 32 * 9 + 32,
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def net(*kernels: KernelDesc) -> NetworkDesc:
    named = [dataclasses.replace(k, name=f"{n}") for n, k in enumerate(kernels)]
    return NetworkDesc(name="net", input_px=8, kernels=tuple(named))


def test_kernel_when_computed_by_hand() -> None:
    (cost,) = CostPredictor(profile()).kernels(net(conv()))
    traffic = 4 * (4096 + 2048 + 18464)
    compute_us, memory_us = 1_179_648 / 1000, traffic / 1000
    assert cost.bytes == traffic == 98_432
    assert cost.bound == "compute"
    assert cost.latency_ms == pytest.approx((10 + compute_us + 0.25 * memory_us) / 1000)
    active_mj = 1_179_648 * 100e-9 + traffic * 1000e-9
    assert cost.energy_mj == pytest.approx(5 * cost.latency_ms + active_mj)


def test_predict_when_computed_by_hand() -> None:
    desc = net(conv(), conv(bits=FP16))
    predictor = CostPredictor(profile(), confidence=0.8)
    cost, parts = predictor.predict(desc), predictor.kernels(desc)
    latency_ms = 0.1 + sum(part.latency_ms for part in parts)
    assert cost.latency_ms.value == pytest.approx(latency_ms)
    assert predictor.latency_ms(desc) == cost.latency_ms.value
    assert cost.energy_mj is not None
    energies = [part.energy_mj for part in parts if part.energy_mj is not None]
    assert cost.energy_mj.value == pytest.approx(5 * 0.1 + sum(energies))
    assert (cost.size_bytes, cost.macs) == (18_464 * 6, 2 * 1_179_648)
    assert (cost.latency_ms.source, cost.latency_ms.confidence) == ("predicted", 0.8)


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({}, "compute"),
        ({"macs": 20_000}, "memory"),
        ({"macs": 1, "input_elements": 1, "output_elements": 1, "weight_elements": 1}, "floor"),
    ],
)
def test_bound_when_one_term_is_largest(changes: dict[str, int], bound: str) -> None:
    (cost,) = CostPredictor(profile()).kernels(net(conv(**changes)))
    assert cost.bound == bound


def test_bits_when_they_do_not_pay() -> None:
    predictor = CostPredictor(profile())
    linear = conv(kind=KernelKind.LINEAR)
    (as_int8,) = predictor.kernels(net(dataclasses.replace(linear, bits=INT8)))
    (as_fp16,) = predictor.kernels(net(dataclasses.replace(linear, bits=FP16)))
    assert as_int8.latency_ms == pytest.approx(1.5 * as_fp16.latency_ms)
    assert as_int8.bytes == as_fp16.bytes, "the runtime moves what it computes in"
    assert as_int8.bits == INT8
    assert net(dataclasses.replace(linear, bits=INT8)).size_bytes == 18_464, "stored in 8 bits"


def test_padding_when_channels_do_not_fill_blocks() -> None:
    predictor = CostPredictor(profile())

    def compute_us(channels: int, bits: LayerBits) -> float:
        odd = conv(in_channels=channels, macs=channels * 10**6, bits=bits)
        floor_and_memory = predictor.latency_ms(net(dataclasses.replace(odd, macs=0)))
        memory_us = odd.bytes / 1000
        return 1000 * (predictor.latency_ms(net(odd)) - floor_and_memory) + 0.75 * memory_us

    for bits, block in ((FP16, 8), (INT8, 16)):
        assert compute_us(62, bits) == pytest.approx(compute_us(64, bits), rel=1e-6)
        assert compute_us(64 + 1, bits) == pytest.approx(compute_us(64 + block, bits), rel=1e-6)
    assert compute_us(62, FP32) == pytest.approx(compute_us(64, FP32) * 62 / 64, rel=1e-6)
    # A stem has kernels of its own: three channels are padded to four, not to a block.
    assert compute_us(3, INT8) == pytest.approx(compute_us(64, INT8) * 4 / 64, rel=1e-6)


def test_energy_when_channels_do_not_fill_blocks_is_that_of_the_real_work() -> None:
    odd = conv(out_channels=31, bits=INT8)
    (cost,) = CostPredictor(profile()).kernels(net(odd))
    active_mj = odd.macs * 25e-9 + cost.bytes * 1000e-9
    assert cost.energy_mj == pytest.approx(5 * cost.latency_ms + active_mj)


@given(
    kind=st.sampled_from(list(KernelKind)),
    bits=st.sampled_from([FP32, FP16, INT8]),
    macs=st.integers(0, 10**9),
    elements=st.integers(1, 10**7),
    more=st.integers(1, 10**6),
)
def test_latency_when_work_grows(
    kind: KernelKind, bits: LayerBits, macs: int, elements: int, more: int
) -> None:
    predictor = CostPredictor(profile())
    base = conv(kind=kind, macs=macs, input_elements=elements, bits=bits)
    least = predictor.latency_ms(net(base))
    for grown in (
        dataclasses.replace(base, macs=macs + more),
        dataclasses.replace(base, input_elements=elements + more),
        dataclasses.replace(base, weight_elements=base.weight_elements + more),
    ):
        assert predictor.latency_ms(net(grown)) > least
    assert predictor.latency_ms(net(base, base)) > least


@given(
    wide=st.tuples(st.integers(1, 600), st.integers(1, 600)),
    bits=st.sampled_from([FP32, FP16, INT8]),
    pruned=st.floats(0, 1),
)
def test_latency_when_channels_are_pruned(
    wide: tuple[int, int], bits: LayerBits, pruned: float
) -> None:
    predictor = CostPredictor(profile())

    def latency_ms(channels: tuple[int, int]) -> float:
        cin, cout = channels
        return predictor.latency_ms(
            net(
                conv(
                    in_channels=cin,
                    out_channels=cout,
                    macs=cin * cout * 9 * 64,
                    input_elements=cin * 64,
                    output_elements=cout * 64,
                    weight_elements=cin * cout * 9 + cout,
                    bits=bits,
                )
            )
        )

    narrow = (max(1, math.ceil(wide[0] * pruned)), wide[1])
    assert latency_ms(narrow) < latency_ms(wide) or narrow == wide


def test_energy_when_there_is_no_evidence() -> None:
    predictor = CostPredictor(profile(energy=None))
    assert predictor.predict(net(conv())).energy_mj is None
    assert predictor.kernels(net(conv()))[0].energy_mj is None
    with_energy = CostPredictor(profile())
    assert predictor.latency_ms(net(conv())) == with_energy.latency_ms(net(conv()))


def test_predict_when_bits_have_no_rate() -> None:
    predictor = CostPredictor(profile())
    desc = net(conv(bits=LayerBits(4, 8)))
    message = (
        r"kernel 0 \(conv\) is asked in W4A8, for which round has no rate; "
        r"it runs conv in fp32, fp16, int8\. Pick one of these, or another target"
    )
    for call in (predictor.predict, predictor.kernels, predictor.latency_ms):
        with pytest.raises(TargetError, match=message):
            call(desc)


_SIGMAS = st.floats(0.01, 2)
_CONFIDENCES = st.floats(0.01, 0.99)


@given(median=st.floats(1e-3, 1e6), sigma=_SIGMAS, confidence=_CONFIDENCES)
def test_prediction_when_quantiles_and_probabilities_are_inverse(
    median: float, sigma: float, confidence: float
) -> None:
    prediction = Prediction.lognormal(median=median, sigma_log=sigma, confidence=confidence)
    assert prediction.probability_below(prediction.upper(confidence)) == pytest.approx(confidence)
    inside = prediction.probability_below(prediction.high)
    inside -= prediction.probability_below(prediction.low)
    assert inside == pytest.approx(confidence)
    assert prediction.value == median
    assert prediction.low * prediction.high == pytest.approx(median**2)
    log_of_it = NormalDist(math.log(median), sigma)
    assert math.log(prediction.upper(0.9)) == pytest.approx(log_of_it.inv_cdf(0.9))


@given(sigma=_SIGMAS, first=_CONFIDENCES, second=_CONFIDENCES)
def test_upper_when_confidence_grows(sigma: float, first: float, second: float) -> None:
    prediction = Prediction.lognormal(median=3.0, sigma_log=sigma, confidence=0.9)
    assert (prediction.upper(first) <= prediction.upper(second)) or first > second
    assert prediction.upper(0.5) == pytest.approx(3.0)


def test_probability_when_limit_is_extreme() -> None:
    prediction = Prediction.lognormal(median=3.0, sigma_log=0.5, confidence=0.9)
    assert prediction.probability_below(0) == 0
    assert prediction.probability_below(-1) == 0
    assert prediction.probability_below(math.inf) == 1
    assert prediction.probability_below(3.0) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="NaN"):
        prediction.probability_below(math.nan)


def test_prediction_when_certain() -> None:
    certain = Prediction.lognormal(median=3.0, sigma_log=0, confidence=0.9, source="measured")
    assert (certain.low, certain.high, certain.upper(0.99)) == (3.0, 3.0, 3.0)
    assert [certain.probability_below(x) for x in (2.9, 3.0)] == [0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": math.nan}, "out of order"),
        ({"low": 4.0}, "out of order"),
        ({"high": 2.0}, "out of order"),
        ({"low": 0.0}, "out of order"),
        ({"high": math.inf}, "out of order"),
        ({"sigma_log": -1.0}, "sigma_log"),
        ({"sigma_log": math.nan}, "sigma_log"),
        ({"confidence": 1.0}, "strictly between 0 and 1"),
    ],
)
def test_prediction_when_numbers_are_wrong(changes: dict[str, float], message: str) -> None:
    sound = Prediction(
        value=3.0, low=2.5, high=3.5, confidence=0.9, source="measured", sigma_log=0.1
    )
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(sound, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("confidence", [0, 1, -0.1, 90, math.nan])
def test_confidence_when_out_of_range(confidence: float) -> None:
    message = "not strictly between 0 and 1; try 0.9"
    with pytest.raises(ValueError, match=message):
        CostPredictor(profile(), confidence=confidence)
    sound = Prediction.lognormal(median=3.0, sigma_log=0.5, confidence=0.9)
    with pytest.raises(ValueError, match=message):
        sound.upper(confidence)


def test_kinds_when_every_one_is_priced() -> None:
    predictor = CostPredictor(profile())
    for kind in KernelKind:
        macs = 1000 if kind in WEIGHTED_KINDS else 0
        (cost,) = predictor.kernels(net(conv(kind=kind, macs=macs)))
        assert cost.kind is kind
        assert cost.latency_ms > 0.01
