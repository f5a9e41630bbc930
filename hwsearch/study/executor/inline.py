"""Jobs run here, one at a time: one seed gives the same run again."""

from collections import deque
from collections.abc import Generator
from typing import Any

from hwsearch.study.candidates.training_context import TrainingContext
from hwsearch.study.executor.base import Done, Event, Failed, Paused
from hwsearch.study.jobs.report import Report
from hwsearch.study.jobs.run import Job, run


class InlineExecutor:
    """Runs jobs in this process, each up to its next pause, in the order in which they may go on.

    Args:
        context: that jobs work with.
        report: is told what the job that runs does.
    """

    slots = 1

    def __init__(self, context: TrainingContext, report: Report) -> None:
        self._context, self._report = context, report
        self._jobs: dict[int, Generator[Any, Any, Any]] = {}
        self._ready: deque[tuple[int, object]] = deque()
        self._started = 0

    def start(self, job: Job) -> int:
        """See ``Executor``."""
        number, self._started = self._started, self._started + 1
        self._jobs[number] = run(job, self._context, self._report)
        self._ready.append((number, None))
        return number

    def answer(self, job: int, value: object, *, beside: int | None = None) -> None:
        """See ``Executor``; the job that runs has all cores."""
        self._ready.append((job, value))

    def end(self, job: int) -> None:
        """See ``Executor``."""
        self._jobs.pop(job).close()

    def wait(self) -> Event:
        """See ``Executor``."""
        if not self._ready:
            raise RuntimeError("no job is running")
        number, value = self._ready.popleft()
        try:
            return Paused(job=number, value=self._jobs[number].send(value))
        except StopIteration as end:
            del self._jobs[number]
            return Done(job=number, value=end.value)
        except Exception as error:  # noqa: BLE001 - whoever asked for the job decides what it means
            del self._jobs[number]
            return Failed(job=number, error=error)

    def close(self) -> None:
        """See ``Executor``."""
        for job in self._jobs.values():
            job.close()
        self._jobs.clear()
        self._ready.clear()
