"""Pictures in folders: which layout a directory has, and which files are pictures.

::

    DIR/train/CLASS/*  with DIR/test/CLASS/*, DIR/val/CLASS/*, or both
    DIR/CLASS/*        without a split

This module only lists files, so that a mistyped folder is found before torch is imported.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hwsearch.accuracy.data.splits import Part, require_counts
from hwsearch.errors import DataError

#: Extensions that are read, in lower case.
PICTURE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)

_SHOWN: Final = ("jpg", "png", "bmp", "webp", "gif", "tiff", "ppm")

#: Folder names, in lower case, that mean a split and not a class.
_PART_OF_NAME: Final[dict[str, Part]] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """One picture: its path below the root, with forward slashes, and its class."""

    path: str
    label: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The pictures of a directory.

    Attributes:
        root: as given.
        class_names: the names of the class folders, sorted.
        parts: "all", or "train" and "test", or all three of a split; sorted by class, then path.
        held_out: the name of the folder that serves as the test split; empty without a split.
        left_out: names of folders beside train, val and test, which are not read.
        ignored_files: files in class folders that are no pictures by their extension.
    """

    root: Path
    class_names: tuple[str, ...]
    parts: Mapping[Part, tuple[PictureFile, ...]]
    held_out: str
    left_out: tuple[str, ...]
    ignored_files: int


def find_layout(root: Path) -> Layout:
    """List the pictures of a directory.

    Hidden files and folders are left out. Folders inside a class folder belong to the class.

    Raises:
        DataError: not a directory; fewer than two classes; a split without its other half; train
            and the held-out folders have different classes; a class has no or too few pictures.
    """
    try:
        return _find_layout(root)
    except OSError as error:
        raise DataError(
            f"folder '{error.filename}' cannot be read ({error.strerror}); allow it or remove it"
        ) from None


def _find_layout(root: Path) -> Layout:
    folders, left_out = _part_folders(root)
    class_names = _common_classes(folders)
    parts: dict[Part, tuple[PictureFile, ...]] = {}
    counts: dict[Part, dict[str, int]] = {}
    ignored = 0
    for part, folder in folders.items():
        found: list[PictureFile] = []
        counts[part] = {}
        for label, name in enumerate(class_names):
            prefix = name if folder == root else f"{folder.name}/{name}"
            paths, others = _pictures(folder / name, prefix)
            if not paths:
                beside = f" ({others} other file{'' if others == 1 else 's'})" if others else ""
                raise DataError(
                    f"class folder '{folder / name}' holds no pictures{beside}; add some "
                    f"({', '.join(_SHOWN)}) or remove the folder"
                )
            ignored += others
            counts[part][name] = len(paths)
            found.extend(PictureFile(path=path, label=label) for path in paths)
        parts[part] = tuple(found)
    require_counts(counts, where=f"'{root}'")
    return Layout(
        root=root,
        class_names=class_names,
        parts=parts,
        held_out="" if "all" in folders else folders["test"].name,
        left_out=left_out,
        ignored_files=ignored,
    )


def _part_folders(root: Path) -> tuple[dict[Part, Path], tuple[str, ...]]:
    """The folder of each part, and the names of other folders beside a split."""
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"'{root}' {problem}; give a folder that holds a folder for each class")
    found: dict[Part, Path] = {}
    others = []
    for folder in _subfolders(root):
        part = _PART_OF_NAME.get(folder.name.lower())
        if part is None:
            others.append(folder.name)
        elif part in found:
            raise DataError(
                f"'{root}' has both {found[part].name}/ and {folder.name}/ for {part}; keep one"
            )
        else:
            found[part] = folder
    if not found:
        return {"all": root}, ()
    if "train" not in found:
        given = " and ".join(f"{path.name}/" for path in found.values())
        raise DataError(
            f"'{root}' has {given} but no train/; add it, or give one folder of class folders to "
            "have it split"
        )
    if len(found) == 1:
        raise DataError(
            f"'{root}' has train/ but neither test/ nor val/; add one of them, or give "
            f"'{found['train']}' to have it split"
        )
    if "test" not in found:
        # Pictures that are held out are for the last score; validation is then split from train.
        found["test"] = found.pop("validation")
    return found, tuple(others)


def _common_classes(folders: Mapping[Part, Path]) -> tuple[str, ...]:
    """The class names, which all parts have to share."""
    reference: Part = "train" if "train" in folders else "all"
    names = [folder.name for folder in _subfolders(folders[reference])]
    if len(names) < 2:
        loose = not names and bool(_pictures(folders[reference], "")[0])
        raise DataError(
            f"'{folders[reference]}' has {len(names)} class folder{'' if len(names) == 1 else 's'}"
            f"{' but loose pictures' if loose else ''}; at least 2 are needed: put the pictures of "
            "each class into a folder named after it"
        )
    for part, folder in folders.items():
        others = [path.name for path in _subfolders(folder)]
        odd = sorted(set(others).symmetric_difference(names))
        if odd:
            more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
            pair: tuple[Part, Part] = (reference, part) if odd[0] in names else (part, reference)
            raise DataError(
                f"class folder '{odd[0]}' is in '{folders[pair[0]]}' but not in "
                f"'{folders[pair[1]]}'{more}; both need the same class folders"
            )
    return tuple(names)


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if not e.name.startswith(".") and e.is_dir()]
    return [folder / name for name in sorted(names)]


def _pictures(folder: Path, prefix: str) -> tuple[list[str], int]:
    """The pictures below a folder, as sorted ``prefix/name``, and the number of other files."""
    pictures: list[str] = []
    others = 0
    with os.scandir(folder) as entries:
        visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    for entry in visible:
        path = f"{prefix}/{entry.name}"
        # A link to a folder is not followed: one that points upwards would never end.
        if entry.is_dir(follow_symlinks=False):
            inner, ignored = _pictures(folder / entry.name, path)
            pictures += inner
            others += ignored
        elif f".{entry.name.rpartition('.')[2].lower()}" in PICTURE_SUFFIXES:
            pictures.append(path)
        else:
            others += 1
    return pictures, others
