"""From measured networks to a profile that predicts them, and says how well it does.

Cross-validation decides what is kept: the trees on the residual stay only if networks that were
left out are predicted better with them, and the width of the intervals is what those networks
needed.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from hwsearch.errors import TargetError
from hwsearch.hardware.file_model import Provenance
from hwsearch.hardware.kernel_table import Floats, Ints, KernelTable, kernel_table
from hwsearch.hardware.learned.effects import Learned, learn, prior_draw
from hwsearch.hardware.learned.evaluate import (
    Evaluated,
    calibrated_factor,
    energy_terms,
    evaluate,
    evaluate_energy,
)
from hwsearch.hardware.learned.model import (
    Coefficients,
    CrossValidation,
    Fit,
    FittedModel,
    KernelRange,
    fit_digest,
)
from hwsearch.hardware.learned.residual import features_of, fit_trees
from hwsearch.hardware.learned.terms import (
    ClassifiedRows,
    TermMatrix,
    classify,
    distinct,
    latency_terms,
    sum_terms,
)
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.profile import HardwareProfile

Quantity = Literal["latency", "energy"]

#: Below it neither noise nor error can be told.
LEAST_NETWORKS: Final = 5
_FOLDS: Final = 5
#: Trees need data, and must lower the error of networks left out by a tenth to be kept.
_LEAST_FOR_TREES: Final = 200
_WORTH_IT: Final = 0.9
#: From so many networks on a fifth of them, left out once, says all that five folds would.
_ONE_FOLD_FROM: Final = 2000
#: Two-sided quantile of the standard normal distribution that holds nine tenths.
_Z90: Final = 1.6448536
#: Of effects, which are logarithms: a tenth of a percent.
_EFFECT_DECIMALS: Final = 3
#: An effect counts as unlearned if its best value is less than this, and its samples lie from
#: their draws of the prior by less than this share of its standard deviation.
_UNLEARNED_BEST: Final = 0.001
_UNLEARNED_SHARE: Final = 0.15
#: How many networks it takes to believe half of what makes intervals narrower.
_FEW_NETWORKS: Final = 15
_DIGITS: Final = 4
#: While errors are gathered, no network counts as extrapolated for the spread of its samples.
_ANY_SPREAD: Final = 1e3


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Networks as predicted by a fit that had not seen them; shapes (networks,).

    Attributes:
        measured: in ms or mJ.
        predicted: in the same unit.
        sigma_log: before the interval factor.
        spread_log: see ``Evaluated``.
        extrapolated: see ``Evaluated``.
    """

    measured: Floats
    predicted: Floats
    sigma_log: Floats
    spread_log: Floats
    extrapolated: Floats

    @property
    def log_ratio(self) -> Floats:
        """log(measured / predicted)."""
        return np.log(self.measured / self.predicted)

    def interval_factor(self) -> float:
        """What makes nine tenths of the networks fall into their central intervals of 90 %.

        The conformal quantile with its correction for few networks; with fewer than ten, the
        largest. Intervals are made narrower only as far as networks are many: a few that happen to
        fit say little of the next one.
        """
        scores = np.sort(np.abs(self.log_ratio) / self.sigma_log)
        rank = min(len(scores), math.ceil(0.9 * (len(scores) + 1)))
        factor = max(float(scores[rank - 1]) / _Z90, 1e-3)
        if factor < 1:
            factor **= len(scores) / (len(scores) + _FEW_NETWORKS)
        return factor

    def summary(self, split: str, interval_factor: float) -> CrossValidation:
        """The errors, with intervals of this factor."""
        relative = np.abs(self.predicted / self.measured - 1)
        factor = calibrated_factor(interval_factor, self.extrapolated != 0)
        inside = np.abs(self.log_ratio) <= _Z90 * factor * self.sigma_log
        return CrossValidation(
            split=split,
            networks=len(relative),
            mape_percent=_rounded(100 * relative.mean()),
            rmspe_percent=_rounded(100 * np.sqrt((relative**2).mean())),
            spearman=_spearman(self.predicted, self.measured),
            coverage_percent=_rounded(100 * inside.mean()),
        )


def fit_profile(
    profile: HardwareProfile,
    measurements: Sequence[Measurement],
    *,
    provenance: Provenance,
    seed: int = 0,
    start: HardwareProfile | None = None,
    noise_floor_percent: float | None = None,
) -> HardwareProfile:
    """The profile with a fit; its rates stay, as the prior.

    Args:
        profile: of the target; its own fit, if any, is replaced.
        measurements: at least 5; energy is fitted if at least 5 have one.
        provenance: of the measurements.
        seed: of folds, samples and trees.
        start: a fitted relative, whose effects are where this fit starts.
        noise_floor_percent: how far two measurements of one network lie apart.

    Raises:
        TargetError: too few measurements, a kernel that the profile cannot price, energies for a
            profile without an energy section, or a relative without a fit.
    """
    bare = profile.model_copy(update={"fit": None})
    with_energy = [one for one in measurements if one.energy_mj is not None]
    if with_energy:
        _check_energy(bare)
    fitter = _Fitter(bare, seed=seed, start=_fit_of(start))
    latency = fitter.model(measurements, provenance, None)
    energy = None
    if len(with_energy) >= LEAST_NETWORKS:
        energy = fitter.model(with_energy, provenance, latency.coefficients)
    fit = Fit(noise_floor_percent=noise_floor_percent, latency=latency, energy=energy)
    return HardwareProfile.model_validate(
        {**bare.model_dump(mode="json"), "fit": fit.model_dump(mode="json")}
    )


def hold_out(
    profile: HardwareProfile,
    measurements: Sequence[Measurement],
    folds: Sequence[int] | Ints,
    *,
    quantity: Quantity = "latency",
    seed: int = 0,
    start: HardwareProfile | None = None,
    trees: bool = False,
) -> HeldOut:
    """Predict each fold from the others.

    Args:
        profile: the prior.
        measurements: of the networks.
        folds: of each the number of its fold; those below 0 are only ever fitted to.
        quantity: what is predicted; for energy every measurement must have one.
        seed: of samples and trees.
        start: a fitted relative.
        trees: with trees on the residual.

    Raises:
        TargetError: a fold leaves too few networks, energy of a profile without an energy section,
            or a relative without a fit.
        ValueError: not one fold for each measurement, or a measurement without the quantity.
    """
    if len(folds) != len(measurements):
        raise ValueError(f"{len(folds)} folds for {len(measurements)} measurements; give one each")
    if quantity == "energy":
        _check_energy(profile)
        lacking = [one.network.name for one in measurements if one.energy_mj is None]
        if lacking:
            raise ValueError(f"{lacking[0]} has no energy; leave out what has none")
    fitter = _Fitter(profile, seed=seed, start=_fit_of(start))
    data = _Data.of(measurements)
    return fitter.hold_out(quantity, data, np.asarray(folds), trees=trees, latency_trees=trees)


def _check_energy(profile: HardwareProfile) -> None:
    if profile.energy is None:
        raise TargetError(
            f"{profile.name} has no energy section, so energies cannot be fitted; add one that "
            "says what the energy is drawn by, or leave energy_mj out"
        )


def _fit_of(start: HardwareProfile | None) -> Fit | None:
    if start is not None and start.fit is None:
        raise TargetError(f"{start.name} has no fit to start from; give a fitted relative, or none")
    return None if start is None else start.fit


def random_folds(count: int, seed: int) -> Ints:
    """Five folds of sizes that differ by one at most; one network each when there are few."""
    number = min(_FOLDS, count) if count >= 2 * _FOLDS else count
    folds: Ints = np.random.default_rng(seed).permutation(np.arange(count) % number)
    return folds


@dataclass(frozen=True, kw_only=True)
class _Data:
    table: KernelTable
    latency: Floats
    energy: Floats

    @classmethod
    def of(cls, measurements: Sequence[Measurement]) -> "_Data":
        return cls(
            table=kernel_table([one.network for one in measurements]),
            latency=np.array([one.latency_ms for one in measurements]),
            energy=np.array(
                [math.nan if one.energy_mj is None else one.energy_mj for one in measurements]
            ),
        )

    def of_quantity(self, quantity: Quantity) -> Floats:
        return self.latency if quantity == "latency" else self.energy

    def digest(self) -> bytes:
        """Of all that a fit depends on, as far as fits of one table go."""
        table = self.table
        columns = (table.network, table.macs, table.weight_bits, self.latency)
        content = b"".join(column.tobytes() for column in (*columns, self.energy))
        return hashlib.sha256(content).digest()

    def subset(self, networks: Ints) -> "_Data":
        return _Data(
            table=self.table.of(networks),
            latency=self.latency[networks],
            energy=self.energy[networks],
        )


#: A digest of the measurements, the latency that energy is fitted on, and whether with trees.
_FitKey = tuple[bytes, int, bool]


class _Fitter:
    """Fits one profile; holds what all its fits have in common."""

    def __init__(self, profile: HardwareProfile, *, seed: int, start: Fit | None) -> None:
        self._profile, self._seed, self._start = profile, seed, start
        # Energy, and fits with trees, ask for the same fits again; with the latency, so that it
        # lives as long as its id is a key.
        self._fits: dict[_FitKey, tuple[Coefficients, Coefficients | None]] = {}

    def model(
        self,
        measurements: Sequence[Measurement],
        provenance: Provenance,
        latency: Coefficients | None,
    ) -> FittedModel:
        """Fit all measurements, with the decisions that cross-validation makes."""
        quantity: Quantity = "latency" if latency is None else "energy"
        if len(measurements) < LEAST_NETWORKS:
            raise TargetError(
                f"{len(measurements)} measured networks are too few to fit {self._profile.name}; "
                f"give at least {LEAST_NETWORKS}"
            )
        data = _Data.of(measurements)
        folds = random_folds(len(measurements), self._seed)
        if len(measurements) >= _ONE_FOLD_FROM:
            folds = np.where(folds == 0, 0, -1)
        latency_trees = latency is not None and bool(latency.residual)
        held = self.hold_out(quantity, data, folds, trees=False, latency_trees=latency_trees)
        trees = False
        if len(measurements) >= _LEAST_FOR_TREES:
            with_trees = self.hold_out(
                quantity, data, folds, trees=True, latency_trees=latency_trees
            )
            trees = _mape(with_trees) < _WORTH_IT * _mape(held)
            held = with_trees if trees else held
        coefficients = self._fit(data, latency, trees=trees)
        quantile = float(np.quantile(held.spread_log, 0.99))
        changes: dict[str, object] = {"largest_spread_log": _rounded(1.5 * quantile + 0.02)}
        if trees:
            inside = held.extrapolated == 0
            changes["residual_noise_log"] = _rounded(_robust_sigma(held.log_ratio[inside]))
        coefficients = coefficients.model_copy(update=changes)
        factor = _rounded(held.interval_factor())
        split = "5-fold by network" if folds.max() < _FOLDS else "each network left out"
        if folds.min() < 0:
            split = "a fifth of the networks left out"
        return FittedModel(
            provenance=provenance,
            networks=len(measurements),
            cross_validation=held.summary(split, factor),
            interval_factor=factor,
            digest=fit_digest(coefficients, factor),
            coefficients=coefficients,
        )

    def hold_out(
        self, quantity: Quantity, data: _Data, folds: Ints, *, trees: bool, latency_trees: bool
    ) -> HeldOut:
        """Predict each fold from the others; folds below 0 are only fitted to.

        Energy is paid over a latency with trees of its own, or without.
        """
        wanted = np.flatnonzero(folds >= 0)
        parts = np.zeros((4, len(folds)))
        for fold in np.unique(folds[wanted]):
            out = np.flatnonzero(folds == fold)
            rest = np.flatnonzero(folds != fold)
            if len(rest) < 2:
                raise TargetError("a fold leaves fewer than two networks to fit; use fewer folds")
            known = data.subset(rest)
            latency = None
            if quantity == "energy":
                latency = self._fit(known, None, trees=latency_trees)
            coefficients = self._fit(known, latency, trees=trees)
            rows = classify(self._profile, data.subset(out).table)
            found = self._evaluated(coefficients, rows, latency)
            parts[:, out] = (
                found.value, found.sigma_log, found.spread_log, found.extrapolated,
            )  # fmt: skip
        return HeldOut(
            measured=data.of_quantity(quantity)[wanted],
            predicted=parts[0, wanted],
            sigma_log=parts[1, wanted],
            spread_log=parts[2, wanted],
            extrapolated=parts[3, wanted],
        )

    def _fit(self, data: _Data, latency: Coefficients | None, *, trees: bool) -> Coefficients:
        """Fit latency, or energy on top of coefficients of latency."""
        key = (data.digest(), id(latency), trees)
        if key not in self._fits:
            found = (
                self._with_trees(self._fit(data, latency, trees=False), data, latency)
                if trees
                else self._effects(data, latency)
            )
            self._fits[key] = (found, latency)
        return self._fits[key][0]

    def _effects(self, data: _Data, latency: Coefficients | None) -> Coefficients:
        quantity: Quantity = "latency" if latency is None else "energy"
        rows = classify(self._profile, data.table)
        measured = data.of_quantity(quantity)
        matrix = sum_terms(rows, *self._terms(rows, latency))
        start = self._start_means(quantity)
        learned = learn(matrix, measured, seed=self._seed, start=start)
        unlearned = _as_before(matrix, learned)
        return Coefficients(
            prior_scale=learned.prior_scale,
            noise_log=_rounded(learned.interval_noise),
            measured_range=(_rounded(measured.min()), _rounded(measured.max())),
            largest_spread_log=_ANY_SPREAD,
            kernel_ranges=_kernel_ranges(rows),
            effects={
                name: tuple(_decimals(value, _EFFECT_DECIMALS) for value in values)
                for name, values in learned.effects.items()
                if name not in unlearned
            },
        )

    def _with_trees(
        self, coefficients: Coefficients, data: _Data, latency: Coefficients | None
    ) -> Coefficients:
        rows = classify(self._profile, data.table)
        value = self._evaluated(coefficients, rows, latency).value
        measured = data.of_quantity("latency" if latency is None else "energy")
        trees = fit_trees(features_of(rows, value), np.log(measured / value), seed=self._seed)
        return coefficients.model_copy(
            update={"residual": trees, "residual_noise_log": coefficients.noise_log}
        )

    def _evaluated(
        self, coefficients: Coefficients, rows: ClassifiedRows, latency: Coefficients | None
    ) -> Evaluated:
        if latency is None:
            return evaluate(coefficients, rows, *latency_terms(self._profile, rows))
        of_latency = self._evaluated(latency, rows, None)
        return evaluate_energy(coefficients, self._profile, of_latency, rows)

    def _terms(self, rows: ClassifiedRows, latency: Coefficients | None) -> tuple[Floats, Floats]:
        if latency is None:
            return latency_terms(self._profile, rows)
        return energy_terms(self._profile, self._evaluated(latency, rows, None), rows)

    def _start_means(self, quantity: Quantity) -> dict[str, float] | None:
        if self._start is None:
            return None
        model = self._start.latency if quantity == "latency" else self._start.energy
        if model is None:
            return None
        return {name: values[0] for name, values in model.coefficients.effects.items()}


def _as_before(matrix: TermMatrix, learned: Learned) -> set[str]:
    """Effects that are what ``factors`` makes of one that is missing: nothing was learned of them.

    They need no place in a file. "all" stays, so that there is always one.
    """
    found = set()
    for effect in distinct(matrix.effects)[1:]:
        best, *samples = learned.effects[effect.name]
        draws = [learned.prior_scale * prior_draw(effect, at) for at in range(len(samples))]
        limit = _UNLEARNED_SHARE * learned.prior_scale * effect.sigma
        near = all(abs(one - draw) < limit for one, draw in zip(samples, draws, strict=True))
        if near and abs(best) < _UNLEARNED_BEST:
            found.add(effect.name)
    return found


def _kernel_ranges(rows: ClassifiedRows) -> dict[str, KernelRange]:
    table = rows.table
    elements = table.input_elements + table.output_elements + table.weight_elements
    ranges = {}
    for variant in dict.fromkeys(one.variant for one in rows.classes):
        of_class = np.array([one.variant == variant for one in rows.classes])
        chosen = of_class[rows.of_row]
        ranges[variant] = KernelRange(
            macs=(float(table.macs[chosen].min()), float(table.macs[chosen].max())),
            elements=(float(elements[chosen].min()), float(elements[chosen].max())),
        )
    return ranges


def _mape(held: HeldOut) -> float:
    return float(np.abs(held.predicted / held.measured - 1).mean())


def _robust_sigma(log_ratio: Floats) -> float:
    """Standard deviation, from the middle nine tenths where the tails are longer than normal."""
    return max(float(np.quantile(np.abs(log_ratio), 0.9)) / _Z90, 1e-3)


def _spearman(first: Floats, second: Floats) -> float:
    """Rank correlation; 0 where one of the two is constant."""
    from scipy.stats import rankdata

    a, b = rankdata(first), rankdata(second)
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return _rounded(np.corrcoef(a, b)[0, 1])


def _decimals(value: float, decimals: int) -> float:
    return round(value, decimals) + 0.0  # no -0.0


def _rounded(value: float) -> float:
    """What is stored: four significant digits."""
    return float(f"{value:.{_DIGITS}g}")
