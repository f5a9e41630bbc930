"""Jobs run side by side in processes of this machine."""

import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from typing import Final

import torch

from hwsearch.hardware.profile import HardwareProfile
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.executor.base import Done, Event, Failed, Paused, WorkerLostError
from hwsearch.study.executor.messages import Answer, End, Open, Phase, Ready, Start, Step
from hwsearch.study.jobs.report import Report
from hwsearch.study.jobs.run import Job

#: Seconds that the server has to end its children before it is killed.
_PATIENCE_S: Final = 5.0


class LocalExecutor:
    """Runs each job in a process that a warm server forks (``server``).

    Args:
        settings: of the run, from which the server loads the pictures.
        profile: of the target.
        slots: jobs at full speed side by side; they share the cores.
        report: is told what the job that has run for the longest does.
    """

    def __init__(
        self, settings: RunSettings, profile: HardwareProfile, slots: int, report: Report
    ) -> None:
        self.slots = slots
        self._report = report
        self._started = 0
        self._running: dict[int, str] = {}
        self._shown: tuple[int, str] | None = None
        self._ready = False
        ours, theirs = socket.socketpair()
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "hwsearch.study.executor.server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # ours holds results alone
            )
        self._connection = Connection(ours.detach())
        self._send(Open(settings=settings, profile=profile, import_paths=tuple(sys.path)))

    def wait_until_ready(self) -> None:
        """Return when the server has loaded everything.

        Raises:
            WorkerLostError: it could not start.
            UserError: what loading the pictures raises.
        """
        if not self._ready:
            ready = self._receive()
            assert isinstance(ready, Ready)
            if ready.error is not None:
                raise ready.error
            self._ready = True

    def start(self, job: Job) -> int:
        """See ``Executor``."""
        self.wait_until_ready()
        number, self._started = self._started, self._started + 1
        self._running[number] = ""
        self._send(Start(number=number, job=job, threads=self._threads(None)))
        return number

    def answer(self, job: int, value: object, *, beside: int | None = None) -> None:
        """See ``Executor``."""
        self._running[job] = ""
        self._send(Answer(number=job, value=value, threads=self._threads(beside)))

    def end(self, job: int) -> None:
        """See ``Executor``."""
        self._running.pop(job, None)
        self._send(End(number=job))

    def wait(self) -> Event:
        """See ``Executor``."""
        if not self._running:
            raise RuntimeError("no job is running")
        while True:
            told = self._receive()
            match told:
                case Paused() | Done() | Failed():
                    self._running.pop(told.job, None)
                    return told
                case Phase():
                    if told.number in self._running:
                        self._running[told.number] = told.text
                        self._show()
                case Step():
                    if told.number == self._show():
                        self._report.step(told.done, told.total)

    def close(self) -> None:
        """See ``Executor``."""
        self._connection.close()
        try:
            self._server.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def _show(self) -> int | None:
        """Report the phase of the job that has run for the longest; returns its number."""
        number = min(self._running, default=None)
        if number is None:
            return None
        text = self._running[number]
        if text and (number, text) != self._shown:
            self._report.phase(text)
            self._shown = (number, text)
        return number

    def _threads(self, beside: int | None) -> int:
        """The share of the threads that torch would use in one process."""
        jobs = self.slots if beside is None else min(beside, self.slots)
        return max(1, torch.get_num_threads() // max(1, jobs))

    def _send(self, message: object) -> None:
        try:
            self._connection.send(message)
        except OSError:
            raise self._lost() from None

    def _receive(self) -> object:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            raise self._lost() from None

    def _lost(self) -> WorkerLostError:
        code = self._server.poll()
        return WorkerLostError(
            f"the process that runs the trials has ended (exit code {code}); go on with: "
            "hwsearch run --resume, with fewer --workers if memory is short"
        )
