"""Which layouts are understood, and what is said about the others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwsearch.accuracy.data.folders import find_layout
from hwsearch.accuracy.data.splits import Part
from hwsearch.errors import DataError


def fill(root: Path, classes: dict[str, int], suffix: str = "png") -> Path:
    """Empty files do: this room does not open pictures."""
    for name, count in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            (root / name / f"{n}.{suffix}").touch()
    return root


def labels(root: Path, part: Part) -> list[tuple[str, int]]:
    return [(file.path, file.label) for file in find_layout(root).parts[part]]


def test_one_folder_of_classes_has_no_split(tmp_path: Path) -> None:
    fill(tmp_path, {"dog": 3, "cat": 4})
    layout = find_layout(tmp_path)
    assert layout.class_names == ("cat", "dog")
    assert list(layout.parts) == ["all"]
    assert [file.label for file in layout.parts["all"]] == [0] * 4 + [1] * 3
    assert labels(tmp_path, "all")[0] == ("cat/0.png", 0)


@pytest.mark.parametrize("held_out", ["test", "val", "Test", "validation", "valid"])
def test_lone_held_out_folder_is_the_test_split(tmp_path: Path, held_out: str) -> None:
    fill(tmp_path / "train", {"a": 2, "b": 2})
    fill(tmp_path / held_out, {"a": 1, "b": 1})
    layout = find_layout(tmp_path)
    assert set(layout.parts) == {"train", "test"}
    assert layout.held_out == held_out
    assert labels(tmp_path, "test") == [(f"{held_out}/a/0.png", 0), (f"{held_out}/b/0.png", 1)]


@pytest.mark.parametrize(
    "suffix", ["jpg", "JPG", "jpeg", "png", "bmp", "webp", "gif", "tif", "tiff", "ppm", "PnG"]
)
def test_pictures_are_known_by_extension(tmp_path: Path, suffix: str) -> None:
    fill(tmp_path, {"a": 3, "b": 3}, suffix)
    assert len(labels(tmp_path, "all")) == 6


def test_other_files_are_counted_and_hidden_ones_are_not(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3, "b": 3})
    for name in ("notes.txt", "Thumbs.db", "noextension", ".DS_Store", "._0.png"):
        (tmp_path / "a" / name).touch()
    (tmp_path / "readme.md").touch()
    (tmp_path / ".git").mkdir()
    layout = find_layout(tmp_path)
    assert layout.class_names == ("a", "b")
    assert layout.ignored_files == 3
    assert len(layout.parts["all"]) == 6


def test_folders_inside_a_class_belong_to_it(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 2, "b": 3, "a/more": 2, "a/.hidden": 5})
    assert [path for path, label in labels(tmp_path, "all") if label == 0] == [
        "a/0.png",
        "a/1.png",
        "a/more/0.png",
        "a/more/1.png",
    ]


def test_links_to_folders_do_not_loop(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    layout = find_layout(tmp_path)
    assert len(layout.parts["all"]) == 6
    assert layout.ignored_files == 1


def test_class_folder_may_be_a_link(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", {"b": 3})
    fill(tmp_path / "data", {"a": 3})
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere" / "b")
    assert find_layout(tmp_path / "data").class_names == ("a", "b")


def test_order_does_not_depend_on_the_disk(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.png", "b/1.png", "a/10.png", "a/2.png", "b/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    paths = [path for path, _ in labels(tmp_path, "all")]
    assert paths == ["a/1.png", "a/10.png", "a/2.png", "b/1.png", "b/2.png", "b/3.png"]


PAIR = {"a": 3, "b": 3}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"train": PAIR}, "has train/ but neither test/ nor val/; add one of them"),
        ({"val": PAIR, "test": PAIR}, "has test/ and val/ but no train/; add it"),
        ({"train": PAIR, "val": PAIR, "valid": PAIR}, "has both val/ and valid/ for validation; k"),
        ({".": PAIR | {"c": 0}}, r"class folder '.*/c' holds no pictures; add some \(jpg, png"),
        ({"train": PAIR, "test": {"a": 3, "b": 0}}, r"'.*/test/b' holds no pictures"),
        ({".": {"a": 3, "b": 2}}, r"class 'b' has 2 pictures in '.*'; at least 3 are needed \(one"),
        ({"train": {"a": 2, "b": 1}, "test": PAIR}, "class 'b' has 1 picture in train of '.*'; at"),
        ({".": {"a": 5}}, "has 1 class folder; at least 2 are needed"),
        ({}, "has 0 class folders; at least 2 are needed"),
        ({".": {".": 1}}, "has 0 class folders but loose pictures; .* put the pictures of each"),
    ],
)
def test_folders_that_are_no_data_set_are_refused(
    tmp_path: Path, folders: dict[str, dict[str, int]], message: str
) -> None:
    for name, classes in folders.items():
        fill(tmp_path / name, classes)
    with pytest.raises(DataError, match=message):
        find_layout(tmp_path)


def test_class_folder_of_other_files_is_named_with_their_count(tmp_path: Path) -> None:
    fill(fill(tmp_path, PAIR), {"c": 2}, "npy")
    with pytest.raises(DataError, match=r"/c' holds no pictures \(2 other files\); add some"):
        find_layout(tmp_path)


@pytest.mark.parametrize(("missing_in", "there"), [("test", "train"), ("train", "test")])
def test_different_classes_in_train_and_test_are_refused(
    tmp_path: Path, missing_in: str, there: str
) -> None:
    fill(tmp_path / there, {"a": 2, "b": 2, "c": 2, "d": 2})
    fill(tmp_path / missing_in, {"a": 2, "b": 2})
    with pytest.raises(DataError) as caught:
        find_layout(tmp_path)
    assert str(caught.value) == (
        f"class folder 'c' is in '{tmp_path / there}' but not in '{tmp_path / missing_in}' "
        "(and 1 more); both need the same class folders"
    )


@pytest.mark.parametrize(
    ("name", "message"), [("a.zip", "is not a folder; give"), ("nowhere", "does not exist; give a")]
)
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "a.zip").touch()
    with pytest.raises(DataError, match=message):
        find_layout(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_without_permission_is_named(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "b").chmod(0)
    try:
        with pytest.raises(DataError, match=r"folder '.*/b' cannot be read \(Permission denied\)"):
            find_layout(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)


def test_check_imports_neither_torch_nor_numpy(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3, "b": 3})
    script = (
        "import sys; from hwsearch.accuracy.data.sources import check_data; "
        "check_data(sys.argv[1]); check_data('digits'); "
        "heavy = {'torch', 'torchvision', 'numpy', 'PIL', 'sklearn'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    package = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(package)}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, env=environment)
