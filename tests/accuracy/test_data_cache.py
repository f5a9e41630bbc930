import os
import shutil
from pathlib import Path

import pytest
import torch

from hwsearch.accuracy.data.cache import cached, files_key
from hwsearch.errors import DataError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    root.mkdir()
    (root / "a.png").write_bytes(b"one")
    (root / "b.png").write_bytes(b"two")
    return root


def test_cached_tensors_are_read_as_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    made = {"images": torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2), "labels": torch.ones(2)}
    assert cached("k", lambda: made) is made
    read = cached("k", lambda: pytest.fail("made again"))
    assert read.keys() == made.keys()
    for name, tensor in made.items():
        assert torch.equal(tensor, read[name])
        assert tensor.dtype == read[name].dtype


def test_cached_when_it_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").touch()
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    made = {"images": torch.ones(1)}
    assert cached("k", lambda: made) is made
    assert "decoded pictures cannot be kept in" in caplog.text


def test_key_is_stable_and_tells_conditions_apart(pictures: Path) -> None:
    names = ["a.png", "b.png"]
    key = files_key(pictures, names, px=32, decoder=1)
    assert key == files_key(pictures, names, decoder=1, px=32)
    others = {
        files_key(pictures, names, px=33, decoder=1),
        files_key(pictures, names, px=32, decoder=2),
        files_key(pictures, names[:1], px=32, decoder=1),
        files_key(pictures, names[::-1], px=32, decoder=1),
        files_key(shutil.copytree(pictures, pictures.parent / "copy"), names, px=32, decoder=1),
    }
    assert len(others | {key}) == 6


def test_key_changes_when_a_file_changes(pictures: Path) -> None:
    key = files_key(pictures, ["a.png"], px=32)
    state = (pictures / "a.png").stat()
    (pictures / "a.png").write_bytes(b"longer")
    os.utime(pictures / "a.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    longer = files_key(pictures, ["a.png"], px=32)
    (pictures / "a.png").write_bytes(b"two")
    os.utime(pictures / "a.png", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    later = files_key(pictures, ["a.png"], px=32)
    assert len({key, longer, later}) == 3


def test_key_does_not_depend_on_how_the_folder_is_written(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = files_key(pictures, ["a.png"], px=32)
    monkeypatch.chdir(pictures.parent)
    assert files_key(Path("pictures"), ["a.png"], px=32) == key


def test_link_that_leads_nowhere_is_named(pictures: Path) -> None:
    (pictures / "c.png").symlink_to(pictures / "gone.png")
    with pytest.raises(DataError, match=r"c\.png' cannot be read .*; remove or replace it"):
        files_key(pictures, ["c.png"], px=32)
