"""Parts of a benchmark as processes beside each other, each on processor cores of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_POLL_S: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Job:
    """A process to be started.

    Attributes:
        name: of its log file.
        command: arguments of the interpreter that runs this one.
        threads: cores that it gets, and threads that it may use.
    """

    name: str
    command: tuple[str, ...]
    threads: int = 1


def run_beside(
    jobs: Sequence[Job], cores: Sequence[int], logs: Path, *, on_end: Callable[[Job], None]
) -> None:
    """Run all jobs, as many at a time as there are cores for, the first ones first.

    Args:
        jobs: none needs more cores than there are.
        cores: numbers of those that may be used.
        logs: folder of what the jobs print.
        on_end: is called with each job that succeeded, one at a time.

    Raises:
        ValueError: a job needs more cores than there are.
        RuntimeError: jobs failed; the others were run all the same.
    """
    if any(job.threads > len(cores) for job in jobs):
        raise ValueError(f"a job needs more than {len(cores)} cores")
    logs.mkdir(parents=True, exist_ok=True)
    waiting, free = list(jobs), list(cores)
    running: dict[str, tuple[Job, list[int], subprocess.Popen[bytes]]] = {}
    failed = []
    while waiting or running:
        while waiting and waiting[0].threads <= len(free):
            job = waiting.pop(0)
            own = [free.pop(0) for _ in range(job.threads)]
            running[job.name] = (job, own, _start(job, own, logs))
        for name, (job, own, process) in list(running.items()):
            code = process.poll()
            if code is None:
                continue
            del running[name]
            free += own
            if code == 0:
                on_end(job)
            else:
                failed.append(f"{name} ended with {code}, see {logs / name}.log")
        time.sleep(_POLL_S)
    if failed:
        raise RuntimeError("; ".join(failed))


def _start(job: Job, cores: Sequence[int], logs: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "PYTHONUNBUFFERED": "1"}
    with (logs / f"{job.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *job.command], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    # Threads that it starts inherit this.
    os.sched_setaffinity(process.pid, cores)
    return process
