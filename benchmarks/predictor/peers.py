"""The methods that the tables compare: what others use, and the predictor of this project.

All are fitted to the same measured networks and asked for the same others. The lines and the sum
over operators minimize the squared relative error with coefficients that are not negative, so that
each is as good in percent as its form can be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final, Protocol

import numpy as np
from scipy.optimize import nnls
from scores import Forecast, joined

from hwsearch.hardware.file_model import Provenance
from hwsearch.hardware.kernel_table import KIND_NUMBERS, Floats, Ints, KernelTable, kernel_table
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.learned.fit import Quantity, fit_profile
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile

#: No prediction is below this share of the least measurement: a line may leave nothing.
_LEAST_SHARE: Final = 0.1
_CHUNK: Final = 2000


class Fitted(Protocol):
    """A method after fitting."""

    def predict(self, networks: Sequence[NetworkDesc]) -> Forecast:
        """Predictions in the order of the networks."""


class Method(Protocol):
    """A way to predict networks from measured ones."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def fit(self, train: Sequence[Measurement], quantity: Quantity) -> Fitted:
        """Fit latency in ms or energy in mJ; for energy every measurement must have one."""


def peers(seed: int) -> tuple[Method, ...]:
    """What ours is compared with.

    Args:
        seed: of the boosting.
    """
    return (
        Line(name="MACs line", sums=("macs",)),
        Line(name="MACs+params+layers line", sums=("macs", "weights", "kernels")),
        Boosting(seed=seed),
        OperatorSum(),
    )


def measured(rows: Sequence[Measurement], quantity: Quantity) -> Floats:
    """The measurements, (rows,), in ms or mJ.

    Raises:
        ValueError: an energy that was not measured.
    """
    values = [row.latency_ms if quantity == "latency" else row.energy_mj for row in rows]
    if None in values:
        raise ValueError("a row has no energy; leave it out before energy is fitted")
    return np.array(values, dtype=np.float64)


def held_out(
    rows: Sequence[Measurement], folds: Ints, method: Method, quantity: Quantity
) -> tuple[Floats, Forecast]:
    """Predict each fold from all others; folds below 0 are fitted to only.

    Returns:
        Measurements and predictions of the networks that were left out, fold after fold.
    """
    return held_out_each(rows, folds, method, [quantity])[quantity]


def held_out_each(
    rows: Sequence[Measurement], folds: Ints, method: Method, quantities: Sequence[Quantity]
) -> dict[Quantity, tuple[Floats, Forecast]]:
    """``held_out`` for several quantities that were all measured on every row."""
    truth: dict[Quantity, list[Floats]] = {quantity: [] for quantity in quantities}
    forecasts: dict[Quantity, list[Forecast]] = {quantity: [] for quantity in quantities}
    for fold in np.unique(folds[folds >= 0]):
        train = [row for row, own in zip(rows, folds, strict=True) if own != fold]
        test = [row for row, own in zip(rows, folds, strict=True) if own == fold]
        networks = [row.network for row in test]
        for quantity, fitted in fitted_each(method, train, quantities).items():
            truth[quantity].append(measured(test, quantity))
            forecasts[quantity].append(fitted.predict(networks))
    return {
        quantity: (np.concatenate(truth[quantity]), joined(forecasts[quantity]))
        for quantity in quantities
    }


def fitted_each(
    method: Method, train: Sequence[Measurement], quantities: Sequence[Quantity]
) -> Mapping[Quantity, Fitted]:
    """The method, fitted to each quantity.

    Ours fits energy on top of the same fit of latency that it would make for latency alone, so
    that both come from one fit. Every row must have all of the quantities.
    """
    if isinstance(method, Ours) and "energy" in quantities:
        both = method.fit(train, "energy")
        return {quantity: replace(both, quantity=quantity) for quantity in quantities}
    return {quantity: method.fit(train, quantity) for quantity in quantities}


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line over sums of the network, those of each pair of widths on their own.

    Attributes:
        sums: of "macs", "weights" and "kernels".
    """

    name: str
    sums: tuple[str, ...]

    def fit(self, train: Sequence[Measurement], quantity: Quantity) -> Fitted:
        """Fit one coefficient for each sum and pair of widths, and a constant."""
        table = _table(train)
        classes = np.unique(_bits_classes(table), axis=0)
        return _sum_of_classes(classes, _bits_classes, self.sums, table, measured(train, quantity))


@dataclass(frozen=True, kw_only=True)
class OperatorSum:
    """A regression for each sort of operator, as in nn-Meter (doi:10.1145/3458864.3467882).

    Kind, window, stride and bits make the sort; kernels, MACs, activations and weights are its
    features. nn-Meter fits each to kernels measured alone; here only whole networks are measured,
    so all are fitted at once.
    """

    name: str = "per-operator sum"

    def fit(self, train: Sequence[Measurement], quantity: Quantity) -> Fitted:
        """Fit all coefficients at once."""
        table = _table(train)
        classes = np.unique(_operator_classes(table), axis=0)
        sums = ("kernels", "macs", "activations", "weights")
        return _sum_of_classes(classes, _operator_classes, sums, table, measured(train, quantity))


@dataclass(frozen=True, kw_only=True)
class Boosting:
    """Gradient-boosted trees on the logarithm, over features of the network as a whole."""

    seed: int
    name: str = "gradient boosting"

    def fit(self, train: Sequence[Measurement], quantity: Quantity) -> Fitted:
        """Fit the trees."""
        from sklearn.ensemble import GradientBoostingRegressor

        model = GradientBoostingRegressor(
            n_estimators=300, learning_rate=0.08, max_depth=4,
            subsample=0.7, max_features=0.5, random_state=self.seed,
        )  # fmt: skip
        model.fit(_global_features(_table(train)), np.log(measured(train, quantity)))
        return _FittedBoosting(model=model)


@dataclass(frozen=True, kw_only=True)
class Ours:
    """The predictor of this project, as ``hwsearch profile fit`` makes it.

    Attributes:
        profile: the prior.
        start: a fitted relative, or None.
        seed: of folds and samples.
    """

    profile: HardwareProfile
    start: HardwareProfile | None = None
    seed: int = 0
    name: str = "ours"

    def fit(self, train: Sequence[Measurement], quantity: Quantity) -> "FittedProfile":
        """Fit the profile; energy is fitted on top of latency."""
        provenance = Provenance(
            source="measured", reference="a part of a published table", date=date(2026, 11, 24)
        )
        rows = train if quantity == "energy" else [_without_energy(row) for row in train]
        fitted = fit_profile(
            self.profile, rows, provenance=provenance, seed=self.seed, start=self.start
        )
        return FittedProfile(profile=fitted, quantity=quantity)


@dataclass(frozen=True, kw_only=True)
class FittedProfile:
    """A profile with a fit, for one quantity."""

    profile: HardwareProfile
    quantity: Quantity

    def predict(self, networks: Sequence[NetworkDesc]) -> Forecast:
        """Medians with the calibrated standard deviations.

        Raises:
            ValueError: energy of a profile without it.
        """
        predictor = CostPredictor(self.profile)
        found = []
        for start in range(0, len(networks), _CHUNK):
            for cost in predictor.predict_all(networks[start : start + _CHUNK]):
                found.append(cost.latency_ms if self.quantity == "latency" else cost.energy_mj)
        known = [one for one in found if one is not None]
        if len(known) < len(networks):
            raise ValueError(f"{self.profile.name} has no energy")
        return Forecast(
            value=np.array([one.value for one in known]),
            sigma_log=np.array([one.sigma_log for one in known]),
        )


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """A method fitted on another target, whose predictions are moved to this one.

    A line in the logarithm from what is predicted there to what is measured here.

    Attributes:
        source: fitted on the other target.
    """

    source: Fitted
    name: str

    def fit(self, train: Sequence[Measurement], quantity: Quantity) -> Fitted:
        """Fit the line."""
        there = np.log(self.source.predict([row.network for row in train]).value)
        here = np.log(measured(train, quantity))
        slope = float(np.cov(there, here)[0, 1] / max(there.var(ddof=1), 1e-12))
        return _Moved(source=self.source, slope=slope, shift=float((here - slope * there).mean()))


@dataclass(frozen=True, kw_only=True)
class _Moved:
    source: Fitted
    slope: float
    shift: float

    def predict(self, networks: Sequence[NetworkDesc]) -> Forecast:
        there = np.log(self.source.predict(networks).value)
        return Forecast(value=np.exp(self.shift + self.slope * there))


@dataclass(frozen=True, kw_only=True)
class _FittedBoosting:
    model: Any

    def predict(self, networks: Sequence[NetworkDesc]) -> Forecast:
        return Forecast(value=np.exp(self.model.predict(_global_features(kernel_table(networks)))))


class _Classify(Protocol):
    def __call__(self, table: KernelTable) -> Ints: ...


@dataclass(frozen=True, kw_only=True)
class _ClassSums:
    """Coefficients of sums over the kernels of a class; (1 + sums x classes,)."""

    classes: Ints
    classify: _Classify
    sums: tuple[str, ...]
    coefficients: Floats
    least: float

    def predict(self, networks: Sequence[NetworkDesc]) -> Forecast:
        features = _class_features(self.classes, self.classify, self.sums, kernel_table(networks))
        return Forecast(value=np.maximum(features @ self.coefficients, self.least))


def _sum_of_classes(
    classes: Ints, classify: _Classify, sums: tuple[str, ...], table: KernelTable, target: Floats
) -> _ClassSums:
    features = _class_features(classes, classify, sums, table) / target[:, None]
    # Columns of one size: MACs are 1e9 where kernels are 10.
    size = np.maximum(np.sqrt((features**2).sum(0)), 1e-300)
    found, _ = nnls(features / size, np.ones(len(target)), maxiter=30 * features.shape[1])
    return _ClassSums(
        classes=classes,
        classify=classify,
        sums=sums,
        coefficients=found / size,
        least=_LEAST_SHARE * float(target.min()),
    )


def _class_features(
    classes: Ints, classify: _Classify, sums: tuple[str, ...], table: KernelTable
) -> Floats:
    """A constant, then the sums over the kernels of each class, (networks, 1 + sums x classes)."""
    present, of_row = np.unique(classify(table), axis=0, return_inverse=True)
    # What was never measured is priced like what agrees with it in the most important columns.
    nearest = np.array([_nearest(one, classes) for one in present])[of_row.reshape(-1)]
    position = table.network * len(classes) + nearest
    columns: list[Floats] = [np.ones((table.networks, 1))]
    for name in sums:
        flat = np.bincount(
            position, weights=_SUMMED[name](table), minlength=table.networks * len(classes)
        )
        columns.append(flat.astype(np.float64).reshape(table.networks, len(classes)))
    return np.concatenate(columns, axis=1)


def _nearest(one: Ints, classes: Ints) -> int:
    """The class with the most equal columns, earlier columns outweighing all later ones."""
    weights = 2 ** np.arange(classes.shape[1])[::-1]
    return int(np.argmax((classes == one) @ weights))


def _bits_classes(table: KernelTable) -> Ints:
    return np.stack((table.weight_bits, table.activation_bits), axis=1)


def _operator_classes(table: KernelTable) -> Ints:
    strided = (table.stride > 1).astype(np.int64)
    columns = (table.kind, table.weight_bits, table.activation_bits, table.window, strided)
    return np.stack(columns, axis=1)


class _Summed(Protocol):
    def __call__(self, table: KernelTable) -> Floats: ...


def _count(table: KernelTable) -> Floats:
    return np.ones(len(table))


def _macs(table: KernelTable) -> Floats:
    return table.macs


def _activations(table: KernelTable) -> Floats:
    return table.input_elements + table.output_elements


def _weights(table: KernelTable) -> Floats:
    return table.weight_elements


_SUMMED: Final[dict[str, _Summed]] = {
    "kernels": _count, "macs": _macs, "activations": _activations, "weights": _weights,
}  # fmt: skip


def _global_features(table: KernelTable) -> Floats:
    """What is known of a network without looking at its order, (networks, features)."""
    sums = [table.per_network(summed(table)) for summed in _SUMMED.values()]
    kernels = sums[0]
    columns = [np.log1p(one) for one in sums]
    for number in KIND_NUMBERS.values():
        of_kind = table.kind == number
        columns.append(table.per_network(of_kind.astype(float)))
        columns.append(
            table.per_network(np.where(of_kind, table.macs, 0.0)) / np.maximum(sums[1], 1)
        )
    means = (
        np.log2(table.in_channels),
        np.log2(table.out_channels),
        np.log2(table.output_elements / table.out_channels),
        table.window.astype(float),
        (table.stride > 1).astype(float),
        table.weight_bits.astype(float),
        table.activation_bits.astype(float),
    )
    columns += [table.per_network(one) / kernels for one in means]
    return np.stack(columns, axis=1)


def _table(rows: Sequence[Measurement]) -> KernelTable:
    return kernel_table([row.network for row in rows])


def _without_energy(row: Measurement) -> Measurement:
    return Measurement(network=row.network, latency_ms=row.latency_ms, group=row.group)
