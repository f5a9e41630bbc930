"""From what was observed to the candidate that promises most; numbers only, no study."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hwsearch.sampler.improvement import Front, hypervolume_improvement, non_dominated
from hwsearch.sampler.observations import Candidates, Observed
from hwsearch.sampler.priced import Bools, Floats, Ints
from hwsearch.sampler.surrogate import Kernel, Surrogate, fit_kernel

#: Points that the surrogate is conditioned on, and those that its kernel is fitted to. Time grows
#: with the square of the first for every candidate, and with the cube of the second.
MOST_POINTS: Final = 400
MOST_FITTED: Final = 150
#: The kernel is fitted again whenever the observations grew by a fifth.
_GROWTH: Final = 1.2
_FIRST_FIT: Final = 4
#: Values this many interquartile ranges below the median count as that: a network that learned
#: nothing says little about those near the front, and would stretch the scale of all others.
_REACH: Final = 3.0


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The worst values that count for the hypervolume; None for the worst seen or priced.

    Attributes:
        value: of the uncertain objective, going up.
        costs: of the known ones, going down.
    """

    value: float | None = None
    costs: tuple[float, ...] | None = None


class Proposer:
    """Chooses from a pool by expected hypervolume improvement, over what a trial takes.

    The only state is a memory of fitted kernels; without it the same kernels are fitted again.

    Args:
        reference: of the hypervolume.
    """

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._kernel: tuple[tuple[Hashable, ...], Kernel] | None = None

    def best(self, observed: Observed, pool: Candidates) -> int:
        """Position of the candidate of the pool with the largest improvement, the first of equals.

        Args:
            observed: at least one candidate was evaluated.
            pool: feasible candidates that were neither evaluated nor are under way; at least one.
        """
        evaluated = observed.evaluated
        assert evaluated is not None
        raw = observed.values - evaluated.prior_mean
        values = winsorized(raw)
        middle, scale = float(values.mean()), float(values.std()) or 1.0
        training = _representative(evaluated.costs, observed.values)
        # What was stopped early teaches the surrogate, as surely as it was foretold; lengths and
        # noise follow from what was observed, and so does the front.
        observed_fully = observed.deviation == 0.0
        kernel = self._fitted(evaluated.take(observed_fully), raw[observed_fully])
        features = [group[training] for group in evaluated.features]
        targets = (values[training] - middle) / scale
        doubt = (observed.deviation[training] / scale) ** 2
        surrogate = Surrogate(kernel, features, targets, doubt)
        good = observed.feasible & observed_fully
        reached, costs = (values + evaluated.prior_mean)[good], evaluated.costs[good]
        if observed.running is not None:
            # Kriging believer (Ginsbourger et al., doi:10.1007/978-3-642-10701-6_6): what is under
            # way is taken to turn out as predicted, so that no worker repeats another.
            believed, _ = surrogate.predict(observed.running.features)
            features = [
                np.concatenate(pair)
                for pair in zip(features, observed.running.features, strict=True)
            ]
            doubt = np.r_[doubt, np.zeros(len(believed))]
            surrogate = Surrogate(kernel, features, np.r_[targets, believed], doubt)
            reached = np.r_[reached, middle + scale * believed + observed.running.prior_mean]
            costs = np.concatenate([costs, observed.running.costs])
        mean, deviation = surrogate.predict(pool.features)
        mean = middle + scale * mean + pool.prior_mean
        deviation = scale * deviation
        front = self._front(reached, costs, pool, float((values + evaluated.prior_mean).min()))
        improvement = hypervolume_improvement(mean, deviation, pool.costs, front)
        if improvement.max() <= 0.0:
            # Nothing in the pool can be told to improve anything: the most promising by itself.
            return int(np.argmax(mean + deviation))
        return int(np.argmax(improvement / pool.effort))

    def _front(self, values: Floats, costs: Floats, pool: Candidates, worst: float) -> Front:
        value = worst if self._reference.value is None else self._reference.value
        if self._reference.costs is None:
            everything = np.concatenate([costs, pool.costs])
            # A hair beyond, so that the most expensive candidate counts too.
            span = np.ptp(everything, axis=0)
            limits = everything.max(axis=0) + np.where(span > 0, 1e-3 * span, 1.0)
        else:
            limits = np.array(self._reference.costs, dtype=np.float64)
        return Front(values=values, costs=costs, reference_value=value, reference_costs=limits)

    def _fitted(self, evaluated: Candidates, raw: Floats) -> Kernel:
        """The kernel of the first observations, as many as the last step of growth had.

        Thus it follows from the observations alone, and is the same after a restart.
        """
        count = _step(len(raw))
        chosen = np.arange(count)
        if count > MOST_FITTED:
            chosen = np.unique(np.linspace(0, count - 1, MOST_FITTED).round().astype(int))
        name = (*(evaluated.keys[at] for at in chosen), raw[chosen].tobytes())
        if self._kernel is None or self._kernel[0] != name:
            values = winsorized(raw[chosen])
            standard = (values - values.mean()) / (float(values.std()) or 1.0)
            kernel = fit_kernel([group[chosen] for group in evaluated.features], standard)
            self._kernel = (name, kernel)
        return self._kernel[1]


def winsorized(values: Floats) -> Floats:
    """Values without extremes below: raised to the median less three interquartile ranges."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    # Without any spread in the middle half there is no saying what is extreme.
    if high <= low:
        return values
    raised: Floats = np.maximum(values, middle - _REACH * (high - low))
    return raised


def startup(pool: Candidates, number: int, of: int, generator: np.random.Generator) -> int:
    """A first candidate: drawn from one of ``of`` slices of the pool by cost, slice after slice."""
    if pool.costs.shape[1] == 0:
        return int(generator.integers(len(pool)))
    slices = [part for part in np.array_split(np.argsort(pool.costs[:, 0]), of) if len(part)]
    return int(generator.choice(slices[number % len(slices)]))


def _step(count: int) -> int:
    """The largest step of growth that is not above ``count``."""
    step = _FIRST_FIT
    while (larger := max(step + 1, round(step * _GROWTH))) <= count:
        step = larger
    return min(step, count)


def _representative(costs: Floats, values: Floats) -> Ints:
    """Positions of the observations that the surrogate is conditioned on.

    All while they are few. Else half are those nearest to the front: least below the best value
    at no higher cost; the other half are spread evenly over the rest, in order of evaluation.
    """
    if len(values) <= MOST_POINTS:
        return np.arange(len(values))
    gaps = _gaps(costs, values)
    nearest = np.argsort(gaps, kind="stable")[: MOST_POINTS // 2]
    rest = np.setdiff1d(np.arange(len(values)), nearest)
    spread = rest[np.linspace(0, len(rest) - 1, MOST_POINTS - len(nearest)).round().astype(int)]
    return np.sort(np.concatenate([nearest, spread]))


def _gaps(costs: Floats, values: Floats) -> Floats:
    """How far each value is below the best one at no higher cost; 0 on the front."""
    # A dominated point has a better one among those that cost no more, so the front is enough.
    front = non_dominated(values, costs)
    cheaper = (costs[front] <= costs[:, None]).all(axis=2)
    gaps: Floats = np.where(cheaper, values[front], -np.inf).max(axis=1) - values
    return gaps


def usable(pool: Candidates, taken: Sequence[Hashable]) -> Bools:
    """Which of a pool are feasible and new, equal ones once: the first of each key."""
    seen = set(taken)
    kept = np.zeros(len(pool), dtype=bool)
    for at, key in enumerate(pool.keys):
        if pool.violation[at] <= 0 and key not in seen:
            seen.add(key)
            kept[at] = True
    return kept
