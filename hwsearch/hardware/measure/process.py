"""The other end of the runner: a process whose standard output is a line of JSON per event."""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from hwsearch.errors import HostError

#: One event of the runner; its module says which there are.
Event = dict[str, Any]

#: The file that is run here, or copied to a board.
RUNNER: Final = Path(__file__).with_name("runner.py")

#: How long a process may take to tidy up before it is stopped harder.
_PATIENCE_S: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class RunningProcess:
    """A started process; its stdin stays open as long as its results are wanted."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    def send(self, data: bytes) -> None:
        """Write to its stdin; if it has ended already, its exit code will say why."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(data)
            self.process.stdin.flush()

    def events(self) -> Iterator[Event]:
        """The events until it closes its stdout.

        Lines before the first event are left out: the start-up files of a remote shell may greet.

        Raises:
            HostError: a later line is no event.
        """
        assert self.process.stdout is not None
        begun = False
        for line in self.process.stdout:
            event = _event(line)
            if event is not None:
                begun = True
                yield event
            elif begun:
                text = line.decode("utf-8", "replace").strip()
                raise HostError(f"'{text[:80]}' came from the runner where an event was expected")

    def exit_code(self) -> int:
        """Wait for the end; a signal n is 128 + n, as a shell says it."""
        code = self.process.wait()
        return code if code >= 0 else 128 - code

    def last_words(self) -> str:
        """The last line that it wrote to stderr, or nothing."""
        lines = self.error_text().split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def error_text(self) -> str:
        """All that it wrote to stderr so far."""
        self.errors.seek(0)
        return self.errors.read().decode("utf-8", "replace")


@contextlib.contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> Generator[RunningProcess, None, None]:
    """Start a process and, however the block is left, end it.

    It is in a session of its own, so that Ctrl-C reaches only this process, which then lets it
    tidy up: closing its stdin asks it to end, and its end is waited for.

    Raises:
        HostError: the program is not there.
    """
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise HostError(f"'{command[0]}' cannot be started ({error.strerror})") from None
        try:
            yield RunningProcess(process=process, errors=errors)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    for stop in (process.terminate, process.kill):
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            stop()
    process.wait()
    process.stdout.close()


def _event(line: bytes) -> Event | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("event"), str) else None


def runner_events(running: RunningProcess) -> Iterator[Event]:
    """The events of a runner until it is done.

    Raises:
        HostError: it reported that the machine cannot do the job. What else may have ended it,
            its exit code says.
    """
    for event in running.events():
        if event["event"] == "error":
            raise HostError(event["message"])
        yield event


def exit_reason(code: int) -> str:
    """Words for the exit code of a runner that did not say itself what was wrong."""
    if code == 137:
        return "was killed (signal 9); most likely the machine ran out of memory"
    if code > 128:
        return f"was ended by signal {code - 128}"
    return f"ended with exit code {code}"
