"""The ladder: how well each rung ranks candidates, what it costs, and how near to the roofline.

::

    python benchmarks/search/ladder.py [PICTURES] [--candidates 64] [--seed 0] [--quick]

Random knobs of a search space, each network once. Every candidate climbs all rungs (nobody is
stopped) and is then fine-tuned fully from its base network, as finalization does, with a seed of
its own; the truth is that network's accuracy on all pictures that it was not trained on. Two files:

- ``ladder``: Kendall's tau between a rung's validation accuracy and the truth, with a bootstrap
  interval over candidates, and the rung's share of the time that a full fine-tuning takes. ``free``
  is what is known without running the candidate: the sum of its layers' sensitivities, or its MACs.
- ``rung0``: the time of a lowest rung over its bound ``2 x MACs x pictures / peak``, where the peak
  is that of a product of two matrices on the same thread, and pictures are those of batch norm,
  calibration and scoring.

One thread, if OMP_NUM_THREADS says so.
"""

import argparse
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from bench import Bench
from predictor_room import Options, Row, show, spread

from hwsearch.accuracy.agreement import agreement
from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.ladder import (
    CALIBRATION_BATCHES,
    fine_tune,
    held_out_score,
    validation_score,
)
from hwsearch.accuracy.training import STATISTICS_BATCHES
from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import Knobs, knob_choices
from hwsearch.study.asked.pictures import load_pictures
from hwsearch.study.asked.preflight import Checked, check
from hwsearch.study.jobs.report import Report
from hwsearch.study.jobs.trial import Evaluate, evaluate

_ROOT: Final = Path(__file__).resolve().parents[2]
_QUICK: Final = 6
_PEAK_SIDE: Final = 1024


@dataclass(frozen=True, kw_only=True)
class Climb:
    """One candidate on every rung.

    Attributes:
        free: scores without running the candidate, by name; more is better.
        accuracies: on the validation pictures, at each rung.
        rungs_s: seconds to each rung, those before it included.
        truth: accuracy after full fine-tuning.
        full_s: seconds that it took.
        bound_s: least time of the lowest rung at the peak.
    """

    backbone: str
    free: dict[str, float]
    accuracies: tuple[float, ...]
    rungs_s: tuple[float, ...]
    truth: float
    full_s: float
    bound_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pictures", nargs="?", default="digits", help="as --data of a run")
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", default="jetson-orin-nano")
    parser.add_argument("--space", default="tiny")
    parser.add_argument("--name", default=None, help="of the pictures in the names of the files")
    parser.add_argument("--quick", action="store_true", help="a small part, to see that it runs")
    parser.add_argument("--out", type=Path, default=_ROOT / "results" / "published")
    given = parser.parse_args()
    checked = check(
        target=given.target, budgets=("1000ms",), data=given.pictures, space=given.space,
        trials=1, time_limit=None, confidence=0.9, seed=given.seed, download=False, settings={},
    )  # fmt: skip
    count = _QUICK if given.quick else given.candidates
    climbs = climb_all(checked, count, given.seed)
    name = given.name or Path(given.pictures).name
    conditions = f"{name}-{given.space}-{given.target}-candidates{count}-seed{given.seed}"
    options = Options(data=_ROOT, seeds=1, quick=given.quick, out=given.out)
    steps = checked.settings.space.training.rung_steps
    show(ladder_rows(climbs, steps, given.seed), options, "ladder", conditions, room="search")
    show(rung0_rows(climbs), options, "rung0", conditions, room="search")


def climb_all(checked: Checked, count: int, seed: int) -> list[Climb]:
    """Random candidates, each network once, on every rung."""
    data = load_pictures(checked.settings)
    bench = Bench(checked.settings, checked.profile, data)
    peak = peak_macs_per_s()
    climbs: list[Climb] = []
    for candidate in random_candidates(bench, count, np.random.default_rng(seed)):
        climbs.append(climb(bench, candidate, peak))
        done = climbs[-1]
        print(
            f"{len(climbs)} of {count}: {done.backbone} "
            f"{' '.join(f'{100 * a:.1f}' for a in done.accuracies)} -> {100 * done.truth:.1f} %",
            flush=True,
        )
    return climbs


def random_candidates(bench: Bench, count: int, generator: np.random.Generator) -> list[Candidate]:
    """Uniform draws of every knob; knobs that end in a network that is there count nothing."""
    choices = knob_choices(bench.settings.space)
    found: dict[str, Candidate] = {}
    while len(found) < count:
        drawn = {
            name: options[int(generator.integers(len(options)))]
            for name, options in choices.items()
        }
        candidate = bench.expand(Knobs.from_choices(drawn))
        found.setdefault(candidate.id, candidate)
    return list(found.values())


def climb(bench: Bench, candidate: Candidate, peak_macs_s: float) -> Climb:
    """One candidate on every rung, and fully fine-tuned from its base network."""
    data, px = bench.data, candidate.input_px
    macs = bench.pricing.backbones.describe(candidate).macs
    table = bench.facts_of(candidate).sensitivity
    lost = sum(table[layer][bits] for layer, bits in candidate.bits)
    start = time.perf_counter()
    accuracies, rungs_s = [], []
    job = Evaluate(base=bench.base_of(candidate), candidate=candidate)
    work = evaluate(job, bench.training, Report(phase=_silent, step=_silent))
    score = next(work)
    with suppress(StopIteration):
        while True:
            accuracies.append(score.accuracy)
            rungs_s.append(time.perf_counter() - start)
            score = work.send(True)
    start = time.perf_counter()
    recipe = bench.training.recipe(
        bench.base_of(candidate), bench.training.final_steps, candidate.id, "final"
    )
    model = fine_tune(bench.plan(candidate), data, recipe)
    full_s = time.perf_counter() - start
    scores = [validation_score(model, data, px), held_out_score(model, data, px)]
    return Climb(
        backbone=candidate.backbone,
        free={"sensitivity": -lost, "MACs": float(macs)},
        accuracies=tuple(accuracies),
        rungs_s=tuple(rungs_s),
        truth=sum(score.correct for score in scores) / sum(score.total for score in scores),
        full_s=full_s,
        bound_s=macs * rung0_pictures(data, bench.settings.space.training.batch_size) / peak_macs_s,
    )


def _silent(*_: object) -> None:
    """Progress is told by candidate."""


def rung0_pictures(data: DataSet, batch_size: int) -> int:
    """Pictures that the lowest rung runs through the network."""
    here = len(data.train)
    batches = (STATISTICS_BATCHES, CALIBRATION_BATCHES)
    return sum(min(here, batch_size * count) for count in batches) + len(data.validation)


def peak_macs_per_s() -> float:
    """Of a product of two fp32 matrices in torch: the best of ten."""
    first, second = (torch.rand(_PEAK_SIDE, _PEAK_SIDE) for _ in range(2))
    spent = []
    for _ in range(10):
        start = time.perf_counter()
        torch.mm(first, second)
        spent.append(time.perf_counter() - start)
    return _PEAK_SIDE**3 / min(spent)


def ladder_rows(climbs: Sequence[Climb], steps: Sequence[int], seed: int) -> list[Row]:
    """Tau and cost of what is free, and of each rung."""
    truth = [one.truth for one in climbs]
    scores: dict[str, tuple[list[float], list[float]]] = {
        f"free: {name}": ([one.free[name] for one in climbs], [0.0] * len(climbs))
        for name in climbs[0].free
    }
    for rung, done in enumerate((0, *steps)):
        scores[f"rung {rung}, {done} steps"] = (
            [one.accuracies[rung] for one in climbs],
            [100 * one.rungs_s[rung] / one.full_s for one in climbs],
        )
    rows: list[Row] = []
    for name, (scored, shares) in scores.items():
        agreed = agreement(scored, truth, seed=seed)
        rows.append(
            {
                "score": name,
                "candidates": len(climbs),
                "kendall_tau": None if agreed is None else agreed.tau,
                "tau_low": None if agreed is None else agreed.low,
                "tau_high": None if agreed is None else agreed.high,
                "cost_percent_of_full": spread(shares),
            }
        )
    return rows


def rung0_rows(climbs: Sequence[Climb]) -> list[Row]:
    """Time of the lowest rung over its bound, by backbone."""
    rows: list[Row] = []
    for backbone in sorted({one.backbone for one in climbs}):
        own = [one for one in climbs if one.backbone == backbone]
        rows.append(
            {
                "backbone": backbone,
                "candidates": len(own),
                "rung0_s": spread([one.rungs_s[0] for one in own]),
                "bound_s": spread([one.bound_s for one in own]),
                "over_bound": spread([one.rungs_s[0] / one.bound_s for one in own]),
                "full_s": spread([one.full_s for one in own]),
            }
        )
    return rows


if __name__ == "__main__":
    main()
