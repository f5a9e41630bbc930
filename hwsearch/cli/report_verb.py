"""``hwsearch report``: make a report again from stored results, or for another target."""

from pathlib import Path

import click

from hwsearch.errors import NothingFitsError, RunError


@click.command(name="report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--target", help="Price the trials of the run for this one: a profile's name, alias or file."
)
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    help="With --target: limit such as 10ms.  [default: the budgets of the run]",
)
@click.option("--json", "as_json", is_flag=True, help="Print front.json on stdout.")
def command(run: Path, target: str | None, budgets: tuple[str, ...], as_json: bool) -> None:
    """Make the report of a run again from its stored results, or for another target.

    \b
    hwsearch report results/RUN
    hwsearch report results/RUN --target jetson-nano --budget 20ms
    """  # noqa: D301 - \b is click's mark for a paragraph that is not wrapped
    from hwsearch.report.stored import read_front

    if target is None:
        if budgets:
            raise RunError("--budget goes with --target; the report of a run keeps its budgets")
        from hwsearch.report.make import make_report

        make_report(run)
        folder, front = run, read_front(run)
    else:
        from hwsearch import api

        result = api.reprice(run, target=target, budget=budgets)
        folder, front = result.folder, result.front
    if as_json:
        click.echo((folder / "front.json").read_text(encoding="utf-8"), nl=False)
    else:
        from rich.console import Console

        from hwsearch.report.terminal import print_final

        print_final(front, Console(), folder)
    if target is not None and not front.front and front.picked_baseline is None:
        raise NothingFitsError(f"no network of {run} meets the budget on {front.target}")
