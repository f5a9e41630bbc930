import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from hwsearch.cli.main import _VERBS, cli, main


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
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


def test_commands_and_options_when_shown_have_a_help_text() -> None:
    def below(command: click.Command, name: str) -> None:
        assert command.help, name
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, parameter.name
        if isinstance(command, click.Group):
            context = click.Context(command)
            for each in command.list_commands(context):
                found = command.get_command(context, each)
                assert found is not None
                below(found, each)

    below(cli, "hwsearch")
    commands = CliRunner().invoke(cli, ["--help"]).output.partition("Commands:")[2]
    assert commands
    assert "..." not in commands, "no line is cut"


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
