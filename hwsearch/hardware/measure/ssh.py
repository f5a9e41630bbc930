"""Measuring on another machine through the OpenSSH client of this one.

One connection does everything: a small shell script there makes a private folder, unpacks what
comes over stdin into it (the runner, the job, the nets), runs the runner, and removes the folder
when it ends for whatever reason. Stdin stays open as long as the results are wanted; when it
closes, because this process was interrupted, killed or cut off, the runner there ends.
"""

import io
import json
import os
import re
import shlex
import subprocess
import tarfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hwsearch.errors import HostError
from hwsearch.hardware.measure.process import (
    RUNNER,
    Event,
    RunningProcess,
    exit_reason,
    runner_events,
    started,
)

_CONNECT_TIMEOUT_S: Final = 10
#: A dead connection is noticed after three unanswered probes, 45 s.
_ALIVE_INTERVAL_S: Final = 15

_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(?:%[\w.-]+)?")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?")
#: What mktemp was asked for; nothing else is ever removed.
FOLDER: Final = re.compile(r"/(?:[^\0\n]*/)?hwsearch-[A-Za-z0-9]{8}")

_NO_FOLDER, _NOT_UNPACKED, _NO_PYTHON = 71, 72, 73

# One line, for login shells that are not POSIX: they only have to pass it to sh. The folder is
# reported before anything is put into it. The trap of EXIT alone would not run in dash when a
# signal ends the shell.
_SCRIPT: Final = " ".join(
    (
        "umask 077;",
        f"command -v {{python}} >/dev/null || exit {_NO_PYTHON};",
        f'd=$(mktemp -d "${{{{TMPDIR:-/tmp}}}}/hwsearch-XXXXXXXX") || exit {_NO_FOLDER};',
        'tidy() {{ cd / && rm -rf "$d" && echo "{{\\"event\\": \\"removed\\"}}"; }};',
        'trap tidy EXIT; trap "exit 129" HUP INT TERM PIPE;',
        'echo "{{\\"event\\": \\"folder\\", \\"folder\\": \\"$d\\"}}";',
        f'cd "$d" || exit {_NO_FOLDER};',
        '{python} -W ignore -c "import sys, tarfile;'
        ' tarfile.open(fileobj=sys.stdin.buffer, mode=\\"r|\\").extractall()"'
        f" || exit {_NOT_UNPACKED};",
        "{python} runner.py job.json; exit $?",
    )
)


@dataclass(frozen=True, kw_only=True)
class SshPlace:
    """A machine that ``ssh`` logs in to without asking anything.

    Attributes:
        host: a name, an address or an alias of ``~/.ssh/config``.
        user: None for that of ``~/.ssh/config``.
        port: None for that of ``~/.ssh/config``.
        python: the interpreter there, a command or an absolute path.
        ssh_options: more arguments of ``ssh``. They cannot switch off the check of the host key:
            the first value of an option counts, and that one is given before them.

    Raises:
        ValueError: a host, user or port that cannot be one.
    """

    host: str
    user: str | None = None
    port: int | None = None
    python: str = "python3"
    ssh_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise ValueError(f"'{self.host}' is not the name or address of a host")
        if self.user is not None and not _USER.fullmatch(self.user):
            raise ValueError(f"'{self.user}' is not the name of a user")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise ValueError(f"port '{self.port}' is not a number from 1 to 65535")

    @property
    def name(self) -> str:
        """As the user writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = "" if self.user is None else f"{self.user}@"
        return f"ssh://{user}{host}" + ("" if self.port is None else f":{self.port}")

    @property
    def default_runtime(self) -> Literal["onnxruntime"]:
        """ONNX Runtime; ``trtexec`` must be asked for."""
        return "onnxruntime"

    def run(
        self, job: Mapping[str, object], files: Mapping[str, Path]
    ) -> Generator[Event, None, None]:
        """Run a job there; see ``hwsearch.hardware.measure.places.Place.run``."""
        names = {name: f"net{index:04d}.onnx" for index, name in enumerate(files)}
        nets = [{"id": name, "file": file} for name, file in names.items()]
        sent = json.dumps({**job, "nets": nets, "end_with_stdin": True, "folder": "."})
        archive = packed(sent, {names[name]: path for name, path in files.items()})
        folder = None
        script = _SCRIPT.format(python=shlex.quote(self.python))
        try:
            with started(self.command(f"sh -c {shlex.quote(script)}"), _environment()) as running:
                running.send(archive)
                for event in runner_events(running):
                    if event["event"] == "folder":
                        folder = str(event["folder"])
                    elif event["event"] == "removed":
                        folder = None
                    else:
                        yield event
                self._check_end(running)
        except HostError as error:
            raise HostError(f"{self.name}: {error}") from None
        finally:
            if folder is not None:
                self._remove(folder)

    def command(self, remote: str) -> list[str]:
        """How ``ssh`` is called to run a command there."""
        port = [] if self.port is None else ["-p", str(self.port)]
        destination = self.host if self.user is None else f"{self.user}@{self.host}"
        return [
            *("ssh", "-T", "-a", "-x"),
            *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"),
            *("-o", f"ConnectTimeout={_CONNECT_TIMEOUT_S}", "-o", "ClearAllForwardings=yes"),
            *("-o", f"ServerAliveInterval={_ALIVE_INTERVAL_S}", "-o", "ServerAliveCountMax=3"),
            *port,
            *self.ssh_options,
            *("--", destination, remote),
        ]

    @property
    def known_as(self) -> str:
        """How ``known_hosts`` writes it."""
        return self.host if self.port in (None, 22) else f"'[{self.host}]:{self.port}'"

    def _check_end(self, running: RunningProcess) -> None:
        """Say in one line what went wrong, if anything did."""
        code, words = running.exit_code(), running.last_words()
        if code == 0:
            return
        if code == 255:
            raise HostError(connection_trouble(running.error_text(), self.known_as))
        if code == _NO_PYTHON:
            raise HostError(f"'{self.python}' is not installed there; install it or name another")
        if code == _NO_FOLDER:
            raise HostError(f"no folder can be made there ({words}); free space or set TMPDIR")
        if code == _NOT_UNPACKED:
            raise HostError(
                f"the nets cannot be unpacked there ({words}); free space or set TMPDIR"
            )
        said = f"; it last said: {words}" if words and code <= 128 else ""
        raise HostError(f"the measuring process there {exit_reason(code)}{said}")

    def _remove(self, folder: str) -> None:
        """Remove a folder whose shell did not say that it has: that shell may have been killed.

        Where this does not get through either, the connection is down, and the shell there ends
        by itself and removes it.
        """
        if FOLDER.fullmatch(folder):
            command = self.command(f"rm -rf -- {shlex.quote(folder)}")
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=_environment(),
                check=False,
            )


def _environment() -> dict[str, str]:
    """English messages, since they are told apart below."""
    return {**os.environ, "LC_ALL": "C"}


def packed(job: str, files: Mapping[str, Path]) -> bytes:
    """A tar file of the runner, the job and the nets.

    Raises:
        HostError: a net cannot be read.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        contents = {"runner.py": RUNNER.read_bytes(), "job.json": job.encode()}
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, path in files.items():
            try:
                archive.add(path.resolve(strict=True), arcname=name, recursive=False)
            except OSError as error:
                raise HostError(f"{path} cannot be read ({error.strerror})") from None
    return buffer.getvalue()


def connection_trouble(text: str, known_as: str) -> str:
    """What the messages of ``ssh`` mean, and what to do."""
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in text:
        return (
            "its host key is not the one that is known; if the machine was set up anew, remove "
            f"the old key with: ssh-keygen -R {known_as}; if not, someone may listen in"
        )
    if "Host key verification failed" in text:
        return "its host key is not known; log in once by hand with ssh and compare the key"
    if "Permission denied" in text:
        return "it accepts none of the keys; set one up with ssh-copy-id and try ssh by hand"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else "no reason was given"
    if re.search("closed by|Connection reset|Timeout, server|Broken pipe", last):
        return f"the connection was lost ({last}); run it again once the machine answers"
    return f"it cannot be reached ({last}); check the name, the port and the network"
