"""``hwsearch run``: search, finalize, report."""

import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwsearch.errors import RunError

if TYPE_CHECKING:
    from hwsearch.api import Result
    from hwsearch.study.asked.effort import Effort


@click.command(name="run")
@click.option("--target", help="Hardware profile: a name, an alias or a file.")
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    help="Limit such as 10ms, 30fps, 50mJ or 4MB; may be given once for each quantity.",
)
@click.option(
    "--data",
    default="digits",
    show_default=True,
    help="digits, the name of a torchvision data set, or an image folder.",
)
@click.option("--space", default="tiny", show_default=True, help="Search space: a name or a file.")
@click.option("--trials", type=int, help="Number of trials.  [default: the space's]")
@click.option("--time-limit", help="Of the whole run, such as 20m; shared out over its phases.")
@click.option(
    "--effort",
    type=click.Choice(["quick", "standard", "thorough"]),
    help="How long networks are trained without a time limit.  [default: standard]",
)
@click.option("--dry-run", is_flag=True, help="Print what would be done, and what it would cost.")
@click.option(
    "--confidence",
    type=float,
    default=0.9,
    show_default=True,
    help="Probability with which a budget must hold.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the run.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Networks trained side by side; 1 gives the same run again.  [default: one for each core]",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Folder in which the run folder is made.",
)
@click.option(
    "--resume",
    "resume_folder",
    type=click.Path(path_type=Path),
    help="Continue the run in this folder.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of the space (backbones, input_px, ratios, weight_bits, ...), "
    "or objectives, weights, sampler, data_root, flip.",
)
@click.option("--download", is_flag=True, help="Allow downloads of data sets and weights.")
@click.option("--json", "as_json", is_flag=True, help="Print front.json on stdout.")
def command(
    target: str | None,
    budgets: tuple[str, ...],
    data: str,
    space: str,
    trials: int | None,
    time_limit: str | None,
    effort: "Effort | None",
    dry_run: bool,
    confidence: float,
    seed: int,
    workers: int | None,
    out: Path,
    resume_folder: Path | None,
    assignments: tuple[str, ...],
    download: bool,
    as_json: bool,
) -> None:
    """Search a target for networks within a budget, and report the front.

    \b
    hwsearch run --target jetson --budget 10ms
    hwsearch run --target jetson-nano --budget 8ms --data pictures/ --time-limit 20m
    """  # noqa: D301 - \b is click's mark for a paragraph that is not wrapped
    from hwsearch.report.stored import read_run_file
    from hwsearch.study.asked.preflight import check

    if resume_folder is not None:
        if target is not None or budgets:
            raise RunError("--resume takes target and budget from the folder; leave them out")
        if effort is not None or dry_run:
            raise RunError("--resume goes on as the run began; leave --effort and --dry-run out")
        if not resume_folder.is_dir():
            raise RunError(f"{resume_folder} is not a folder; give a run folder, as in results/")
        read_run_file(resume_folder)
    elif target is None:
        raise RunError("no --target was given; see hwsearch targets, or try --target jetson")
    _terminate_like_interrupt()

    # The checks come before torch is imported, which takes seconds.
    if resume_folder is None:
        assert target is not None
        checked = check(
            target=target, budgets=budgets, data=data, space=space, trials=trials,
            time_limit=time_limit, effort=effort, confidence=confidence, seed=seed,
            download=download, settings=_settings(assignments),
        )  # fmt: skip

    from hwsearch import api
    from hwsearch.cli.view import open_view

    if dry_run:
        click.echo(api.dry_run(checked))
        return
    with open_view() as view:
        if resume_folder is not None:
            result = api.resume(
                resume_folder, trials=trials, time_limit=time_limit, workers=workers, watcher=view
            )
        else:
            if checked.settings.alias is not None:
                view.note(f"'{checked.settings.alias}' means {checked.profile.name}")
            folder = api.new_folder(checked, out)
            typed = shlex.join(["hwsearch", *sys.argv[1:]])
            result = api.run(checked, folder, command=typed, workers=workers, watcher=view)
    _print(result, as_json=as_json)


def _print(result: "Result", *, as_json: bool) -> None:
    if as_json:
        click.echo((result.folder / "front.json").read_text(encoding="utf-8"), nl=False)
        return
    from rich.console import Console

    from hwsearch.report.terminal import print_final

    print_final(result.front, Console(), result.folder)


def _settings(assignments: tuple[str, ...]) -> dict[str, str]:
    settings = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key or not value:
            raise RunError(f"--set {assignment} is not KEY=VALUE, as in --set input_px=32,48")
        if key in settings:
            raise RunError(f"--set {key} is given twice; keep one")
        settings[key] = value
    return settings


def _terminate_like_interrupt() -> None:
    """A polite kill leaves a resumable run, as Ctrl-C does."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
