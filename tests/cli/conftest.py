"""The command as a user starts it, with its own configuration and cache."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from own_place import Finished, Hwsearch, command_line, environment, fill, run_there

from hwsearch.cli.main import main


@pytest.fixture
def hwsearch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Hwsearch:
    """Runs the command in the test's folder, in this process: a new one takes most of a second."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GOMP_SPINCOUNT", "10000")  # the command sets it, which outlives the test

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        monkeypatch.setattr(sys, "argv", ["hwsearch", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        shown = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, shown.out, shown.err)

    return run


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    return fill(tmp_path)


@pytest.fixture
def command() -> Callable[..., list[str]]:
    return command_line


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A place with a finished run in results/, and how the command that made it ended."""
    place = fill(tmp_path_factory.mktemp("finished"))
    options = "run --target jetson --budget 50ms --data pictures --space own.yaml --json"
    return place, run_there(place, *options.split())


@pytest.fixture
def there() -> Hwsearch:
    """Runs the command in a folder that is given first, in a process of its own.

    ``torch=False`` makes importing torch an error there.
    """
    return run_there


@pytest.fixture
def finished_copy(finished: Finished, tmp_path: Path) -> tuple[Path, Path]:
    """A place with a copy of the finished run, to be changed, and the folder of that run."""
    place = Path(shutil.copytree(finished[0], tmp_path / "place"))
    [folder] = (place / "results").iterdir()
    return place, folder
