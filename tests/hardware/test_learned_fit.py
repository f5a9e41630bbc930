import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from learned_fixtures import PROVENANCE, Device, random_networks, small_fit
from scipy.stats import norm, spearmanr
from test_predictor import conv, net, profile

from hwsearch.bits import FP32, INT8
from hwsearch.errors import TargetError
from hwsearch.hardware.kernel_table import Floats
from hwsearch.hardware.learned.fit import (
    LEAST_NETWORKS,
    HeldOut,
    fit_profile,
    hold_out,
    random_folds,
)
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile

TARGET = profile()
NOISE = 0.03
DENSE = ("dense", "pointwise")


@cache
def device(seed: int = 1) -> Device:
    return Device.random(TARGET, seed=seed, noise=NOISE)


def measured(
    count: int, *, seed: int, energy_w: float | None = None, of: int = 1
) -> list[Measurement]:
    networks = random_networks(count, seed=seed, blocks=DENSE)
    return device(of).measure(networks, seed=seed, energy_w=energy_w)


def fitted(measurements: Sequence[Measurement], **options: object) -> HardwareProfile:
    return fit_profile(TARGET, measurements, provenance=PROVENANCE, **options)  # type: ignore[arg-type]


def values_of(fit: HardwareProfile, measurements: Sequence[Measurement]) -> Floats:
    costs = CostPredictor(fit).predict_all([one.network for one in measurements])
    return np.array([cost.latency_ms.value for cost in costs])


def truth_of(measurements: Sequence[Measurement], of: int = 1) -> Floats:
    return np.array([device(of).latency_ms(one.network) for one in measurements])


def varied(count: int, *, seed: int, of: int, energy_w: float | None = None) -> list[Measurement]:
    """Networks of all blocks on devices that are far from their spec sheet."""
    far = Device.random(TARGET, seed=of, sigma=0.7, noise=NOISE)
    return far.measure(random_networks(count, seed=seed), seed=seed, energy_w=energy_w)


def unseen(
    known: Sequence[Measurement], fresh: Sequence[Measurement], **options: object
) -> HeldOut:
    """The fresh networks as a fit to the known ones predicts them, without cross-validation."""
    folds = [-1] * len(known) + [0] * len(fresh)
    return hold_out(TARGET, [*known, *fresh], folds, **options)  # type: ignore[arg-type]


def scaled(measurements: Sequence[Measurement], scale: float) -> list[Measurement]:
    return [dataclasses.replace(one, latency_ms=scale * one.latency_ms) for one in measurements]


def held(errors: Sequence[float], sigma: float = 0.1) -> HeldOut:
    """Networks of 10 ms that were predicted with these errors of the logarithm."""
    count = len(errors)
    return HeldOut(
        measured=np.full(count, 10.0),
        predicted=10.0 * np.exp(-np.array(errors)),
        sigma_log=np.full(count, sigma),
        spread_log=np.full(count, sigma / 2),
        extrapolated=np.zeros(count),
    )


# -- folds and errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, 6, 9, 10, 23, 100])
def test_folds_when_counted(count: int) -> None:
    sizes = Counter(random_folds(count, seed=3).tolist())
    assert sorted(sizes) == list(range(len(sizes)))
    assert sum(sizes.values()) == count
    assert max(sizes.values()) - min(sizes.values()) <= 1
    assert len(sizes) == (count if count < 10 else 5)


@pytest.mark.parametrize("count", [3, 9, 10, 18, 19, 37, 200])
def test_interval_factor_when_nine_tenths_fall_inside(count: int) -> None:
    errors = np.random.default_rng(count).normal(size=count)
    found = held(errors.tolist()).interval_factor() * norm.ppf(0.95) * 0.1
    inside = int((np.abs(errors) <= found * (1 + 1e-6)).sum())
    # Split conformal prediction: the smallest width that holds this many of them.
    assert inside == min(count, math.ceil(0.9 * (count + 1) - 1e-9))


def test_summary_when_computed_by_hand() -> None:
    rng = np.random.default_rng(5)
    truth = rng.uniform(1, 9, 25)
    guess = truth * np.exp(rng.normal(0, 0.1, 25))
    one = dataclasses.replace(held([0.0] * 25), measured=truth, predicted=guess)
    found = one.summary("by hand", 0.8)
    relative = [abs(g / t - 1) for g, t in zip(guess, truth, strict=True)]
    half = 0.8 * norm.ppf(0.95) * 0.1
    inside = [
        t / math.exp(half) <= g <= t * math.exp(half) for g, t in zip(guess, truth, strict=True)
    ]
    assert (found.split, found.networks) == ("by hand", 25)
    assert found.mape_percent == pytest.approx(100 * sum(relative) / 25, rel=1e-4)
    rmspe = math.sqrt(sum(error**2 for error in relative) / 25)
    assert found.rmspe_percent == pytest.approx(100 * rmspe, rel=1e-4)
    assert found.spearman == pytest.approx(spearmanr(guess, truth).statistic, rel=1e-4)
    assert found.coverage_percent == pytest.approx(100 * sum(inside) / 25)


def test_summary_when_all_predictions_are_equal_then_they_rank_nothing() -> None:
    one = held([0.1, 0.2, 0.3])
    constant = dataclasses.replace(one, predicted=np.full(3, 5.0), measured=np.arange(1.0, 4.0))
    assert constant.summary("constant", 1.0).spearman == 0


# -- holding out ----------------------------------------------------------------------------------


def test_hold_out_when_a_fold_is_predicted_then_it_was_not_seen() -> None:
    rows = measured(16, seed=1)
    folds = random_folds(16, seed=0)
    first = hold_out(TARGET, rows, folds)
    others = [
        dataclasses.replace(one, latency_ms=9 * one.latency_ms) if fold == 2 else one
        for one, fold in zip(rows, folds, strict=True)
    ]
    second = hold_out(TARGET, others, folds)
    assert second.predicted[folds == 2] == pytest.approx(first.predicted[folds == 2], rel=1e-12)
    assert (second.predicted[folds != 2] != first.predicted[folds != 2]).all()
    assert second.measured[folds == 2] == pytest.approx(9 * first.measured[folds == 2])


def test_hold_out_when_compared_with_a_fit_to_the_rest() -> None:
    rows = measured(14, seed=2)
    folds = [0 if at in (3, 8) else -1 for at in range(14)]
    found = hold_out(TARGET, rows, folds, seed=4)
    rest = [one for one, fold in zip(rows, folds, strict=True) if fold < 0]
    expected = values_of(fitted(rest, seed=4), [rows[3], rows[8]])
    assert found.predicted == pytest.approx(expected, rel=1e-3)
    assert found.measured.tolist() == [rows[3].latency_ms, rows[8].latency_ms]


def test_hold_out_when_folds_leave_too_few() -> None:
    with pytest.raises(TargetError, match="a fold leaves fewer than two networks to fit"):
        hold_out(TARGET, measured(6, seed=3), [0, 0, 0, 0, 0, -1])


def test_hold_out_when_energy_is_predicted() -> None:
    rows = measured(20, seed=4, energy_w=7.0)
    found = hold_out(TARGET, rows, random_folds(20, 0), quantity="energy")
    assert found.measured.tolist() == [one.energy_mj for one in rows]
    assert np.abs(found.predicted / found.measured - 1).mean() < 0.12


def test_hold_out_when_energy_has_no_section() -> None:
    rows = measured(8, seed=5, energy_w=7.0)
    with pytest.raises(TargetError, match="no energy section"):
        hold_out(profile(energy=None), rows, random_folds(8, 0), quantity="energy")


def test_hold_out_when_the_network_left_out_has_no_energy() -> None:
    rows = measured(8, seed=6, energy_w=7.0)
    rows[0] = dataclasses.replace(rows[0], energy_mj=None)
    with pytest.raises(ValueError, match="energy"):
        hold_out(TARGET, rows, [0, 0, *[-1] * 6], quantity="energy")


# -- fits -----------------------------------------------------------------------------------------


def test_fit_when_networks_were_measured_then_the_truth_is_found() -> None:
    rows, fresh = measured(40, seed=8), measured(40, seed=9)
    fit = fitted(rows)
    ratio = values_of(fit, fresh) / truth_of(fresh)
    assert np.abs(ratio - 1).mean() < 0.06
    unfitted = [CostPredictor(small_fit()).latency_ms(one.network) for one in fresh]
    assert np.abs(np.array(unfitted) / truth_of(fresh) - 1).mean() > 0.1, "another device"
    model = fit.fit
    assert model is not None
    assert model.latency.networks == 40
    assert model.latency.cross_validation.networks == 40
    assert model.latency.cross_validation.mape_percent < 8
    assert model.latency.cross_validation.spearman > 0.97
    assert model.latency.coefficients.residual == (), "too few networks for trees"
    assert model.energy is None


def test_fit_when_seeds_are_equal_or_not() -> None:
    rows = measured(12, seed=12)
    first, same, other = (fitted(rows, seed=seed) for seed in (1, 1, 2))
    assert same.profile_hash == first.profile_hash
    assert other.profile_hash != first.profile_hash
    assert values_of(other, rows) == pytest.approx(values_of(first, rows), rel=1e-3)


def test_fit_when_the_order_of_measurements_changes() -> None:
    rows, fresh = measured(12, seed=13), measured(6, seed=14)
    first, second = fitted(rows), fitted(rows[::-1])
    assert values_of(second, fresh) == pytest.approx(values_of(first, fresh), rel=0.01)


def test_fit_when_the_profile_has_one_then_replaced() -> None:
    rows = measured(12, seed=15)
    again = fit_profile(small_fit(), rows, provenance=PROVENANCE)
    assert again == fitted(rows)


def test_fit_when_made_then_the_rates_stay() -> None:
    before = TARGET.model_dump(mode="json")
    after = fitted(measured(8, seed=16)).model_dump(mode="json")
    assert {**after, "fit": None} == {**before, "fit": None}
    assert TARGET.fit is None


def test_fit_when_its_ranges_are_those_of_the_measurements() -> None:
    rows = measured(8, seed=17)
    fit = fitted(rows, noise_floor_percent=1.5).fit
    assert fit is not None
    assert fit.noise_floor_percent == 1.5
    assert fit.latency.provenance == PROVENANCE
    low, high = fit.latency.coefficients.measured_range
    latencies_ms = [one.latency_ms for one in rows]
    assert (low, high) == pytest.approx((min(latencies_ms), max(latencies_ms)), rel=1e-3)
    ranges = fit.latency.coefficients.kernel_ranges
    assert set(ranges) <= {"conv.stem", "conv.spatial", "conv.pointwise", "pooling", "linear"}
    stems = [kernel for one in rows for kernel in one.network.kernels if kernel.in_channels == 3]
    assert ranges["conv.stem"].macs == (min(k.macs for k in stems), max(k.macs for k in stems))


@pytest.mark.parametrize("scale", [0.25, 4.0])
def test_fit_when_measurements_are_scaled_then_so_are_predictions(scale: float) -> None:
    rows, fresh = measured(80, seed=18), measured(10, seed=19)
    plain = unseen(rows, fresh).predicted
    found = unseen(scaled(rows, scale), fresh).predicted
    assert found == pytest.approx(scale * plain, rel=0.06)


@pytest.mark.slow
def test_fit_when_few_networks_happen_to_fit_well_then_intervals_still_cover() -> None:
    by_factor = []
    for seed in range(20):
        one = Device.random(TARGET, seed=seed, noise=NOISE)
        fit = fitted(one.measure(random_networks(10, seed=1000 + seed), seed=seed))
        fresh = one.measure(random_networks(30, seed=2000 + seed), seed=50 + seed)
        costs = CostPredictor(fit).predict_all([row.network for row in fresh])
        inside = [
            cost.latency_ms.low <= row.latency_ms <= cost.latency_ms.high
            for cost, row in zip(costs, fresh, strict=True)
        ]
        assert fit.fit is not None
        by_factor.append((fit.fit.latency.interval_factor, float(np.mean(inside))))
    narrowest = [coverage for _, coverage in sorted(by_factor)[:5]]
    assert np.mean(narrowest) > 0.8, by_factor


# -- relatives ------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantity", ["latency", "energy"])
def test_start_when_the_relative_is_alike_then_few_networks_suffice(quantity: str) -> None:
    without: list[float] = []
    with_start: list[float] = []
    for of in range(3):
        relative = fitted(varied(40, seed=23, of=of, energy_w=7.0))
        few, fresh = (
            scaled(varied(count, seed=seed, of=of, energy_w=7.0), 1.1)
            for count, seed in ((5, 25), (30, 24))
        )
        for found, start in ((without, None), (with_start, relative)):
            one = unseen(few, fresh, start=start, quantity=quantity)
            found.append(float(np.abs(one.log_ratio).mean()))
    assert np.mean(with_start) < 0.75 * np.mean(without)


# -- trees ----------------------------------------------------------------------------------------


def quirky(measurements: Sequence[Measurement], size: float) -> list[Measurement]:
    """Networks of more than nine kernels run off some cache: no sum over kernels says so."""
    return [
        dataclasses.replace(
            one, latency_ms=one.latency_ms * math.exp(size * (len(one.network.kernels) > 9))
        )
        for one in measurements
    ]


@pytest.mark.slow
def test_trees_when_the_error_has_a_pattern_then_kept_else_not() -> None:
    rows = device().measure(random_networks(260, seed=30), seed=30)
    quirk, plain = fitted(quirky(rows, 0.35)).fit, fitted(rows).fit
    assert quirk is not None
    assert plain is not None
    assert quirk.latency.coefficients.residual
    noise_log = quirk.latency.coefficients.residual_noise_log
    assert noise_log is not None
    assert noise_log < quirk.latency.coefficients.noise_log
    assert plain.latency.coefficients.residual == ()
    assert plain.latency.coefficients.residual_noise_log is None


# -- energy ---------------------------------------------------------------------------------------


def test_energy_when_measured_then_fitted_with_its_own_model() -> None:
    rows, fresh = measured(40, seed=32, energy_w=9.0), measured(20, seed=33, energy_w=9.0)
    fit = fitted(rows)
    assert fit.fit is not None
    assert fit.fit.energy is not None
    assert fit.fit.energy.networks == 40
    without = fitted([dataclasses.replace(one, energy_mj=None) for one in rows]).fit
    assert without is not None
    assert without.latency == fit.fit.latency
    costs = CostPredictor(fit).predict_all([one.network for one in fresh])
    found = [cost.energy_mj.value for cost in costs if cost.energy_mj is not None]
    expected = 9.0 * truth_of(fresh)
    assert np.abs(np.array(found) / expected - 1).mean() < 0.08


@pytest.mark.parametrize(("with_energy", "learned"), [(4, False), (5, True)])
def test_energy_when_only_some_networks_have_one(with_energy: int, learned: bool) -> None:
    rows = measured(10, seed=34, energy_w=7.0)
    some = [
        *rows[:with_energy],
        *(dataclasses.replace(r, energy_mj=None) for r in rows[with_energy:]),
    ]
    fit = fitted(some).fit
    assert fit is not None
    assert (fit.energy is not None) == learned
    if fit.energy is not None:
        assert fit.energy.networks == with_energy


def test_energy_when_the_profile_has_no_section() -> None:
    rows = measured(6, seed=35, energy_w=7.0)
    message = "round has no energy section, so energies cannot be fitted; add one .* or leave"
    with pytest.raises(TargetError, match=message):
        fit_profile(profile(energy=None), rows, provenance=PROVENANCE)
    without = [dataclasses.replace(one, energy_mj=None) for one in rows]
    fit = fit_profile(profile(energy=None), without, provenance=PROVENANCE)
    assert CostPredictor(fit).predict(rows[0].network).energy_mj is None


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 4])
def test_fit_when_there_are_too_few_networks(count: int) -> None:
    message = f"{count} measured networks are too few to fit round; give at least {LEAST_NETWORKS}"
    with pytest.raises(TargetError, match=message):
        fitted(measured(6, seed=36)[:count])


def test_fit_when_networks_are_just_enough() -> None:
    fit = fitted(measured(LEAST_NETWORKS, seed=37)).fit
    assert fit is not None
    assert fit.latency.networks == LEAST_NETWORKS


def test_fit_when_all_networks_are_the_same() -> None:
    network = net(conv(), conv(bits=INT8))
    rows = [Measurement(network=network, latency_ms=3.0 + 0.01 * at) for at in range(6)]
    fit = fitted(rows)
    assert values_of(fit, rows) == pytest.approx([3.025] * 6, rel=0.02)
    other = CostPredictor(fit).predict(net(*[conv(bits=FP32, kernel_size=(1, 1))] * 3))
    same = CostPredictor(fit).predict(network)
    assert other.latency_ms.sigma_log > same.latency_ms.sigma_log
