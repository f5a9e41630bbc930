"""A folder as a user has it, with a backbone, a space of it and pictures; the command run there."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

_REPOSITORY: Final = Path(__file__).resolve().parents[2]
_START: Final = "from hwsearch.cli.main import main; main()"
#: None in sys.modules makes an import raise, so a command that ends well has not asked for torch.
_POISON: Final = "import sys; sys.modules['torch'] = None; "

Ended = subprocess.CompletedProcess[str]
Hwsearch = Callable[..., Ended]
#: A folder with a finished run in ``results/``, and how the command that made it ended.
Finished = tuple[Path, Ended]

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


def environment(place: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(_REPOSITORY),
        "HWSEARCH_CACHE": str(place / "cache"),
        "HWSEARCH_CONFIG": str(place / "configuration"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "80",
    }


def command_line(*arguments: str, torch: bool = True) -> list[str]:
    return [sys.executable, "-c", ("" if torch else _POISON) + _START, *arguments]


def run_there(place: Path, *arguments: str, torch: bool = True) -> Ended:
    return subprocess.run(
        command_line(*arguments, torch=torch),
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
