"""``hwsearch export``: ONNX files of the models of a run."""

from pathlib import Path

import click


@click.command(name="export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--trial",
    default="all",
    show_default=True,
    help="A trial's number, pick, all, or the name of a folder in models/.",
)
@click.option(
    "--dynamic-batch", is_flag=True, help="Leave the batch open; runtimes optimize for one of 1."
)
@click.option(
    "--bake-normalization",
    "bake",
    is_flag=True,
    help="Let the files normalize pictures themselves, so that they take 0 to 255.",
)
def command(run: Path, trial: str, dynamic_batch: bool, bake: bool) -> None:
    """Write the ONNX files of a run, and what goes with them.

    \b
    hwsearch export results/RUN
    hwsearch export results/RUN --trial pick --dynamic-batch
    """  # noqa: D301 - \b is click's mark for a paragraph that is not wrapped
    from hwsearch import api
    from hwsearch.cli.view import open_view

    with open_view() as view:
        files = api.export(run, trial, dynamic_batch=dynamic_batch, bake=bake, watcher=view)
    for file in files:
        click.echo(str(file))
