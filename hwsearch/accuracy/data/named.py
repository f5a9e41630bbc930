"""Data sets known by name, read by torchvision from a local folder.

Listing and looking for them does not import torchvision.
"""

import contextlib
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from hwsearch.accuracy.data.splits import Part
from hwsearch.errors import DataError, HostError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from hwsearch.accuracy.data.decode import Pixels, Progress


class _Reader(Protocol):
    """What every data set of torchvision is."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> "tuple[Image, int]": ...


@dataclass(frozen=True, kw_only=True)
class NamedSet:
    """A data set of torchvision.

    Attributes:
        torchvision_class: its name in ``torchvision.datasets``.
        marks: files or folders below the root without which it is not there.
        parts: constructor arguments for each part, the official test split being "test".
        flip: whether a mirrored picture is still a fair example of its class.
    """

    torchvision_class: str
    marks: tuple[str, ...]
    parts: Mapping[Part, Mapping[str, bool | str]]
    flip: bool = True


_TRAIN_FLAG: Final[dict[Part, Mapping[str, bool | str]]] = {
    "train": {"train": True},
    "test": {"train": False},
}
_TRAIN_TEST: Final[dict[Part, Mapping[str, bool | str]]] = {
    "train": {"split": "train"},
    "test": {"split": "test"},
}
_THREE: Final[dict[Part, Mapping[str, bool | str]]] = {
    "train": {"split": "train"},
    "validation": {"split": "val"},
    "test": {"split": "test"},
}


def _mnist_like(torchvision_class: str) -> NamedSet:
    return NamedSet(
        torchvision_class=torchvision_class,
        marks=(f"{torchvision_class}/raw",),
        parts=_TRAIN_FLAG,
        flip=False,
    )


NAMED_SETS: Final[dict[str, NamedSet]] = {
    "mnist": _mnist_like("MNIST"),
    "fashionmnist": _mnist_like("FashionMNIST"),
    "kmnist": _mnist_like("KMNIST"),
    "cifar10": NamedSet(
        torchvision_class="CIFAR10", marks=("cifar-10-batches-py",), parts=_TRAIN_FLAG
    ),
    "cifar100": NamedSet(
        torchvision_class="CIFAR100", marks=("cifar-100-python",), parts=_TRAIN_FLAG
    ),
    "svhn": NamedSet(
        torchvision_class="SVHN",
        marks=("train_32x32.mat", "test_32x32.mat"),
        parts=_TRAIN_TEST,
        flip=False,
    ),
    "stl10": NamedSet(torchvision_class="STL10", marks=("stl10_binary",), parts=_TRAIN_TEST),
    "flowers102": NamedSet(torchvision_class="Flowers102", marks=("flowers-102",), parts=_THREE),
    "oxfordiiitpet": NamedSet(
        torchvision_class="OxfordIIITPet",
        marks=("oxford-iiit-pet/images", "oxford-iiit-pet/annotations"),
        parts={"train": {"split": "trainval"}, "test": {"split": "test"}},
    ),
    "eurosat": NamedSet(torchvision_class="EuroSAT", marks=("eurosat/2750",), parts={"all": {}}),
    "gtsrb": NamedSet(
        torchvision_class="GTSRB",
        marks=("gtsrb/GTSRB/Training", "gtsrb/GTSRB/Final_Test", "gtsrb/GT-final_test.csv"),
        parts=_TRAIN_TEST,
        flip=False,
    ),
    "dtd": NamedSet(torchvision_class="DTD", marks=("dtd/dtd",), parts=_THREE),
}


#: What torchvision raises on absent, incomplete or corrupt files and on a failing network.
_UNREADABLE: Final = (
    RuntimeError,
    OSError,  # URLError among them
    ValueError,
    LookupError,
    AssertionError,
    EOFError,
    zipfile.BadZipFile,
    tarfile.TarError,
)


def data_root(root: Path | None) -> Path:
    """Where named data sets lie: as given, ``$HWSEARCH_DATA``, or ``./data``."""
    return root if root is not None else Path(os.environ.get("HWSEARCH_DATA") or "data")


def require_there(name: str, root: Path) -> None:
    """Check that a data set has been put below the root.

    Raises:
        DataError: it is not there; says what to do.
    """
    absent = [mark for mark in NAMED_SETS[name].marks if not (root / mark).exists()]
    if absent:
        folder = f" (for the folder '{name}' here, write ./{name})" if Path(name).is_dir() else ""
        raise DataError(
            f"data set '{name}' is not in '{root}': there is no '{root / absent[0]}'; copy it "
            f"there, set HWSEARCH_DATA to the folder that holds it, or allow its download{folder}"
        )


def read_named(
    name: str,
    root: Path,
    sides: Sequence[int],
    *,
    download: bool,
    progress: "Progress | None",
) -> "tuple[tuple[str, ...], dict[int, dict[Part, tuple[Tensor, Tensor]]]]":
    """Read and decode a data set, from the cache when its files did not change.

    Returns:
        The class names; by side, images (uint8, (N, 3, px, px)) and labels (int64, (N,)) of each
        part.

    Raises:
        DataError: it is not there, incomplete or corrupt.
        HostError: the download was allowed and failed, or the pictures do not fit into memory.
    """
    import torch

    from hwsearch.accuracy.data.cache import cached, files_key
    from hwsearch.accuracy.data.decode import DECODER_VERSION, decode_many, require_memory

    known = NAMED_SETS[name]
    if not download:
        require_there(name, root)
    readers = {part: _open(name, root, part, download=download) for part in known.parts}
    require_memory(sum(map(len, readers.values())), sides)

    def make(px: int) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = {}
        for part, reader in readers.items():
            labels = torch.empty(len(reader), dtype=torch.int64)
            decode = _decoder(reader, labels, px, where=f"{part} of '{name}' in '{root}'")
            pixels = decode_many(len(reader), decode, px, progress=progress)
            tensors |= {f"{part}.images": torch.from_numpy(pixels), f"{part}.labels": labels}
        return tensors

    files: list[str] = []
    for mark in known.marks:
        place = root / mark
        found = [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
        files += [path.relative_to(root).as_posix() for path in found]
    files.sort()
    parts: dict[int, dict[Part, tuple[Tensor, Tensor]]] = {}
    for px in sides:
        key = files_key(root, files, name=name, px=px, decoder=DECODER_VERSION)
        tensors = cached(key, partial(make, px))
        parts[px] = {
            part: (tensors[f"{part}.images"], tensors[f"{part}.labels"]) for part in readers
        }
    named: Sequence[str] | None = getattr(next(iter(readers.values())), "classes", None)
    if named is None:  # torchvision has none for svhn and gtsrb
        classes = 1 + max(int(labels.max()) for _, labels in parts[sides[0]].values())
        return tuple(str(number) for number in range(classes)), parts
    return tuple(str(name) for name in named), parts


def _open(name: str, root: Path, part: Part, *, download: bool) -> _Reader:
    from torchvision import datasets

    known = NAMED_SETS[name]
    try:
        # torchvision prints; our stdout is for the result.
        with contextlib.redirect_stdout(sys.stderr):
            reader: _Reader = getattr(datasets, known.torchvision_class)(
                root=str(root), download=download, **known.parts[part]
            )
            return reader
    except _UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
    if download:
        raise HostError(
            f"data set '{name}' could not be downloaded into '{root}' ({reason}); check the "
            f"network, or copy the data there as torchvision's {known.torchvision_class} expects"
        )
    raise DataError(
        f"data set '{name}' in '{root}' is incomplete or corrupt ({reason}); remove "
        f"{' and '.join(known.marks)} there and get it again"
    )


def _decoder(
    reader: _Reader, labels: "Tensor", px: int, *, where: str
) -> "Callable[[int], Pixels]":
    """A decoder of the n-th picture that also notes its label."""
    from hwsearch.accuracy.data.decode import BROKEN, fit_picture

    def decode(number: int) -> "Pixels":
        try:
            picture, label = reader[number]
            labels[number] = int(label)
            return fit_picture(picture, px)
        except BROKEN as error:
            raise DataError(
                f"picture {number} in {where} cannot be read ({error}); get the data set again"
            ) from None

    return decode
