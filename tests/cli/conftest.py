"""The command as a user starts it, with its own configuration and cache."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwsearch.cli.main import main

REPOSITORY = Path(__file__).resolve().parents[2]
START = "from hwsearch.cli.main import main; main()"
#: None in sys.modules makes an import raise, so a command that ends well has not asked for torch.
POISON = "import sys; sys.modules['torch'] = None; "

BACKBONE = """
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
SPACE = """
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

Hwsearch = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(place: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "HWSEARCH_CACHE": str(place / "cache"),
        "HWSEARCH_CONFIG": str(place / "configuration"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "80",
    }


def command_line(*arguments: str, torch: bool = True) -> list[str]:
    return [sys.executable, "-c", ("" if torch else POISON) + START, *arguments]


def run_there(
    place: Path, *arguments: str, torch: bool = True
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command_line(*arguments, torch=torch),
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def fill(place: Path) -> Path:
    """A folder with a backbone, a space of it, and forty pictures of two colours."""
    (place / "own_backbone.py").write_text(BACKBONE)
    (place / "own.yaml").write_text(SPACE)
    draw = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (place / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            pixels = draw.integers(0, 120, (16, 16, 3), dtype=np.uint8)
            pixels[:, :, channel] += 100
            Image.fromarray(pixels).save(place / "pictures" / name / f"{number:02d}.png")
    return place


@pytest.fixture
def hwsearch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Hwsearch:
    """Runs the command in the test's folder, in this process: a new one takes most of a second."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GOMP_SPINCOUNT", "10000")  # the command sets it, which outlives the test

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        monkeypatch.setattr(sys, "argv", ["hwsearch", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        shown = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, shown.out, shown.err)

    return run


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    return fill(tmp_path)


@pytest.fixture
def command() -> Callable[..., list[str]]:
    return command_line


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """A place with a finished run in results/, and how the command that made it ended."""
    place = fill(tmp_path_factory.mktemp("finished"))
    options = "run --target jetson --budget 50ms --data pictures --space own.yaml --json"
    return place, run_there(place, *options.split())


@pytest.fixture
def there() -> Hwsearch:
    """Runs the command in a folder that is given first, in a process of its own.

    ``torch=False`` makes importing torch an error there.
    """
    return run_there


@pytest.fixture
def finished_copy(
    finished: tuple[Path, "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> tuple[Path, Path]:
    """A place with a copy of the finished run, to be changed, and the folder of that run."""
    place = Path(shutil.copytree(finished[0], tmp_path / "place"))
    [folder] = (place / "results").iterdir()
    return place, folder
