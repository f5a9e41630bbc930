"""From a fitted model and the kernels of networks to predictions with their uncertainty."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from hwsearch.hardware.kernel_table import Floats
from hwsearch.hardware.learned.effects import factors
from hwsearch.hardware.learned.model import Coefficients, KernelRange
from hwsearch.hardware.learned.residual import correction, features_of
from hwsearch.hardware.learned.terms import (
    ClassifiedRows,
    caps_of,
    effects_of,
    sum_terms,
)
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.rates import TERMS

#: How far off the factor of a kernel may be that is larger or smaller than all measured ones:
#: utilization changes with size. The Nano's factors fitted on narrow convolutions alone are off
#: by this on wide ones.
_SHAPE_SIGMA: Final = 0.4
#: Slack on the ranges, as a factor either way.
_RANGE_SLACK: Final = 2.0
#: What each e-fold adds that a network takes longer, or less long, than all measured ones and their
#: slack: sizes at which caches overflow, clocks sink or launches overlap. Declared.
_RANGE_SIGMA: Final = 0.1
#: Share of a prediction that may come from kernels out of range before it counts as extrapolated.
_OUTSIDE_SHARE: Final = 0.5

Flags = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Predictions of networks; shapes (networks,), and (rows, terms) for the kernels.

    Attributes:
        value: median, in ms or mJ.
        sigma_log: standard deviation of log(truth / value), before the interval factor.
        spread_log: the part of it that the samples of the effects make.
        extrapolated: the network is unlike those that were measured.
        of_term: share of each term of each kernel in ``value``; the overhead is what is left.
    """

    value: Floats
    sigma_log: Floats
    spread_log: Floats
    extrapolated: Flags
    of_term: Floats


def evaluate(
    model: Coefficients,
    rows: ClassifiedRows,
    row_terms: Floats,
    overhead: Floats,
    *,
    of_latency: bool = True,
) -> Evaluated:
    """Predict networks.

    Args:
        model: of latency or energy.
        rows: kernels of the networks.
        row_terms: terms of each row in the model's quantity, (rows, terms).
        overhead: of each network in the same quantity, (networks,).
        of_latency: the terms are those of latency, not of energy.
    """
    matrix = sum_terms(rows, row_terms, overhead, with_room=of_latency)
    every = factors(model.effects, matrix.effects, caps=matrix.caps, prior_scale=model.prior_scale)
    totals = matrix.values @ every
    value = totals[:, 0]
    # Around the most probable value, not around the samples' own mean, which skewness moves.
    spread = np.sqrt(np.mean(np.log(totals[:, 1:] / totals[:, :1]) ** 2, axis=1))
    of_term = row_terms * _class_factors(model, rows, with_room=of_latency)
    outside = _outside_share(model.kernel_ranges, rows, of_term.sum(1), value)
    beyond = _log_beyond(model.measured_range, value)
    extrapolated = (outside > _OUTSIDE_SHARE) | (spread > model.largest_spread_log) | (beyond > 0)
    if model.residual:
        change = correction(model.residual, features_of(rows, value))
        factor = np.exp(np.where(extrapolated, 0.0, change))
        value, of_term = value * factor, of_term * factor[rows.table.network][:, None]
    noise = np.full(len(value), model.noise_log)
    if model.residual_noise_log is not None:
        noise = np.where(extrapolated, noise, model.residual_noise_log)
    unlike = (outside * _SHAPE_SIGMA) ** 2 + (beyond * _RANGE_SIGMA) ** 2
    sigma = np.sqrt(spread**2 + noise**2 + unlike)
    return Evaluated(
        value=value, sigma_log=sigma, spread_log=spread, extrapolated=extrapolated, of_term=of_term
    )


def evaluate_energy(
    model: Coefficients, profile: HardwareProfile, latency: Evaluated, rows: ClassifiedRows
) -> Evaluated:
    """Predict energy in mJ.

    What is paid as baseline power over the latency is known no better than the latency: fitted to
    fp32 alone, the int8 latencies of the MLPerf boards lie 40 % off, and so do the energies, while
    what an ms costs hardly differs.

    Args:
        model: of energy.
        profile: with an energy section.
        latency: of the same networks.
        rows: kernels of the networks.
    """
    assert profile.energy is not None
    terms, overhead = energy_terms(profile, latency, rows)
    found = evaluate(model, rows, terms, overhead, of_latency=False)
    by_rates = rows.table.per_network(terms.sum(1)) + overhead
    paid_over_latency = np.minimum(1.0, profile.energy.baseline_w * latency.value / by_rates)
    return replace(
        found,
        sigma_log=np.hypot(found.sigma_log, paid_over_latency * latency.spread_log),
        extrapolated=found.extrapolated | latency.extrapolated,
    )


def calibrated_factor(interval_factor: float, extrapolated: Flags) -> Floats:
    """What each interval is widened by; of shape (networks,).

    A factor below 1 says that intervals were too wide for networks like those measured. It says
    nothing of others.
    """
    return np.where(extrapolated, max(1.0, interval_factor), interval_factor)


def energy_terms(
    profile: HardwareProfile, latency: Evaluated, rows: ClassifiedRows
) -> tuple[Floats, Floats]:
    """The terms of energy in mJ: baseline power over the learned time, and active energy.

    Args:
        profile: with an energy section.
        latency: of the same networks; the baseline is paid for all of it, as the trees have it.
        rows: kernels of the networks.

    Returns:
        Terms of each row, (rows, terms), and the overhead of each network, (networks,).
    """
    energy = profile.energy
    assert energy is not None
    priced = rows.priced
    macs, padded = rows.table.macs, priced.padded_macs
    active = np.column_stack(
        (
            np.zeros(len(rows.table)),
            np.stack((macs, padded - macs), axis=1) * priced.mj_per_mac[:, None],
            priced.bytes * energy.active_pj_per_byte * 1e-9,
        )
    )
    overhead_ms = latency.value - rows.table.per_network(latency.of_term.sum(1))
    # Sums that agree to the last digits may leave less than nothing of a small overhead.
    return energy.baseline_w * latency.of_term + active, energy.baseline_w * np.maximum(
        overhead_ms, 1e-9 * latency.value
    )


def _class_factors(model: Coefficients, rows: ClassifiedRows, *, with_room: bool) -> Floats:
    """The most probable factor of each term of each row, (rows, terms)."""
    columns = [effects_of(term, one) for one in rows.classes for term in TERMS]
    caps = [
        caps_of(rows, term, at, with_room=with_room)
        for at in range(len(rows.classes))
        for term in range(len(TERMS))
    ]
    flat = factors(model.effects, columns, caps=caps, prior_scale=model.prior_scale)[:, 0]
    by_class: Floats = flat.reshape(len(rows.classes), len(TERMS))
    return by_class[rows.of_row]


def _log_beyond(measured: tuple[float, float], value: Floats) -> Floats:
    """How far each prediction lies beyond the measured range and its slack, in the logarithm."""
    low, high = np.log(measured[0] / _RANGE_SLACK), np.log(measured[1] * _RANGE_SLACK)
    log_value = np.log(value)
    beyond: Floats = np.maximum(0.0, np.maximum(log_value - high, low - log_value))
    return beyond


def _outside_share(
    ranges: Mapping[str, KernelRange], rows: ClassifiedRows, of_row: Floats, value: Floats
) -> Floats:
    """Share of each prediction from kernels that are larger or smaller than all measured ones."""
    table = rows.table
    macs_low, macs_high, elements_low, elements_high = (
        np.array(bounds)[rows.of_row]
        for bounds in zip(*(_bounds(ranges.get(one.variant)) for one in rows.classes), strict=True)
    )
    elements = table.input_elements + table.output_elements + table.weight_elements
    inside = (
        (table.macs >= macs_low / _RANGE_SLACK)
        & (table.macs <= macs_high * _RANGE_SLACK)
        & (elements >= elements_low / _RANGE_SLACK)
        & (elements <= elements_high * _RANGE_SLACK)
    )
    share: Floats = table.per_network(np.where(inside, 0.0, of_row)) / value
    return share


def _bounds(found: KernelRange | None) -> tuple[float, float, float, float]:
    """Bounds of MACs and elements; a variant without a range has no kernel inside."""
    if found is None:
        return (np.inf, -np.inf, np.inf, -np.inf)
    return (*found.macs, *found.elements)
