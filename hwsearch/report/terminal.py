"""The front on a terminal, at the end of a run."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hwsearch.report.stored import BaselineEntry, FrontFile, ModelEntry
from hwsearch.report.tables import (
    bits_summary,
    by_cost,
    digits,
    entry_name,
    one_line,
    pruning_summary,
    speed_up_cell,
)
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
    rows: list[ModelEntry | BaselineEntry] = [*by_cost(front), *front.baselines]
    for number, entry in enumerate(rows):
        picked = entry is front.to_use
        table.add_row(
            *(Text(cell) for cell in _cells(front, entry, picked=picked)),
            style="bold" if picked else "dim" if isinstance(entry, BaselineEntry) else None,
            end_section=number == len(front.front) - 1,
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
    lines = _pick_lines(front) if front.front or front.picked_baseline else _empty_lines(front)
    sources = {model.latency_ms.source for model in front.front}
    if "predicted" in sources:
        evidence = one_line(front.profile.evidence)
        name = one_line(front.profile.name)
        lines.append(f"Latencies are predicted from profile {name} ({evidence}), not measured.")
    lines += [f"Note: {one_line(note)}" for note in front.notes[:_MOST_NOTES]]
    if len(front.notes) > _MOST_NOTES:
        lines.append(f"{len(front.notes) - _MOST_NOTES} more notes are in the report.")
    return lines


def _pick_lines(front: FrontFile) -> list[str]:
    reason = one_line(front.pick_reason)
    picked = front.to_use
    if picked is None:
        return [f"No pick: {reason}"]
    kind = "the baseline " if isinstance(picked, BaselineEntry) else ""
    return [f"Pick: {kind}{entry_name(picked)}, {one_line(picked.backbone)}. {reason}"]


def _empty_lines(front: FrontFile) -> list[str]:
    if front.closest is None:
        return ["No searched model is better than the baselines; use the best that fits."]
    asked = ", ".join(format_quantity(budget.quantity, budget.limit) for budget in front.budgets)
    lines = [f"Nothing meets the budget of {asked} on {one_line(front.target)}."]
    closest = front.closest
    costs = ((budget.quantity, closest.cost(budget.quantity)) for budget in front.budgets)
    known = [format_quantity(quantity, cost.value) for quantity, cost in costs if cost]
    lines.append(
        f"Closest: {one_line(closest.backbone)} at {closest.input_px} px, {', '.join(known)}."
    )
    for quantity, least in (front.minimum_reachable or {}).items():
        lines.append(f"Least reachable {quantity}: {format_quantity(quantity, least.value)}.")
    return lines


def _cells(front: FrontFile, entry: ModelEntry | BaselineEntry, *, picked: bool) -> list[str]:
    low, high = (f"{100 * end:.1f}" for end in entry.accuracy_ci95)
    latency = entry.latency_ms
    energy = "" if entry.energy_mj is None else f"\n{digits(entry.energy_mj.value)} mJ"
    pruning = pruning_summary(entry)
    return [
        f"{'>' if picked else ' '} {entry_name(entry)}, {entry.input_px} px\n"
        f"  {one_line(entry.backbone)}",
        f"{100 * entry.accuracy:.1f}\n{low}-{high}",
        f"{digits(latency.value)}\n{digits(latency.low)}-{digits(latency.high)}",
        speed_up_cell(front, entry),
        format_quantity("size", entry.size_bytes) + energy,
        f"{'not pruned' if pruning == 'none' else pruning}\n{bits_summary(entry)}",
    ]
