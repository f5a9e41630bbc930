"""An image folder whose pictures are not all signal: real digits in cluttered scenes.

::

    python benchmarks/search/cluttered_digits.py FOLDER

One of scikit-learn's handwritten digits at a random place, size, tilt and colour, in a textured
scene among fragments of other digits, 64 px; after the cluttered MNIST of Mnih et al. 2014
(arXiv:1406.6247). The digits of the held-out scenes, their fragments included, are none of those of
the training scenes, and each class has as many scenes as any other. All follows from the seed.

Digits are not to be mirrored, which a run takes coloured pictures to be: ``--set flip=false``, and
``--no-flip`` of ``end_to_end.py``.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional

PX: Final = 64
CLASSES: Final = 10
#: Of the 1,797 digits, for the held-out scenes.
_HELD_OUT_SHARE: Final = 0.25
#: Side of the digit, and of a fragment's whole digit, as shares of the scene; a fragment shows a
#: quarter of its digit.
_SIZES: Final = (0.55, 0.85)
_FRAGMENT_SIZES: Final = (0.25, 0.45)
_TILT: Final = 0.35  # radians
_FRAGMENTS: Final = 3
#: Noise of a scene, from broad patches to grains: cells along a side, and how strong.
_TEXTURES: Final = ((3, 0.08), (8, 0.06), (24, 0.04), (PX, 0.03))
#: Least distance in grey between the colour of a digit and that of its scene, on 0..1.
_CONTRAST: Final = 0.5
_CHUNK: Final = 500

Part = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenes:
    """Scenes of one part.

    Attributes:
        images: uint8, (N, 3, 64, 64).
        labels: int64, (N,).
        sources: int64, (N, 1 + fragments): the digit shown, then those of the fragments, as
            numbers in scikit-learn's set.
    """

    images: Tensor
    labels: Tensor
    sources: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="that is made")
    parser.add_argument("--train", type=int, default=6000, help="scenes, a multiple of 10")
    parser.add_argument("--test", type=int, default=2000, help="scenes, a multiple of 10")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.folder.exists():
        parser.error(f"{given.folder} is there already; give another folder")
    if given.train % CLASSES or given.test % CLASSES:
        parser.error(f"{given.train} and {given.test} scenes are not multiples of {CLASSES}")
    parts: dict[Part, int] = {"train": given.train, "test": given.test}
    for part, count in parts.items():
        write_scenes(make_scenes(part, count, given.seed), given.folder / part)
    print(f"{given.train} training and {given.test} held-out scenes are in {given.folder}")


def make_scenes(part: Part, count: int, seed: int) -> Scenes:
    """Draw the scenes of a part.

    Args:
        part: whose digits are used.
        count: a multiple of 10.
        seed: of the parting of the digits, which both parts share, and of the scenes.
    """
    digits = load_digits()
    numbers = np.arange(len(digits.target))
    train, test = train_test_split(
        numbers, test_size=_HELD_OUT_SHARE, stratify=digits.target, random_state=seed
    )
    own: NDArray[np.int64] = train if part == "train" else test
    rng = np.random.default_rng((seed, part == "test"))
    labels = rng.permutation(np.repeat(np.arange(CLASSES), count // CLASSES))
    shown = np.empty(count, dtype=np.int64)
    for label in range(CLASSES):
        at = np.flatnonzero(labels == label)
        shown[at] = rng.choice(own[digits.target[own] == label], len(at))
    fragments = rng.choice(own, (count, _FRAGMENTS))
    strokes = torch.from_numpy((digits.images / 16).astype(np.float32))
    images = [
        _painted(strokes[shown[at : at + _CHUNK]], strokes[fragments[at : at + _CHUNK]], rng)
        for at in range(0, count, _CHUNK)
    ]
    return Scenes(
        images=torch.cat(images),
        labels=torch.from_numpy(labels),
        sources=torch.from_numpy(np.c_[shown, fragments]),
    )


def write_scenes(scenes: Scenes, folder: Path) -> None:
    """Write the scenes as ``CLASS/NUMBER.png``."""
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
    pixels = scenes.images.permute(0, 2, 3, 1).numpy()
    for number, (picture, label) in enumerate(zip(pixels, scenes.labels.tolist(), strict=True)):
        Image.fromarray(picture).save(folder / str(label) / f"{number:05d}.png")


def _painted(shown: Tensor, fragments: Tensor, rng: np.random.Generator) -> Tensor:
    """Scenes of digits, (N, 8, 8), and fragments, (N, F, 8, 8); uint8, (N, 3, 64, 64)."""
    count, pieces = fragments.shape[:2]
    base = _drawn(rng.uniform(0.1, 0.9, (count, 3)))
    scene = base[:, :, None, None] + sum(
        _noise(count, cells, strength, rng) for cells, strength in _TEXTURES
    )
    quarters = _one_quarter_of_each(fragments.flatten(0, 1), rng).view(count, pieces, 8, 8)
    for piece in range(pieces):
        scene = _with_stroke(scene, base, quarters[:, piece], _FRAGMENT_SIZES, rng)
    scene = _with_stroke(scene, base, shown, _SIZES, rng)
    return (255 * scene.clamp(0, 1)).round().to(torch.uint8)


def _with_stroke(
    scene: Tensor,
    base: Tensor,
    strokes: Tensor,
    sizes: tuple[float, float],
    rng: np.random.Generator,
) -> Tensor:
    """The scenes with one stroke picture each, (N, 8, 8), placed and coloured at random."""
    count = len(strokes)
    size = _drawn(rng.uniform(*sizes, count))
    tilt = _drawn(rng.uniform(-_TILT, _TILT, count))
    # Upright it lies within the scene: the centre of a share s is at most 1 - s from the middle.
    place = _drawn(rng.uniform(-1, 1, (count, 2))) * (1 - size)[:, None]
    cos, sin = torch.cos(tilt) / size, torch.sin(tilt) / size
    # From a place in the scene to one in the digit, both on -1..1.
    turn = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    shift = -turn @ place[:, :, None]
    grid = functional.affine_grid(
        torch.cat([turn, shift], 2), [count, 1, PX, PX], align_corners=False
    )
    ink = functional.grid_sample(strokes[:, None], grid, align_corners=False)
    colour = _contrasting(base, rng)[:, :, None, None]
    return scene * (1 - ink) + colour * ink


def _contrasting(base: Tensor, rng: np.random.Generator) -> Tensor:
    """Random colours, (N, 3), moved away from the grey of the scene where they are too near."""
    colour = _drawn(rng.uniform(0, 1, (len(base), 3)))
    grey = base.mean(1, keepdim=True)
    gap = colour.mean(1, keepdim=True) - grey
    away = torch.where(grey < 0.5, 1.0, -1.0)
    return torch.where(gap.abs() < _CONTRAST, colour - gap + away * _CONTRAST, colour).clamp(0, 1)


def _one_quarter_of_each(strokes: Tensor, rng: np.random.Generator) -> Tensor:
    """Digits of which one quarter is left, moved to the middle; (N, 8, 8)."""
    corners = torch.from_numpy(rng.integers(0, 5, (len(strokes), 2)))
    rows = (corners[:, :1] + torch.arange(4))[:, :, None]
    columns = (corners[:, 1:] + torch.arange(4))[:, None, :]
    pieces = strokes[torch.arange(len(strokes))[:, None, None], rows, columns]
    return functional.pad(pieces, (2, 2, 2, 2))


def _noise(count: int, cells: int, strength: float, rng: np.random.Generator) -> Tensor:
    """Coloured noise of a number of cells along a side, (N, 3, 64, 64)."""
    coarse = _drawn(rng.normal(0, strength, (count, 3, cells, cells)))
    return functional.interpolate(coarse, size=(PX, PX), mode="bilinear", align_corners=False)


def _drawn(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


if __name__ == "__main__":
    main()
