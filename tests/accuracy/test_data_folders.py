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
        (root / name).mkdir(parents=True)
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


def test_three_folders_are_used_as_they_are(tmp_path: Path) -> None:
    for name, count in (("train", 3), ("val", 2), ("test", 1)):
        fill(tmp_path / name, {"a": count, "b": count})
    layout = find_layout(tmp_path)
    assert {part: len(files) for part, files in layout.parts.items()} == {
        "train": 6,
        "validation": 4,
        "test": 2,
    }
    assert labels(tmp_path, "validation")[0] == ("val/a/0.png", 0)


def test_train_folder_alone_can_be_split(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 3, "b": 3})
    with pytest.raises(DataError, match="has train/ but neither test/ nor val/; add one of them"):
        find_layout(tmp_path)
    assert list(find_layout(tmp_path / "train").parts) == ["all"]


def test_folders_beside_a_split_are_listed_as_left_out(tmp_path: Path) -> None:
    for name in ("train", "test", "masks"):
        fill(tmp_path / name, {"a": 2, "b": 2})
    assert find_layout(tmp_path).left_out == ("masks",)


def test_held_out_without_train_is_refused(tmp_path: Path) -> None:
    for name in ("val", "test"):
        fill(tmp_path / name, {"a": 2, "b": 2})
    with pytest.raises(DataError, match="has test/ and val/ but no train/; add it"):
        find_layout(tmp_path)


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("train", "val", "valid"):
        fill(tmp_path / name, {"a": 2, "b": 2})
    with pytest.raises(DataError, match="has both val/ and valid/ for validation; keep one"):
        find_layout(tmp_path)


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


def test_empty_class_folder_is_named(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3, "b": 3, "empty": 0})
    with pytest.raises(DataError, match=r"class folder '.*/empty' holds no pictures; add some"):
        find_layout(tmp_path)


def test_class_folder_of_other_files_is_named_with_their_count(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3, "b": 3})
    fill(tmp_path, {"c": 2}, "npy")
    with pytest.raises(DataError, match=r"/c' holds no pictures \(2 other files\); add some \(jpg"):
        find_layout(tmp_path)


def test_empty_class_folder_in_the_held_out_part_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 2, "b": 2})
    fill(tmp_path / "test", {"a": 2, "b": 0})
    with pytest.raises(DataError, match=r"'.*/test/b' holds no pictures"):
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
    ("counts", "message"),
    [
        ({"a": 3, "b": 2}, "class 'b' has 2 pictures in .*; at least 3 are needed"),
        ({"a": 1, "b": 3}, r"class 'a' has 1 picture in .* \(one each for train, validation and"),
    ],
)
def test_too_few_pictures_to_split_are_counted(
    tmp_path: Path, counts: dict[str, int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        find_layout(fill(tmp_path, counts))


def test_too_few_pictures_in_train_are_counted(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 2, "b": 1})
    fill(tmp_path / "test", {"a": 1, "b": 1})
    with pytest.raises(DataError, match=r"class 'b' has 1 picture in train of .*; at least 2 are"):
        find_layout(tmp_path)


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 1 class folder; at least 2 are needed"):
        find_layout(fill(tmp_path, {"a": 5}))


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 0 class folders; at least 2 are needed"):
        find_layout(tmp_path)


def test_loose_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=r"has 0 class folders but loose pictures; .* put the pict"):
        find_layout(tmp_path)


def test_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.zip").touch()
    with pytest.raises(DataError, match=r"a\.zip' is not a folder; give a folder that holds"):
        find_layout(tmp_path / "a.zip")


def test_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere' does not exist; give a folder"):
        find_layout(tmp_path / "nowhere")


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
