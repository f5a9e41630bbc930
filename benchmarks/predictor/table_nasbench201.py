"""NAS-Bench-201 on nine device settings, from 10 and 20 measured cells.

::

    python benchmarks/predictor/table_nasbench201.py ../shared/data [--seeds 10] [--quick]

Scored on one sample of 2,000 cells, the measured ones not among them; cells in which nothing lies
between input and output are left out (341 of 15,625). The prior is coarse on purpose: one profile
for all GPUs, one for all CPUs. A score is the mean over the nine settings; its spread is that over
seeds, each of which draws the measured cells anew.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from peers import Method, Ours, held_out, peers
from scores import Scores, score, spread_columns
from table_output import Options, Row, options, show
from tables import nasbench201

from hwsearch.bits import FP32
from hwsearch.hardware.kernel_table import Ints
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import load_profile

SIZES: Final = (10, 20)
#: Settings on a CPU whose figures have more than a millisecond's resolution; pixel2 has not.
CPUS: Final = ("silver_4114", "silver_4210r", "raspi4", "pixel3")
_GPUS: Final = ("1080ti_1", "2080ti_1", "titan_rtx_1", "2080ti_256")
_CELLS: Final = 2000
#: Drawn beside the scored ones, to measure from.
_POOL: Final = 500
_QUICK_CELLS: Final = 60


def main() -> None:
    given = options(__doc__, seeds=10)
    show(table(given), given, "nasbench201", f"{cells_of(given)}cells-{given.size}")


def table(given: Options) -> list[Row]:
    """The scores of every method, by number of measured cells, for each setting and all."""
    measurements = load(given)
    rows: list[Row] = []
    for size in SIZES:
        by_setting = {
            setting: _scored(setting, cells, size, given.seeds)
            for setting, cells in measurements.items()
        }
        groups: dict[str, list[str]] = {
            "all nine": list(by_setting),
            "CPUs": [s for s in CPUS if s in by_setting],
        }
        groups |= {setting: [setting] for setting in by_setting}
        for group, settings in groups.items():
            for method in by_setting[settings[0]]:
                per_seed = [
                    _mean([by_setting[setting][method][seed] for setting in settings])
                    for seed in range(given.seeds)
                ]
                conditions: Row = {"measured_cells": size, "settings": group, "method": method}
                rows.append({**conditions, **spread_columns(per_seed)})
    return rows


def cells_of(given: Options) -> int:
    """How many cells are drawn to be scored."""
    return _QUICK_CELLS if given.quick else _CELLS


def load(given: Options) -> dict[str, list[Measurement]]:
    """The scored cells and the pool to measure from, by setting, without constants."""
    sample = nasbench201(given.data, sample=cells_of(given) + _POOL, seed=0)
    if given.quick:
        sample = {setting: sample[setting] for setting in (CPUS[0], _GPUS[0])}
    return {
        setting: [cell for cell in cells if cell.group != "constant"]
        for setting, cells in sample.items()
    }


def prior(setting: str) -> HardwareProfile:
    """A GPU of a desktop, or a CPU, by nothing but their class."""
    if setting in _GPUS:
        # Eager frameworks: what a kernel takes at least is what Python needs to launch it.
        return _generic("jetson-agx-orin", gmac_per_s=5000, gb_per_s=500, floor_us=20)
    return _generic("raspberry-pi-4", gmac_per_s=50, gb_per_s=20, floor_us=20)


def few_folds(count: int, size: int, seed: int) -> Ints:
    """``size`` cells of the pool to fit to (-1), the scored ones in fold 0; -2 is not used."""
    order = np.random.default_rng(0).permutation(count)
    pool = order[: min(_POOL, count // 2)]
    folds = np.zeros(count, dtype=np.int64)
    folds[pool] = -2
    folds[np.random.default_rng(seed).choice(pool, size=size, replace=False)] = -1
    return folds


def _scored(
    setting: str, cells: Sequence[Measurement], size: int, seeds: int
) -> dict[str, list[Scores]]:
    """Scores by method, one for each seed."""
    found: dict[str, list[Scores]] = {}
    profile = prior(setting)
    for seed in range(seeds):
        folds = few_folds(len(cells), size, seed)
        kept = [cell for cell, fold in zip(cells, folds, strict=True) if fold > -2]
        methods: tuple[Method, ...] = (*peers(seed), Ours(profile=profile, seed=seed))
        for method in methods:
            scored = score(*held_out(kept, folds[folds > -2], method, "latency"))
            found.setdefault(method.name, []).append(scored)
    return found


def _mean(scores: Sequence[Scores]) -> Scores:
    """The mean over settings."""
    covered = [one.coverage_percent for one in scores if one.coverage_percent is not None]
    return Scores(
        mape_percent=float(np.mean([one.mape_percent for one in scores])),
        rmspe_percent=float(np.mean([one.rmspe_percent for one in scores])),
        spearman=float(np.mean([one.spearman for one in scores])),
        coverage_percent=float(np.mean(covered)) if covered else None,
    )


def _generic(name: str, *, gmac_per_s: float, gb_per_s: float, floor_us: float) -> HardwareProfile:
    """A shipped profile in fp32 with other rates, without a fit and without energy."""
    shipped = load_profile(name)
    rate = shipped.compute.by_bits[FP32].model_copy(update={"peak_gmac_per_s": gmac_per_s})
    rates = {**shipped.compute.by_bits, FP32: rate}
    return shipped.model_copy(
        update={
            "compute": shipped.compute.model_copy(update={"by_bits": rates}),
            "memory": shipped.memory.model_copy(update={"bandwidth_gb_per_s": gb_per_s}),
            "kernels": shipped.kernels.model_copy(update={"floor_us": floor_us}),
            "energy": None,
            "fit": None,
        }
    )


if __name__ == "__main__":
    main()
