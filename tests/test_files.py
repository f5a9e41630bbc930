import os
import re
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from hwsearch import files
from hwsearch.errors import FileModelError, HostError
from hwsearch.files import (
    cache_folder,
    config_folder,
    named_files,
    nearest,
    packaged_folder,
    read_model,
    write_atomically,
)


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(gt=0)


class Whole(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    parts: list[Part] = []

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 5:
            raise ValueError("Names have at most 5 letters")
        return name


def read(folder: Path, text: str | bytes) -> Whole:
    path = folder / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_model(path, Whole)


def mistakes(folder: Path, text: str | bytes) -> list[str]:
    """The lines of the message, without the folder."""
    with pytest.raises(FileModelError) as caught:
        read(folder, text)
    return [line.replace(f"{folder}/", "") for line in str(caught.value).splitlines()]


def test_read_model_when_good(tmp_path: Path) -> None:
    found = read(tmp_path, "# a file\nname: one\nparts: [{width: 3}, {width: 4}]\n")
    assert found == Whole(name="one", parts=[Part(width=3), Part(width=4)])


def test_read_model_when_mappings_are_merged(tmp_path: Path) -> None:
    text = "name: one\nparts:\n- &p {width: 3}\n- {<<: *p}\n- {<<: *p, width: 5}\n"
    assert [part.width for part in read(tmp_path, text).parts] == [3, 3, 5]


def test_read_model_when_several_mistakes_lists_all(tmp_path: Path) -> None:
    text = "name: much too long\nparts:\n  - width: -1\n  - wide: 3\nsise: 4\n"
    assert mistakes(tmp_path, text) == [
        "file.yaml:1: name: names have at most 5 letters",
        "file.yaml:3: parts.0.width: input should be greater than 0",
        "file.yaml:4: parts.1.wide: unknown key",
        "file.yaml:4: parts.1.width: missing",
        "file.yaml:5: sise: unknown key",
    ]


def test_read_model_when_keys_repeat(tmp_path: Path) -> None:
    text = "name: one\nname: two\nparts:\n  - width: 1\n    width: 2\n"
    assert mistakes(tmp_path, text) == [
        "file.yaml:2: name: given twice; keep one of them",
        "file.yaml:5: width: given twice; keep one of them",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [1, 2\nparts: 3\n", r"file.yaml:\d: "),
        ("name: one\n\tparts: 3\n", r"file.yaml:2: "),
        ("name: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("name: one\n---\nname: two\n", "expected a single document|but found another document"),
        ("name: 2024-13-45\n", "not YAML that can be read"),
        ("? [a, b]\n: 3\n", "unhashable key"),
        ("name: *nowhere\n", "undefined alias"),
        ("name: \x01\n", "file.yaml:1: "),
        ("", "the file must hold keys with values"),
        ("- 1\n- 2\n", "the file must hold keys with values"),
        ("only words\n", "the file must hold keys with values"),
        (b"name: \xff\xfe\n", "file.yaml:1: not UTF-8 text"),
        (b"name: " + b"x" * 1_000_001, r"1000007 bytes is more than a page"),
    ],
)
def test_read_model_when_not_a_mapping_in_yaml(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    (found,) = mistakes(tmp_path, text)
    assert re.search(message, found), found


def test_read_model_when_a_list_holds_itself(tmp_path: Path) -> None:
    (found,) = mistakes(tmp_path, "name: one\nparts: &a [*a]\n")
    assert "not YAML that can be read" in found


def test_read_model_when_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileModelError, match=r"gone.yaml: cannot be read \(No such file"):
        read_model(tmp_path / "gone.yaml", Whole)


def test_named_files_when_names_repeat_the_nearest_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HWSEARCH_CONFIG", str(tmp_path / "config"))
    packaged = packaged_folder("search_spaces")
    assert named_files("search_spaces")["tiny"] == packaged / "tiny.yaml"
    here, config = tmp_path / "search_spaces", tmp_path / "config" / "search_spaces"
    for folder, names in ((config, ("tiny", "mine")), (here, ("mine",))):
        folder.mkdir(parents=True)
        for name in names:
            (folder / f"{name}.yaml").write_text("")
    (here / "notes.txt").write_text("")
    found = named_files("search_spaces")
    assert found["tiny"] == config / "tiny.yaml"
    assert found["mine"] == here / "mine.yaml"
    assert found["edge"] == packaged / "edge.yaml"
    assert "notes" not in found
    assert list(found) == sorted(found)


def test_folders_when_set_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWSEARCH_CONFIG", str(tmp_path / "a"))
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "b"))
    assert (config_folder(), cache_folder()) == (tmp_path / "a", tmp_path / "b")
    monkeypatch.setenv("HWSEARCH_CONFIG", "")
    monkeypatch.delenv("HWSEARCH_CACHE")
    assert config_folder().name == cache_folder().name == "hwsearch"


def test_packaged_folder_when_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "__file__", str(tmp_path / "hwsearch" / "files.py"))
    with pytest.raises(HostError, match="lacks its folder 'hw_profiles'; install hwsearch again"):
        packaged_folder("hw_profiles")


@pytest.mark.parametrize(
    ("word", "hint"),
    [("jetson-nan", " Did you mean 'jetson-nano'?"), ("xyz", ""), ("", "")],
)
def test_nearest_when_a_name_is_mistyped(word: str, hint: str) -> None:
    assert nearest(word, ["jetson-nano", "jetson-tx2"]) == hint
    assert nearest(word, {"jetson-nano": 1, "jetson-tx2": 2}) == hint


def test_write_atomically_replaces_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"o", b"ld")
    monkeypatch.setattr(os, "fsync", lambda _descriptor: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, b"new")
    assert [(one, one.read_bytes()) for one in tmp_path.iterdir()] == [(path, b"old")]
