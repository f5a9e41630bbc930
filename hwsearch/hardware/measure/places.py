"""Where nets are measured: on this machine, or on another one over SSH."""

import json
import os
import re
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from hwsearch.errors import HostError, UserError
from hwsearch.hardware.measure.process import (
    RUNNER,
    Event,
    exit_reason,
    runner_events,
    started,
)
from hwsearch.hardware.measure.ssh import SshPlace
from hwsearch.hardware.runtimes import Runner

_ALLOWED: Final = "give host, cuda or ssh://[user@]host[:port]"
_ADDRESS: Final = re.compile(
    r"ssh://(?:(?P<user>[^@/]*)@)?(?P<host>\[[^\]/]*\]|[^:/@]*)(?::(?P<port>[^/]*))?/?"
)


class Place(Protocol):
    """A machine on which the runner can be run."""

    @property
    def name(self) -> str:
        """As the user writes it."""

    @property
    def default_runtime(self) -> Runner:
        """What runs the nets there when nothing else is asked for."""

    def run(
        self, job: Mapping[str, object], files: Mapping[str, Path]
    ) -> Generator[Event, None, None]:
        """Run a job there and give its events.

        Close the generator (``contextlib.closing``) when it is left early: the runner is ended
        and nothing of it stays behind.

        Args:
            job: see ``hwsearch.hardware.measure.runner``, without ``nets``.
            files: the nets by id, as they lie here.

        Raises:
            HostError: the place cannot be reached or cannot do the job, or the runner was killed.
        """


@dataclass(frozen=True, kw_only=True)
class LocalPlace:
    """This machine.

    Attributes:
        on_gpu: the nets run on its first NVIDIA GPU unless another runtime is asked for.
        python: the interpreter that runs the runner; it needs onnxruntime.
    """

    on_gpu: bool = False
    python: str = sys.executable

    @property
    def name(self) -> str:
        """As the user writes it."""
        return "cuda" if self.on_gpu else "host"

    @property
    def default_runtime(self) -> Runner:
        """ONNX Runtime."""
        return "onnxruntime-cuda" if self.on_gpu else "onnxruntime"

    def run(
        self, job: Mapping[str, object], files: Mapping[str, Path]
    ) -> Generator[Event, None, None]:
        """Run a job in a process of its own; see ``Place.run``."""
        nets = [{"id": name, "file": str(path.absolute())} for name, path in files.items()]
        text = json.dumps({**job, "nets": nets, "end_with_stdin": True})
        with started([self.python, str(RUNNER)], dict(os.environ)) as running:
            running.send(text.encode() + b"\n")
            try:
                yield from runner_events(running)
            except HostError as error:
                raise HostError(f"{self.name}: {error}") from None
            code = running.exit_code()
            if code != 0:
                words = running.last_words()
                said = f"; it last said: {words}" if words and code <= 128 else ""
                raise HostError(f"{self.name}: the measuring process {exit_reason(code)}{said}")


def parse_place(
    text: str, *, python: str | None = None, ssh_options: tuple[str, ...] = ()
) -> Place:
    """Read a place as a user writes it.

    Args:
        text: "host", "cuda" (the first NVIDIA GPU of this machine) or "ssh://[user@]host[:port]".
        python: the interpreter there; by default this one here and ``python3`` over SSH.
        ssh_options: more arguments of ``ssh``, such as ``("-i", "key")``; ``~/.ssh/config`` is
            used in any case.

    Raises:
        UserError: anything else; the message says what is allowed.
    """
    if text in ("host", "cuda"):
        if ssh_options:
            raise UserError(f"place '{text}' is this machine and takes no options of ssh")
        return LocalPlace(on_gpu=text == "cuda", python=python or sys.executable)
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise UserError(f"place '{text}' is none that can be measured on; {_ALLOWED}")
    if match["user"] is not None and ":" in match["user"]:
        # The password itself is not repeated: messages end up in logs.
        raise UserError("an ssh:// place takes no password; set up a key with ssh-copy-id")
    try:
        return SshPlace(
            host=match["host"].strip("[]"),
            user=match["user"],
            port=None if match["port"] is None else _port(match["port"]),
            python=python or "python3",
            ssh_options=ssh_options,
        )
    except ValueError as error:
        raise UserError(f"place '{text}': {error}; {_ALLOWED}") from None


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ValueError(f"port '{text}' is not a number from 1 to 65535")
    return int(text)
