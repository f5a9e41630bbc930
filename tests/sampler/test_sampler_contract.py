"""Optuna's own contract of samplers, held by the fallback, the pool without and with prices."""

from collections.abc import Callable, Sequence

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from hwsearch.sampler import KnownCostSampler, Priced
from hwsearch.sampler.priced import Parameters

SPACE: dict[str, BaseDistribution] = {"x": IntDistribution(0, 5), "y": IntDistribution(0, 5)}


class TestWithoutPrices(
    BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        # One trial at random, so that the surrogate is at work in all others.
        return lambda: KnownCostSampler(startup_trials=1, pool_size=50, seed=0)


class TestWithPrices(BasicSamplerTestCase, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: KnownCostSampler(no_costs, startup_trials=1, pool_size=50, seed=0)


def no_costs(candidates: Sequence[Parameters]) -> Priced:
    """Of studies with one objective, which is uncertain."""
    return Priced(costs=np.zeros((len(candidates), 0)))


def test_a_study_copies_the_sampler_for_its_threads() -> None:
    study = optuna.create_study(sampler=KnownCostSampler(space=SPACE, startup_trials=2, seed=0))
    study.optimize(lambda t: t.suggest_int("x", 0, 5) + t.suggest_int("y", 0, 5), 12, n_jobs=2)
    assert len(study.trials) == 12
    assert study.best_value <= 2
