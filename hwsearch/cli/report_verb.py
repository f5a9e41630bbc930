"""``hwsearch report``: make a report again from stored results."""

from pathlib import Path

import click


@click.command(name="report")
@click.argument("run", type=click.Path(path_type=Path))
def command(run: Path) -> None:
    """Make the report of a run again from its stored results."""
    from rich.console import Console

    from hwsearch.report.make import make_report
    from hwsearch.report.stored import read_front
    from hwsearch.report.terminal import print_final

    make_report(run)
    print_final(read_front(run), Console(), run)
