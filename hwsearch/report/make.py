"""The report of a run folder, made from its stored results alone."""

from pathlib import Path
from typing import Final

from hwsearch.report.markdown import render_markdown
from hwsearch.report.plot import write_plots
from hwsearch.report.stored import read_run, replace_file
from hwsearch.report.tables import FRONT_CSV, front_csv

REPORT_FILE: Final = "report.md"


def make_report(folder: Path) -> list[Path]:
    """Write ``front.csv``, ``report.md``, ``pareto.svg`` and ``pareto.png`` into a run folder.

    Each file replaces its older version at once. Nothing else in the folder is touched, and a
    run whose front is empty has a report, too.

    Returns:
        The paths of the files, in that order.

    Raises:
        RunError: a stored result is missing or invalid, or the folder cannot be written.
    """
    stored = read_run(folder)
    table, report = folder / FRONT_CSV, folder / REPORT_FILE
    replace_file(table, front_csv(stored.front).encode())
    replace_file(report, render_markdown(stored).encode())
    return [table, report, *write_plots(stored, folder)]
