"""The search methods that the tables compare, all under one evaluator, cache and dedup.

A candidate that was evaluated before is answered from the cache, one over the budget or outside the
table is refused; neither costs a trial, whoever proposes it. A method that proposes nothing new for
``PATIENCE`` proposals gets a random candidate evaluated.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState
from problem import Problem

from hwsearch.sampler import KnownCostSampler
from hwsearch.sampler.improvement import non_dominated

PATIENCE: Final = 40
_LOCAL_STARTS: Final = 10


class Searcher(Protocol):
    """One search under way."""

    def propose(self) -> int | None:
        """A candidate, new or not; None for one that does not exist or is over the budget."""

    def learn(self, candidate: int) -> None:
        """The last proposal, or a candidate of the evaluator's choice, was evaluated."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to search.

    Attributes:
        start: begins a search of a problem from a seed.
        most_trials: what the time allows; None for all.
        fronts_only: left out where most proposals are refused, and where it would only show again
            what the first table shows.
    """

    name: str
    start: Callable[[Problem, int], Searcher]
    most_trials: int | None = None
    fronts_only: bool = False


def replay(
    problem: Problem,
    method: Method,
    trials: int,
    seed: int,
    until: frozenset[int] = frozenset(),
) -> list[int]:
    """Search a table.

    Args:
        problem: the table.
        method: how.
        trials: at most.
        seed: of all draws.
        until: the search ends when one of these was evaluated.

    Returns:
        The candidates in the order in which they were evaluated, each once; fewer than ``trials``
        where no more are allowed.
    """
    searcher = method.start(problem, seed)
    spare = np.random.default_rng(seed).permutation(np.flatnonzero(problem.allowed))
    evaluated: dict[int, None] = {}
    in_vain = 0
    while len(evaluated) < min(trials, len(spare)) and until.isdisjoint(evaluated):
        candidate = searcher.propose()
        if candidate is None or candidate in evaluated:
            in_vain += 1
            if candidate is not None:
                searcher.learn(candidate)
            if in_vain < PATIENCE:
                continue
            candidate = next(int(one) for one in spare if int(one) not in evaluated)
        in_vain = 0
        evaluated[candidate] = None
        searcher.learn(candidate)
    return list(evaluated)


class _Random:
    """All allowed candidates in random order."""

    def __init__(self, problem: Problem, seed: int) -> None:
        allowed = np.flatnonzero(problem.allowed)
        self._order = iter(np.random.default_rng(seed + 1).permutation(allowed).tolist())

    def propose(self) -> int:
        return int(next(self._order))

    def learn(self, candidate: int) -> None:
        """Nothing is learned."""


class _Local:
    """Pareto local search: a random untried neighbour of a random member of the front."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem, self._generator = problem, np.random.default_rng(seed + 1)
        self._evaluated: dict[int, None] = {}
        self._allowed = np.flatnonzero(problem.allowed)

    def propose(self) -> int:
        if len(self._evaluated) >= _LOCAL_STARTS:
            at = np.array(list(self._evaluated))
            costs = self._problem.known_costs[at][:, : int(self._problem.objectives)]
            front = at[non_dominated(self._problem.accuracy_percent[at], costs)]
            for member in self._generator.permutation(front):
                untried = [
                    one
                    for one in self._problem.neighbours(int(member))
                    if one not in self._evaluated
                ]
                if untried:
                    return int(self._generator.choice(untried))
        return int(self._generator.choice(self._allowed))

    def learn(self, candidate: int) -> None:
        self._evaluated[candidate] = None


class _Stock:
    """An Optuna study with one of its samplers, or with ours."""

    def __init__(self, problem: Problem, sampler: BaseSampler) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        costs = problem.costs.shape[1] if problem.objectives else 0
        self._problem = problem
        self._study = optuna.create_study(
            directions=[StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * costs],
            sampler=sampler,
        )
        self._asked: tuple[int | None, optuna.Trial] | None = None

    def propose(self) -> int | None:
        trial = self._study.ask(self._problem.space)
        candidate = self._problem.find_parameters(trial.params)
        if candidate is None or not self._problem.allowed[candidate]:
            # As the tool does it: the constraint is known, and nothing is trained.
            trial.set_constraint("budget", 1.0)
            self._study.tell(trial, state=TrialState.PRUNED)
            return None
        trial.set_constraint("budget", -1.0)
        self._asked = (candidate, trial)
        return candidate

    def learn(self, candidate: int) -> None:
        values = self._problem.values(candidate)
        if self._asked is not None and self._asked[0] == candidate:
            self._study.tell(self._asked[1], values)
        else:
            trial = optuna.create_trial(
                params=self._problem.parameters(candidate),
                distributions=self._problem.space,
                values=values,
            )
            trial.set_constraint("budget", -1.0)
            self._study.add_trial(trial)
        self._asked = None


def _ours(problem: Problem, seed: int) -> Searcher:
    return _Stock(problem, KnownCostSampler(problem.price, space=problem.space, seed=seed))


def _ours_plain(problem: Problem, seed: int) -> Searcher:
    sampler = KnownCostSampler(problem.price_plainly, space=problem.space, seed=seed)
    return _Stock(problem, sampler)


def _tpe(problem: Problem, seed: int) -> Searcher:
    return _Stock(problem, TPESampler(multivariate=True, n_startup_trials=10, seed=seed))


def _nsga2(problem: Problem, seed: int) -> Searcher:
    # Generations of 50 would be one or two in a hundred trials.
    return _Stock(problem, NSGAIISampler(population_size=20, seed=seed))


def _gp(problem: Problem, seed: int) -> Searcher:
    return _Stock(problem, GPSampler(n_startup_trials=10, seed=seed))


def methods() -> tuple[Method, ...]:
    """All of them, ours last. Optuna's GPSampler takes 0.2 to 1 s a trial, so it gets less."""
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    return (
        Method(name="random", start=_Random),
        Method(name="NSGA-II", start=_nsga2),
        Method(name="TPE multivariate", start=_tpe),
        Method(name="GPSampler", start=_gp, most_trials=50, fronts_only=True),
        Method(name="local search", start=_Local),
        Method(name="ours, parameters only", start=_ours_plain, most_trials=100, fronts_only=True),
        Method(name="ours", start=_ours),
    )
