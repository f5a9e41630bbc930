from pathlib import Path

import pytest
from filelock import FileLock

from hwsearch.errors import RunError, RunLockedError
from hwsearch.study.written.folder_lock import locked


def test_folder_when_held_is_refused(tmp_path: Path) -> None:
    held = FileLock(tmp_path / ".lock")
    with (
        held,
        pytest.raises(RunLockedError, match=r"another process works on .*; wait for it"),
        locked(tmp_path),
    ):
        raise AssertionError
    with locked(tmp_path):
        pass


def test_folder_when_left_by_an_error_is_free_again(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


def test_folder_when_it_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(RunError, match=r"cannot be written .* give another --out"),
        locked(tmp_path),
    ):
        raise AssertionError
