"""The results of the end-to-end comparison: rows of networks, and what they amount to."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from predictor_room import Row, Spread, spread
from problem import dominated

#: How the arms of the tool itself begin; all others are its peers.
OURS: Final = "hwsearch"
#: What is held against an arm beside the other arms.
ALL_PEERS: Final = "all peers' files together"
_LEAD: Final = "over the best peer, points"


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """A row of the results: one network of an arm.

    Attributes:
        minutes: processor time that the arm was given.
        cpu_minutes: that it took, from the start of its process to the end.
        file: of the network, in the folder of the runs; empty where the arm made none.
        input_px: side of the pictures that it takes; 0 where there is none.
        accuracy_percent: of the file on the held-out pictures; nan until all files of the seed are
            scored and timed together.
        latency_ms: least of the rounds' medians, batch 1, one thread; nan until then.
        median_latency_ms: median of the rounds' medians.
        chance_percent: accuracy of guessing.
    """

    seed: int
    arm: str
    minutes: float
    cpu_minutes: float
    file: str
    input_px: int
    accuracy_percent: float
    latency_ms: float
    median_latency_ms: float
    chance_percent: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one file turned out to be; fields as of :class:`Shipped`."""

    input_px: int
    accuracy_percent: float
    latency_ms: float
    median_latency_ms: float


# -- the file -------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[Shipped]:
    """The rows so far; none if there is no file.

    Raises:
        ValueError: the file has other columns.
    """
    if not path.is_file():
        return []
    kinds = {field.name: field.type for field in fields(Shipped)}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if list(reader.fieldnames or ()) != list(kinds):
            raise ValueError(f"{path} has other columns than {', '.join(kinds)}; give another file")
        return [
            Shipped(**{name: kinds[name](text) for name, text in row.items()})  # type: ignore[operator]
            for row in reader
        ]


def write_rows(path: Path, rows: Sequence[Shipped]) -> None:
    """Write the whole file, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Shipped))
        for row in rows:
            writer.writerow(
                f"{cell:.6g}" if isinstance(cell, float) else cell for cell in asdict(row).values()
            )
    part.replace(path)


def unfinished(rows: Sequence[Shipped], seed: int, arms: Sequence[str]) -> list[str]:
    """The arms of a seed that have no rows yet, in order."""
    done = {row.arm for row in rows if row.seed == seed}
    return [arm for arm in arms if arm not in done]


def unmeasured_files(rows: Sequence[Shipped], seed: int) -> list[str]:
    """All files of a seed if one of them was not measured beside the others; none if all were."""
    own = [row for row in rows if row.seed == seed and row.file]
    if not any(math.isnan(row.latency_ms) for row in own):
        return []
    return list(dict.fromkeys(row.file for row in own))


def measured_together(
    rows: Sequence[Shipped], seed: int, found: Mapping[str, Measured]
) -> list[Shipped]:
    """All rows, those of a seed with what one measurement of all its files found.

    Raises:
        KeyError: a file of the seed was not measured.
    """
    return [
        replace(row, **asdict(found[row.file])) if row.seed == seed and row.file else row
        for row in rows
    ]


# -- the summary ----------------------------------------------------------------------------------


def hypervolume(rows: Sequence[Shipped], reference_ms: float) -> float:
    """Area that networks dominate, in octaves of latency x points of accuracy.

    Up to ``reference_ms`` and the accuracy of guessing; what lies beyond adds nothing, and no
    network is 0. A halving of the latency counts alike wherever it starts.
    """
    found = [row for row in rows if row.file]
    if not found:
        return 0.0
    accuracy = np.array([row.accuracy_percent for row in found])
    latency = np.log2([row.latency_ms for row in found])
    return dominated(accuracy, latency, found[0].chance_percent, math.log2(reference_ms))


def best_within(rows: Sequence[Shipped], limit_ms: float) -> float:
    """Accuracy of the best network within a latency, in percent; that of guessing if there is none.

    Raises:
        ValueError: no rows.
    """
    within = [row.accuracy_percent for row in rows if row.file and row.latency_ms <= limit_ms]
    return max([*within, rows[0].chance_percent])


def by_arm(rows: Sequence[Shipped]) -> dict[str, dict[int, list[Shipped]]]:
    """The rows of each arm and seed, of seeds whose files were measured together."""
    found: dict[str, dict[int, list[Shipped]]] = {}
    waiting = {row.seed for row in rows if unmeasured_files(rows, row.seed)}
    for row in rows:
        if row.seed not in waiting:
            found.setdefault(row.arm, {}).setdefault(row.seed, []).append(row)
    return found


def area_table(rows: Sequence[Shipped], reference_ms: float) -> list[Row]:
    """Hypervolume of each arm and what it took, medians and quartiles over the seeds.

    ``over_all_peers_percent`` is the median of the ratio in each seed to what the files of all
    peers of this seed have together.
    """
    arms = by_arm(rows)
    together: dict[int, list[Shipped]] = {}
    for arm, seeds in arms.items():
        for seed, own in seeds.items() if not arm.startswith(OURS) else ():
            together.setdefault(seed, []).extend(own)
    areas = {
        arm: {seed: hypervolume(own, reference_ms) for seed, own in seeds.items()}
        for arm, seeds in [*arms.items(), *([(ALL_PEERS, together)] if together else [])]
    }
    table: list[Row] = []
    for arm, area in areas.items():
        taken = [own[0].cpu_minutes for own in arms.get(arm, {}).values()]
        files = [float(sum(bool(r.file) for r in own)) for own in arms.get(arm, {}).values()]
        table.append(
            {
                "arm": arm,
                "seeds": len(area),
                "hypervolume_octave_points": spread(list(area.values())),
                "over_all_peers_percent": _percent(area, areas.get(ALL_PEERS, {})),
                "files": spread(files) if files else None,
                "cpu_minutes": spread(taken) if taken else None,
                "longest_cpu_minutes": max(taken, default=None),
            }
        )
    return table


def limit_table(rows: Sequence[Shipped], limits_ms: Sequence[float]) -> list[Row]:
    """Best accuracy of each arm within each latency, medians over the seeds.

    Below the arms, how far each of hwsearch lies above the peer that is best at the limit.
    """
    arms = by_arm(rows)
    best = {
        arm: [
            median(best_within(own, limit_ms) for own in seeds.values()) for limit_ms in limits_ms
        ]
        for arm, seeds in arms.items()
    }
    peers = [values for arm, values in best.items() if not arm.startswith(OURS)]
    lines = list(best.items())
    if peers:
        ahead = [max(column) for column in zip(*peers, strict=True)]
        lines += [
            (f"{arm} {_LEAD}", [one - peer for one, peer in zip(values, ahead, strict=True)])
            for arm, values in best.items()
            if arm.startswith(OURS)
        ]
    names = [f"accuracy_percent_within_{limit_ms:g}_ms" for limit_ms in limits_ms]
    return [
        {"arm": arm, **{name: round(one, 2) for name, one in zip(names, values, strict=True)}}
        for arm, values in lines
    ]


def _percent(area: Mapping[int, float], other: Mapping[int, float]) -> Spread | None:
    """Percent of another area, over the seeds that both have; None where that is none."""
    ratios = [100 * one / other[seed] for seed, one in area.items() if other.get(seed)]
    return spread(ratios) if ratios else None
