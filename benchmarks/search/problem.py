"""A complete table of candidates as a search, and how far a search got in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

from hwsearch.sampler.improvement import non_dominated
from hwsearch.sampler.priced import Bools, Floats, Ints, Parameters, Priced


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """Candidates with the truth about them.

    Attributes:
        choices: of each parameter; a candidate is one choice of each.
        places: (candidates, parameters), the position of its choices. Combinations that are not
            here do not exist; they are refused without costing a trial.
        accuracy_percent: (candidates,), what the search maximizes.
        costs: (candidates, costs), the true ones, by which a search is judged.
        known_costs: (candidates, costs), those that the search is told.
        features: (candidates, features), for our sampler, each column with a spread of about 1.
        allowed: (candidates,), whether the known cost meets the budget; it is known, so that no
            trial is spent on another.
        objectives: whether costs are minimized beside; else they only bind through ``allowed``.
    """

    choices: dict[str, tuple[str | float, ...]]
    places: Ints
    accuracy_percent: Floats
    costs: Floats
    known_costs: Floats
    features: Floats
    allowed: Bools
    objectives: bool
    _at: dict[tuple[int, ...], int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        at = {tuple(place): number for number, place in enumerate(self.places.tolist())}
        if len(at) != len(self.places):
            raise ValueError("two candidates of the table have the same choices")
        object.__setattr__(self, "_at", at)

    @property
    def space(self) -> dict[str, BaseDistribution]:
        """The parameters as Optuna knows them."""
        return {name: CategoricalDistribution(options) for name, options in self.choices.items()}

    def find(self, place: Sequence[int]) -> int | None:
        """The candidate of these positions; None if there is none."""
        return self._at.get(tuple(place))

    def find_parameters(self, parameters: Parameters) -> int | None:
        """The candidate of these choices; None if there is none."""
        return self.find(
            [options.index(parameters[name]) for name, options in self.choices.items()]
        )

    def parameters(self, candidate: int) -> dict[str, Any]:
        """The choices of a candidate."""
        places = self.places[candidate]
        return {name: o[p] for (name, o), p in zip(self.choices.items(), places, strict=True)}

    def values(self, candidate: int) -> list[float]:
        """What a study is told: accuracy, then the known costs if they are objectives."""
        costs = self.known_costs[candidate].tolist() if self.objectives else []
        return [float(self.accuracy_percent[candidate]), *costs]

    def neighbours(self, candidate: int) -> list[int]:
        """Allowed candidates that differ in one choice."""
        found = []
        for at, options in enumerate(self.choices.values()):
            place = self.places[candidate].tolist()
            for place[at] in range(len(options)):
                other = self.find(place)
                if other is not None and other != candidate and self.allowed[other]:
                    found.append(other)
        return found

    def price(self, candidates: Sequence[Parameters]) -> Priced:
        """What our sampler may know before a trial."""
        found = [self.find_parameters(one) for one in candidates]
        missing = np.array([number is None for number in found])
        at = np.array([0 if number is None else number for number in found], dtype=np.int64)
        refused = missing | ~self.allowed[at]
        costs = self.known_costs[at] if self.objectives else np.zeros((len(at), 0))
        return Priced(
            costs=costs,
            violations=np.where(refused, 1.0, -1.0)[:, None],
            features=self.features[at],
        )

    def price_plainly(self, candidates: Sequence[Parameters]) -> Priced:
        """The same without features."""
        return replace(self.price(candidates), features=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """The true front of a problem with one cost, and the volume that it dominates.

    Volumes are between the ideal and the nadir point of the true front: the best and the worst of
    each objective on it.

    Attributes:
        volume: of the whole front, in percent x unit of the cost.
    """

    nadir_accuracy_percent: float
    nadir_cost: float
    volume: float

    @classmethod
    def of(cls, problem: Problem) -> "Truth":
        """From all candidates."""
        front = non_dominated(problem.accuracy_percent, problem.costs)
        accuracy = float(problem.accuracy_percent[front].min())
        cost = float(problem.costs[front, 0].max())
        whole = dominated(problem.accuracy_percent[front], problem.costs[front, 0], accuracy, cost)
        return cls(nadir_accuracy_percent=accuracy, nadir_cost=cost, volume=whole)

    def regret_percent(self, problem: Problem, evaluated: Sequence[int]) -> float:
        """Share of the volume that the evaluated candidates miss, at their true costs."""
        at = np.array(evaluated, dtype=np.int64)
        reached = dominated(
            problem.accuracy_percent[at],
            problem.costs[at, 0],
            self.nadir_accuracy_percent,
            self.nadir_cost,
        )
        return 100.0 * (1.0 - reached / self.volume)


def dominated(accuracy: Floats, cost: Floats, worst_accuracy: float, worst_cost: float) -> float:
    """Area between points and their worst corner; accuracy goes up, cost down.

    Points beyond the corner count nothing.
    """
    inside = (accuracy > worst_accuracy) & (cost < worst_cost)
    accuracy, cost = accuracy[inside], cost[inside]
    order = np.argsort(cost, kind="stable")
    best = np.maximum.accumulate(accuracy[order]) if len(order) else accuracy
    widths = np.diff(np.r_[cost[order], worst_cost])
    return float(np.sum(widths * (best - worst_accuracy)))
