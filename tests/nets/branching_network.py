"""A small network with every way in which channels meet in a concatenation."""

from typing import Final

import torch
from torch import Tensor, nn

#: As a search space names it.
OWN: Final = "branching_network:branching"


class Branches(nn.Module):
    """What comes in, a wide branch and a narrow one that reads the wide one, side by side."""

    def __init__(self, inside: int, wide: int, narrow: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(inside, wide, 3, padding=1), nn.BatchNorm2d(wide))
        self.narrow = nn.Conv2d(wide, narrow, 1)
        self.mix = nn.Conv2d(inside + wide + narrow, wide, 1)

    def forward(self, values: Tensor) -> Tensor:
        wide = torch.relu(self.wide(values))
        result: Tensor = self.mix(torch.cat([values, wide, self.narrow(wide)], 1))
        return result


class Halves(nn.Module):
    """One half of the channels goes through a convolution, the other stays as it is."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(channels, channels, 1)
        self.left = nn.Conv2d(channels // 2, 10, 3, padding=1)
        self.after = nn.Conv2d(channels // 2 + 10, channels, 1)

    def forward(self, values: Tensor) -> Tensor:
        left, right = torch.relu(self.before(values)).chunk(2, 1)
        result: Tensor = self.after(torch.cat([self.left(left), right], 1))
        return result


class Branching(nn.Module):
    """Concatenations within a stage, across stages, of halves, and of flattened values."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.first = Branches(12, 16, 8)
        self.down = nn.Conv2d(16, 24, 3, stride=2, padding=1)
        self.second = Branches(24, 32, 8)
        self.deep = nn.Conv2d(32, 20, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.halves = Halves(32)
        self.joined = nn.Conv2d(32 + 20, 28, 1)
        self.flat = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(28 + 4 * 16, num_classes)

    def forward(self, picture: Tensor) -> Tensor:
        first = self.first(self.stem(picture))
        second = self.halves(self.second(self.down(first)))
        both = torch.cat([self.pool(second), self.deep(second)], 1)
        last = torch.relu(self.joined(both))
        result: Tensor = self.head(torch.cat([last.mean((2, 3)), self.flat(first).flatten(1)], 1))
        return result


def branching(num_classes: int) -> nn.Module:
    return Branching(num_classes)
