"""What every executor promises, tried on each."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from study_fixtures import make_knobs, make_profile, make_settings, make_space
from tiny_network import OWN, PX

from hwsearch.accuracy.training import UNLIMITED_STEPS, Score
from hwsearch.bits import FP32
from hwsearch.errors import DataError, HostError, UserError
from hwsearch.nets.backbone import BackboneRef
from hwsearch.study.asked.pictures import load_pictures
from hwsearch.study.candidates.pricing_context import PricingContext
from hwsearch.study.candidates.training_context import Base, TrainingContext
from hwsearch.study.executor.base import Done, Event, Executor, Failed, Paused, WorkerLostError
from hwsearch.study.executor.inline import InlineExecutor
from hwsearch.study.executor.local import LocalExecutor
from hwsearch.study.jobs.base import Finish, TrainBase, Trained, TrainOn
from hwsearch.study.jobs.report import Report
from hwsearch.study.jobs.trial import Evaluate, Pace

SETTINGS = make_settings(space=make_space(input_px=[PX]))
REF = BackboneRef(name=OWN, classes=10)


class Heard:
    """What jobs said."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.steps: list[tuple[int, int]] = []
        self.report = Report(
            phase=self.phases.append, step=lambda done, total: self.steps.append((done, total))
        )


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def heard() -> Heard:
    return Heard()


def inline(heard: Heard) -> Executor:
    data = load_pictures(SETTINGS)
    return InlineExecutor(TrainingContext(SETTINGS, make_profile(), data), heard.report)


def local(heard: Heard) -> Executor:
    return LocalExecutor(SETTINGS, make_profile(), 2, heard.report)


@pytest.fixture(scope="module", params=[inline, local], ids=["inline", "local"])
def executor(request: pytest.FixtureRequest, heard: Heard) -> Iterator[Executor]:
    made: Executor = request.param(heard)
    yield made
    made.close()


def next_of(executor: Executor, job: int) -> Event:
    event = executor.wait()
    assert event.job == job
    return event


def train_base(executor: Executor, key: str = "0" * 64) -> Base:
    job = executor.start(TrainBase(ref=REF, px=PX, key=key))
    event = next_of(executor, job)
    assert isinstance(event, Paused)
    assert event.value == "trained"
    executor.answer(job, TrainOn(steps=3, seconds=None))
    event = next_of(executor, job)
    assert isinstance(event, Paused)
    assert isinstance(event.value, Trained)
    anneal = TrainOn(steps=3, seconds=None)
    executor.answer(job, Finish(whole=None, anneal=anneal), beside=1)
    event = next_of(executor, job)
    assert isinstance(event, Done)
    base: Base = event.value
    return base


def test_job_that_pauses_goes_on_where_it_was(executor: Executor, heard: Heard) -> None:
    base = train_base(executor)
    assert (base.ref, base.px, base.steps, base.source) == (REF, PX, 6, "trained")
    assert f"base weights of {OWN} at {PX} px" in heard.phases
    assert heard.steps


def evaluate(base: Base) -> Evaluate:
    pricing = PricingContext(SETTINGS, make_profile(), 10)
    return Evaluate(base=base, candidate=pricing.backbones.uniform(make_knobs(), FP32))


def test_job_asks_before_each_level_and_may_be_stopped(executor: Executor) -> None:
    job = executor.start(evaluate(train_base(executor)))
    first = next_of(executor, job)
    assert isinstance(first, Paused)
    assert isinstance(first.value, Score)
    executor.answer(job, True)
    assert isinstance(next_of(executor, job), Paused)
    executor.answer(job, False)
    end = next_of(executor, job)
    assert isinstance(end, Done)
    assert isinstance(end.value, Pace)


def test_jobs_side_by_side_give_what_they_give_alone(executor: Executor) -> None:
    work = evaluate(train_base(executor))
    scores: dict[int, list[Score]] = {executor.start(work): [] for _ in range(3)}
    ended = 0
    while ended < 3:
        event = executor.wait()
        if isinstance(event, Paused):
            scores[event.job].append(event.value)
            executor.answer(event.job, True)
        else:
            assert isinstance(event, Done)
            ended += 1
    one, two, three = scores.values()
    assert one == two == three
    assert len(one) == 3


def test_error_of_a_job_is_an_event_and_others_go_on(executor: Executor) -> None:
    wrong = BackboneRef(name="tiny_network:no_such_function", classes=10)
    job = executor.start(TrainBase(ref=wrong, px=PX, key="1" * 64))
    event = next_of(executor, job)
    assert isinstance(event, Failed)
    assert isinstance(event.error, UserError)
    assert "no_such_function" in str(event.error)
    train_base(executor)


def test_base_that_is_gone_fails_the_job(executor: Executor) -> None:
    base = train_base(executor)
    lost = Base(
        ref=base.ref, px=base.px, key="f" * 64, source="trained",
        validation=base.validation, steps=1,
    )  # fmt: skip
    event = next_of(executor, executor.start(evaluate(lost)))
    assert isinstance(event, Failed)
    assert isinstance(event.error, HostError)
    assert "is gone from the cache" in str(event.error)


def test_job_that_is_given_up_says_nothing_more(executor: Executor) -> None:
    job = executor.start(TrainBase(ref=REF, px=PX, key="2" * 64))
    next_of(executor, job)
    executor.end(job)
    train_base(executor)


def test_wait_when_nothing_runs_is_a_mistake(executor: Executor) -> None:
    with pytest.raises(RuntimeError, match="no job is running"):
        executor.wait()


# -- processes ------------------------------------------------------------------------------------


def children(parent: int) -> list[int]:
    """Processes whose parent this is."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False
    )  # fmt: skip
    return [int(line) for line in listed.stdout.split()]


def endless(executor: Executor) -> int:
    """A job that trains until it is killed."""
    job = executor.start(TrainBase(ref=REF, px=PX, key="3" * 64))
    next_of(executor, job)
    executor.answer(job, TrainOn(steps=UNLIMITED_STEPS, seconds=3600.0))
    return job


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that happens soon, or fail by the time limit of the test."""
    while not holds():
        time.sleep(0.05)


@pytest.fixture
def workers(heard: Heard) -> Iterator[LocalExecutor]:
    made = LocalExecutor(SETTINGS, make_profile(), 2, heard.report)
    made.wait_until_ready()
    yield made
    made.close()


def test_child_that_is_killed_fails_its_job_alone(workers: LocalExecutor) -> None:
    job = endless(workers)
    [child] = children(workers._server.pid)
    os.kill(child, signal.SIGKILL)
    event = next_of(workers, job)
    assert isinstance(event, Failed)
    assert isinstance(event.error, WorkerLostError)
    assert "ended by SIGKILL; the machine may be out of memory" in str(event.error)
    train_base(workers)


def test_close_ends_all_processes(workers: LocalExecutor) -> None:
    endless(workers)
    [child] = children(workers._server.pid)
    workers.close()
    until(lambda: not Path(f"/proc/{child}").exists())


def test_server_that_is_killed_says_how_to_go_on(workers: LocalExecutor) -> None:
    endless(workers)
    [child] = children(workers._server.pid)
    workers._server.kill()
    with pytest.raises(WorkerLostError, match="go on with: hwsearch run --resume"):
        workers.wait()
    until(lambda: not Path(f"/proc/{child}").exists())


def test_processes_end_when_the_coordinator_is_killed(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import sys; sys.path[:0] = {sys.path!r}
        from test_executor import *
        workers = LocalExecutor(SETTINGS, make_profile(), 2, Heard().report)
        endless(workers)
        print(workers._server.pid, *children(workers._server.pid), flush=True)
        time.sleep(3600)
        """
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    ) as coordinator:
        assert coordinator.stdout is not None
        pids = [int(pid) for pid in coordinator.stdout.readline().split()]
        assert len(pids) == 2
        coordinator.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_pictures_that_cannot_be_read_are_the_same_error_as_here(heard: Heard) -> None:
    broken = make_settings(data="/no/such/folder")
    workers = LocalExecutor(broken, make_profile(), 2, heard.report)
    try:
        with pytest.raises(DataError, match="no/such/folder"):
            workers.wait_until_ready()
    finally:
        workers.close()


def test_slots_share_the_threads(workers: LocalExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert [workers._threads(beside) for beside in (None, 1, 2, 5)] == [4, 8, 4, 4]
