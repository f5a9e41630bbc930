import math
from collections.abc import Sequence

import numpy as np
import pytest
from learned_fixtures import coefficients, leaf, plain_terms, random_networks, sure_effects
from test_predictor import conv, net, profile

from hwsearch.bits import FP16, FP32, INT8
from hwsearch.hardware.kernel_table import kernel_table
from hwsearch.hardware.kernels import KernelKind, NetworkDesc
from hwsearch.hardware.learned.effects import prior_draw
from hwsearch.hardware.learned.evaluate import Evaluated, energy_terms, evaluate, evaluate_energy
from hwsearch.hardware.learned.model import Coefficients, KernelRange
from hwsearch.hardware.learned.terms import (
    KernelClass,
    classify,
    distinct,
    effects_of,
    latency_terms,
)
from hwsearch.hardware.rates import TERMS

TARGET = profile()
OVERHEAD_MS = TARGET.kernels.network_overhead_us / 1e3
NETWORKS = random_networks(6, seed=1, bits=(FP32, FP16, INT8))


def evaluated(model: Coefficients, networks: Sequence[NetworkDesc]) -> Evaluated:
    rows = classify(TARGET, kernel_table(networks))
    return evaluate(model, rows, *latency_terms(TARGET, rows))


def sure(**changes: object) -> Coefficients:
    """No effect of ``NETWORKS`` is uncertain."""
    return coefficients(effects=sure_effects(NETWORKS), **changes)


def plain_ms(network: NetworkDesc, **factors: float) -> float:
    """Latency with a factor for some terms."""
    return OVERHEAD_MS * factors.get("overhead", 1.0) + sum(
        value * factors.get(term, 1.0)
        for kernel in network.kernels
        for term, value in plain_terms(TARGET, kernel).items()
    )


# -- values ---------------------------------------------------------------------------------------


def test_value_when_terms_have_factors_then_summed_by_hand() -> None:
    effects = sure_effects(NETWORKS, compute=0.5, floor=-0.3, memory=0.2, overhead=1.0)
    expected = [
        plain_ms(
            network,
            compute=math.exp(0.5),
            floor=math.exp(-0.3),
            input=math.exp(0.2),
            output=math.exp(0.2),
            weight=math.exp(0.2),
            overhead=math.e,
        )
        for network in NETWORKS
    ]
    assert evaluated(coefficients(effects=effects), NETWORKS).value == pytest.approx(expected)


@pytest.mark.parametrize("trees", [(), (leaf(0.2), leaf(-0.05))])
def test_shares_when_added_up_then_the_value_less_the_overhead(trees: tuple[object, ...]) -> None:
    noise = 0.02 if trees else None
    found = evaluated(sure(residual=trees, residual_noise_log=noise), NETWORKS)
    table = kernel_table(NETWORKS)
    factor = math.exp(0.15) if trees else 1.0
    assert found.of_term.shape == (len(table), len(TERMS))
    assert (found.of_term >= 0).all()
    assert table.per_network(found.of_term.sum(1)) + OVERHEAD_MS * factor == pytest.approx(
        found.value
    )


# -- uncertainty ----------------------------------------------------------------------------------


def test_spread_when_computed_from_every_sample_by_hand() -> None:
    effects = sure_effects(NETWORKS)
    effects["compute"], effects["all"] = (0.1, 0.5, -0.3), (0.0, -0.2, 0.1)
    found = evaluated(coefficients(effects=effects), NETWORKS)
    for at, network in enumerate(NETWORKS):
        totals = []
        for compute, everything in zip(effects["compute"], effects["all"], strict=True):
            in_all = dict.fromkeys((*TERMS, "overhead"), math.exp(everything))
            in_all["compute"] *= math.exp(compute)
            totals.append(plain_ms(network, **in_all))
        best, *samples = totals
        spread = math.sqrt(np.mean([math.log(sample / best) ** 2 for sample in samples]))
        assert found.value[at] == pytest.approx(best)
        assert found.spread_log[at] == pytest.approx(spread)
        assert found.sigma_log[at] == pytest.approx(math.hypot(spread, 0.05))


def test_spread_when_an_effect_is_missing_then_its_prior_draws_count() -> None:
    effects = sure_effects(NETWORKS)
    (missing,) = [
        effect
        for effect in distinct([effects_of("compute", one) for one in _classes()])
        if effect.name == "compute/conv"
    ]
    del effects[missing.name]
    by_hand = dict(effects)
    by_hand[missing.name] = (0.0, prior_draw(missing, 0), prior_draw(missing, 1))
    found, expected = (evaluated(coefficients(effects=e), NETWORKS) for e in (effects, by_hand))
    assert found.value == pytest.approx(expected.value)
    assert found.spread_log == pytest.approx(expected.spread_log)
    assert (found.spread_log > evaluated(sure(), NETWORKS).spread_log).all()


def _classes() -> Sequence[KernelClass]:
    return classify(TARGET, kernel_table(NETWORKS)).classes


def test_sigma_when_a_kind_was_never_measured_then_wider() -> None:
    softmax = conv(kind=KernelKind.SOFTMAX, macs=0, weight_elements=0)
    known, strange = net(conv()), net(conv(), softmax)
    known_sure = coefficients(effects=sure_effects([known]))
    found = evaluated(known_sure, [known, strange])
    assert found.spread_log[0] == 0
    assert found.spread_log[1] > 0
    assert found.sigma_log[1] > found.sigma_log[0]
    assert found.value[1] > found.value[0], "an unknown kernel is never free"


# -- extrapolation --------------------------------------------------------------------------------


def with_ranges(networks: Sequence[NetworkDesc]) -> Coefficients:
    """Ranges as they would be had these networks been measured."""
    by_variant: dict[str, list[tuple[float, float]]] = {}
    rows = classify(TARGET, kernel_table(networks))
    kernels = [kernel for network in networks for kernel in network.kernels]
    for kernel, at in zip(kernels, rows.of_row, strict=True):
        elements = kernel.input_elements + kernel.output_elements + kernel.weight_elements
        by_variant.setdefault(rows.classes[at].variant, []).append((kernel.macs, elements))
    ranges = {
        variant: KernelRange(
            macs=(min(m for m, _ in found), max(m for m, _ in found)),
            elements=(min(e for _, e in found), max(e for _, e in found)),
        )
        for variant, found in by_variant.items()
    }
    latencies_ms = [plain_ms(network) for network in networks]
    return coefficients(
        effects=sure_effects(networks),
        kernel_ranges=ranges,
        measured_range=(min(latencies_ms), max(latencies_ms)),
    )


def test_extrapolated_when_networks_are_those_measured() -> None:
    found = evaluated(with_ranges(NETWORKS), NETWORKS)
    assert not found.extrapolated.any()
    assert found.sigma_log == pytest.approx(0.05)


def test_extrapolated_when_most_of_a_network_is_of_an_unmeasured_kind() -> None:
    depthwise = conv(kind=KernelKind.DEPTHWISE)
    found = evaluated(
        with_ranges([net(conv()), net(*[conv()] * 9)]), [net(conv()), net(*[depthwise] * 5)]
    )
    assert found.extrapolated.tolist() == [False, True]
    assert found.sigma_log[1] > 3 * found.sigma_log[0]


@pytest.mark.parametrize("times", [1e-3, 20.0])
def test_extrapolated_when_kernels_are_far_smaller_or_larger(times: float) -> None:
    measured = [net(*[conv()] * count) for count in (1, 40)]
    other = conv(macs=round(conv().macs * times))
    found = evaluated(with_ranges(measured), [net(*[conv()] * 3), net(*[other] * 3)])
    assert found.extrapolated.tolist() == [False, True]
    assert found.sigma_log[1] > 3 * found.sigma_log[0]


def test_sigma_when_the_latency_is_further_out_of_range_then_wider() -> None:
    measured = [net(*[conv()] * number) for number in (20, 30)]
    counts = (25, 55, 500, 5000)
    found = evaluated(with_ranges(measured), [net(*[conv()] * count) for count in counts])
    assert found.sigma_log[:2] == pytest.approx(0.05), "within a factor of two all is as measured"
    assert found.extrapolated.tolist() == [False, False, True, True]
    beyond = np.log(found.value / (2 * plain_ms(measured[1])))
    expected = np.hypot(0.05, 0.1 * np.maximum(beyond, 0))
    assert found.sigma_log == pytest.approx(expected)
    below = evaluated(with_ranges(measured), [net(conv())])
    assert below.sigma_log[0] > 0.05


def test_extrapolated_when_the_samples_disagree_more_than_they_ever_did() -> None:
    effects = sure_effects(NETWORKS)
    effects["all"] = (0.0, 0.2, -0.2)
    flags = [
        evaluated(coefficients(effects=effects, largest_spread_log=limit), NETWORKS).extrapolated
        for limit in (0.15, 0.25)
    ]
    assert flags[0].all()
    assert not flags[1].any()


# -- trees ----------------------------------------------------------------------------------------


def test_trees_when_they_correct_every_network() -> None:
    plain = evaluated(sure(), NETWORKS)
    found = evaluated(sure(residual=(leaf(0.1), leaf(0.05)), residual_noise_log=0.01), NETWORKS)
    assert found.value == pytest.approx(plain.value * math.exp(0.15))
    assert found.sigma_log == pytest.approx(0.01)


def test_trees_when_a_network_is_extrapolated_then_left_out() -> None:
    model = with_ranges([net(conv()), net(*[conv()] * 9)]).model_copy(
        update={"residual": (leaf(0.2),), "residual_noise_log": 0.01}
    )
    networks = [net(conv()), net(*[conv(kind=KernelKind.DEPTHWISE)] * 5)]
    bare = model.model_copy(update={"residual": (), "residual_noise_log": None})
    found, plain = evaluated(model, networks), evaluated(bare, networks)
    assert found.value / plain.value == pytest.approx([math.exp(0.2), 1.0])
    assert found.sigma_log[1] == plain.sigma_log[1]


# -- energy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("compute", [0.0, 0.4])
def test_energy_terms_when_computed_by_hand(compute: float) -> None:
    energy = TARGET.energy
    assert energy is not None
    latency = coefficients(effects=sure_effects(NETWORKS, compute=compute))
    rows = classify(TARGET, kernel_table(NETWORKS))
    learned_ms = evaluate(latency, rows, *latency_terms(TARGET, rows))
    terms, overhead = energy_terms(TARGET, learned_ms, rows)
    kernels = [kernel for network in NETWORKS for kernel in network.kernels]
    for row, kernel in zip(terms, kernels, strict=True):
        learned = plain_terms(TARGET, kernel)
        learned["compute"] *= math.exp(compute)
        # Linear kernels in int8 run as fp16 here: energy is that of what runs.
        runs = TARGET.kernels.by_kind[kernel.kind][kernel.bits].runs_as or kernel.bits
        rate = TARGET.kernels.by_kind[kernel.kind][runs].compute_efficiency
        assert rate is not None
        padded = learned["waste"] * TARGET.compute.by_bits[runs].peak_gmac_per_s * rate * 1e6
        padded /= TARGET.kernels.by_kind[kernel.kind][kernel.bits].slowdown
        pj_per_mac, pj_per_byte = energy.active_pj_per_mac[runs], energy.active_pj_per_byte
        elements = (
            kernel.input_elements * runs.activation_bits,
            kernel.output_elements * runs.activation_bits,
            kernel.weight_elements * runs.weight_bits,
        )
        active_pj = [0.0, kernel.macs * pj_per_mac, padded * pj_per_mac]
        active_pj += [bits / 8 * pj_per_byte for bits in elements]
        active_pj += [0.0, 0.0]  # nothing is converted, or computed apart, on this target
        expected = [
            energy.baseline_w * learned[term] + pj * 1e-9
            for term, pj in zip(TERMS, active_pj, strict=True)
        ]
        assert row.tolist() == pytest.approx(expected)
    assert overhead == pytest.approx([energy.baseline_w * OVERHEAD_MS] * len(NETWORKS))


def test_energy_terms_when_trees_correct_the_latency_then_every_term_is_paid_for_longer() -> None:
    energy = TARGET.energy
    assert energy is not None
    rows = classify(TARGET, kernel_table(NETWORKS))
    plain, longer = evaluated(sure(), NETWORKS), evaluated(with_trees(0.2), NETWORKS)
    first, first_overhead = energy_terms(TARGET, plain, rows)
    second, second_overhead = energy_terms(TARGET, longer, rows)
    assert second - first == pytest.approx(energy.baseline_w * math.expm1(0.2) * plain.of_term)
    assert second_overhead == pytest.approx(math.exp(0.2) * first_overhead)


def with_trees(value: float) -> Coefficients:
    """Trees that say the same of every network."""
    return sure(residual=(leaf(value),), residual_noise_log=0.05)


def unsure_latency(networks: Sequence[NetworkDesc]) -> Evaluated:
    """Every latency is known to a factor of e^0.4."""
    return evaluated(
        coefficients(effects={**sure_effects(networks), "all": (0.0, 0.4, -0.4)}), networks
    )


def test_sigma_of_energy_when_the_latency_is_unsure_then_by_hand() -> None:
    assert TARGET.energy is not None
    rows = classify(TARGET, kernel_table(NETWORKS))
    latency = unsure_latency(NETWORKS)
    found = evaluate_energy(sure(), TARGET, latency, rows)
    assert latency.spread_log == pytest.approx(np.full(len(NETWORKS), 0.4))
    for at, network in enumerate(NETWORKS):
        baseline_mj = TARGET.energy.baseline_w * plain_ms(network)
        # With factors of one the energy is what the rates say, and its own sigma is the noise.
        expected = math.hypot(0.05, 0.4 * baseline_mj / float(found.value[at]))
        assert found.sigma_log[at] == pytest.approx(expected)


def test_sigma_of_energy_when_nothing_is_paid_over_the_latency_then_its_own() -> None:
    assert TARGET.energy is not None
    energy = TARGET.energy.model_copy(update={"baseline_w": 0.0})
    target = TARGET.model_copy(update={"energy": energy})
    rows = classify(target, kernel_table(NETWORKS))
    found = evaluate_energy(sure(), target, unsure_latency(NETWORKS), rows)
    assert found.sigma_log == pytest.approx(np.full(len(NETWORKS), 0.05))


def test_energy_when_the_latency_is_extrapolated_then_too() -> None:
    rows = classify(TARGET, kernel_table(NETWORKS))
    far = evaluated(sure(measured_range=(1e-6, 2e-6)), NETWORKS)
    assert far.extrapolated.all()
    assert evaluate_energy(sure(), TARGET, far, rows).extrapolated.all()
    near = evaluated(sure(), NETWORKS)
    assert not evaluate_energy(sure(), TARGET, near, rows).extrapolated.any()
