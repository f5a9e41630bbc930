"""What every executor does: it runs jobs and says what happens to them."""

from dataclasses import dataclass
from typing import Any, Protocol

from hwsearch.errors import HostError
from hwsearch.study.jobs.run import Job


@dataclass(frozen=True, kw_only=True)
class Paused:
    """A job waits for an answer to what it says."""

    job: int
    value: Any


@dataclass(frozen=True, kw_only=True)
class Done:
    """A job has ended with its result."""

    job: int
    value: Any


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A job has ended with an error."""

    job: int
    error: Exception


Event = Paused | Done | Failed


def event_value(event: Event) -> Any:  # noqa: ANN401 - as the job says
    """What a job that paused or ended says; raises the error of one that failed."""
    if isinstance(event, Failed):
        raise event.error
    return event.value


class WorkerLostError(HostError):
    """The process of a job has ended without a word."""


class Executor(Protocol):
    """Runs jobs.

    Jobs are numbered from 0 in the order in which they are started. None of them fails the
    executor: an error of a job is an event.

    Attributes:
        slots: jobs that run at full speed side by side. More may be started: with one slot they
            take turns, with more they share the cores.
    """

    slots: int

    def start(self, job: Job) -> int:
        """Have a job run; returns its number."""

    def answer(self, job: int, value: object, *, beside: int | None = None) -> None:
        """Have a paused job go on.

        Args:
            job: its number.
            value: what it waits for.
            beside: jobs that run side by side from now, this one included, where there are fewer
                than slots: each gets its share of the cores.
        """

    def end(self, job: int) -> None:
        """Give up a paused job."""

    def wait(self) -> Event:
        """The next event; returns when there is one.

        Raises:
            RuntimeError: no job is running, so that there will be none.
            WorkerLostError: jobs cannot be run any more.
        """

    def close(self) -> None:
        """End all jobs and free what they use."""
