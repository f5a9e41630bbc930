"""A data set in memory: three splits of decoded pictures, and what is known about them."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from hwsearch.errors import DataError

Channels = tuple[float, float, float]

#: About this many bytes are converted to float at a time, so that a large data set that is
#: resized does not need four times its size.
_CHUNK_BYTES: Final = 16_000_000

#: A constant channel has no spread; one grey level keeps the normalization finite.
_LEAST_STD: Final = 1 / 255


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Pictures and their classes. Two are equal only when they are one object.

    Attributes:
        images: uint8, (N, 3, S, S) in channels-first storage, N at least 1.
        labels: int64, (N,), indices into the class names.

    Raises:
        ValueError: another shape or type.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if self.images.dtype != torch.uint8 or self.labels.dtype != torch.int64:
            raise ValueError(
                f"images are uint8 and labels int64, not {self.images.dtype} and "
                f"{self.labels.dtype}"
            )
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or 0 in shape:
            raise ValueError(f"images have the shape (N, 3, S, S), not {shape}")
        if tuple(self.labels.shape) != shape[:1]:
            raise ValueError(
                f"{shape[0]} pictures need as many labels, not {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def px(self) -> int:
        """The side of a picture."""
        return int(self.images.shape[-1])


#: Train, validation and test.
Splits = tuple[Split, Split, Split]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of training pictures.

    Attributes:
        flip: mirror left to right, with probability one half.
        shift_fraction: the largest shift in each direction as a fraction of the side, below one
            half; whole pixels, each as likely as the other.
    """

    flip: bool
    shift_fraction: float

    def __post_init__(self) -> None:
        if not 0 <= self.shift_fraction < 0.5:
            raise ValueError(f"shift_fraction {self.shift_fraction} is not in 0 <= x < 0.5")

    def shift_px(self, px: int) -> int:
        """The largest shift of a picture of side ``px``, rounded to whole pixels."""
        return round(self.shift_fraction * px)

    def __str__(self) -> str:
        steps = []
        if self.shift_fraction:
            share = f"{self.shift_fraction * 100:g} %"
            steps.append(f"random shift by up to {share} of the side (edges repeated)")
        if self.flip:
            steps.append("random horizontal flip")
        return ", ".join(steps) or "none"


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSet:
    """Everything that training and scoring need to know about the pictures, at one side.

    Two are equal only when they are one object; ``content_hash`` compares what they hold. Mean,
    standard deviation and hash are those of the smallest side that was loaded: they do not change
    when larger ones are loaded as well.

    Attributes:
        source: where the pictures come from, for people.
        mean: of the train split per channel (red, green, blue), on the scale 0..1.
        std: the same, over all pixels of all pictures; at least one grey level (1/255).
        content_hash: SHA-256 over which pictures with which labels are in which split; neither
            file names nor the order within a split enter it.
        other_sides: the splits of the same pictures at other sides, which ``at`` gives.
        how_split: where validation and test come from, for people.
        ignored_files: files beside the pictures that were not read.

    Raises:
        ValueError: another side does not hold the same pictures in the same order.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    mean: Channels
    std: Channels
    augmentation: Augmentation
    content_hash: str
    other_sides: Mapping[int, Splits] = field(default_factory=dict)
    how_split: str = "as given"
    ignored_files: int = 0
    _handed_out: dict[int, "DataSet"] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for px, splits in self.other_sides.items():
            for own, other in zip(self._splits, splits, strict=True):
                if other.px != px or not torch.equal(other.labels, own.labels):
                    raise ValueError(
                        f"the pictures of {px} px are not those of {self.px} px: change the "
                        "splits of every side alike"
                    )

    @property
    def _splits(self) -> Splits:
        return self.train, self.validation, self.test

    @property
    def px(self) -> int:
        """The side of the pictures in all splits."""
        return self.train.px

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def at(self, px: int) -> "DataSet":
        """The same data set with its pictures at another side, made from the originals.

        Networks of this input side are trained and scored on it. Every call for a side gives the
        same object, and a call for the own side this one.

        Raises:
            DataError: the pictures were not loaded at this side; they are never resized twice.
        """
        if px == self.px:
            return self
        if px not in self.other_sides:
            sides = " and ".join(map(str, sorted({self.px, *self.other_sides})))
            raise DataError(
                f"pictures of '{self.name}' are loaded at {sides} px, not at {px} px; load them "
                f"at {px} px as well"
            )
        if px not in self._handed_out:
            train, validation, test = self.other_sides[px]
            sides_left = {side: it for side, it in self.other_sides.items() if side != px}
            made = replace(
                self,
                train=train,
                validation=validation,
                test=test,
                other_sides={self.px: self._splits, **sides_left},
            )
            made._handed_out[self.px] = self
            self._handed_out[px] = made
        return self._handed_out[px]

    def describe(self) -> dict[str, Any]:
        """What ``run.json`` says about the data: plain values only."""
        splits = dict(zip(("train", "validation", "test"), self._splits, strict=True))
        return {
            "name": self.name,
            "source": self.source,
            "classes": list(self.class_names),
            "pictures": {name: len(split) for name, split in splits.items()},
            "pictures_per_class": {
                name: torch.bincount(split.labels, minlength=self.classes).tolist()
                for name, split in splits.items()
            },
            "how_split": self.how_split,
            "ignored_files": self.ignored_files,
            "sides_px": sorted({self.px, *self.other_sides}),
            "normalization": {"mean": list(self.mean), "std": list(self.std)},
            "augmentation": str(self.augmentation),
            "content_hash": self.content_hash,
        }


def make_data_set(
    *,
    name: str,
    source: str,
    class_names: tuple[str, ...],
    splits: Splits,
    flip: bool,
    shift_fraction: float,
    other_sides: Mapping[int, Splits] | None = None,
    how_split: str = "as given",
    ignored_files: int = 0,
) -> DataSet:
    """Put a data set together, computing its statistics and its hash.

    The arguments are attributes of ``DataSet`` and ``Augmentation``; ``splits`` are train,
    validation and test, all of one side, of which statistics and hash are taken.

    Raises:
        DataError: fewer than two classes.
        ValueError: splits of different sides, or a label without a class name.
    """
    if len(class_names) < 2:
        raise DataError(
            f"data set '{name}' has {len(class_names)} class; at least 2 are needed to tell apart"
        )
    train, validation, test = splits
    sides = {split.px for split in splits}
    if len(sides) != 1:
        raise ValueError(f"the splits have pictures of different sides: {sorted(sides)}")
    for split in splits:
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= len(class_names):
            raise ValueError(f"labels {low} to {high} do not fit {len(class_names)} classes")
    mean, std = channel_statistics(train.images)
    return DataSet(
        name=name,
        source=source,
        class_names=class_names,
        train=train,
        validation=validation,
        test=test,
        mean=mean,
        std=std,
        augmentation=Augmentation(flip=flip, shift_fraction=shift_fraction),
        content_hash=content_hash(splits),
        other_sides=other_sides or {},
        how_split=how_split,
        ignored_files=ignored_files,
    )


def channel_statistics(images: Tensor) -> tuple[Channels, Channels]:
    """Mean and standard deviation (of all pixels, not of a sample) per channel, on 0..1.

    Args:
        images: uint8, (N, 3, S, S).
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(3):
        # A histogram is exact, and needs no float copy of the pictures.
        counts = torch.zeros(256, dtype=torch.float64)
        for chunk in _chunks(images):
            counts += torch.bincount(chunk[:, channel].flatten(), minlength=256)
        share = counts / counts.sum()
        mean = (share * levels).sum()
        means.append(float(mean))
        stds.append(max(_LEAST_STD, float((share * (levels - mean) ** 2).sum().sqrt())))
    return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])


def content_hash(splits: Splits) -> str:
    """SHA-256 (hex) of which pictures with which labels are in train, validation and test.

    Every picture is hashed with its label and the digests are sorted within a split: the same
    pictures in another order, or under other names, are the same data.
    """
    whole = hashlib.sha256(f"{splits[0].px}".encode())
    for name, split in zip(("train", "validation", "test"), splits, strict=True):
        images = split.images.contiguous().numpy()
        digests = sorted(
            hashlib.sha256(b"%d:" % label + image.tobytes()).digest()
            for image, label in zip(images, split.labels.tolist(), strict=True)
        )
        whole.update(f"{name}:{len(digests)}:".encode())
        whole.update(b"".join(digests))
    return whole.hexdigest()


def is_grey(images: Tensor) -> bool:
    """Whether all pictures of (N, 3, S, S) have three equal channels."""
    return all(
        torch.equal(chunk[:, 0], chunk[:, 1]) and torch.equal(chunk[:, 0], chunk[:, 2])
        for chunk in _chunks(images)
    )


def resized_images(images: Tensor, px: int) -> Tensor:
    """Pictures (uint8, (N, C, S, S)) at another side, bilinear, antialiased when smaller.

    The same tensor comes back when the side is already ``px``.
    """
    if images.shape[-1] == px:
        return images
    if px < 1:
        raise ValueError(f"{px} px is not a size; give at least 1")
    out = torch.empty((*images.shape[:2], px, px), dtype=torch.uint8)
    start = 0
    for chunk in _chunks(images):
        scaled = functional.interpolate(
            chunk.float(), size=(px, px), mode="bilinear", antialias=True, align_corners=False
        )
        out[start : start + len(chunk)] = scaled.round_().clamp_(0, 255)
        start += len(chunk)
    return out


def _chunks(images: Tensor) -> Iterator[Tensor]:
    length = max(1, _CHUNK_BYTES // max(1, images[0].numel()))
    for start in range(0, len(images), length):
        yield images[start : start + length]
