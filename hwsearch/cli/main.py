"""The command ``hwsearch``: verbs are imported when they are called, so ``--help`` is instant."""

import importlib
import os
import sys
from typing import Final

import click

from hwsearch import __version__
from hwsearch.errors import HwsearchError

#: Each verb with its line in ``--help``; the module of the same name holds the command.
_VERBS: Final = {
    "run": "Search a target for networks within a budget, and report the front.",
    "predict": "Predict what a network costs on a target, and where the time goes.",
    "export": "Write the ONNX files of a run, and what goes with them.",
    "verify": "Score and time the files of a run again, and make its front anew.",
    "report": "Make the report of a run again, or for another target.",
    "targets": "List the hardware profiles.",
    "spaces": "List the search spaces.",
    "profile": "Show or check a hardware profile, or make one from measurements.",
    "doctor": "Say what this machine has and what it lacks.",
}


#: What a shell reports of a program that SIGPIPE ended.
_PIPE_CLOSED: Final = 141

#: How long a thread of torch spins before it sleeps while another one works. The default of
#: libgomp suits idle machines: beside two programs that are pinned to one of two cores a training
#: step took 105 times as long as alone, with this 7 times; and 5 % longer where nothing else runs
#: (benchmarks/busy_machine.py, 2026-11-27).
_SPIN_COUNT: Final = "10000"


class _Verbs(click.Group):
    """A group that knows its verbs without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command = importlib.import_module(f"hwsearch.cli.{cmd_name}_verb").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _VERBS:
            from hwsearch.files import nearest

            hint = nearest(args[0], list(_VERBS))
            ctx.fail(f"there is no verb '{args[0]}'.{hint} Verbs are {', '.join(_VERBS)}.")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # As in `hwsearch targets | head -1`. click would exit with 1, which here means that
            # nothing fits; and Python would complain when it flushes what is left.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(_PIPE_CLOSED)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hwsearch")
def cli() -> None:
    """Find the deployable neural networks for a device.

    \b
    hwsearch run --target jetson --budget 10ms
    """  # noqa: D301 - \b is click's mark for a paragraph that is not wrapped


def main() -> None:
    """Run the command line; errors that a user can cause are one line and an exit code."""
    _share_cores()
    try:
        cli.main(prog_name="hwsearch", standalone_mode=False)
    except HwsearchError as error:
        click.echo(f"hwsearch: {error}", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except click.UsageError as error:
        verb = "hwsearch" if error.ctx is None else error.ctx.command_path
        click.echo(f"hwsearch: {error.format_message()} See {verb} --help.", err=True)
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"hwsearch: {error.format_message()}", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("hwsearch: interrupted", err=True)
        sys.exit(130)


def _share_cores() -> None:
    """Let torch get along with other programs; libgomp reads this when torch is imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
