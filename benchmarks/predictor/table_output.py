"""What the tables have in common: their options, Markdown on stdout and a CSV file of results."""

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from scores import Spread

_ROOT: Final = Path(__file__).resolve().parents[2]

#: A cell of a table; None is what a method does not say.
Cell = str | int | float | Spread | None
Row = Mapping[str, Cell]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a table is asked for.

    Attributes:
        data: the folder of the published tables.
        seeds: how often what is drawn is drawn.
        quick: a small part, to see that it runs.
        out: folder of the CSV file.
    """

    data: Path
    seeds: int
    quick: bool
    out: Path

    @property
    def size(self) -> str:
        """The part of a file's name that says how much was done."""
        return f"seeds{self.seeds}" + ("-quick" if self.quick else "")


def options(doc: str | None, *, seeds: int, arguments: Sequence[str] | None = None) -> Options:
    """Read the command line.

    Args:
        doc: of the module; its first line is the description.
        seeds: by default.
        arguments: instead of those of the command.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else None)
    parser.add_argument("data", type=Path, nargs="?", default=_ROOT.parent / "shared" / "data")
    parser.add_argument("--seeds", type=int, default=seeds, help=f"repetitions (default {seeds})")
    parser.add_argument("--quick", action="store_true", help="a small part, to see that it runs")
    parser.add_argument(
        "--out", type=Path, default=_ROOT / "results" / "published", help="folder of the CSV file"
    )
    given = parser.parse_args(arguments)
    if given.seeds < 1:
        parser.error(f"--seeds {given.seeds}: give 1 or more")
    if not given.data.is_dir():
        parser.error(f"{given.data} is no folder; give the one that holds the published tables")
    return Options(data=given.data, seeds=given.seeds, quick=given.quick, out=given.out)


def markdown(rows: Sequence[Row]) -> str:
    """A table with the columns of the first row.

    Raises:
        ValueError: no rows, or rows that differ in their columns.
    """
    columns = _columns(rows)
    lines = [columns, ["---"] * len(columns)]
    lines += [[_text(row[column]) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_csv(
    rows: Sequence[Row], options: Options, table: str, conditions: str, room: str = "predictor"
) -> Path:
    """Write the rows, a spread as three columns, to ``<room>_<table>_<conditions>_<date>.csv``.

    Raises:
        ValueError: as ``markdown``.
    """
    _columns(rows)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{room}_{table}_{conditions}_{date.today().isoformat()}.csv"
    flat = [_flat(row, rows) for row in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(flat[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
    return path


def show(
    rows: Sequence[Row], options: Options, table: str, conditions: str, room: str = "predictor"
) -> None:
    """Print the table and write its file."""
    print(markdown(rows))
    print(f"\nwritten to {write_csv(rows, options, table, conditions, room)}")


def _columns(rows: Sequence[Row]) -> list[str]:
    if not rows:
        raise ValueError("the table has no rows")
    columns = list(rows[0])
    odd = next((row for row in rows if list(row) != columns), None)
    if odd is not None:
        raise ValueError(f"a row has the columns {list(odd)}, the first one has {columns}")
    return columns


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.3g}"
    return str(cell)


def _flat(row: Row, rows: Sequence[Row]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for column, cell in row.items():
        flat[column] = _plain(cell.median if isinstance(cell, Spread) else cell)
        if any(isinstance(other[column], Spread) for other in rows):
            spread = cell if isinstance(cell, Spread) else None
            flat[f"{column}_q1"] = _plain(None if spread is None else spread.q1)
            flat[f"{column}_q3"] = _plain(None if spread is None else spread.q3)
    return flat


def _plain(cell: str | int | float | None) -> str:
    if cell is None:
        return ""
    return f"{cell:.5g}" if isinstance(cell, float) else str(cell)
