"""README and docs say what the tool does; these hold them to that."""

import inspect
import re
from pathlib import Path

import click
from click.testing import CliRunner

import hwsearch.errors
from hwsearch.cli.main import cli
from hwsearch.cli.run_verb import command as run_command
from hwsearch.errors import HwsearchError

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").rglob("*.md"))
#: All that is said to users.
TOLD = "\n".join([README, *(page.read_text(encoding="utf-8") for page in PAGES)])


def options_of(words: list[str]) -> set[str]:
    """The options of a verb, and of what is below it, as in ``profile fit``."""
    command: click.Command = cli
    for word in words:
        if not isinstance(command, click.Group):
            break
        found = command.get_command(click.Context(command), word)
        if found is None:
            break
        command = found
    return {name for option in command.params for name in option.opts}


def test_readme_is_short_and_the_rest_is_in_docs() -> None:
    assert len(README.splitlines()) <= 160
    assert len(PAGES) > 8


def test_every_option_in_a_command_is_one_of_its_verb() -> None:
    lines = re.findall(r"^    hwsearch (.*)$", TOLD, re.M)
    assert len(lines) > 20
    for line in lines:
        used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", line))
        unknown = used - options_of(line.split())
        assert not unknown, f"'{line}' has options that are not there: {sorted(unknown)}"


def test_every_other_option_exists() -> None:
    known = {"--trial", "--on", "--target"}
    known |= {name for option in run_command.params for name in option.opts}
    others = r"^    [^\n]*$|^```[a-z]*\n.*?^```$|`python benchmarks[^`]*`|^\|[-| ]*\|$"
    prose = re.sub(others, "", TOLD, flags=re.M | re.S)
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", prose))
    assert len(used) > 5, "the pages explain options"
    assert used <= known, f"options that are not there are named: {sorted(used - known)}"


def test_every_verb_exists() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output
    verbs = set(re.findall(r"hwsearch ([a-z]+)\b", "\n".join(re.findall(r"^    .*$", TOLD, re.M))))
    assert {"run", "targets", "spaces"} <= verbs
    for verb in verbs:
        assert re.search(rf"^  {verb}\b", shown, flags=re.M), verb


def test_every_settings_key_is_accepted() -> None:
    keys = set(re.findall(r"--set ([a-z_]+)=", TOLD))
    assert keys == {"backbones", "data_root", "flip", "objectives", "sampler"}


def test_exit_codes_of_readme_are_those_of_the_errors() -> None:
    line = " ".join(README.split("Exit codes")[1][:420].split())
    told = {int(code) for code in re.findall(r"(?:; |: )(\d+) [a-z]", line)}
    errors = [
        error
        for _, error in inspect.getmembers(hwsearch.errors, inspect.isclass)
        if issubclass(error, HwsearchError)
    ]
    assert told == {0, *(error.exit_code for error in errors)}


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *PAGES):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_a_space_opens_with_the_command_that_uses_it() -> None:
    files = sorted((ROOT / "search_spaces").glob("*.yaml"))
    assert len(files) >= 3
    for file in files:
        first = file.read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith("# hwsearch run --target "), file
        assert file.stem == "tiny" or f"--space {file.stem}" in first, file
