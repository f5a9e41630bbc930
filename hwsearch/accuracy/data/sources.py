"""From what the user wrote after ``--data`` to a data set in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hwsearch.accuracy.data.folders import find_layout
from hwsearch.accuracy.data.named import NAMED_SETS, data_root, read_named, require_there
from hwsearch.accuracy.data.splits import HELD_OUT_SHARE, make_splits
from hwsearch.errors import DataError
from hwsearch.files import nearest

if TYPE_CHECKING:
    from torch import Tensor

    from hwsearch.accuracy.data.dataset import DataSet
    from hwsearch.accuracy.data.decode import Progress
    from hwsearch.accuracy.data.splits import Part

#: The data set that comes with scikit-learn, for a first run without any files.
DIGITS: Final = "digits"

#: Of the 1797 digits, held out for each of validation and test: 359, so that one is 0.3 points.
_DIGITS_HELD_OUT_SHARE: Final = 0.2

#: Photos may be shifted by an eighth of the side (4 of 32 px, as is usual for CIFAR-10); what is
#: not to be mirrored (digits, signs, letters) fills its picture, so half of that.
_SHIFT_FRACTION: Final = 1 / 8
_SHIFT_FRACTION_OF_SIGNS: Final = 1 / 16

#: Sides of pictures that networks take.
_PX_RANGE: Final = (8, 2048)


@dataclass(frozen=True, kw_only=True)
class _Pictures:
    """Decoded pictures of any source before they are split.

    Attributes:
        parts: by side, as in ``make_splits``; the same pictures in the same order at each.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    parts: "Mapping[int, Mapping[Part, tuple[Tensor, Tensor]]]"
    may_flip: bool = True
    held_out_share: float = HELD_OUT_SHARE
    remark: str = ""
    ignored_files: int = 0


def load_data(
    spec: str,
    *,
    px: int | Sequence[int],
    seed: int = 0,
    root: Path | None = None,
    download: bool = False,
    flip: bool | None = None,
    progress: "Progress | None" = None,
) -> "DataSet":
    """Load pictures, decoded and split.

    The split depends on the labels and the seed alone, normalization and hash on the smallest side
    as well.

    Args:
        spec: "digits"; the name of a data set of torchvision, in any case; or a directory (a name
            wins over a directory of that name: write "./mnist" for the latter).
        px: side of the pictures in memory. Of several, the smallest one is that of the result,
            and ``DataSet.at`` gives the others; each is made from the original pictures, with the
            very pixels that it has when it is asked for alone.
        seed: of the split.
        root: where named data sets lie; by default ``$HWSEARCH_DATA`` or ``./data``.
        download: whether a named data set may be fetched.
        flip: whether training pictures are mirrored at random; by default only colour photos are.
        progress: called with (pictures done, all pictures) while decoding, for each side anew.

    Raises:
        DataError: pictures that are not there, corrupt, or too few of a class.
        HostError: a download failed, or the pictures do not fit into memory.
    """
    from hwsearch.accuracy.data.dataset import is_grey, make_data_set

    sides = sorted({px} if isinstance(px, int) else set(px))
    for side in sides:
        if not _PX_RANGE[0] <= side <= _PX_RANGE[1]:
            raise DataError(
                f"pictures of {side} px were asked; give {_PX_RANGE[0]} to {_PX_RANGE[1]}"
            )
    pictures = _read(spec, sides, root=data_root(root), download=download, progress=progress)
    by_side = {}
    for side in sides:
        by_side[side], how_split = make_splits(
            pictures.parts[side],
            pictures.class_names,
            where=f"'{pictures.name}'",
            seed=seed,
            held_out_share=pictures.held_out_share,
        )
    splits = by_side.pop(sides[0])
    are_photos = pictures.may_flip and not is_grey(splits[0].images)
    return make_data_set(
        name=pictures.name,
        source=pictures.source,
        class_names=pictures.class_names,
        splits=splits,
        flip=are_photos if flip is None else flip,
        shift_fraction=_SHIFT_FRACTION if are_photos else _SHIFT_FRACTION_OF_SIGNS,
        other_sides=by_side,
        how_split=how_split + pictures.remark,
        ignored_files=pictures.ignored_files,
    )


def check_data(spec: str, root: Path | None = None, *, download: bool = False) -> None:
    """Check that pictures are there and enough, without importing torch or opening a picture.

    The arguments are those of ``load_data``.

    Raises:
        DataError: what ``load_data`` would raise for files that are missing, or too few.
    """
    name = spec.strip().lower()
    if name == DIGITS:
        return
    if name not in NAMED_SETS:
        find_layout(_directory(spec))
    elif not download:
        require_there(name, data_root(root))


def _directory(spec: str) -> Path:
    """The directory that is meant, when the specification is no name."""
    path = Path(spec).expanduser()
    if not spec.strip() or not path.exists():
        names = [DIGITS, *NAMED_SETS]
        raise DataError(
            f"data '{spec}' is neither a folder nor a known data set."
            f"{nearest(spec.strip().lower(), names)} Give a folder of pictures or one of "
            f"{', '.join(names)}"
        )
    return path


def _read(
    spec: str, sides: Sequence[int], *, root: Path, download: bool, progress: "Progress | None"
) -> _Pictures:
    name = spec.strip().lower()
    if name == DIGITS:
        return _read_digits(sides)
    if name not in NAMED_SETS:
        return _read_folder(spec, sides, progress=progress)
    known = NAMED_SETS[name]
    class_names, parts = read_named(name, root, sides, download=download, progress=progress)
    return _Pictures(
        name=name,
        source=f"torchvision's {known.torchvision_class}",
        class_names=class_names,
        parts=parts,
        may_flip=known.flip,
    )


def _read_digits(sides: Sequence[int]) -> _Pictures:
    import numpy as np
    import torch
    from sklearn.datasets import load_digits

    from hwsearch.accuracy.data.dataset import resized_images

    raw = load_digits()
    # 17 grey levels, 0 to 16.
    grey = torch.from_numpy(np.rint(raw.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(raw.target.astype(np.int64))
    return _Pictures(
        name=DIGITS,
        source="scikit-learn's load_digits: 1797 handwritten digits, 8 x 8 grey",
        class_names=tuple(str(digit) for digit in raw.target_names),
        parts={
            px: {"all": (resized_images(grey, px).expand(-1, 3, -1, -1).contiguous(), labels)}
            for px in sides
        },
        may_flip=False,
        held_out_share=_DIGITS_HELD_OUT_SHARE,
    )


def _read_folder(spec: str, sides: Sequence[int], *, progress: "Progress | None") -> _Pictures:
    import torch

    from hwsearch.accuracy.data.cache import cached, files_key
    from hwsearch.accuracy.data.decode import DECODER_VERSION, decode_files, require_memory

    layout = find_layout(_directory(spec))
    files = [file for part in layout.parts.values() for file in part]
    paths = [file.path for file in files]
    labels = torch.tensor([file.label for file in files])
    require_memory(len(files), sides)

    def read(px: int) -> "dict[Part, tuple[Tensor, Tensor]]":
        def make() -> dict[str, torch.Tensor]:
            pixels = decode_files([layout.root / path for path in paths], px, progress=progress)
            return {"images": torch.from_numpy(pixels)}

        key = files_key(layout.root, paths, px=px, decoder=DECODER_VERSION)
        counts = [len(members) for members in layout.parts.values()]
        images = torch.split(cached(key, make)["images"], counts)
        return dict(
            zip(layout.parts, zip(images, torch.split(labels, counts), strict=True), strict=True)
        )

    remark = ""
    if layout.held_out.lower() not in {"", "test"}:
        remark += f"; test is the folder {layout.held_out}/"
    if layout.left_out:
        remark += f"; not read: {', '.join(f'{name}/' for name in layout.left_out)}"
    return _Pictures(
        name=layout.root.resolve().name,
        source=f"folder {spec}",
        class_names=layout.class_names,
        # A file is opened anew for each side: what a JPEG is reduced to while it is read depends
        # on the side, and sharing it would change the pixels of one side with the others.
        parts={px: read(px) for px in sides},
        remark=remark,
        ignored_files=layout.ignored_files,
    )
