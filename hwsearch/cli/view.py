"""What is shown: a run, on stderr (live on a terminal, plain lines elsewhere), and tables."""

import io
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hwsearch.units import format_duration_s

if TYPE_CHECKING:
    from hwsearch.study.trials.progress import Watcher
    from hwsearch.study.trials.records import Record

#: Plain output says where a long phase is at most this often.
_QUIET_S: Final = 15.0
#: Columns of a table written to a file or a pipe, whose width nobody can ask for.
_PLAIN_WIDTH: Final = 160


@contextmanager
def open_view() -> "Iterator[Watcher]":
    """What shows a run while the block runs: live on a terminal, as lines otherwise."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield PlainView()
        return
    view = LiveView(console)
    with view.live:
        yield view


class Lines:
    """Lines on stderr, each after the time since the first could have been written."""

    def __init__(self) -> None:
        self._begun = self._said = time.monotonic()

    def say(self, text: str) -> None:
        """Write a line."""
        self.wait()
        sys.stderr.write(f"[{format_duration_s(self._said - self._begun):>7}] {text}\n")
        sys.stderr.flush()

    def wait(self) -> None:
        """Be quiet again for a while, from now."""
        self._said = time.monotonic()

    @property
    def quiet_for_long(self) -> bool:
        """Whether it is time to say where a long phase is."""
        return time.monotonic() - self._said > _QUIET_S


class PlainView:
    """One line for each phase and trial."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._phase = ""
        self._deadline_s: float | None = None

    def deadline(self, at_s: float) -> None:
        """Remember it."""
        self._deadline_s = at_s

    def phase(self, text: str) -> None:
        """Announce what takes long; a trial is announced by its result."""
        self._phase = text
        if text.startswith("trial "):
            self._lines.wait()
        else:
            self._lines.say(text)

    def step(self, done: int, total: int) -> None:
        """Say where a long phase is, now and then."""
        if self._lines.quiet_for_long:
            left = "" if self._deadline_s is None else f", {left_text(self._deadline_s)}"
            self._lines.say(f"  {self._phase}: step {done} of {total}{left}")

    def trial(
        self, record: "Record", *, done: int, planned: int | None, left_s: float | None
    ) -> None:
        """One line for a trial."""
        of = "" if planned is None else f" ({done} of {planned})"
        left = "" if left_s is None else f", {format_duration_s(left_s)} left"
        self._lines.say(f"trial {record.trial}{of}: {trial_text(record)}{left}")

    def note(self, text: str) -> None:
        """Say it."""
        self._lines.say(text)


class LiveView:
    """A panel that is redrawn: counts, the best so far, what runs now, time left.

    Attributes:
        live: shows the panel while it is open.
    """

    def __init__(self, console: Console) -> None:
        self.live = Live(console=console, refresh_per_second=4, transient=True)
        self._started = time.monotonic()
        self._phase = ""
        self._steps = (0, 0)
        self._states: Counter[str] = Counter()
        self._done = 0
        self._best: Record | None = None
        self._planned: int | None = None
        self._left_s: float | None = None
        self._deadline_s: float | None = None

    def deadline(self, at_s: float) -> None:
        """Remember it."""
        self._deadline_s = at_s

    def phase(self, text: str) -> None:
        """Show what runs now."""
        self._phase, self._steps = text, (0, 0)
        self._draw()

    def step(self, done: int, total: int) -> None:
        """Move the bar."""
        self._steps = (done, total)
        self._draw()

    def trial(
        self, record: "Record", *, done: int, planned: int | None, left_s: float | None
    ) -> None:
        """Count a trial."""
        self._states[record.state] += 1
        self._done = done
        self._planned, self._left_s = planned, left_s
        if record.state == "completed" and _better(record, self._best):
            self._best = record
        self._draw()

    def note(self, text: str) -> None:
        """Print above the panel."""
        self.live.console.print(Text(text))

    def _draw(self) -> None:
        grid = Table.grid(padding=(0, 2))
        of = "" if self._planned is None else f" of {self._planned}"
        left = "" if self._left_s is None else f", about {format_duration_s(self._left_s)} left"
        if self._deadline_s is not None:
            left = f", {left_text(self._deadline_s)}"
        grid.add_row(
            "trials",
            f"{self._done}{of}, {format_duration_s(time.monotonic() - self._started)}{left}",
        )
        states = ", ".join(
            f"{count} {state.replace('_', ' ')}" for state, count in sorted(self._states.items())
        )
        grid.add_row("ended", states or "none yet")
        # As Text: a reason may hold brackets, which a plain string would have read as markup.
        grid.add_row("best", Text("none yet" if self._best is None else trial_text(self._best)))
        grid.add_row("now", Text(self._phase))
        done_steps, total = self._steps
        bar = ProgressBar(total=max(1, total), completed=done_steps, width=40)
        self.live.update(Group(grid, bar))


def trial_text(record: "Record") -> str:
    """A trial in one line."""
    parts = [f"{record.knobs.backbone} {record.knobs.input_px} px", record.state.replace("_", " ")]
    if record.accuracy is not None:
        parts.append(f"accuracy {100 * record.accuracy:.1f} %")
    if record.cost is not None:
        parts.append(f"{record.cost.latency_ms.value:.3g} ms predicted")
    if record.reason:
        parts.append(record.reason)
    return ", ".join(parts)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout; the first two columns are never folded, no cell is ever cut.

    Output that is no terminal has 160 columns, whatever the console guesses.
    """
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0), pad_edge=False
    )
    for number, header in enumerate(columns):
        table.add_column(header, no_wrap=number < 2, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    text = io.StringIO()
    Console(file=text, width=_PLAIN_WIDTH, color_system=None).print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines()))


def left_text(deadline_s: float) -> str:
    """What is left of the time limit."""
    return f"{format_duration_s(max(0.0, deadline_s - time.monotonic()))} left of the limit"


def _better(record: "Record", best: "Record | None") -> bool:
    if record.accuracy is None:
        return False
    return best is None or best.accuracy is None or record.accuracy > best.accuracy
