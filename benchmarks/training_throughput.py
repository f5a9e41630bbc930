"""Training steps per second: hwsearch's loop against a plain loop over the same network.

    python benchmarks/training_throughput.py

And what fake quantization of weights and inputs adds.

Interleaved rounds, the minimum of each, one process; prints ratios, since machines differ.
"""

import argparse
import time
from collections.abc import Callable
from typing import Final

import torch
from torch import nn

from hwsearch.accuracy.data.batches import normalized
from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.data.sources import load_data
from hwsearch.accuracy.training import Recipe, calibration_batches, train
from hwsearch.bits import INT8
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.quantize import calibrate, quantize

BACKBONES: Final = (
    "resnet10t", "test_resnet", "lcnet_050", "mobilenetv3_small_050", "regnetx_002",
)  # fmt: skip


def plain(model: nn.Module, data: DataSet, px: int, recipe: Recipe) -> None:
    """A loop as in a tutorial: shuffled batches, SGD with momentum, no augmentation."""
    generator = torch.Generator().manual_seed(recipe.seed)
    split = data.at(px).train
    images = normalized(split.images, data.mean, data.std).contiguous()
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, momentum=0.9)
    model.train()
    done = 0
    while done < recipe.steps:
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(order) - recipe.batch_size + 1, recipe.batch_size):
            chosen = order[start : start + recipe.batch_size]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[chosen]), split.labels[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            done += 1
            if done == recipe.steps:
                return


def plain_network(name: str, data: DataSet, px: int) -> nn.Module:
    """Without quantization."""
    return build(BackboneRef(name=name, classes=len(data.class_names)), px)


def int8_network(name: str, data: DataSet, px: int) -> nn.Module:
    """Uniform int8, as it is fine-tuned."""
    model = plain_network(name, data, px)
    layers = [p for p, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    quantize(model, dict.fromkeys(layers, INT8), "affine")
    calibrate(model, calibration_batches(data, px, batch_size=64, count=1))
    return model


def main() -> None:
    """Measure some backbones of the default space."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--px", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("backbones", nargs="*", default=list(BACKBONES))
    given = parser.parse_args()
    data = load_data("digits", px=given.px)
    recipe = Recipe(steps=given.steps, learning_rate=0.01)
    columns: dict[str, tuple[Callable[..., nn.Module], Callable[..., None]]] = {
        "plain": (plain_network, plain),
        "hwsearch": (plain_network, train),
        "int8": (int8_network, train),
    }
    head = "".join(f" {label:>12s}" for label in columns)
    print(f"{'ms/step':24s}{head}  plain/hwsearch  int8/hwsearch")
    for name in given.backbones:
        best = dict.fromkeys(columns, float("inf"))
        for _ in range(given.rounds):
            for label, (make, loop) in columns.items():
                model = make(name, data, given.px)
                start = time.perf_counter()
                loop(model, data, given.px, recipe)
                best[label] = min(best[label], time.perf_counter() - start)
        times = "".join(f" {1e3 * seconds / given.steps:12.1f}" for seconds in best.values())
        print(
            f"{name:24s}{times} {best['plain'] / best['hwsearch']:15.2f} "
            f"{best['int8'] / best['hwsearch']:14.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
