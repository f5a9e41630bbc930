"""A tiny network and pictures of three colours."""

import torch
from torch import nn

from hwsearch.accuracy.data.dataset import (
    DataSet,
    Split,
    Splits,
    make_data_set,
    resized_images,
)

PX = 8


def make_data(train: int = 96, seed: int = 0, sides: tuple[int, ...] = ()) -> DataSet:
    """Noise, told apart by the brightest channel; ``sides`` beside ``PX``."""
    generator = torch.Generator().manual_seed(seed)

    def split(count: int) -> Split:
        labels = torch.arange(count) % 3
        images = torch.randint(0, 120, (count, 3, PX, PX), generator=generator)
        images[torch.arange(count), labels] += 40
        return Split(images=images.to(torch.uint8), labels=labels)

    def at(px: int) -> Splits:
        one, two, three = (
            Split(images=resized_images(split.images, px), labels=split.labels) for split in splits
        )
        return one, two, three

    splits = split(train), split(30), split(12)
    return make_data_set(
        name="made up",
        source="test",
        class_names=("red", "green", "blue"),
        splits=splits,
        other_sides={px: at(px) for px in sides},
        flip=True,
        shift_fraction=0.1,
    )


def make_model(seed: int = 0, *, norm: bool = True, dropout: float = 0.0) -> nn.Module:
    """One convolution and a classifier."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=not norm),
            nn.BatchNorm2d(8) if norm else nn.Identity(),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(8, 3),
        )


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether all parameters and statistics are the same bits."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
