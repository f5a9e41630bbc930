"""Budgets: how often the best candidate under one breaks it when it is run, and what that costs.

::

    python benchmarks/predictor/table_budget.py ../shared/data [--seeds 10] [--quick]

On every device 30 candidates are measured, and of all others the most accurate one is chosen whose
latency is believed to be within the budget. Choosing finds the errors that flatter, so a point
prediction is broken far more often than it is wrong. Ours is asked twice: for its median, and for
the bound that the latency stays below with a confidence of 0.95. The oracle knows every latency.
Candidates are the cells of NAS-Bench-201 (accuracy on CIFAR-100) and the MobileNets of the MLPerf
boards (ImageNet top-1); budgets are those that 15, 30, 50, 70 and 85 % of the candidates meet.
"""

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import table_mlperf
import table_nasbench201
from peers import Method, Ours, measured, peers
from scores import Forecast
from table_output import Options, Row, options, show

from hwsearch.hardware.kernel_table import Floats
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.profile import HardwareProfile

CONFIDENCE: Final = 0.95
MEASURED: Final = 30
SHARES: Final = (0.15, 0.3, 0.5, 0.7, 0.85)


@dataclass(frozen=True, kw_only=True)
class Device:
    """Candidates with their latencies on one device.

    Attributes:
        accuracy_percent: of each candidate, (candidates,).
    """

    name: str
    table: str
    candidates: tuple[Measurement, ...]
    accuracy_percent: Floats
    profile: HardwareProfile


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen under one budget; numbers are None where nothing was.

    Attributes:
        broken: the latency is over the budget.
        used: latency over budget.
        price_points: accuracy of the oracle's choice, less that of this one.
    """

    broken: bool | None
    used: float | None
    price_points: float | None


def main() -> None:
    given = options(__doc__, seeds=10)
    show(table(given), given, "budget", f"{MEASURED}measured-{given.size}")


def table(given: Options) -> list[Row]:
    """Shares and prices of every method, for both tables of candidates."""
    found: dict[tuple[str, str], list[Choice]] = {}
    for device in devices(given):
        for seed in range(given.seeds):
            for name, choices in choose_all(device, seed).items():
                found.setdefault((device.table, name), []).extend(choices)
    return [
        {"candidates": kind, "method": name, **summary(choices)}
        for (kind, name), choices in found.items()
    ]


def devices(given: Options) -> list[Device]:
    """Every setting of NAS-Bench-201 and every board of MLPerf."""
    accuracy = _nasbench_accuracy(given.data)
    found = [
        Device(
            name=setting,
            table="NAS-Bench-201",
            candidates=tuple(cells),
            accuracy_percent=np.array([accuracy[_arch(cell)] for cell in cells]),
            profile=table_nasbench201.prior(setting),
        )
        for setting, cells in table_nasbench201.load(given).items()
    ]
    found += [
        Device(
            name=board.setup[3],
            table="MLPerf",
            candidates=tuple(row.measurement for row in board.rows),
            accuracy_percent=np.array([row.top1_percent for row in board.rows]),
            profile=board.profile,
        )
        for board in table_mlperf.boards(given)
    ]
    return found


def choose_all(device: Device, seed: int) -> dict[str, list[Choice]]:
    """Choices of every method under every budget, by method."""
    order = np.random.default_rng(seed).permutation(len(device.candidates))
    train = [device.candidates[at] for at in order[:MEASURED]]
    others = order[MEASURED:]
    rest = [device.candidates[at] for at in others]
    truth, accuracy = measured(rest, "latency"), device.accuracy_percent[others]
    budgets = np.quantile(truth, SHARES)
    found = {}
    for name, believed in _believed(train, rest, device.profile, seed):
        found[name] = [choose(believed, truth, accuracy, float(budget)) for budget in budgets]
    return found


def choose(believed: Floats, truth: Floats, accuracy: Floats, budget: float) -> Choice:
    """The most accurate candidate that is believed to be within the budget; ties go to the first.

    The oracle chooses by the truth; it always finds one for a budget that a candidate meets.
    """
    if not (believed <= budget).any():
        return Choice(broken=None, used=None, price_points=None)
    chosen = int(np.argmax(np.where(believed <= budget, accuracy, -np.inf)))
    best = float(accuracy[truth <= budget].max())
    return Choice(
        broken=bool(truth[chosen] > budget),
        used=float(truth[chosen] / budget),
        price_points=best - float(accuracy[chosen]),
    )


def summary(choices: Sequence[Choice]) -> Row:
    """Share of broken budgets and what keeping the others cost."""
    made = [one for one in choices if one.broken is not None]
    kept = [one for one in made if not one.broken]
    broken = [one.used for one in made if one.broken and one.used is not None]
    return {
        "choices": len(choices),
        "nothing_chosen_percent": 100 * (1 - len(made) / len(choices)),
        "broken_percent": 100 * len(broken) / len(made) if made else None,
        "over_when_broken_percent": 100 * (float(np.mean(broken)) - 1) if broken else None,
        "budget_used_when_kept_percent": 100 * _mean([one.used for one in kept]) if kept else None,
        "accuracy_below_oracle_points": _mean([one.price_points for one in kept]) if kept else None,
    }


def _believed(
    train: Sequence[Measurement], rest: Sequence[Measurement], profile: HardwareProfile, seed: int
) -> Iterator[tuple[str, Floats]]:
    """What each method takes the latencies to be, (rest,)."""
    networks = [one.network for one in rest]
    method: Method
    for method in peers(seed):
        yield f"{method.name}, point", method.fit(train, "latency").predict(networks).value
    ours: Forecast = Ours(profile=profile, seed=seed).fit(train, "latency").predict(networks)
    yield "ours, point", ours.value
    yield f"ours, bound of {CONFIDENCE}", ours.upper(CONFIDENCE)


def _nasbench_accuracy(data: Path) -> dict[str, float]:
    """Percent on CIFAR-100 by cell string."""
    text = gzip.decompress((data / "nasbench201.csv.gz").read_bytes()).decode("utf-8")
    rows = csv.DictReader(io.StringIO(text))
    return {row["arch_str"]: float(row["cifar100_top1_percent"]) for row in rows}


def _arch(cell: Measurement) -> str:
    return cell.network.name


def _mean(values: Sequence[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))


if __name__ == "__main__":
    main()
