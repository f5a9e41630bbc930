import click
import pytest
from click.testing import CliRunner

from hwsearch.cli.ssh_option import ssh_option


@click.command()
@ssh_option
def show(ssh_options: tuple[str, ...]) -> None:
    click.echo("|".join(ssh_options))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], ""),
        (["-i KEY"], "-i|KEY"),
        (["-i 'MY KEY'", "-v"], "-i|MY KEY|-v"),
        (["-i", "KEY", "-o A=b -o C=d"], "-i|KEY|-o|A=b|-o|C=d"),
    ],
)
def test_texts_are_parted_and_all_kept(given: list[str], words: str) -> None:
    ended = CliRunner().invoke(show, [f"--ssh-option={text}" for text in given])
    assert ended.output == words + "\n"


def test_open_quotes_are_refused() -> None:
    ended = CliRunner().invoke(show, ["--ssh-option=-i 'KEY"])
    assert ended.exit_code == 2
    assert "cannot be parted into words (No closing quotation); close the quotes" in ended.output
