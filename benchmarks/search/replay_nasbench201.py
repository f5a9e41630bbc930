"""NAS-Bench-201 searched again: how far each sampler gets in the complete table.

::

    python benchmarks/search/replay_nasbench201.py ../shared/data [--seeds 10] [--quick]

Accuracy on CIFAR-100 against the latency on three settings (a GPU, a CPU of servers, one of
boards). Three tables, each a file:

- ``front``: what is missed of the volume under the true front, between its ideal and its nadir
  point, after 50 to 500 trials;
- ``budget``: the gap to the best accuracy below the 10th, 30th and 60th percentile of latency after
  50 trials;
- ``predicted``: as ``front``, where the search sees latencies predicted from 50 noisy measurements
  (5 %), and is judged by the true ones.

A trial is a candidate that was not evaluated before; see ``methods.py``. Ours sees features of a
cell beside its operations: MACs, weights, operations on live paths, their depth.
"""

import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from methods import Method, methods, replay
from predictor_room import (
    EDGES,
    OPERATIONS,
    Options,
    OurPredictor,
    Row,
    live_operations,
    nasbench201,
    options,
    parse_cell,
    prior,
    show,
    spread,
)
from problem import Problem, Truth
from regret_plot import plot_regret

from hwsearch.hardware.measurements import Measurement
from hwsearch.sampler.priced import Floats

SETTINGS: Final = ("titan_rtx_1", "silver_4114", "raspi4")
CHECKPOINTS: Final = (50, 100, 200, 500)
#: The last checkpoint takes as long as all others together, so it is reached on one setting.
LONGEST: Final = SETTINGS[1]
PERCENTILES: Final = (10, 30, 60)
BUDGET_TRIALS: Final = 50
#: Where the predicted costs are tried: the setting whose latencies have the finest resolution.
PREDICTED: Final = "silver_4114"
MEASURED_CELLS: Final = 50
NOISE: Final = 0.05
_QUICK: Final = (20, 40)
_CONVOLUTIONS: Final = ("nor_conv_1x1", "nor_conv_3x3")


def main() -> None:
    given = options(__doc__, seeds=10)
    cells = Cells(given.data)
    settings = (LONGEST,) if given.quick else SETTINGS
    conditions = f"cifar100-{given.size}"
    rows, curves = front_rows(cells, settings, given)
    show(rows, given, "nasbench201-front", conditions, room="search")
    path = given.out.parent / f"search_nasbench201-front_{conditions}.png"
    print(f"plotted in {plot_regret(curves, path)}")
    rows = budget_rows(cells, settings, given)
    show(rows, given, "nasbench201-budget", conditions, room="search")
    rows = predicted_rows(cells, given)
    show(rows, given, "nasbench201-predicted", conditions, room="search")


class Cells:
    """The table: what is the same on every setting, and the latencies.

    Args:
        data: the folder of the published tables.
    """

    def __init__(self, data: Path) -> None:
        packed = (data / "nasbench201.csv.gz").read_bytes()
        rows = list(csv.DictReader(io.StringIO(gzip.decompress(packed).decode("utf-8"))))
        cells = [parse_cell(row["arch_str"]) for row in rows]
        self.places = np.array([[OPERATIONS.index(one) for one in cell] for cell in cells])
        self.accuracy_percent = np.array([float(row["cifar100_top1_percent"]) for row in rows])
        self.latency_ms = {
            column.removesuffix("_latency_ms"): np.array([float(row[column]) for row in rows])
            for column in rows[0]
            if column.endswith("_latency_ms")
        }
        described = [
            [np.log(float(row["macs"])), np.log(float(row["params"])), *cell_features(cell)]
            for row, cell in zip(rows, cells, strict=True)
        ]
        columns = np.array(described)
        self.features: Floats = (columns - columns.mean(axis=0)) / columns.std(axis=0)

    def problem(
        self,
        setting: str,
        *,
        known_ms: Floats | None = None,
        budget_ms: float | None = None,
    ) -> Problem:
        """The search on a setting.

        Args:
            setting: of the latencies.
            known_ms: what the search is told in place of the true latencies.
            budget_ms: accuracy alone is searched below it; None for both objectives.
        """
        latency = self.latency_ms[setting]
        known = latency if known_ms is None else known_ms
        return Problem(
            choices={f"{start}-{end}": OPERATIONS for start, end in EDGES},
            places=self.places,
            accuracy_percent=self.accuracy_percent,
            costs=latency[:, None],
            known_costs=known[:, None],
            features=self.features,
            allowed=known <= (np.inf if budget_ms is None else budget_ms),
            objectives=budget_ms is None,
        )


def cell_features(operations: Sequence[str]) -> list[float]:
    """Live operations by kind, and the most convolutions on one path; -1 where no path leads."""
    live = live_operations(operations)
    depth: dict[int, int] = {0: 0}
    for (start, end), operation in sorted(zip(EDGES, operations, strict=True), key=_by_end):
        if operation != "none" and start in depth:
            reached = depth[start] + (operation in _CONVOLUTIONS)
            depth[end] = max(depth.get(end, 0), reached)
    counts = [float(live.count(kind)) for kind in OPERATIONS if kind != "none"]
    return [*counts, float(depth.get(3, -1))]


def front_rows(
    cells: Cells, settings: Sequence[str], given: Options
) -> tuple[list[Row], dict[str, Floats]]:
    """Regret in percent at each number of trials, over settings and seeds, and the curves."""
    checkpoints = _QUICK if given.quick else CHECKPOINTS
    rows: list[Row] = []
    curves: dict[str, Floats] = {}
    problems = {setting: cells.problem(setting) for setting in settings}
    truths = {setting: Truth.of(problem) for setting, problem in problems.items()}
    for method in methods():
        trials = _most_trials(method, checkpoints[-1])
        done = {s: trials if s == LONGEST else min(trials, checkpoints[-2]) for s in settings}
        found = {
            setting: [replay(problem, method, done[setting], seed) for seed in range(given.seeds)]
            for setting, problem in problems.items()
        }

        def regret(
            setting: str, count: int, found: dict[str, list[list[int]]] = found
        ) -> list[float]:
            truth, problem = truths[setting], problems[setting]
            return [truth.regret_percent(problem, run[:count]) for run in found[setting]]

        for trial_count in checkpoints:
            for name, members in _groups(settings).items():
                values = [one for member in members for one in regret(member, trial_count)]
                reached = min(done[member] for member in members)
                rows.append(
                    _row("front", name, method.name, trial_count, given.seeds, reached, values)
                )
        counts = np.unique(np.linspace(10, min(done.values()), 40).astype(int))
        curves[method.name] = np.array(
            [[c, *np.quantile([r for s in settings for r in regret(s, int(c))], (0.25, 0.5, 0.75))]
             for c in counts]
        )  # fmt: skip
        print(f"front: {method.name} done", flush=True)
    return rows, curves


def budget_rows(cells: Cells, settings: Sequence[str], given: Options) -> list[Row]:
    """Points of accuracy below the best one that meets the budget."""
    trials = _QUICK[-1] if given.quick else BUDGET_TRIALS
    rows: list[Row] = []
    for method in (one for one in methods() if not one.fronts_only):
        for percentile in PERCENTILES:
            gaps: list[float] = []
            for setting in settings:
                limit = float(np.percentile(cells.latency_ms[setting], percentile))
                problem = cells.problem(setting, budget_ms=limit)
                best = problem.accuracy_percent[problem.allowed].max()
                for seed in range(given.seeds):
                    run = replay(problem, method, trials, seed)
                    gaps.append(float(best - problem.accuracy_percent[run].max()))
            name = f"percentile {percentile}"
            rows.append(_row("budget", name, method.name, trials, given.seeds, trials, gaps))
        print(f"budget: {method.name} done", flush=True)
    return rows


def predicted_rows(cells: Cells, given: Options) -> list[Row]:
    """Regret at the true latencies of a search that knows predicted ones."""
    checkpoints = _QUICK if given.quick else CHECKPOINTS[:2]
    measurements = nasbench201(given.data)[PREDICTED]
    known = [predicted_ms(measurements, seed) for seed in range(given.seeds)]
    truth = Truth.of(cells.problem(PREDICTED))
    rows: list[Row] = []
    for method in (one for one in methods() if not one.fronts_only):
        trials = _most_trials(method, checkpoints[-1])
        runs = []
        for seed in range(given.seeds):
            problem = cells.problem(PREDICTED, known_ms=known[seed])
            runs.append((problem, replay(problem, method, trials, seed)))
        for count in checkpoints:
            values = [truth.regret_percent(problem, run[:count]) for problem, run in runs]
            rows.append(
                _row("predicted", PREDICTED, method.name, count, given.seeds, trials, values)
            )
        print(f"predicted: {method.name} done", flush=True)
    return rows


def predicted_ms(measurements: Sequence[Measurement], seed: int) -> Floats:
    """Latencies of all cells from noisy measurements of a few.

    Args:
        measurements: of every cell, in the order of the table.
        seed: of the choice of cells and of the noise.
    """
    generator = np.random.default_rng(seed)
    usable = [at for at, one in enumerate(measurements) if one.group != "constant"]
    chosen = generator.choice(usable, size=MEASURED_CELLS, replace=False)
    noisy = [
        Measurement(
            network=measurements[at].network,
            latency_ms=measurements[at].latency_ms * float(np.exp(NOISE * generator.normal())),
            group=measurements[at].group,
        )
        for at in chosen
    ]
    fitted = OurPredictor(profile=prior(PREDICTED), seed=seed).fit(noisy, "latency")
    return fitted.predict([one.network for one in measurements]).value


def _most_trials(method: Method, trials: int) -> int:
    return min(trials, method.most_trials or trials)


def _groups(settings: Sequence[str]) -> dict[str, Sequence[str]]:
    return {"all": settings, **{setting: [setting] for setting in settings}}


def _row(
    table: str,
    condition: str,
    method: str,
    trials: int,
    seeds: int,
    done: int,
    values: Sequence[float],
) -> Row:
    unit = "points" if table == "budget" else "percent"
    told = spread(values) if trials <= done else None
    return {
        "table": table,
        "condition": condition,
        "trials": trials,
        "method": method,
        "seeds": seeds,
        "unit": unit,
        "regret": told,
    }


def _by_end(edge: tuple[tuple[int, int], str]) -> int:
    return edge[0][1]


if __name__ == "__main__":
    main()
