"""README and docs say what the tool does; these hold them to that."""

import inspect
import re
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import hwsearch.errors
from hwsearch.cli.main import cli
from hwsearch.cli.run_verb import command as run_command
from hwsearch.errors import HwsearchError
from hwsearch.hardware.targets import resolve
from hwsearch.space.search_space import load_space

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").rglob("*.md"))
#: All that is said to users.
TOLD = "\n".join([README, *(page.read_text(encoding="utf-8") for page in PAGES)])


def code_blocks() -> list[str]:
    """Fenced blocks without a language: set-up commands and printed output."""
    return re.findall(r"^```\n(.*?)^```$", README, flags=re.M | re.S)


def test_readme_has_exactly_two_set_up_commands() -> None:
    commands = [block for block in code_blocks() if "pip install" in block]
    assert len(commands) == 2
    assert all(block.count("\n") == 1 for block in commands), "each is one line"
    assert ".venv/bin/hwsearch run --target jetson --budget 10ms" in commands[0]
    assert commands[1].rstrip().endswith(".venv/bin/pytest")


@pytest.mark.parametrize("command", [b for b in code_blocks() if "pip install" in b])
def test_set_up_command_when_read_by_a_shell_is_well_formed(command: str) -> None:
    subprocess.run(["bash", "-n", "-c", command], check=True)


def test_ci_runs_the_test_command_of_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for part in ("-m venv .venv", ".venv/bin/pip install", "'.[test]'", ".venv/bin/pytest"):
        assert part in script
        assert part in README


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


def test_the_alias_of_readme_means_the_orin_nano() -> None:
    assert resolve("jetson") == ("jetson-orin-nano", True)
    assert resolve("jetson-nano") == ("jetson-nano", False)


def test_the_output_of_readme_is_of_the_default_space() -> None:
    output = next(block for block in code_blocks() if "Pick:" in block)
    names = {backbone.name for backbone in load_space("tiny").backbones}
    shown = {word for line in output.splitlines() for word in line.split()[:1]} & names
    assert len(shown) >= 2, "the front shows at least two backbones"
    assert "dense-fp32" in output
    assert "uniform-int8" in output
    assert "not measured" in output


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
