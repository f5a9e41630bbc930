"""The results of the end-to-end comparison: rows of shipped networks, and what they amount to."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Final, Literal

import numpy as np
from predictor_room import Row, Spread, spread
from problem import dominated

#: Arms that may not choose bits: the uniform int8 baseline of their run is not theirs.
_WITHOUT_BITS: Final = ("prune-only", "backbone-only")
#: What is held against an arm beside the other arms.
_ALL: Final = "all arms"
_CORNER: Final = "corner"


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """A row of the results: one network, with what its arm took.

    Attributes:
        step: of the sequential arm, from 1; 1 elsewhere.
        kind: "trial", "dense-fp32", "uniform-int8"; "none" where an arm shipped nothing.
        file: of the network, in the folder of the runs; empty where there is none.
        run_ms: measured by its own run, batch 1, one thread.
        latency_ms: the same, in one measurement with all files of the seed; nan until then.
        accuracy_percent: held-out, of the exported file.
        reference_ms: of the slowest dense fp32 backbone.
        trained: trials that were trained, of ``trials``.
        wall_s: of the arm; ``final_s`` of it in full fine-tuning, ``ship_s`` in export, scoring and
            timing of files, ``overhead_s`` in neither training, scoring, exporting nor timing.
    """

    seed: int
    arm: str
    minutes: float
    step: int
    kind: str
    backbone: str
    file: str
    run_ms: float
    latency_ms: float
    accuracy_percent: float
    reference_ms: float
    chance_percent: float
    trials: int
    trained: int
    wall_s: float
    final_s: float
    ship_s: float
    overhead_s: float


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


def add_rows(path: Path, rows: Sequence[Shipped]) -> None:
    """Append the rows of a finished arm, all of them or none."""
    write_rows(path, [*read_rows(path), *rows])


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


def untimed_files(rows: Sequence[Shipped], seed: int) -> list[str]:
    """The files of a seed if one of them was not yet timed beside the others; none if all were."""
    own = [row for row in rows if row.seed == seed and row.file]
    return [row.file for row in own] if any(math.isnan(row.latency_ms) for row in own) else []


def timed_together(
    rows: Sequence[Shipped], seed: int, latencies_ms: Mapping[str, float]
) -> list[Shipped]:
    """All rows, those of a seed with latencies of one measurement.

    The reference of the seed becomes the slowest of its dense fp32 backbones, each at the median
    of its copies in the arms' runs.

    Raises:
        KeyError: a file of the seed has no latency.
    """
    timed = [
        replace(row, latency_ms=latencies_ms[row.file]) if row.seed == seed and row.file else row
        for row in rows
    ]
    dense: dict[str, list[float]] = {}
    for row in timed:
        if row.seed == seed and row.kind == "dense-fp32":
            dense.setdefault(row.backbone, []).append(row.latency_ms)
    if not dense:
        return timed
    reference_ms = max(median(copies) for copies in dense.values())
    return [replace(row, reference_ms=reference_ms) if row.seed == seed else row for row in timed]


# -- the summary ----------------------------------------------------------------------------------


def hypervolume(rows: Sequence[Shipped], *, octaves: bool = False) -> float:
    """Area that the networks dominate, up to the reference point, which they share.

    Networks at or beyond the reference point add nothing; no network is 0.

    Args:
        rows: of one arm and seed.
        octaves: in octaves of latency x points; else in ms x points.
    """
    if not rows:
        return 0.0
    accuracy = np.array([row.accuracy_percent for row in rows])
    latency = np.array([row.latency_ms for row in rows])
    reference = rows[0].reference_ms
    if octaves:
        latency, reference = np.log2(latency), math.log2(reference)
    return dominated(accuracy, latency, rows[0].chance_percent, reference)


def counted(rows: Sequence[Shipped]) -> list[Shipped]:
    """What an arm may count as its own."""
    return [row for row in rows if row.kind != "uniform-int8" or row.arm not in _WITHOUT_BITS]


def int8_above(rows: Sequence[Shipped]) -> float | None:
    """By how many points a uniform int8 network lies above the finalists that are no slower.

    The worst of them; 0 or less where none does, None where no uniform int8 network was shipped.
    """
    finalists = [row for row in rows if row.kind == "trial"]
    gaps = []
    for row in rows:
        if row.kind == "uniform-int8":
            no_slower = [one for one in finalists if one.latency_ms <= row.latency_ms]
            best = max((one.accuracy_percent for one in no_slower), default=row.chance_percent)
            gaps.append(row.accuracy_percent - best)
    return max(gaps, default=None)


def corner(rows: Sequence[Shipped]) -> list[Shipped]:
    """One network as fast as the fastest of a seed and as accurate as the most accurate one.

    Its hypervolume bounds that of any front whose networks lie between the best figures of the
    seed, so it tells how much there was left to be won. None where nothing was shipped.
    """
    found = [row for row in rows if row.kind != "none"]
    if not found:
        return []
    fastest_ms = min(row.latency_ms for row in found)
    best = max(row.accuracy_percent for row in found)
    return [replace(found[0], latency_ms=fastest_ms, accuracy_percent=best)]


def summary(rows: Sequence[Shipped]) -> list[Row]:
    """One row for each arm, medians and quartiles over the seeds that were timed together.

    What is over something is a hypervolume in percent of another. ``all_arms_over`` and
    ``corner_over`` are what the networks of all arms of a seed have together, and what its
    :func:`corner` has, over what the arm has.
    """
    by_arm: dict[str, dict[int, list[Shipped]]] = {}
    for row in rows:
        if not untimed_files(rows, row.seed):
            by_arm.setdefault(row.arm, {}).setdefault(row.seed, []).append(row)
    areas, octaves = (
        {
            arm: {seed: hypervolume(counted(own), octaves=log) for seed, own in seeds.items()}
            for arm, seeds in by_arm.items()
        }
        for log in (False, True)
    )
    everything: dict[int, list[Shipped]] = {}
    for seeds in by_arm.values():
        for seed, own in seeds.items():
            everything.setdefault(seed, []).extend(counted(own))
    for area, log in ((areas, False), (octaves, True)):
        area[_ALL] = {s: hypervolume(own, octaves=log) for s, own in everything.items()}
        area[_CORNER] = {s: hypervolume(corner(o), octaves=log) for s, o in everything.items()}
    table: list[Row] = []
    for arm, seeds in by_arm.items():
        first = [own[0] for own in seeds.values()]
        gaps = [int8_above(own) for own in seeds.values()]
        known = [gap for gap in gaps if gap is not None]
        table.append(
            {
                "arm": arm,
                "seeds": len(seeds),
                "hypervolume": spread(list(areas[arm].values())),
                "over_sequential_percent": _percent(areas, arm, "sequential"),
                "over_tpe_percent": _percent(areas, arm, "tpe"),
                "octaves": spread(list(octaves[arm].values())),
                "octaves_over_sequential_percent": _percent(octaves, arm, "sequential"),
                "octaves_over_tpe_percent": _percent(octaves, arm, "tpe"),
                "all_arms_over_percent": _percent(areas, _ALL, arm),
                "corner_over_percent": _percent(areas, _CORNER, arm),
                "octaves_all_arms_over_percent": _percent(octaves, _ALL, arm),
                "octaves_corner_over_percent": _percent(octaves, _CORNER, arm),
                "searched_hypervolume": spread(
                    [hypervolume([r for r in o if r.kind == "trial"]) for o in seeds.values()]
                ),
                "trials": spread([float(row.trials) for row in first]),
                "trained": spread([float(row.trained) for row in first]),
                "wall_s": spread([row.wall_s for row in first]),
                "final_and_ship_percent": spread(
                    [100 * (row.final_s + row.ship_s) / row.wall_s for row in first]
                ),
                "overhead_percent": spread([100 * row.overhead_s / row.wall_s for row in first]),
                "int8_above": f"{sum(gap > 0 for gap in known)} of {len(known)}",
                "int8_above_points": spread(known) if known else None,
            }
        )
    return table


def timing_spread_percent(
    rows: Sequence[Shipped], timed_by: Literal["latency_ms", "run_ms"] = "latency_ms"
) -> list[float]:
    """How far the latencies of the same baseline lie apart over the runs of a seed.

    They differ in weights only, which cost no time: what differs is what the machine did. One
    figure, largest over smallest less 1, for each baseline that was timed more than once.
    """
    timed: dict[tuple[int, str, str], list[float]] = {}
    for row in rows:
        if row.kind in {"dense-fp32", "uniform-int8"}:
            timed.setdefault((row.seed, row.kind, row.backbone), []).append(getattr(row, timed_by))
    return [100 * (max(all_ms) / min(all_ms) - 1) for all_ms in timed.values() if len(all_ms) > 1]


def _percent(areas: Mapping[str, Mapping[int, float]], arm: str, other: str) -> Spread | None:
    """Percent between two arms over the seeds that both have; None where that is none."""
    theirs = areas.get(other, {})
    ratios = [100 * area / theirs[seed] for seed, area in areas[arm].items() if theirs.get(seed)]
    return spread(ratios) if ratios else None
