"""MLPerf boards searched again: trials to the exact optimum under budgets.

::

    python benchmarks/search/replay_mlperf.py ../shared/data [--seeds 10] [--quick]

MobileNet v1, v2 and v3 by width, input size and bits, with accuracy on ImageNet, p90 latency and
energy as measured on each board; of the rounds of a board, runtime and backend the one that
``benchmarks/predictor/table_mlperf.py`` takes. A budget is a percentile of the board's networks.
The costs are known, so a candidate over the budget, or one that was not measured, costs no trial;
the count is that of the trial that first evaluated the most accurate network within the budget.
The spread is over boards and seeds; ``of`` is the median number of networks within the budget,
which is also the most that a search can take.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from methods import methods, replay
from predictor_room import Board, Options, Row, boards, options, show, spread
from problem import Problem

from hwsearch.sampler.priced import Bools, Floats


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Budgets as percentiles of a board's networks; None for no budget."""

    latency: int | None
    energy: int | None = None

    @property
    def name(self) -> str:
        """What the table calls them."""
        parts = {"latency": self.latency, "energy": self.energy}
        return ", ".join(f"{what} p{level}" for what, level in parts.items() if level is not None)


BUDGETS: Final = (
    Limits(latency=10),
    Limits(latency=30),
    Limits(latency=60),
    Limits(latency=60, energy=30),
)


def main() -> None:
    given = options(__doc__, seeds=10)
    show(table(given), given, "mlperf", f"mobilenets-{given.size}", room="search")


def table(given: Options) -> list[Row]:
    """Trials to the optimum for every budget and method, over boards and seeds."""
    chosen = boards(given)
    rows: list[Row] = []
    for limits in BUDGETS:
        problems = [p for board in chosen if (p := problem_of(board, limits)) is not None]
        sizes = [int(problem.allowed.sum()) for problem in problems]
        for method in (one for one in methods() if not one.fronts_only):
            counts = [
                float(trials_to_optimum(problem, method.name, seed))
                for problem in problems
                for seed in range(given.seeds)
            ]
            rows.append(
                {
                    "budget": limits.name,
                    "boards": len(problems),
                    "of": int(np.median(sizes)),
                    "method": method.name,
                    "seeds": given.seeds,
                    "trials_to_optimum": spread(counts),
                    "mean_trials": float(np.mean(counts)),
                }
            )
            print(f"{limits.name}: {method.name} done", flush=True)
    return rows


def trials_to_optimum(problem: Problem, method: str, seed: int) -> int:
    """The number, from 1, of the trial that evaluated an optimum first."""
    searched = next(one for one in methods() if one.name == method)
    best = optima(problem)
    run = replay(problem, searched, len(problem.places), seed, until=best)
    return 1 + next(at for at, candidate in enumerate(run) if candidate in best)


def optima(problem: Problem) -> frozenset[int]:
    """The most accurate candidates within the budget."""
    allowed = np.flatnonzero(problem.allowed)
    accuracy = problem.accuracy_percent[allowed]
    return frozenset(allowed[accuracy == accuracy.max()].tolist())


def problem_of(board: Board, limits: Limits) -> Problem | None:
    """A board's networks under budgets; None where energy is limited and was not measured."""
    rows = board.rows
    energies = [row.measurement.energy_mj for row in rows]
    if limits.energy is not None and None in energies:
        return None
    costs = np.array([row.measurement.latency_ms for row in rows])[:, None]
    allowed = _within(costs[:, 0], limits.latency)
    if limits.energy is not None:
        energy = np.array(energies, dtype=np.float64)
        allowed &= _within(energy, limits.energy)
        costs = np.column_stack([costs, energy])
    if not allowed.any():
        raise ValueError(f"{board.setup}: no network meets {limits.name}")
    names = [f"{row.family} {row.variant} {row.width:g}" for row in rows]
    values: dict[str, Sequence[str | float]] = {
        "network": names,
        "input_px": [row.input_px for row in rows],
        "precision": [row.precision for row in rows],
    }
    choices = {name: tuple(dict.fromkeys(column)) for name, column in values.items()}
    places = np.array([[choices[n].index(v) for v in column] for n, column in values.items()]).T
    features = np.array(
        [
            [
                np.log(row.measurement.network.macs),
                np.log(row.measurement.network.weight_elements),
                np.log(row.width),
                np.log(row.input_px),
                float(row.precision == "int8"),
                *(float(row.family == family) for family in sorted({r.family for r in rows})),
            ]
            for row in rows
        ]
    )
    return Problem(
        choices=choices,
        places=places,
        accuracy_percent=np.array([row.top1_percent for row in rows]),
        costs=costs,
        known_costs=costs,
        features=_standard(features),
        allowed=allowed,
        objectives=False,
    )


def _within(values: Floats, level: int | None) -> Bools:
    if level is None:
        return np.ones(len(values), dtype=bool)
    within: Bools = values <= np.percentile(values, level)
    return within


def _standard(columns: Floats) -> Floats:
    spread_of = columns.std(axis=0)
    standard: Floats = (columns - columns.mean(axis=0)) / np.where(spread_of > 0, spread_of, 1.0)
    return standard


if __name__ == "__main__":
    main()
