"""What is shown on stderr while a machine is measured: a bar on a terminal, else plain lines."""

import sys
import time
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from hwsearch.cli.view import duration

#: Plain output says where a phase is at most this often.
_QUIET_S: Final = 15.0


class MeasureView(Protocol):
    """A ``hwsearch.calibrate.measuring.Watcher`` that can be opened and closed."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop showing."""

    def phase(self, text: str) -> None:
        """Something longer begins."""

    def progress(self, share: float, text: str) -> None:
        """So much of the phase is done, from 0 to 1."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


def make_measure_view() -> MeasureView:
    """A bar on a terminal, lines otherwise."""
    console = Console(stderr=True)
    return BarView(console) if console.is_terminal else LineView()


class LineView:
    """A line for each phase, and now and then one that says how far it is."""

    def __init__(self) -> None:
        self._begun = self._phase_begun = self._said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def phase(self, text: str) -> None:
        """Announce it."""
        self._phase_begun = time.monotonic()
        self._say(text)

    def progress(self, share: float, text: str) -> None:
        """Say it, if nothing was said for a while."""
        now = time.monotonic()
        if now - self._said > _QUIET_S:
            self._say(f"  {100 * share:.0f} %{left_text(share, now - self._phase_begun)}: {text}")

    def note(self, text: str) -> None:
        """Say it."""
        self._say(text)

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        sys.stderr.write(f"[{duration(self._said - self._begun):>7}] {text}\n")
        sys.stderr.flush()


class BarView:
    """A bar for the phase that runs."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"),
            console=console, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def phase(self, text: str) -> None:
        """Begin a new bar."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._begun = time.monotonic()
        self._task = self._progress.add_task(text, total=1.0, said="")

    def progress(self, share: float, text: str) -> None:
        """Move the bar."""
        if self._task is not None:
            said = f"{100 * share:.0f} %{left_text(share, time.monotonic() - self._begun)}"
            self._progress.update(self._task, completed=share, said=f"{said}, {text}")

    def note(self, text: str) -> None:
        """Print above the bar."""
        self._progress.console.print(Text(text))


def left_text(share: float, spent_s: float) -> str:
    """How long a phase still takes, from what was done in the time that it had; empty at first."""
    if share < 0.02:
        return ""
    return f", about {duration(spent_s * (1 - share) / share)} left"
