"""The command ``hwsearch``: verbs are imported when they are called, so ``--help`` is instant."""

import importlib
import sys
from typing import Final

import click

from hwsearch import __version__
from hwsearch.errors import HwsearchError

#: Each verb with its line in ``--help``; the module of the same name holds the command.
_VERBS: Final = {
    "run": "Search a target for networks within a budget, and report the front.",
    "report": "Make the report of a run again from its stored results.",
    "targets": "List the hardware profiles.",
    "spaces": "List the search spaces.",
    "profile": "Show or check a hardware profile.",
}


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
    try:
        cli.main(standalone_mode=False)
    except HwsearchError as error:
        click.echo(f"hwsearch: {error}", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except click.ClickException as error:
        click.echo(f"hwsearch: {error.format_message()}", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("hwsearch: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
