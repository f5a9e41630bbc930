"""What the coordinator and the worker server say to each other.

Both run the same version on one machine, over a pair of sockets that no one else can reach.
"""

from dataclasses import dataclass

from hwsearch.hardware.profile import HardwareProfile
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.executor.base import Event
from hwsearch.study.jobs.run import Job


@dataclass(frozen=True, kw_only=True)
class Open:
    """Get ready: the first message to the server, which it answers with ``Ready``."""

    settings: RunSettings
    profile: HardwareProfile
    import_paths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The server has its pictures; with an error it has not."""

    error: Exception | None = None


@dataclass(frozen=True, kw_only=True)
class Start:
    """Fork a process for a job."""

    number: int
    job: Job
    threads: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Have a paused job go on."""

    number: int
    value: object
    threads: int


@dataclass(frozen=True, kw_only=True)
class End:
    """End the process of a job."""

    number: int


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A job says what it does."""

    number: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """A job has taken a training step."""

    number: int
    done: int
    total: int


ToServer = Start | Answer | End
FromServer = Phase | Step | Event
