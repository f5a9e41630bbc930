"""A folder as a user has it: a backbone, a space of it, and pictures."""

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

_BACKBONE: Final = """
from torch import nn


def _block(inputs, outputs, stride):
    return [
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def tiny(num_classes):
    return nn.Sequential(
        *_block(3, 16, 2), *_block(16, 32, 2), *_block(32, 32, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes),
    )
"""
_SPACE: Final = """
schema_version: 1
name: own
summary: one small network of the user
backbones: ["own_backbone:tiny"]
input_px: [16]
pruning: {ratios: [0.0, 0.5]}
weight_bits: target
activation_bits: target
training: {base_steps: 30, rung_steps: [2, 4], final_steps: 8, batch_size: 16}
trials: 8
"""


def fill(place: Path) -> Path:
    """Write ``own_backbone.py``, ``own.yaml`` and forty pictures of two colours to a folder."""
    (place / "own_backbone.py").write_text(_BACKBONE)
    (place / "own.yaml").write_text(_SPACE)
    draw = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (place / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            pixels = draw.integers(0, 120, (16, 16, 3), dtype=np.uint8)
            pixels[:, :, channel] += 100
            Image.fromarray(pixels).save(place / "pictures" / name / f"{number:02d}.png")
    return place
