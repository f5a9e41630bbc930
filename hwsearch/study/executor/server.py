"""The worker server: a process that has everything loaded and forks one child for each job.

``python -m hwsearch.study.executor.server FD`` is started by ``LocalExecutor``. Forking takes
milliseconds where a new process takes seconds to import torch. The server itself computes with one
thread only, since a child could not use the threads of a pool that its parent had.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Final

import torch

from hwsearch.study.asked.pictures import load_pictures
from hwsearch.study.candidates.training_context import TrainingContext
from hwsearch.study.executor.base import Done, Failed, Paused, WorkerLostError
from hwsearch.study.executor.messages import (
    Answer,
    End,
    FromServer,
    Open,
    Phase,
    Ready,
    Start,
    Step,
)
from hwsearch.study.jobs.report import Report
from hwsearch.study.jobs.run import Job, run, warm

#: How often a process looks whether its parent is still there.
_WATCH_S: Final = 0.25
#: Steps are told at most this often.
_TELL_S: Final = 0.2


def main(descriptor: int) -> None:
    """Serve until the coordinator closes its end, or is gone.

    Args:
        descriptor: of a socket whose other end the coordinator has.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator decides what Ctrl-C means
    _end_with_parent()
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, ConnectionError):  # it is gone: there is nobody to tell
        _serve(Connection(descriptor))


def _serve(coordinator: Connection) -> None:
    opening = coordinator.recv()
    assert isinstance(opening, Open)
    sys.path[:] = opening.import_paths
    try:
        data = load_pictures(opening.settings)
        context = TrainingContext(opening.settings, opening.profile, data)
    except Exception as error:  # noqa: BLE001 - the coordinator raises it
        coordinator.send(Ready(error=_sendable(error)))
        return
    coordinator.send(Ready())
    _Server(coordinator, context).serve()


class _Server:
    """Passes messages between the coordinator and the children."""

    def __init__(self, coordinator: Connection, context: TrainingContext) -> None:
        self._coordinator, self._context = coordinator, context
        self._children: dict[int, tuple[BaseProcess, Connection]] = {}

    def serve(self) -> None:
        """Until the coordinator closes its end."""
        while True:
            pipes = {child[1]: number for number, child in self._children.items()}
            for ready in wait([self._coordinator, *pipes]):
                if ready is self._coordinator:
                    try:
                        self._obey(self._coordinator.recv())
                    except EOFError:
                        for number in list(self._children):
                            self._end(number)
                        return
                elif isinstance(ready, Connection) and pipes[ready] in self._children:
                    self._pass_on(pipes[ready])

    def _obey(self, message: object) -> None:
        match message:
            case Start():
                try:
                    warm(message.job, self._context)
                except Exception as error:  # noqa: BLE001 - an error of this job
                    failed = Failed(job=message.number, error=_sendable(error))
                    self._coordinator.send(failed)
                    return
                self._fork(message)
            case Answer():
                self._children[message.number][1].send((message.value, message.threads))
            case End():
                self._end(message.number)

    def _fork(self, message: Start) -> None:
        here, there = get_context("fork").Pipe()
        child = get_context("fork").Process(
            target=_work,
            args=(message.number, message.job, self._context, there, message.threads),
            daemon=True,
        )
        child.start()
        there.close()
        self._children[message.number] = (child, here)

    def _pass_on(self, number: int) -> None:
        child, pipe = self._children[number]
        try:
            told: FromServer = pipe.recv()
        except (EOFError, OSError):
            child.join()
            told = Failed(job=number, error=WorkerLostError(_how_it_ended(child.exitcode)))
        if isinstance(told, Done | Failed):
            self._end(number)
        self._coordinator.send(told)

    def _end(self, number: int) -> None:
        child, pipe = self._children.pop(number)
        pipe.close()
        child.kill()
        child.join()


def _work(number: int, job: Job, context: TrainingContext, pipe: Connection, threads: int) -> None:
    """Run a job in a child process."""
    _end_with_parent()
    torch.set_num_threads(threads)
    told_s = 0.0

    def step(done: int, total: int) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s > _TELL_S:
            told_s = now_s
            pipe.send(Step(number=number, done=done, total=total))

    def phase(text: str) -> None:
        pipe.send(Phase(number=number, text=text))

    work = run(job, context, Report(phase=phase, step=step))
    answer = None
    try:
        while True:
            pipe.send(Paused(job=number, value=work.send(answer)))
            answer, threads = pipe.recv()
            torch.set_num_threads(threads)
    except StopIteration as end:
        pipe.send(Done(job=number, value=end.value))
    except Exception as error:  # noqa: BLE001 - the coordinator decides what it means
        pipe.send(Failed(job=number, error=_sendable(error)))


def _end_with_parent() -> None:
    """End this process soon after its parent is gone, whatever it is doing."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _sendable(error: Exception) -> Exception:
    """An error, or its text where it cannot be sent to another process."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:  # noqa: BLE001 - errors of others fail in their own ways
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = "; the machine may be out of memory: give fewer --workers" if exit_code == -9 else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with exit code {exit_code}"


if __name__ == "__main__":
    main(int(sys.argv[1]))
