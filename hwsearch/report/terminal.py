"""The front on a terminal, at the end of a run."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hwsearch.report.stored import FrontFile
from hwsearch.report.view import EntryView, Interval, one_line, view_front
from hwsearch.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Columns of text written to a file or a pipe, whose width nobody can ask for.
PLAIN_WIDTH: Final = 100
_MOST_NOTES: Final = 3


def final_table(front: FrontFile) -> "Table":
    """The front, the fastest first, and the baselines below it; the pick has an arrow.

    It fits 80 columns: only names are folded when a terminal is narrow, no number is cut.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    table.add_column("  model", overflow="fold")
    table.add_column("accuracy %\n95 % CI", justify="right", no_wrap=True)
    table.add_column("latency ms\ninterval", justify="right", no_wrap=True)
    table.add_column("vs fp32", justify="right", no_wrap=True)
    table.add_column("size\nenergy", justify="right", no_wrap=True)
    table.add_column("pruned %, stage by stage\nbits x layers", overflow="fold")
    view = view_front(front)
    for number, entry in enumerate([*view.models, *view.baselines], start=1):
        table.add_row(
            *(Text(cell) for cell in _cells(entry)),
            style="bold" if entry.picked else "dim" if entry.is_baseline else None,
            end_section=number == len(view.models),
        )
    return table


def print_final(front: FrontFile, console: "Console", folder: Path | None = None) -> None:
    """Print the table, why the pick is the pick, and where everything lies.

    Output that is no terminal has 100 columns, whatever the console guesses. When nothing met
    the budget, the closest point and the least that is reachable take the place of the pick.
    """
    if console.is_terminal:
        _print(front, console, folder)
        return
    from rich.console import Console

    # A console never prints wider than it believes to be, which is 80 columns into a pipe.
    text = io.StringIO()
    _print(front, Console(file=text, width=PLAIN_WIDTH, color_system=None), folder)
    lines = (line.rstrip() for line in text.getvalue().splitlines())
    console.out("\n".join(lines), highlight=False)


def _print(front: FrontFile, console: "Console", folder: Path | None) -> None:
    if front.scored:
        console.print()
        console.print(final_table(front))
        console.print()
    for line in closing_lines(front):
        console.print(line, markup=False, highlight=False)
    if folder is not None:
        # A wrapped path cannot be copied.
        path = folder / "report.md"
        console.print(f"Report: {path}", markup=False, highlight=False, soft_wrap=True)


def closing_lines(front: FrontFile) -> list[str]:
    """The sentences below the table."""
    view = view_front(front)
    reason = one_line(front.pick_reason)
    closest = view.closest
    if view.pick is not None:
        kind = "the baseline " if view.pick.is_baseline else ""
        lines = [f"Pick: {kind}{view.pick.name}, {view.pick.backbone}. {reason}"]
    elif view.models:
        lines = [f"No pick: {reason}"]
    elif closest is None or front.closest is None:
        lines = ["No searched model is better than the baselines; use the best that fits."]
    else:
        costs = [(quantity, front.closest.cost(quantity)) for quantity in view.limits]
        known = [format_quantity(quantity, cost.value) for quantity, cost in costs if cost]
        asked = ", ".join(view.limits.values())
        lines = [
            f"Nothing meets the budget of {asked} on {one_line(front.target)}.",
            f"Closest: {closest.backbone} at {closest.input_px} px, {', '.join(known)}.",
        ]
        lines += [f"Least reachable {quantity}: {it}." for quantity, it in view.reachable.items()]
    if any(model.source == "predicted" for model in view.models):
        evidence = one_line(front.profile.evidence)
        name = one_line(front.profile.name)
        lines.append(f"Latencies are predicted from profile {name} ({evidence}), not measured.")
    lines += [f"Note: {one_line(note)}" for note in front.notes[:_MOST_NOTES]]
    if len(front.notes) > _MOST_NOTES:
        lines.append(f"{len(front.notes) - _MOST_NOTES} more notes are in the report.")
    return lines


def _cells(entry: EntryView) -> list[str]:
    def two_lines(it: Interval | None) -> str:
        return "" if it is None else f"{it.value}\n{it.low}-{it.high}"

    energy = "" if entry.energy_mj is None else f"\n{entry.energy_mj.value} mJ"
    return [
        f"{'>' if entry.picked else ' '} {entry.name}, {entry.input_px} px\n  {entry.backbone}",
        two_lines(entry.accuracy),
        two_lines(entry.latency_ms),
        entry.speed_up,
        entry.size + energy,
        f"{'not pruned' if entry.pruning == 'none' else entry.pruning}\n{entry.bits}",
    ]
