"""How long our sampler takes to propose, by the number of trials before.

::

    python benchmarks/search/ask_time.py [--seeds 5] [--quick] [--out results/published]

Six parameters of five choices as in NAS-Bench-201, seven features, one known cost; values of a
made up function with noise. ``first`` is the proposal after a restart, which reads all trials and
fits the kernel; ``next`` are the ten after it. The pricer is a table look-up: what pricing takes
comes on top. One thread, if OMP_NUM_THREADS says so.
"""

import itertools
import time
from typing import Final

import numpy as np
import optuna
from predictor_room import Options, Row, options, show, spread
from problem import Problem

from hwsearch.sampler import KnownCostSampler

SIZES: Final = (100, 500, 10_000)
_QUICK: Final = (100,)
_NEXT: Final = 10
_CHOICES: Final = ("none", "skip", "conv1", "conv3", "pool")


def main() -> None:
    given = options(__doc__, seeds=5)
    show(table(given), given, "ask-time", given.size, room="search")


def table(given: Options) -> list[Row]:
    """Milliseconds for each number of trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    problem = made_up()
    rows: list[Row] = []
    for trials in _QUICK if given.quick else SIZES:
        firsts, others = [], []
        for seed in range(given.seeds):
            first, *rest = ask_times_ms(problem, trials, seed)
            firsts.append(first)
            others += rest
        rows.append(
            {
                "trials": trials,
                "seeds": given.seeds,
                "first_ms": spread(firsts),
                "next_ms": spread(others),
                "most_ms": max(firsts + others),
            }
        )
    return rows


def ask_times_ms(problem: Problem, trials: int, seed: int) -> list[float]:
    """Of the first proposal and those after it."""
    sampler = KnownCostSampler(problem.price, space=problem.space, seed=seed)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    generator = np.random.default_rng(seed)
    count = len(problem.places)
    drawn = generator.choice(count, size=trials, replace=trials > count)
    study.add_trials([_stored(problem, int(candidate)) for candidate in drawn])
    times = []
    for _ in range(1 + _NEXT):
        start = time.perf_counter()
        trial = study.ask(problem.space)
        times.append(1e3 * (time.perf_counter() - start))
        candidate = problem.find_parameters(trial.params)
        assert candidate is not None
        study.tell(trial, problem.values(candidate))
    return times


def made_up() -> Problem:
    """All combinations, with a cost and an accuracy that follow the operations."""
    places = np.array(list(itertools.product(range(len(_CHOICES)), repeat=6)))
    generator = np.random.default_rng(0)
    gain = np.array([0.0, 0.3, 0.8, 1.0, 0.4])[places]
    price = np.array([0.0, 0.1, 1.0, 3.0, 0.7])[places]
    accuracy = 70 * (1 - np.exp(-gain @ generator.uniform(0.2, 1.0, 6)))
    costs = 2.0 + price.sum(axis=1) + 0.1 * generator.uniform(size=len(places))
    counts = np.column_stack([(places == kind).sum(axis=1) for kind in range(len(_CHOICES))])
    features = np.column_stack([counts, np.log(costs), np.log1p(price[:, 0])])
    return Problem(
        choices={f"edge{at}": _CHOICES for at in range(6)},
        places=places,
        accuracy_percent=accuracy + 0.3 * generator.normal(size=len(places)),
        costs=costs[:, None],
        known_costs=costs[:, None],
        features=(features - features.mean(axis=0)) / features.std(axis=0),
        allowed=np.ones(len(places), dtype=bool),
        objectives=True,
    )


def _stored(problem: Problem, candidate: int) -> optuna.trial.FrozenTrial:
    return optuna.create_trial(
        params=problem.parameters(candidate),
        distributions=problem.space,
        values=problem.values(candidate),
    )


if __name__ == "__main__":
    main()
