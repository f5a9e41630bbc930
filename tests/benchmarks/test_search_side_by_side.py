import itertools
import os
from pathlib import Path

import pytest
from side_by_side import Job, run_beside

#: Writes when it began and ended, and where it may run.
_TELL = (
    "import os, sys, time; begin = time.time(); time.sleep(0.2); "
    "print(begin, time.time(), sorted(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'])"
)


def told(path: Path) -> tuple[float, float, str]:
    begin, end, rest = path.read_text().split(maxsplit=2)
    return float(begin), float(end), rest.strip()


def test_jobs_run_in_order_each_on_a_core_of_its_own(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    jobs = [Job(name=name, command=("-c", _TELL)) for name in ("a", "b", "c")]
    ended: list[str] = []
    run_beside(jobs, [core], tmp_path, on_end=lambda job: ended.append(job.name))
    assert ended == ["a", "b", "c"]
    times = [told(tmp_path / f"{name}.log") for name in ended]
    assert all(rest == f"[{core}] 1" for _, _, rest in times)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(times))


def test_job_that_fails_is_named_after_the_others_ran(tmp_path: Path) -> None:
    jobs = [
        Job(name="bad", command=("-c", "raise SystemExit(3)")),
        Job(name="good", command=("-c", "print(1)")),
    ]
    ended: list[str] = []
    cores = sorted(os.sched_getaffinity(0))[:1]
    with pytest.raises(RuntimeError, match=r"bad ended with 3, see .*bad\.log"):
        run_beside(jobs, cores, tmp_path, on_end=lambda job: ended.append(job.name))
    assert ended == ["good"]


def test_job_that_needs_more_cores_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more than 1 cores"):
        run_beside(
            [Job(name="a", command=("-c", ""), threads=2)], [0], tmp_path, on_end=lambda _: None
        )
