"""End to end with real training and measured latency: one search against what is run instead of it.

::

    OMP_NUM_THREADS=1 python benchmarks/search/end_to_end.py PICTURES --minutes 20 --seeds 5

Every arm is a whole run of the tool on this machine (target ``host``), from pictures to timed
files, within the same time, on the same pictures and split, from the same trained base networks
and with the same baselines: those are trained before the clock starts and charged to nobody.

===============  =================================================================================
arm              what it may do
===============  =================================================================================
known-cost       all levers; the project's sampler
tpe              all levers; Optuna's multivariate TPE over the same nine knobs
sequential       the most accurate backbone, which its base network tells; half of the time for its
                 pruning; the rest for bits of the pruned network with the largest area of its own
prune-only       pruning of the backbone with the most accurate base network, in fp32
bits-only        bits of that backbone, dense
backbone-only    backbones, dense, in fp32
===============  =================================================================================

A network counts with the measured latency and the held-out accuracy of its exported file. When all
arms of a seed are finished, their files are timed again, all in one interleaved measurement off the
clock: what runs measured minutes apart differs by more than networks do. The hypervolume is the
area between an arm's networks and the reference point: the measured latency of the slowest dense
fp32 backbone of the seed, and the accuracy of guessing; in ms x points, and in octaves x points
with the logarithm of the latency, where a halving counts alike wherever it starts. The budget is 4
times the slowest latency, so that it binds nobody. ``hypervolume`` counts all that an arm shipped:
its finalists and the baselines of its run (without uniform int8 where the arm may not choose bits);
``searched_hypervolume`` the finalists alone. ``int8_above`` counts the seeds in which a uniform
int8 network of the run lies above the finalists that are no slower than it.

Rows are added to the CSV file when an arm is finished; what is there is not run again. The runs of
a seed have to be kept in ``--work`` until it is timed. With ``--cores 8`` eight arms run at a time,
each on a core of its own, the first arm of all seeds before the second one.
"""

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Final

from end_to_end_rows import (
    Shipped,
    add_rows,
    read_rows,
    summary,
    timed_together,
    timing_spread_percent,
    unfinished,
    untimed_files,
    write_rows,
)
from hwsearch.study.finals.baseline_cache import BaselineCache
from predictor_room import markdown, spread
from side_by_side import Job, run_beside

from hwsearch import api
from hwsearch.bits import FP32, LayerBits
from hwsearch.calibrate.make import write_network
from hwsearch.errors import NothingFitsError
from hwsearch.hardware.measure.places import LocalPlace
from hwsearch.hardware.measure.protocol import measure
from hwsearch.report.stored import BaselineEntry, read_run_file
from hwsearch.ship.export import ONNX_FILE, state_of
from hwsearch.ship.run_folder import open_run
from hwsearch.space.knobs import Knobs, dense
from hwsearch.study.asked.pictures import load_pictures
from hwsearch.study.asked.preflight import Checked, check
from hwsearch.study.candidates.workbench import BASELINES, Workbench
from hwsearch.study.coordinator import Run
from hwsearch.study.finals.finalists import Planned
from hwsearch.study.finals.finalize import finalize
from hwsearch.study.trials.progress import Silent
from hwsearch.study.written.output import SHIPPING
from hwsearch.study.written.storage import ProposedTrial, read_records

_ROOT: Final = Path(__file__).resolve().parents[2]
STAGES: Final = ("prepare", "arms", "timing")
#: Of the reference latency: a network is admitted at 90 % confidence, and at 1.5 times its measured
#: latency a dense network of 0.1 ms was not, whose interval is wide.
_BUDGET: Final = 4.0
_FP32: Final = {"weight_bits": "32", "activation_bits": "32"}
_DENSE: Final = {"ratios": "0.0"}
#: Phases of ``run.json`` in which networks are trained, scored, exported or timed; the rest of the
#: wall time is the tool's own.
_WORK: Final = (
    "base weights", "sensitivity", "rungs", "finalize", "held-out scoring", "export check",
    "timing here", SHIPPING,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all arms of a seed share.

    Attributes:
        reference_ms: measured latency of the slowest dense fp32 backbone.
        best: the backbone whose base network is the most accurate.
        chance_percent: accuracy of guessing.
        work: folder of the run folders.
    """

    pictures: str
    space: str
    backbones: tuple[str, ...]
    minutes: float
    seed: int
    reference_ms: float
    best: str
    chance_percent: float
    work: Path


class _HeldRun(Run):
    """A run in which pruning is not searched: every proposal takes the same ratios."""

    held: Knobs

    def _ask(self) -> tuple[ProposedTrial, Knobs]:
        trial, knobs = super()._ask()
        return trial, replace(knobs, prune=self.held.prune, spread=self.held.spread)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pictures", help="as --data of a run")
    parser.add_argument("--minutes", type=float, default=20.0, help="of each arm")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0, help="to share the seeds out")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--space", default="tiny")
    parser.add_argument("--backbones", default="test_resnet,test_efficientnet,resnet10t")
    parser.add_argument("--name", default=None, help="of the pictures in the name of the file")
    parser.add_argument("--out", type=Path, default=None, help="CSV file")
    parser.add_argument("--work", type=Path, default=_ROOT / "results" / "end_to_end")
    parser.add_argument("--cores", type=int, default=1, help="arms at a time, one on each core")
    # For the processes of --cores.
    parser.add_argument("--stage", choices=STAGES, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--reference-ms", type=float, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    arms = tuple(given.arms.split(","))
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        parser.error(f"no arm {', '.join(unknown)}; pick from {', '.join(ARMS)}")
    name = given.name or Path(given.pictures).name
    conditions = f"{name}-{given.space}-host-{given.minutes:g}min-seeds{given.seeds}"
    out = given.out or (
        _ROOT / "results" / "published"
        / f"search_end-to-end_{conditions}_{date.today().isoformat()}.csv"
    )  # fmt: skip
    if given.cores > 1:
        _beside(given, arms, out)
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        _one_seed(given, arms, seed, out)
    if given.stage is not None:
        return
    rows = read_rows(out)
    print(markdown(summary(rows)))
    apart, together = timing_spread_percent(rows, "run_ms"), timing_spread_percent(rows)
    if together:
        print(
            f"\nlatencies of the same baseline lie {spread(together)} % apart, timed together; "
            f"as each run timed its own, {spread(apart)} %"
        )
    print(f"\nwritten to {out}")


def _one_seed(given: argparse.Namespace, arms: Sequence[str], seed: int, out: Path) -> None:
    """What is missing of a seed, or of one stage of it."""
    missing = unfinished(read_rows(out), seed, arms)
    if missing and given.stage != "timing":
        setting = _prepared(given, seed, out)
        for arm in missing if given.stage != "prepare" else ():
            add_rows(out, run_arm(arm, setting))
            print(f"seed {seed}: {arm} is done", flush=True)
    files = untimed_files(read_rows(out), seed) if given.stage in (None, "timing") else []
    if files:
        report = measure({file: given.work / file for file in files}, LocalPlace())
        found = {net.name: net.latency_ms for net in report.nets}
        write_rows(out, timed_together(read_rows(out), seed, found))
        print(f"seed {seed}: {len(files)} files are timed together", flush=True)


def _prepared(given: argparse.Namespace, seed: int, out: Path) -> Setting:
    known_ms = next((row.reference_ms for row in read_rows(out)), given.reference_ms)
    return prepare(
        given.pictures, given.space, tuple(given.backbones.split(",")), given.minutes, seed,
        given.work, known_ms=known_ms,
    )  # fmt: skip


def _beside(given: argparse.Namespace, arms: Sequence[str], out: Path) -> None:
    """The same as processes beside each other: base networks, then arms, then timing."""
    cores = sorted(os.sched_getaffinity(0))[: given.cores]
    parts = given.work / "parts"
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    rest = {seed: unfinished(read_rows(out), seed, arms) for seed in seeds}

    def job(stage: str, seed: int, arm: str, threads: int = 1, *more: str) -> Job:
        name = f"{stage}-{seed}-{arm}"
        return Job(
            name=name,
            threads=threads,
            command=(
                __file__, given.pictures, "--minutes", f"{given.minutes:g}", "--seeds", "1",
                "--first-seed", str(seed), "--arms", arm, "--space", given.space,
                "--backbones", given.backbones, "--work", str(given.work),
                "--out", str(parts / f"{name}.csv"), "--stage", stage, *more,
            ),
        )  # fmt: skip

    def keep(done: Job) -> None:
        part = parts / f"{done.name}.csv"
        found = read_rows(part)
        theirs = {(row.seed, row.arm) for row in found}
        others = [row for row in read_rows(out) if (row.seed, row.arm) not in theirs]
        write_rows(out, [*others, *found])
        part.unlink(missing_ok=True)
        print(f"{done.name} is done", flush=True)

    logs = given.work / "logs"
    todo = [seed for seed in seeds if rest[seed]]
    if todo:
        each = max(1, len(cores) // len(todo))
        # Any reference will do until the base networks are there: it keeps them from timing one.
        first = [job("prepare", seed, arms[0], each, "--reference-ms", "1") for seed in todo]
        run_beside(first, cores, logs, on_end=lambda done: print(f"{done.name} is done"))
        reference = f"{_prepared(given, todo[0], out).reference_ms:.6g}"
        run_beside(
            [
                job("arms", seed, arm, 1, "--reference-ms", reference)
                for arm in arms
                for seed in todo
                if arm in rest[seed]
            ],
            cores, logs, on_end=keep,
        )  # fmt: skip
    timing = []
    for seed in seeds:
        own = [row for row in read_rows(out) if row.seed == seed]
        if untimed_files(own, seed):
            timing.append(job("timing", seed, arms[0]))
            write_rows(parts / f"{timing[-1].name}.csv", own)
    run_beside(timing, cores, logs, on_end=keep)


# -- arms -----------------------------------------------------------------------------------------


def prepare(
    pictures: str,
    space: str,
    backbones: tuple[str, ...],
    minutes: float,
    seed: int,
    work: Path,
    *,
    known_ms: float | None,
) -> Setting:
    """Train base networks and baselines of a seed, and time the dense ones unless that was done."""
    checked = check(
        target="host", budgets=("1000ms",), data=pictures, space=space, trials=1, time_limit=None,
        confidence=0.9, seed=seed, download=False,
        settings={"backbones": ",".join(backbones), "input_px": "32"},
    )  # fmt: skip
    data = load_pictures(checked.settings)
    bench = Workbench(checked.settings, checked.profile, data, on_phase=print, on_step=_silent)
    scores = {name: bench.prepared(dense(name, 32)).base.validation.accuracy for name in backbones}
    print(f"base networks of seed {seed}, validation accuracy: {scores}", flush=True)
    known = BaselineCache(bench)
    baselines = [
        bench.baseline(dense(name, 32), bits) for name in backbones for _, bits in BASELINES
    ]
    finalize(
        [Planned(candidate=one) for one in baselines if not known.holds(one)], {}, bench,
        on_phase=print, on_step=_silent, on_final=known.keep,
    )  # fmt: skip
    return Setting(
        pictures=pictures,
        space=space,
        backbones=backbones,
        minutes=minutes,
        seed=seed,
        reference_ms=slowest_ms(bench) if known_ms is None else known_ms,
        best=max(scores, key=lambda name: scores[name]),
        chance_percent=100 / len(data.class_names),
        work=work,
    )


def slowest_ms(bench: Workbench) -> float:
    """Measured latency of the slowest dense fp32 backbone; time does not depend on weights."""
    files: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as folder:
        for backbone in bench.settings.space.backbones:
            blueprint = bench.blueprint(dense(backbone.name, 32))
            kept = {group.name: group.channels for group in blueprint.graph.groups}
            bits: dict[str, LayerBits] = {
                layer.name: FP32 for layer in blueprint.describe(kept).weighted
            }
            files[backbone.name] = Path(folder) / f"{backbone.name}.onnx"
            write_network(blueprint, kept, bits, files[backbone.name])
        report = measure(files, LocalPlace())
    found = {net.name: net.latency_ms for net in report.nets}
    print(f"dense fp32 networks take (ms): {found}", flush=True)
    return max(found.values())


def run_arm(arm: str, setting: Setting) -> list[Shipped]:
    """One arm from its start to timed files; the rows of its networks."""
    start = time.perf_counter()
    folders = ARMS[arm](setting)
    wall_s = time.perf_counter() - start
    for folder in folders:
        # A busy machine may not have let a run time its files; that is made up for off the clock.
        if _untimed(folder):
            api.verify(folder, on="host")
    return rows_of(arm, setting, folders, wall_s)


def _all_levers(sampler: str) -> Callable[[Setting], list[Path]]:
    return lambda setting: [_search(setting, {"sampler": sampler})]


def _prune_only(setting: Setting) -> list[Path]:
    return [_search(setting, {"backbones": setting.best, **_FP32})]


def _bits_only(setting: Setting) -> list[Path]:
    return [_search(setting, {"backbones": setting.best, **_DENSE})]


def _backbone_only(setting: Setting) -> list[Path]:
    return [_search(setting, {**_DENSE, **_FP32})]


def _sequential(setting: Setting) -> list[Path]:
    """Prune the best backbone, then quantize that; what the first step leaves goes to the next."""
    end = time.perf_counter() + 60 * setting.minutes
    first = _search(setting, {"backbones": setting.best, **_FP32}, limit_s=60 * setting.minutes / 2)
    searched = [point for point in _points(first) if point.trial is not None]
    chosen = max(searched, key=lambda point: _area(point, setting), default=None)
    held = dense(setting.best, 32)
    if chosen is not None:
        held = next(one.knobs for one in read_records(first) if one.trial == chosen.trial)
    left_s = max(1.0, end - time.perf_counter())
    only = {"backbones": setting.best, **_DENSE}
    return [first, _search(setting, only, limit_s=left_s, held=held)]


def _final_s(spent: Mapping[str, float]) -> float:
    """What full fine-tuning took, of the wall time by phase."""
    return sum(spent.get(phase, 0.0) for phase in ("finalize", "held-out scoring"))


ARMS: Final[Mapping[str, Callable[[Setting], list[Path]]]] = {
    "known-cost": _all_levers("known-cost"),
    "tpe": _all_levers("tpe"),
    "sequential": _sequential,
    "prune-only": _prune_only,
    "bits-only": _bits_only,
    "backbone-only": _backbone_only,
}


def _search(
    setting: Setting,
    changes: Mapping[str, str],
    *,
    limit_s: float | None = None,
    held: Knobs | None = None,
) -> Path:
    """A run of the tool; its folder, also where nothing that it found fits once it is measured."""
    seconds = 60 * setting.minutes if limit_s is None else limit_s
    checked = check(
        target="host", budgets=(f"{_BUDGET * setting.reference_ms:.4g}ms",), data=setting.pictures,
        space=setting.space, trials=None, time_limit=f"{seconds:.0f}s", confidence=0.9,
        seed=setting.seed, download=False,
        settings={"backbones": ",".join(setting.backbones), "input_px": "32", **changes},
    )  # fmt: skip
    folder = api.new_folder(checked, setting.work)
    try:
        if held is None:
            api.run(checked, folder, command="benchmarks/search/end_to_end.py")
        else:
            _run_held(checked, folder, held)
    except NothingFitsError as error:
        print(f"{folder}: {error}", flush=True)
    return folder


def _run_held(checked: Checked, folder: Path, held: Knobs) -> None:
    """As ``api.run``, at fixed pruning ratios, which a search space cannot say."""
    work = _HeldRun(
        checked=checked, folder=folder, command="benchmarks/search/end_to_end.py", watcher=Silent()
    )
    work.held = held
    api.search_and_ship(work)


# -- what an arm shipped --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Point:
    trial: int | None
    kind: str
    backbone: str
    file: Path
    latency_ms: float
    accuracy: float


def _points(folder: Path) -> list[_Point]:
    """The timed files of a run; one that was refused is not shipped."""
    found = []
    run = open_run(folder)
    verified_of = {m.entry.layers: (m, state_of(m, folder).verified) for m in run.models}
    # A finalist may be a baseline as well, and counts as both.
    for entry in run.searched.scored:
        model, verified = verified_of[entry.layers]
        if verified is None or verified.correct is None or verified.latency_ms is None:
            continue
        found.append(
            _Point(
                trial=entry.trial,
                kind=entry.name if isinstance(entry, BaselineEntry) else "trial",
                backbone=entry.backbone,
                file=model.folder / ONNX_FILE,
                latency_ms=verified.latency_ms.value,
                accuracy=verified.correct / verified.pictures,
            )
        )
    return found


def _untimed(folder: Path) -> bool:
    states = [state_of(model, folder).verified for model in open_run(folder).models]
    return any(one is None or (one.correct and one.latency_ms is None) for one in states)


def _area(point: _Point, setting: Setting) -> float:
    gained_percent = 100 * point.accuracy - setting.chance_percent
    return max(0.0, setting.reference_ms - point.latency_ms) * max(0.0, gained_percent)


def rows_of(arm: str, setting: Setting, folders: Sequence[Path], wall_s: float) -> list[Shipped]:
    """A row for each network, still to be timed; one of kind "none" where there is no network."""
    spent: dict[str, float] = {}
    trials = trained = 0
    for folder in folders:
        for phase, seconds in read_run_file(folder).wall_s.items():
            spent[phase] = spent.get(phase, 0.0) + seconds
        records = read_records(folder)
        trials += len(records)
        trained += sum(record.train_s > 0 for record in records)
    nothing = Shipped(
        seed=setting.seed, arm=arm, minutes=setting.minutes, step=1, kind="none", backbone="",
        file="", run_ms=math.inf, latency_ms=math.inf, accuracy_percent=0.0,
        reference_ms=setting.reference_ms,
        chance_percent=setting.chance_percent, trials=trials, trained=trained, wall_s=wall_s,
        final_s=_final_s(spent),
        ship_s=spent.get(SHIPPING, 0.0),
        overhead_s=wall_s - sum(spent.get(phase, 0.0) for phase in _WORK),
    )  # fmt: skip
    found = [
        replace(
            nothing, step=step, kind=point.kind, backbone=point.backbone,
            file=str(point.file.relative_to(setting.work)), run_ms=point.latency_ms,
            latency_ms=math.nan, accuracy_percent=100 * point.accuracy,
        )
        for step, folder in enumerate(folders, start=1)
        for point in _points(folder)
    ]  # fmt: skip
    return found or [nothing]


def _silent(*_: object) -> None:
    """Progress is told by arm."""


if __name__ == "__main__":
    main()
