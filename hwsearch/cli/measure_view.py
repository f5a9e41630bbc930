"""What is shown on stderr while a machine is measured: a bar on a terminal, else plain lines."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from hwsearch.cli.view import Lines
from hwsearch.units import format_duration_s

if TYPE_CHECKING:
    from hwsearch.calibrate.measuring import Watcher


@contextmanager
def open_measure_view() -> "Iterator[Watcher]":
    """What shows a measurement while the block runs: a bar on a terminal, lines otherwise."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield LineView()
        return
    view = BarView(console)
    with view.bars:
        yield view


class LineView:
    """A line for each phase, and now and then one that says how far it is."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._begun = time.monotonic()

    def phase(self, text: str) -> None:
        """Announce it."""
        self._begun = time.monotonic()
        self._lines.say(text)

    def progress(self, share: float, text: str) -> None:
        """Say it, if nothing was said for a while."""
        if self._lines.quiet_for_long:
            left = left_text(share, time.monotonic() - self._begun)
            self._lines.say(f"  {100 * share:.0f} %{left}: {text}")

    def note(self, text: str) -> None:
        """Say it."""
        self._lines.say(text)


class BarView:
    """A bar for the phase that runs.

    Attributes:
        bars: shows it while it is open.
    """

    def __init__(self, console: Console) -> None:
        self.bars = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"),
            console=console, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._begun = time.monotonic()

    def phase(self, text: str) -> None:
        """Begin a new bar."""
        if self._task is not None:
            self.bars.remove_task(self._task)
        self._begun = time.monotonic()
        self._task = self.bars.add_task(text, total=1.0, said="")

    def progress(self, share: float, text: str) -> None:
        """Move the bar."""
        if self._task is not None:
            said = f"{100 * share:.0f} %{left_text(share, time.monotonic() - self._begun)}"
            self.bars.update(self._task, completed=share, said=f"{said}, {text}")

    def note(self, text: str) -> None:
        """Print above the bar."""
        self.bars.console.print(Text(text))


def left_text(share: float, spent_s: float) -> str:
    """How long a phase still takes, from what was done in the time that it had; empty at first."""
    if share < 0.02:
        return ""
    return f", about {format_duration_s(spent_s * (1 - share) / share)} left"
