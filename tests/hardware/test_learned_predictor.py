import dataclasses
from functools import cache

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_fixtures import (
    PROVENANCE,
    Device,
    coefficients,
    leaf,
    random_networks,
    small_fit,
    sure_effects,
)
from test_predictor import conv, net, profile

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.errors import TargetError
from hwsearch.hardware.cost import Cost
from hwsearch.hardware.kernel_table import kernel_table
from hwsearch.hardware.kernels import KernelKind
from hwsearch.hardware.learned.fit import fit_profile
from hwsearch.hardware.learned.model import Coefficients, fit_digest
from hwsearch.hardware.learned.predictor import LearnedPredictor
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile

NETWORKS = random_networks(7, seed=50)
ALL_BITS = (FP32, FP16, INT8)


@cache
def mixed_fit() -> HardwareProfile:
    """Fitted to networks in all widths, without energies."""
    device = Device.random(profile(), seed=6, sigma=0.2, noise=0.02)
    measured = device.measure(random_networks(24, seed=7, bits=ALL_BITS), seed=8)
    return fit_profile(profile(), measured, provenance=PROVENANCE)


@cache
def mixed() -> CostPredictor:
    return CostPredictor(mixed_fit())


def with_coefficients(latency: Coefficients) -> HardwareProfile:
    """A profile with this fit of latency, and none of energy."""
    data = small_fit().model_dump(mode="json")
    data["fit"]["energy"] = None
    data["fit"]["latency"] |= {
        "coefficients": latency.model_dump(mode="json"),
        "digest": fit_digest(latency, 1.0),
        "interval_factor": 1.0,
    }
    return HardwareProfile.model_validate(data)


def same_costs(first: list[Cost], second: list[Cost], rel: float = 1e-9) -> bool:
    for one, other in zip(first, second, strict=True):
        assert (one.size_bytes, one.macs) == (other.size_bytes, other.macs)
        for a, b in ((one.latency_ms, other.latency_ms), (one.energy_mj, other.energy_mj)):
            assert (a is None) == (b is None)
            if a is None or b is None:
                continue
            assert (a.confidence, a.source, a.extrapolated) == (
                b.confidence,
                b.source,
                b.extrapolated,
            )
            numbers = [(p.value, p.low, p.high, p.sigma_log) for p in (a, b)]
            assert numbers[0] == pytest.approx(numbers[1], rel=rel)
    return True


# -- one answer, however it is asked for ----------------------------------------------------------


def test_predict_all_when_compared_with_one_by_one() -> None:
    for fit in (small_fit(), mixed_fit()):
        predictor = CostPredictor(fit)
        alone = [predictor.predict(network) for network in NETWORKS]
        assert same_costs(predictor.predict_all(NETWORKS), alone)
        assert same_costs(predictor.predict_all(NETWORKS[::-1]), alone[::-1])


def test_latencies_when_only_medians_are_wanted() -> None:
    predictor = CostPredictor(small_fit())
    expected = [cost.latency_ms.value for cost in predictor.predict_all(NETWORKS)]
    assert [predictor.latency_ms(network) for network in NETWORKS] == pytest.approx(expected)
    assert predictor.latencies_ms(kernel_table(NETWORKS)) == pytest.approx(expected)


def test_profile_when_trees_are_written_as_yaml_then_predictions_are_identical() -> None:
    # Floats without a point ("1e-05") are text to YAML 1.1 unless they are written with care.
    trees = (leaf(1e-5), leaf(0.1))
    effects = sure_effects(NETWORKS, compute=1e-7, floor=-3e-12)
    fit = with_coefficients(coefficients(effects=effects, residual=trees, residual_noise_log=1e-5))
    again = HardwareProfile.model_validate(
        yaml.safe_load(yaml.safe_dump(fit.model_dump(mode="json")))
    )
    assert again == fit
    assert CostPredictor(again).predict_all(NETWORKS) == CostPredictor(fit).predict_all(NETWORKS)


# -- kernels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("energy_fitted", [True, False])
def test_kernels_when_added_up_then_the_prediction_less_the_overhead(energy_fitted: bool) -> None:
    predictor = CostPredictor(small_fit() if energy_fitted else mixed_fit())
    latency_overheads, energy_overheads = [], []
    for network in NETWORKS:
        cost, parts = predictor.predict(network), predictor.kernels(network)
        assert [part.name for part in parts] == [kernel.name for kernel in network.kernels]
        latency_overheads.append(cost.latency_ms.value - sum(part.latency_ms for part in parts))
        assert cost.energy_mj is not None
        energies = [part.energy_mj for part in parts if part.energy_mj is not None]
        assert len(energies) == len(parts)
        energy_overheads.append(cost.energy_mj.value - sum(energies))
    for overheads in (latency_overheads, energy_overheads):
        assert overheads[0] > 0
        assert overheads == pytest.approx([overheads[0]] * len(NETWORKS), rel=1e-6)


def test_kernels_when_described() -> None:
    linear = conv(kind=KernelKind.LINEAR, bits=INT8)
    tiny = conv(macs=1, input_elements=1, output_elements=1, weight_elements=1)
    light = conv(macs=10_000)
    predictor = CostPredictor(with_coefficients(coefficients()))
    parts = predictor.kernels(net(linear, tiny, light, conv()))
    assert [part.bound for part in parts[1:]] == ["floor", "memory", "compute"]
    assert (parts[0].kind, parts[0].bits, parts[0].macs) == (KernelKind.LINEAR, INT8, linear.macs)
    assert parts[0].bytes == 2 * (4096 + 2048 + 18464), "moved as fp16, which it runs in"
    assert all(part.latency_ms > 0 for part in parts)


# -- intervals ------------------------------------------------------------------------------------


def test_interval_when_confidence_grows_then_wider() -> None:
    costs = [CostPredictor(small_fit(), c).predict(NETWORKS[0]) for c in (0.5, 0.9, 0.99)]
    widths = [cost.latency_ms.high / cost.latency_ms.low for cost in costs]
    assert widths == sorted(widths)
    assert len({cost.latency_ms.value for cost in costs}) == 1
    assert [cost.latency_ms.confidence for cost in costs] == [0.5, 0.9, 0.99]
    assert costs[0].latency_ms.source == "predicted"


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_interval_when_the_fit_says_how_far_it_is_off(factor: float) -> None:
    fit = small_fit().fit
    assert fit is not None
    data = small_fit().model_dump(mode="json")
    changed = factor * fit.latency.interval_factor
    digest = fit_digest(fit.latency.coefficients, changed)
    data["fit"]["latency"] |= {"interval_factor": changed, "digest": digest}
    wider = CostPredictor(HardwareProfile.model_validate(data)).predict(NETWORKS[0])
    plain = CostPredictor(small_fit()).predict(NETWORKS[0])
    assert wider.latency_ms.value == plain.latency_ms.value
    assert wider.latency_ms.sigma_log == pytest.approx(factor * plain.latency_ms.sigma_log)


@pytest.mark.parametrize(("factor", "applied"), [(0.25, 1.0), (3.0, 3.0)])
def test_interval_when_extrapolated_is_never_narrower_than_the_model_says(
    factor: float, applied: float
) -> None:
    fit = small_fit().fit
    assert fit is not None
    data = small_fit().model_dump(mode="json")
    stranger = net(*[conv(macs=10**9)] * 2)
    found = {}
    for each in (1.0, factor):
        digest = fit_digest(fit.latency.coefficients, each)
        data["fit"]["latency"] |= {"interval_factor": each, "digest": digest}
        cost = CostPredictor(HardwareProfile.model_validate(data)).predict(stranger)
        assert cost.latency_ms.extrapolated
        found[each] = cost.latency_ms.sigma_log
    assert found[factor] == pytest.approx(applied * found[1.0])


# -- energy ---------------------------------------------------------------------------------------


def test_energy_when_only_latency_was_fitted_then_by_the_rates_of_the_profile() -> None:
    fit = with_coefficients(coefficients(effects=sure_effects(NETWORKS)))
    energy = fit.energy
    assert energy is not None
    cost = CostPredictor(fit).predict(NETWORKS[0])
    assert cost.energy_mj is not None
    # Channels come in blocks of one here, so that nothing is padded.
    bytes_moved = sum(kernel.bytes for kernel in NETWORKS[0].kernels)
    active_mj = 1e-9 * (
        cost.macs * energy.active_pj_per_mac[FP32] + bytes_moved * energy.active_pj_per_byte
    )
    expected = energy.baseline_w * cost.latency_ms.value + active_mj
    assert cost.energy_mj.value == pytest.approx(expected)
    assert cost.energy_mj.sigma_log > cost.latency_ms.sigma_log


# -- physics --------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(list(KernelKind)),
    bits=st.sampled_from(ALL_BITS),
    macs=st.integers(0, 10**8),
    elements=st.integers(1, 10**7),
    more=st.integers(1, 10**6),
)
def test_latency_when_work_grows(
    kind: KernelKind, bits: LayerBits, macs: int, elements: int, more: int
) -> None:
    base = conv(kind=kind, macs=macs, input_elements=elements, bits=bits)
    grown = [
        dataclasses.replace(base, macs=macs + more),
        dataclasses.replace(base, input_elements=elements + more),
        dataclasses.replace(base, output_elements=base.output_elements + more),
        dataclasses.replace(base, weight_elements=base.weight_elements + more),
    ]
    costs = mixed().predict_all([net(base), *(net(one) for one in grown), net(base, base)])
    least = costs[0]
    assert all(cost.latency_ms.value > least.latency_ms.value for cost in costs[1:])
    for cost in costs[1:]:
        assert cost.energy_mj is not None
        assert least.energy_mj is not None
        assert cost.energy_mj.value > least.energy_mj.value


# -- refusals -------------------------------------------------------------------------------------


def test_predictor_when_the_profile_has_no_fit() -> None:
    with pytest.raises(ValueError, match="round has no fit"):
        LearnedPredictor(profile())


@pytest.mark.parametrize("confidence", [0.0, 1.0, float("nan")])
def test_confidence_when_out_of_range(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"not strictly between 0 and 1; try 0\.9"):
        CostPredictor(small_fit(), confidence)


def test_predict_when_bits_have_no_rate_then_the_kernel_is_named() -> None:
    network = net(conv(), conv(bits=LayerBits(4, 8)))
    predictor = CostPredictor(small_fit())
    for call in (predictor.predict, predictor.latency_ms, predictor.kernels):
        with pytest.raises(TargetError, match=r"kernel 1 \(conv\) is asked in W4A8, for which"):
            call(network)
