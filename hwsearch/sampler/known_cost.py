"""The sampler: proposes what is expected to enlarge the front most, at costs known beforehand."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from hwsearch.sampler.improvement import non_dominated
from hwsearch.sampler.observations import (
    Candidates,
    Objectives,
    Observed,
    PriceList,
    TrialReader,
    joined,
)
from hwsearch.sampler.parameters import every_row, neighbours, random_rows, sizes, to_parameters
from hwsearch.sampler.priced import Floats, Pricer
from hwsearch.sampler.proposal import Proposer, Reference, startup, usable


@dataclass(frozen=True, kw_only=True, eq=False)
class _Memory:
    """What is kept between calls for one study and space; all of it can be made again."""

    study_name: str
    space: dict[str, BaseDistribution]
    objectives: Objectives
    prices: PriceList
    reader: TrialReader
    proposer: Proposer


class KnownCostSampler(BaseSampler):
    """Models the one objective that is uncertain, and knows all others before a trial.

    A Gaussian process is fitted to the uncertain objective. Of a pool of priced candidates (drawn
    at random, and all that differ from the front in one parameter) the one with the largest
    expected hypervolume improvement is proposed. Candidates that violate a constraint or are the
    same as an earlier one are left out. Trials of other workers that are under way count as if
    they had turned out as predicted.

    Without a pricer, a study with one objective is searched in the same way by expected
    improvement; with several objectives all proposals are those of Optuna's multivariate
    ``TPESampler``, since nothing is known of any of them. Parameters outside the common space of
    the trials (conditional ones) are always drawn at random, as is the first trial if no space is
    given.

    Example:
        >>> def price(candidates: Sequence[Parameters]) -> Priced:
        ...     return Priced(costs=np.array([[latency_ms(c)] for c in candidates]))
        >>> sampler = KnownCostSampler(price, space={"width": IntDistribution(8, 64)}, seed=0)
        >>> study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)

    Args:
        pricer: prices of many candidates at once, all parameters of ``space`` given.
        space: the parameters; by default those that all completed trials have in common.
        uncertain: position of the uncertain objective among the study's.
        reference: worst values that count for the hypervolume, one for each objective in the
            study's order; by default the worst that was seen, or priced.
        startup_trials: trials before the surrogate is used, one from each slice by cost.
        pool_size: candidates drawn for each proposal.
        fixed_pool: keep the drawn candidates for all proposals, for pricers that are slow.
        beside_front: most candidates beside the front for each proposal; by default ``pool_size``.
        given_up: which failed trials are not to be tried again; by default none, as Optuna takes
            failed trials for deleted. Those that were stopped (pruned) never are.
        scores: scores of the uncertain objective that a finished trial had at each fidelity, from
            the lowest to the highest that it reached, whose score is the trial's value. A trial
            that did not reach the highest of all counts as what its last score foretells, as
            uncertain as that is, once six trials reached both; by default all reached it.
        seed: of all draws.

    Raises:
        ValueError: a number that is too small, or an objective that the study does not have.
    """

    def __init__(
        self,
        pricer: Pricer | None = None,
        *,
        space: Mapping[str, BaseDistribution] | None = None,
        uncertain: int = 0,
        reference: Sequence[float] | None = None,
        startup_trials: int = 5,
        pool_size: int = 1000,
        fixed_pool: bool = False,
        beside_front: int | None = None,
        given_up: Callable[[FrozenTrial], bool] | None = None,
        scores: Callable[[FrozenTrial], Sequence[float]] | None = None,
        seed: int | None = None,
    ) -> None:
        if startup_trials < 1 or pool_size < 1 or uncertain < 0:
            raise ValueError(
                f"startup_trials {startup_trials} and pool_size {pool_size} must be at least 1, "
                f"and uncertain {uncertain} a position"
            )
        self._pricer, self._uncertain, self._reference = pricer, uncertain, reference
        self._space = None if space is None else dict(space)
        self._startup, self._pool_size, self._fixed_pool = startup_trials, pool_size, fixed_pool
        self._beside = pool_size if beside_front is None else beside_front
        self._given_up, self._scores = given_up or _never, scores
        self._generator = np.random.default_rng(seed)
        self._pool_seed = int(self._generator.integers(2**31))
        self._independent = RandomSampler(seed=int(self._generator.integers(2**31)))
        self._fallback = _tpe(int(self._generator.integers(2**31)))
        self._common = IntersectionSearchSpace()
        self._memory: _Memory | None = None
        self._kept: tuple[dict[str, BaseDistribution], Candidates] | None = None

    def reseed(self, seed: int) -> None:
        """Start all later draws from a seed.

        With a seed that follows from the number of stored trials, a study that was interrupted
        goes on as it would have: nothing else in this sampler outlives a proposal, but what can be
        made again from the trials. The fixed pool is that of the seed at construction.
        """
        self._generator = np.random.default_rng(seed)
        self._independent = RandomSampler(seed=int(self._generator.integers(2**31)))
        self._fallback = _tpe(int(self._generator.integers(2**31)))

    def reseed_rng(self) -> None:
        """Draw differently from copies of this sampler in other threads."""
        self.reseed(int(np.random.default_rng().integers(2**31)))

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The given space, or what all completed trials have in common."""
        if self._falls_back(study):
            return self._fallback.infer_relative_search_space(study, trial)
        if self._space is not None:
            return dict(self._space)
        return self._common.calculate(study)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Parameters of the most promising candidate of the pool; none of an empty space."""
        if self._falls_back(study):
            return self._fallback.sample_relative(study, trial, search_space)
        if not search_space:
            return {}
        memory = self._remembered(study, search_space)
        trials = study.get_trials(deepcopy=False)
        row = self._propose(memory, memory.reader.observe(trials, trial.number))
        return to_parameters(search_space, row.reshape(1, -1))[0]

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401 - Optuna's own signature
        """A random value; one of the fallback where that proposes everything."""
        sampler = self._fallback if self._falls_back(study) else self._independent
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _falls_back(self, study: Study) -> bool:
        if self._uncertain >= len(study.directions):
            raise ValueError(
                f"uncertain is {self._uncertain}, and the study has {len(study.directions)} "
                "objectives; positions start at 0"
            )
        if self._reference is not None and len(self._reference) != len(study.directions):
            raise ValueError(
                f"the reference has {len(self._reference)} values for {len(study.directions)} "
                "objectives; give one for each"
            )
        return self._pricer is None and len(study.directions) > 1

    def _remembered(self, study: Study, space: dict[str, BaseDistribution]) -> _Memory:
        objectives = Objectives(
            uncertain=self._uncertain,
            signs=tuple(
                1 if (d == StudyDirection.MAXIMIZE) == (at == self._uncertain) else -1
                for at, d in enumerate(study.directions)
            ),
        )
        now = (study.study_name, space, objectives)
        memory = self._memory
        if memory is None or now != (memory.study_name, memory.space, memory.objectives):
            prices = PriceList(space, self._pricer, objectives)
            memory = _Memory(
                study_name=study.study_name,
                space=dict(space),
                objectives=objectives,
                prices=prices,
                reader=TrialReader(space, prices, objectives, self._given_up, self._scores),
                proposer=Proposer(_signed(self._reference, objectives)),
            )
            self._memory = memory
        return memory

    def _propose(self, memory: _Memory, observed: Observed) -> Floats:
        pool = self._pool(memory, observed)
        kept = pool.take(usable(pool, observed.taken))
        if not len(kept):
            # All that is left is known or infeasible: what violates least, or any of it again.
            least = np.flatnonzero(pool.violation <= max(0.0, pool.violation.min()))
            row: Floats = pool.rows[self._generator.choice(least)]
        elif observed.evaluated is None or observed.count < self._startup:
            row = kept.rows[startup(kept, observed.count, self._startup, self._generator)]
        else:
            row = kept.rows[memory.proposer.best(observed, kept)]
        return row

    def _pool(self, memory: _Memory, observed: Observed) -> Candidates:
        """Every candidate of a small space; else drawn ones and the neighbourhood of the front."""
        space = memory.space
        counts = [size for size in sizes(space) if size is not None]
        if len(counts) == len(space) and math.prod(counts) <= self._pool_size:
            return self._same_pool(memory, every_row(space))
        if self._fixed_pool:
            drawn = random_rows(space, self._pool_size, np.random.default_rng(self._pool_seed))
            parts = [self._same_pool(memory, drawn)]
        else:
            parts = [memory.prices.price(random_rows(space, self._pool_size, self._generator))]
        beside = self._beside_front(memory, observed)
        if len(beside):
            known = memory.prices.remembered(list(beside)) if self._fixed_pool else None
            parts.append(memory.prices.price(beside) if known is None else known)
        return joined(parts)

    def _same_pool(self, memory: _Memory, rows: Floats) -> Candidates:
        """Prices of the candidates that are the same at every proposal."""
        if self._kept is None or self._kept[0] is not memory.space:
            self._kept = (memory.space, memory.prices.price(rows))
        return self._kept[1]

    def _beside_front(self, memory: _Memory, observed: Observed) -> Floats:
        if observed.evaluated is None:
            return np.zeros((0, len(memory.space)))
        front = non_dominated(observed.values, observed.evaluated.costs)
        found = [
            neighbours(memory.space, observed.evaluated.rows[at], self._generator) for at in front
        ]
        rows = np.concatenate(found)
        if len(rows) > self._beside:
            rows = rows[self._generator.choice(len(rows), self._beside, replace=False)]
        return rows


def _signed(reference: Sequence[float] | None, objectives: Objectives) -> Reference:
    if reference is None:
        return Reference()
    signed = [value * sign for value, sign in zip(reference, objectives.signs, strict=True)]
    value = signed.pop(objectives.uncertain)
    return Reference(value=value, costs=tuple(signed))


def _never(_: FrozenTrial) -> bool:
    return False


def _tpe(seed: int) -> TPESampler:
    with warnings.catch_warnings():
        # Multivariate TPE has been "experimental" since 2020; univariate is worse and slower.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(multivariate=True, seed=seed)
