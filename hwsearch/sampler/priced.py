"""What is known of candidates before any of them is evaluated."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

#: Parameters of one candidate by name, as Optuna stores them.
Parameters = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Priced:
    """Candidates with their prices, in the order in which they were asked about.

    Attributes:
        costs: of shape (candidates, known objectives), in the unit and the order of the study's
            objectives less the uncertain one.
        violations: (candidates, constraints), at most 0 where a constraint holds; None for none.
        features: (candidates, features), what accuracy may depend on beside the parameters
            themselves, each column with a spread of about 1; None for nothing else.
        keys: equal for candidates that are the same thing once built; None for the parameters.
        prior_mean: (candidates,), a guess of the uncertain objective in its unit; None for none.
        effort: (candidates,), what a trial takes, above 0, in any unit: of two candidates that
            promise as much the one with half the effort is twice as good; None for all the same.

    Raises:
        ValueError: shapes that differ, or a number that is not finite.
    """

    costs: Floats
    violations: Floats | None = None
    features: Floats | None = None
    keys: Sequence[Hashable] | None = None
    prior_mean: Floats | None = None
    effort: Floats | None = None

    def __post_init__(self) -> None:
        if self.costs.ndim != 2:
            raise ValueError(f"costs have the shape {self.costs.shape}; (candidates, costs) is due")
        for name, dimensions in (("costs", 2), ("violations", 2), ("features", 2)):
            _check(name, getattr(self, name), len(self.costs), dimensions)
        _check("prior_mean", self.prior_mean, len(self.costs), 1)
        _check("effort", self.effort, len(self.costs), 1)
        if self.effort is not None and (self.effort <= 0).any():
            raise ValueError(f"the least effort is {self.effort.min()}; it must be above 0")
        if self.keys is not None and len(self.keys) != len(self.costs):
            raise ValueError(f"{len(self.keys)} keys for {len(self.costs)} candidates")

    @property
    def worst_violation(self) -> Floats:
        """The largest violation of each candidate, (candidates,); 0 without constraints."""
        if self.violations is None or self.violations.shape[1] == 0:
            return np.zeros(len(self.costs))
        worst: Floats = self.violations.max(axis=1)
        return worst


class Pricer(Protocol):
    """Prices many candidates at once; equal parameters must give equal answers."""

    def __call__(self, candidates: Sequence[Parameters], /) -> Priced:
        """What is known of these candidates."""


def _check(name: str, values: Floats | None, count: int, dimensions: int) -> None:
    if values is None:
        return
    if values.ndim != dimensions or len(values) != count:
        raise ValueError(f"{name} have the shape {values.shape} for {count} candidates")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} hold a number that is not finite; leave that candidate out")
