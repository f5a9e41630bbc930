import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from hwsearch import __version__
from hwsearch.cli.main import _VERBS, cli, main

Hwsearch = Callable[..., "subprocess.CompletedProcess[str]"]


def verb(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]])
def test_help_when_asked_imports_nothing_slow(
    arguments: list[str], surroundings: dict[str, str], tmp_path: Path
) -> None:
    script = (
        "import sys\n"
        "from hwsearch.cli.main import main\n"
        "main()\n"
        "slow = {'torch', 'timm', 'pydantic', 'rich', 'optuna', 'sklearn', 'matplotlib', 'numpy'}\n"
        "sys.exit(', '.join(sorted(slow & set(sys.modules))) or 0)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=surroundings,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "hwsearch" in ended.stdout


def test_verbs_when_listed_are_those_of_the_modules() -> None:
    folder = Path(sys.modules["hwsearch.cli.main"].__file__ or "").parent
    assert {f"{name}_verb" for name in _VERBS} == {path.stem for path in folder.glob("*_verb.py")}


@pytest.mark.parametrize("name", list(_VERBS))
def test_verb_when_asked_for_help_says_what_it_does(name: str) -> None:
    ended = CliRunner().invoke(cli, [name, "--help"], prog_name="hwsearch")
    assert ended.exit_code == 0
    assert f"Usage: hwsearch {name}" in ended.output
    assert (verb(name).help or "").strip().split("\n")[0] in ended.output


@pytest.mark.parametrize("name", list(_VERBS))
def test_option_when_shown_has_a_help_text(name: str) -> None:
    command = verb(name)
    commands = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    for one in commands:
        assert one.help
        for parameter in one.params:
            assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


@pytest.mark.parametrize("arguments", [["--help"], ["profile", "--help"]])
def test_help_when_listing_commands_cuts_no_line(arguments: list[str]) -> None:
    commands = CliRunner().invoke(cli, arguments).output.partition("Commands:")[2]
    assert commands
    assert "..." not in commands


def test_overview_when_printed_lists_every_verb_with_its_line() -> None:
    output = CliRunner().invoke(cli, ["--help"]).output
    for name, line in _VERBS.items():
        assert any(row.split() == [name, *line.split()] for row in output.splitlines())
    assert "hwsearch run --target jetson --budget 10ms" in output


def test_version_when_asked_is_the_package_s() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"hwsearch, version {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["profile"]])
def test_command_when_incomplete_prints_help(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hwsearch", *arguments])
    main()
    assert capsys.readouterr().out.startswith("Usage: hwsearch")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, click.Abort])
def test_main_when_interrupted_exits_with_130(
    stop: type[BaseException], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(**_options: object) -> None:
        raise stop

    monkeypatch.setattr(cli, "main", stopped)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err.strip() == "hwsearch: interrupted"


def test_output_when_its_reader_is_gone_ends_quietly(
    command: Callable[..., list[str]], surroundings: dict[str, str], tmp_path: Path
) -> None:
    process = subprocess.Popen(
        command("targets", "--json", torch=False),
        env=surroundings,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == b""
    assert process.wait() == 141


@pytest.mark.parametrize(
    ("given", "spins"),
    [
        ({}, "10000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
    ],
)
def test_waiting_threads_when_nobody_says_otherwise_leave_the_core_soon(
    given: dict[str, str], spins: str | None, surroundings: dict[str, str], tmp_path: Path
) -> None:
    script = (
        "import os, sys\n"
        "from hwsearch.cli.main import main\n"
        "main()\n"
        "print(os.environ.get('GOMP_SPINCOUNT'))\n"
    )
    plain = {k: v for k, v in surroundings.items() if not k.startswith(("GOMP_", "OMP_"))}
    ended = subprocess.run(
        [sys.executable, "-c", script, "--version"],
        env=plain | given,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines()[-1] == str(spins)
