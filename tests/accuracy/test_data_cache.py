"""Decoded pictures are kept once and whole, whoever writes, is killed or meddles."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hwsearch.accuracy.data.cache import cached, files_key
from hwsearch.errors import DataError

Tensors = dict[str, Tensor]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    root.mkdir()
    (root / "a.png").write_bytes(b"one")
    (root / "b.png").write_bytes(b"two")
    return root


def counting(value: int = 7) -> tuple[Callable[[], Tensors], list[int]]:
    calls: list[int] = []

    def make() -> Tensors:
        calls.append(value)
        images = torch.full((4, 3, 2, 2), value, dtype=torch.uint8)
        return {"images": images, "labels": torch.arange(4)}

    return make, calls


def test_second_reading_does_not_make_again_and_is_equal() -> None:
    make, calls = counting()
    first, second = cached("k", make), cached("k", make)
    assert len(calls) == 1
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])
        assert tensor.dtype == second[name].dtype


def test_other_key_is_made_apart() -> None:
    cached("k", counting(1)[0])
    assert int(cached("j", counting(2)[0])["images"][0, 0, 0, 0]) == 2
    assert int(cached("k", counting(3)[0])["images"][0, 0, 0, 0]) == 1


def test_nothing_but_the_file_remains(folder: Path) -> None:
    cached("k", counting()[0])
    assert [path.name for path in folder.iterdir()] == ["k.safetensors"]


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_truncated_file_is_made_again_with_a_note(
    folder: Path, caplog: pytest.LogCaptureFixture, keep: int
) -> None:
    make, calls = counting()
    cached("k", make)
    path = folder / "k.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with caplog.at_level(logging.WARNING):
        again = cached("k", make)
    assert len(calls) == 2
    assert (again["images"] == 7).all()
    assert "k.safetensors' is corrupt" in caplog.text
    assert "the pictures are decoded again" in caplog.text
    cached("k", make)
    assert len(calls) == 2


@pytest.mark.parametrize("position", [-1, -30])
def test_one_flipped_bit_is_noticed(
    folder: Path, caplog: pytest.LogCaptureFixture, position: int
) -> None:
    make, calls = counting()
    cached("k", make)
    path = folder / "k.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    assert (cached("k", make)["images"] == 7).all()
    assert len(calls) == 2
    assert "its checksum does not match" in caplog.text


def test_foreign_safetensors_file_is_not_believed(folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file({"images": torch.zeros(1)}, folder / "k.safetensors")
    assert (cached("k", counting()[0])["images"] == 7).all()


def test_failing_maker_leaves_nothing_behind(folder: Path) -> None:
    def make() -> Tensors:
        raise DataError("a broken picture")

    with pytest.raises(DataError, match="a broken picture"):
        cached("k", make)
    assert not folder.exists()


def test_cache_that_cannot_be_written_is_done_without(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    assert (cached("k", counting()[0])["images"] == 7).all()
    assert "will be decoded again next time" in caplog.text
    assert "set HWSEARCH_CACHE" in caplog.text


def test_leftovers_of_killed_writers_go_when_they_are_old(folder: Path) -> None:
    folder.mkdir(parents=True)
    old, fresh = folder / "x.1.tmp", folder / "x.2.tmp"
    old.touch()
    fresh.touch()
    os.utime(old, (0, 0))
    cached("k", counting()[0])
    assert not old.exists()
    assert fresh.exists()


def test_writers_at_once_never_give_a_mixture(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[int, int]] = []

    def work(value: int) -> None:
        for _ in range(40):
            images = cached("k", counting(value)[0])["images"]
            seen.append((int(images.min()), int(images.max())))
            (folder / "k.safetensors").unlink(missing_ok=True)

    with ThreadPoolExecutor(max_workers=3) as pool:
        for future in [pool.submit(work, value) for value in (1, 2, 3)]:
            future.result()
    assert len(seen) == 120
    assert all(low == high for low, high in seen)
    assert "corrupt" not in caplog.text
    assert list(folder.iterdir()) == []


def test_writer_that_is_killed_leaves_no_half_file(folder: Path) -> None:
    script = (
        "import os, torch; from hwsearch.accuracy.data import cache; "
        "cache.Path.replace = lambda self, target: os._exit(9); "
        "cache.cached('k', lambda: {'images': torch.zeros(3)})"
    )
    package = Path(__file__).resolve().parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(package)},
        check=False,
    )
    assert killed.returncode == 9
    assert not (folder / "k.safetensors").exists()
    assert (cached("k", counting()[0])["images"] == 7).all()


def test_key_is_stable_and_tells_conditions_apart(pictures: Path) -> None:
    names = ["a.png", "b.png"]
    key = files_key(pictures, names, px=32, decoder=1)
    assert key == files_key(pictures, names, decoder=1, px=32)
    others = {
        files_key(pictures, names, px=33, decoder=1),
        files_key(pictures, names, px=32, decoder=2),
        files_key(pictures, names[:1], px=32, decoder=1),
        files_key(pictures, names[::-1], px=32, decoder=1),
    }
    assert len(others | {key}) == 5


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
