"""``--ssh-option`` of the verbs that measure on another machine."""

import shlex
from collections.abc import Sequence

import click

ssh_option = click.option(
    "--ssh-option",
    "ssh_options",
    multiple=True,
    metavar="TEXT",
    callback=lambda _context, _parameter, values: _words(values),
    help="More arguments of ssh, such as '-i KEYFILE'; may be given again.",
)


def _words(values: Sequence[str]) -> tuple[str, ...]:
    """The arguments in all texts, as a shell parts them."""
    words: list[str] = []
    for value in values:
        try:
            words += shlex.split(value)
        except ValueError as error:
            raise click.BadParameter(
                f"{value!r} cannot be parted into words ({error}); close the quotes"
            ) from None
    return tuple(words)
