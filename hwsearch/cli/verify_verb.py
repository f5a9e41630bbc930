"""``hwsearch verify``: what the files of a run reach, and the front that follows."""

from pathlib import Path

import click

from hwsearch.cli.ssh_option import ssh_option
from hwsearch.errors import RunError


@click.command(name="verify")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--on", help="Time the files too: on host, or on ssh://[user@]host[:port].")
@click.option(
    "--threads", type=int, default=1, show_default=True, help="Of one inference, when timed."
)
@click.option("--python", help="The interpreter there.  [default: this one; python3 over ssh]")
@ssh_option
@click.option(
    "--trtexec",
    "log",
    type=click.Path(path_type=Path),
    help="Take the latency of one model from this log of build_tensorrt.sh instead.",
)
@click.option("--trial", help="Whose log it is.  [default: the model in whose folder it lies]")
@click.option("--json", "as_json", is_flag=True, help="Print front.json on stdout.")
def command(
    run: Path,
    on: str | None,
    threads: int,
    python: str | None,
    ssh_options: tuple[str, ...],
    log: Path | None,
    trial: str | None,
    as_json: bool,
) -> None:
    """Score and time the files of a run again, and make its front anew.

    \b
    hwsearch verify results/RUN --on host
    hwsearch verify results/RUN --on ssh://user@board
    hwsearch verify results/RUN --trtexec results/RUN/models/trial_0007/trtexec.log
    """  # noqa: D301 - \b is click's mark for a paragraph that is not wrapped
    if log is not None and on is not None:
        raise RunError("--trtexec takes times from a log and --on measures them; give one of them")
    if log is None and trial is not None:
        raise RunError("--trial goes with --trtexec; without it every model is verified")
    from hwsearch import api
    from hwsearch.cli.view import open_view

    with open_view() as view:
        if log is not None:
            front = api.verify_log(run, log, trial, watcher=view).front
        else:
            front = api.verify(
                run, on=on, threads=threads, python=python, ssh_options=ssh_options, watcher=view
            ).front
    if as_json:
        click.echo((run / "front.json").read_text(encoding="utf-8"), nl=False)
        return
    from rich.console import Console

    from hwsearch.report.terminal import print_final

    print_final(front, Console(), run)
