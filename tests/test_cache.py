"""What is kept in the cache is whole, whoever writes, is killed or meddles."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hwsearch.cache import CacheEntry, UnfitContentError, content_key
from hwsearch.errors import DataError, HostError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "words"


def entry(key: str = "k", decode: Callable[[bytes], str] = bytes.decode) -> CacheEntry[str]:
    return CacheEntry(
        kind="words", key=key, decode=decode, named="words", remade="the word is said again"
    )


def get(word: str, key: str = "k", **more: bool) -> str:
    return entry(key).get(lambda: word, str.encode, **more)


def test_get_when_it_is_there_does_not_make_again() -> None:
    assert [get("one"), get("two"), get("three", "j"), get("four")] == [
        "one",
        "one",
        "three",
        "one",
    ]


@pytest.mark.parametrize("damage", [slice(0), slice(5), slice(-1), "content", "digest", "foreign"])
def test_get_when_the_file_is_damaged_makes_it_again(
    damage: slice | str, caplog: pytest.LogCaptureFixture
) -> None:
    get("one")
    content = bytearray(entry().path.read_bytes())
    if isinstance(damage, slice):
        content = content[damage]
    elif damage == "foreign":
        content = bytearray(b"one")
    else:
        content[-1 if damage == "content" else 0] ^= 1
    entry().path.write_bytes(content)
    assert [get("two"), get("three")] == ["two", "two"]
    (warning,) = caplog.messages
    assert warning == (
        f"'{entry().path}' is corrupt (its checksum does not match); the word is said again"
    )


def test_read_when_the_content_fits_no_more_is_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_: bytes) -> str:
        raise UnfitContentError("another alphabet")

    get("one")
    assert entry(decode=refuse).read() is None
    assert "is corrupt (another alphabet); the word is said again" in caplog.text


def test_get_when_it_cannot_be_made_keeps_nothing() -> None:
    def fail() -> str:
        raise DataError("a broken picture")

    with pytest.raises(DataError, match="a broken picture"):
        entry().get(fail, str.encode)
    assert not entry().path.exists()
    assert get("one") == "one", "the lock is free again"


def test_get_when_the_folder_cannot_be_made(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    message = r"words cannot be kept in '.*words' \(.*\); free some .* set HWSEARCH_CACHE to"
    with pytest.raises(HostError, match=message):
        get("one")
    assert not caplog.messages
    assert [get(word, required=False) for word in ("one", "two")] == ["one", "two"]
    assert "HWSEARCH_CACHE to another folder; the word is said again next time" in caplog.text


def test_get_when_the_disk_is_full_is_one_line_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HostError, match="No space left on device") as caught:
        get("one")
    assert "\n" not in str(caught.value)
    assert get("one", required=False) == "one"
    assert {path.suffix for path in folder.iterdir()} <= {".lock"}


def test_write_when_a_writer_was_killed_removes_what_it_left(folder: Path) -> None:
    folder.mkdir(parents=True)
    own, foreign = folder / "k.x1.tmp", folder / "j.x1.tmp"
    for path in (own, foreign):
        path.touch()
    get("one")
    assert not own.exists()
    assert foreign.exists(), "of another writer, perhaps alive"


def test_get_when_several_want_it_is_made_once() -> None:
    made = []

    def make() -> str:
        made.append(1)
        time.sleep(0.1)
        return "one"

    with ThreadPoolExecutor(max_workers=3) as pool:
        found = [pool.submit(lambda: entry().get(make, str.encode)) for _ in range(3)]
    assert [one.result() for one in found] == ["one"] * 3
    assert len(made) == 1


def process(script: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    script = f"import os, time; from pathlib import Path; from test_cache import *; {script}"
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_get_when_a_process_was_killed_while_it_wrote(folder: Path) -> None:
    killed = process("Path.replace = lambda self, target: os._exit(9); get('half')")
    killed.communicate()
    assert killed.returncode == 9
    assert list(folder.glob("k.*.tmp"))
    assert get("one") == "one"
    assert not list(folder.glob("*.tmp"))


def test_locked_when_its_holder_is_killed_is_free() -> None:
    holder = process(
        "lock = entry().locked(); lock.__enter__(); print('held', flush=True); time.sleep(600)"
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = pool.submit(get, "one")
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        holder.kill()
        assert waiting.result() == "one"
    holder.communicate()


def test_content_key_tells_values_apart_and_not_their_order() -> None:
    assert content_key({"a": 1, "b": [2, 3]}) == content_key({"b": [2, 3], "a": 1})
    others = [{"a": 1, "b": [3, 2]}, {"a": 2, "b": [2, 3]}, {"a": "1", "b": [2, 3]}, ["a", "b"]]
    assert len({content_key(other) for other in others}) == 4
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_key(float("nan"))
