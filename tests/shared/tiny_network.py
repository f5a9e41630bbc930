"""A backbone and pictures so small that a whole search takes a second."""

from typing import Final

import torch
from torch import nn

from hwsearch.accuracy.data.dataset import DataSet, Split, make_data_set

#: The backbone, as a search space names it, and its input size.
OWN: Final = "tiny_network:tiny_backbone"
PX: Final = 16


def tiny_backbone(num_classes: int) -> nn.Module:
    """Three convolutions with batch norm; the widths leave room for blocks of 8 channels."""
    layers: list[nn.Module] = []
    for inside, outside, stride in ((3, 16, 1), (16, 32, 2), (32, 32, 2)):
        layers += [
            nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes))


def make_data(seed: int = 0, sizes: tuple[int, int, int] = (60, 30, 30)) -> DataSet:
    """Three classes of noise, told apart by the brightest channel; one name needs quoting."""
    generator = torch.Generator().manual_seed(seed)

    def split(count: int) -> Split:
        labels = torch.arange(count) % 3
        images = torch.randint(0, 200, (count, 3, PX, PX), generator=generator)
        images[torch.arange(count), labels] += 40
        return Split(images=images.to(torch.uint8), labels=labels)

    return make_data_set(
        name="made up",
        source="test",
        class_names=("red", "green", 'it\'s "blue"'),
        splits=(split(sizes[0]), split(sizes[1]), split(sizes[2])),
        flip=False,
        shift_fraction=0.0,
    )
