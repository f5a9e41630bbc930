"""End to end, pictures to timed files: a search against what people run instead of it.

::

    python benchmarks/search/end_to_end.py PICTURES --minutes 8 --peer-python PEERS/bin/python

===============  =================================================================================
arm              what it is
===============  =================================================================================
quantize-static  three small networks trained plainly; int8 by ONNX Runtime's ``quantize_static``
nncf             the same networks; int8 by NNCF
torch-pruning    three networks, the best pruned at several ratios by Torch-Pruning, fine-tuned
modelopt         the same with NVIDIA ModelOpt's FastNAS
hwsearch         ``hwsearch run --target host`` with its defaults
hwsearch-tpe     the same with ``--set sampler=tpe``
===============  =================================================================================

The first four are ``outsiders.py``, which knows nothing of hwsearch but the split of the pictures;
the last two are the command of the tool in a process (``cpu_clock.py``), with an empty cache and no
profiles of the user. Each arm has the same processor time of one thread on one core and pays in it
for everything that it uses: base networks, searching, fine-tuning, quantizing, exporting. Arms of a
seed that start from the same plainly trained networks share that training, and each is charged all
of it.

When all arms of a seed are finished, their files are scored on the same held-out pictures, decoded
at the side that a file takes, and timed in one interleaved measurement of ONNX Runtime. What is
compared is the hypervolume in octaves of latency x points of accuracy up to ``--reference-ms`` and
guessing, and the best accuracy within each of ``--limits-ms``. All files of an arm count.

Rows are added to ``rows.csv`` in ``--work`` when an arm is finished; what is there is not run
again. The table and the summary are written to ``results/published`` in the end. An arm whose
packages are not there for ``--peer-python`` is named with what to install. With ``--cores 0,1`` two
arms run at a time, each on its own core; files are timed when nothing else runs.
"""

import argparse
import json
import os
import queue
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
from end_to_end_rows import (
    OURS,
    Measured,
    Shipped,
    area_table,
    limit_table,
    measured_together,
    read_rows,
    unfinished,
    unmeasured_files,
    write_rows,
)
from outsiders import GROUPS, OUTCOME_FILE, PACKAGES
from predictor_room import markdown
from score_files import HeldOut, accuracy_percent, input_px, latencies_ms

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.data.sources import load_data

_ROOT: Final = Path(__file__).resolve().parents[2]
_HERE: Final = Path(__file__).resolve().parent
ROWS_FILE: Final = "rows.csv"
#: More arguments of ``hwsearch run`` for each arm of the tool.
_SEARCHES: Final = {OURS: (), f"{OURS}-tpe": ("--set", "sampler=tpe")}
ARMS: Final = (*PACKAGES, *_SEARCHES)
#: Nothing met the budget: what the run made instead is there all the same.
_NOTHING_FITS: Final = 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """A process that runs one arm, or several that share their training.

    Attributes:
        folder: for all that it writes; emptied before it starts.
        command: program and arguments.
        exit_codes: that mean success.
    """

    seed: int
    arms: tuple[str, ...]
    folder: Path
    command: tuple[str, ...]
    exit_codes: tuple[int, ...] = (0,)

    @property
    def name(self) -> str:
        """For people."""
        return f"seed {self.seed}, {' and '.join(self.arms)}"


def main() -> None:
    given = parse_arguments()
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    conditions = f"{given.name or Path(given.pictures).name}-host-{given.minutes:g}min"
    work = given.work or _ROOT / "results" / "end_to_end" / conditions
    absent = run_missing(given, given.arms.split(","), seeds, work)
    rows = read_rows(work / ROWS_FILE)
    text = summary_text(rows, given, absent)
    print(text)
    if any(row.file for row in rows):
        conditions += f"-seeds{len({row.seed for row in rows})}"
        out = given.out / f"search_end-to-end_{conditions}_{date.today().isoformat()}.csv"
        write_rows(out, rows)
        out.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
        print(f"\nwritten to {out} and {out.with_suffix('.md').name}")


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What is asked for; by default on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pictures", help="as --data of a run")
    parser.add_argument("--minutes", type=float, default=8.0, help="processor time of each arm")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--name", default=None, help="of the pictures in the names of files")
    parser.add_argument("--no-flip", action="store_true", help="no arm mirrors its pictures")
    parser.add_argument("--nets", default="resnet10t,test_resnet,test_efficientnet")
    parser.add_argument("--px", type=int, default=32, help="of the pictures of the outsiders")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter of outsiders")
    parser.add_argument("--space", default="tiny", help="of hwsearch")
    parser.add_argument("--budget", default="0.3ms", help="of hwsearch")
    parser.add_argument("--reference-ms", type=float, default=0.5, help="of the hypervolume")
    parser.add_argument("--limits-ms", default="0.045,0.055,0.07,0.09,0.12,0.3")
    parser.add_argument("--cores", default=None, help="such as 0,1; by default the last one")
    parser.add_argument("--work", type=Path, default=None, help="folder of the runs and rows")
    parser.add_argument("--out", type=Path, default=_ROOT / "results" / "published")
    given = parser.parse_args(words)
    unknown = [arm for arm in given.arms.split(",") if arm not in ARMS]
    if unknown:
        parser.error(f"no arm {', '.join(unknown)}; pick from {', '.join(ARMS)}")
    odd = [core for core in core_numbers(given.cores) if core not in allowed_cores()]
    if odd:
        parser.error(f"no core {odd[0]}; pick from {allowed_cores()}")
    return given


def run_missing(
    given: argparse.Namespace, arms: Sequence[str], seeds: Sequence[int], work: Path
) -> dict[str, str]:
    """Run and measure what has no rows yet.

    Returns:
        For each arm that cannot be run, why and what to do.

    Raises:
        RuntimeError: arms failed; the others were run all the same.
        ValueError: the rows are of other minutes.
    """
    cores = core_numbers(given.cores)
    path = work / ROWS_FILE
    others = {row.minutes for row in read_rows(path)} - {given.minutes}
    if others:
        raise ValueError(
            f"{path} is of {others.pop():g} minutes, not {given.minutes:g}; give another --work"
        )
    missing = {seed: unfinished(read_rows(path), seed, arms) for seed in seeds}
    wanted = {arm for rest in missing.values() for arm in rest}
    absent = {arm: why for arm in arms if arm in wanted and (why := why_absent(arm, given))}
    jobs: list[Job] = []
    chance_percent: dict[int, float] = {}
    for seed, rest in missing.items():
        present = [arm for arm in rest if arm not in absent]
        if present:
            data = load_data(
                given.pictures, px=given.px, seed=seed, flip=False if given.no_flip else None
            )
            chance_percent[seed] = 100 / len(data.class_names)
            split = work / f"seed{seed}" / "split.npz"
            write_split(data, split)
            jobs += jobs_of(given, present, seed, split)
    failed = []
    for job, cpu_s in run_on_cores(jobs, cores):
        if isinstance(cpu_s, str):
            failed.append(cpu_s)
            continue
        try:
            found = rows_of(job, cpu_s, given.minutes, chance_percent[job.seed], work)
        except RuntimeError as error:
            failed.append(str(error))
            continue
        write_rows(path, [*read_rows(path), *found])
        print(f"{job.name}: {cpu_s / 60:.1f} minutes of processor time", flush=True)
    if failed:
        raise RuntimeError("; ".join(failed))
    for seed in seeds:
        files = unmeasured_files(read_rows(path), seed)
        if files:
            measured = measure_files(files, work, given, seed, cores[-1])
            write_rows(path, measured_together(read_rows(path), seed, measured))
            print(f"seed {seed}: {len(files)} files are scored and timed together", flush=True)
    return absent


def allowed_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def core_numbers(text: str | None) -> list[int]:
    """The cores of ``--cores``."""
    return allowed_cores()[-1:] if text is None else [int(one) for one in text.split(",")]


def why_absent(arm: str, given: argparse.Namespace) -> str:
    """Why an outsider's arm cannot be run and what to install; empty if it can."""
    if arm not in PACKAGES:
        return ""
    packages, modules = PACKAGES[arm]
    tried = subprocess.run(
        [given.peer_python, "-c", f"import {modules}"], capture_output=True, text=True, check=False
    )
    if tried.returncode == 0:
        return ""
    last = (tried.stderr.strip().splitlines() or ["no message"])[-1]
    return f"{last}; install its packages with '{given.peer_python} -m pip install {packages}'"


def write_split(data: DataSet, path: Path) -> None:
    """The pictures that outsiders may see, as hwsearch splits them: uint8, without the held-out."""
    parts = {"train": data.train, "validation": data.validation}
    arrays: dict[str, Any] = {
        "mean": np.array(data.mean, np.float32),
        "std": np.array(data.std, np.float32),
        "flip": np.array(data.augmentation.flip),
    }
    for name, part in parts.items():
        arrays[f"{name}_images"] = part.images.numpy()
        arrays[f"{name}_labels"] = part.labels.numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def jobs_of(
    given: argparse.Namespace, arms: Sequence[str], seed: int, split: Path
) -> Iterator[Job]:
    """The processes that run arms of a seed."""
    for group in GROUPS:
        own = tuple(arm for arm in group if arm in arms)
        folder = split.parent / "+".join(own)
        if own:
            command = (
                given.peer_python, str(_HERE / "outsiders.py"), str(split), str(folder),
                "--arms", ",".join(own), "--minutes", f"{given.minutes:g}", "--nets", given.nets,
                "--seed", str(seed),
            )  # fmt: skip
            yield Job(seed=seed, arms=own, folder=folder, command=command)
    for arm, more in _SEARCHES.items():
        folder = split.parent / arm
        if arm in arms:
            flip = ("--set", "flip=false") if given.no_flip else ()
            command = (
                sys.executable, str(_HERE / "cpu_clock.py"), "run", "--target", "host",
                "--budget", given.budget, "--data", given.pictures, "--space", given.space,
                "--time-limit", f"{60 * given.minutes:g}s", "--seed", str(seed),
                "--out", str(folder), *flip, *more,
            )  # fmt: skip
            codes = (0, _NOTHING_FITS)
            yield Job(seed=seed, arms=(arm,), folder=folder, command=command, exit_codes=codes)


def run_on_cores(jobs: Sequence[Job], cores: Sequence[int]) -> Iterator[tuple[Job, float | str]]:
    """Run jobs, as many at a time as there are cores, each on one of its own.

    Yields:
        Each job when it has ended, with the seconds of processor time that it and its children
        took, or with what is wrong.
    """
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in cores:
        free.put(core)

    def run(job: Job) -> float | str:
        core = free.get()
        try:
            return run_job(job, core)
        finally:
            free.put(core)

    pool = ThreadPoolExecutor(len(cores))
    try:
        running = {pool.submit(run, job): job for job in jobs}
        for future in as_completed(running):
            yield running[future], future.result()
    finally:  # also on Ctrl-C, which ends what runs: what waits is not started then
        pool.shutdown(cancel_futures=True)


def run_job(job: Job, core: int) -> float | str:
    """Run one job to its end, as ``run_on_cores`` yields it; what it prints goes to ``log.txt``."""
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
        "ORT_DISABLE_TELEMETRY": "1", "HWSEARCH_CACHE": str(job.folder / "cache"),
        "HWSEARCH_CONFIG": str(job.folder / "config"),
    }  # fmt: skip
    log = job.folder / "log.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(
            job.command, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        # Threads that it starts inherit this.
        os.sched_setaffinity(process.pid, {core})
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in job.exit_codes:
        return f"{job.name} ended with {process.returncode}, see {log}"
    return usage.ru_utime + usage.ru_stime


def rows_of(
    job: Job, cpu_s: float, minutes: float, chance_percent: float, work: Path
) -> list[Shipped]:
    """A row for each file of a finished job, still to be measured; one for an arm without files."""
    if set(job.arms) <= set(PACKAGES):
        text = (job.folder / OUTCOME_FILE).read_text(encoding="utf-8")
        outcomes = {
            arm: ([job.folder / name for name in one["files"]], cpu_s - one["others_s"])
            for arm, one in json.loads(text).items()
        }
    else:
        outcomes = {job.arms[0]: (shipped_files(job.folder), cpu_s)}
    return [
        Shipped(
            seed=job.seed, arm=arm, minutes=minutes, cpu_minutes=own_s / 60, file=file,
            input_px=0, accuracy_percent=np.nan if file else 0.0,
            latency_ms=np.nan if file else np.inf, median_latency_ms=np.nan if file else np.inf,
            chance_percent=chance_percent,
        )
        for arm, (files, own_s) in outcomes.items()
        for file in [str(one.relative_to(work)) for one in files] or [""]
    ]  # fmt: skip


def shipped_files(folder: Path) -> list[Path]:
    """Files of the front and of the baselines of the run below a folder; each once.

    Raises:
        RuntimeError: the run wrote no front.
    """
    fronts = sorted(folder.glob("*/front.json"))
    if len(fronts) != 1:
        raise RuntimeError(f"{folder} has {len(fronts)} runs with a front; see its log.txt")
    front = json.loads(fronts[0].read_text(encoding="utf-8"))
    names = [entry["artefact"] for entry in (*front["front"], *front["baselines"])]
    return [fronts[0].parent / name for name in dict.fromkeys(names) if name is not None]


def measure_files(
    files: Sequence[str], work: Path, given: argparse.Namespace, seed: int, core: int
) -> dict[str, Measured]:
    """Score and time all files of a seed."""
    sides = {file: input_px(work / file) for file in files}
    held_out = {}
    for px in sorted(set(sides.values())):
        data = load_data(given.pictures, px=px, seed=seed)
        held_out[px] = HeldOut(
            images=data.test.images.numpy(), labels=data.test.labels.numpy(),
            mean=np.array(data.mean, np.float32), std=np.array(data.std, np.float32),
        )  # fmt: skip
    timed = latencies_ms([work / file for file in files], core=core)
    return {
        file: Measured(
            input_px=sides[file],
            accuracy_percent=accuracy_percent(work / file, held_out[sides[file]]),
            latency_ms=float(least_ms),
            median_latency_ms=float(median_ms),
        )
        for file, (least_ms, median_ms) in zip(files, timed, strict=True)
    }


def summary_text(rows: Sequence[Shipped], given: argparse.Namespace, absent: dict[str, str]) -> str:
    """Both tables, and the arms that are missing."""
    parts = []
    if rows:
        limits_ms = [float(one) for one in given.limits_ms.split(",")]
        parts = [
            f"Hypervolume up to {given.reference_ms:g} ms and guessing; medians and quartiles:",
            markdown(area_table(rows, given.reference_ms)),
            "Best accuracy within a latency, medians:",
            markdown(limit_table(rows, limits_ms)),
        ]
    parts += [f"{arm} is absent: {why}" for arm, why in absent.items()]
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
