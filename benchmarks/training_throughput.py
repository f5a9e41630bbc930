"""Training steps per second: hwsearch's loop against a plain loop over the same network.

    python benchmarks/training_throughput.py

Interleaved rounds, the minimum of each, one process; prints ratios, since machines differ.
"""

import argparse
import time

import torch
from torch import nn

from hwsearch.accuracy.data.batches import normalized, resized
from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.data.sources import load_data
from hwsearch.accuracy.training import Recipe, train
from hwsearch.nets.backbone import BackboneRef, build


def plain(model: nn.Module, data: DataSet, px: int, recipe: Recipe) -> None:
    """A loop as in a tutorial: shuffled batches, SGD with momentum, no augmentation."""
    generator = torch.Generator().manual_seed(recipe.seed)
    split = resized(data.train, px)
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


def main() -> None:
    """Measure each backbone of the default space."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--px", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("backbones", nargs="*", default=["resnet10t", "test_resnet", "lcnet_050"])
    given = parser.parse_args()
    data = load_data("digits", px=given.px)
    recipe = Recipe(steps=given.steps, learning_rate=0.01)
    print(f"{'backbone':24s} {'plain ms/step':>14s} {'hwsearch ms/step':>17s} {'ratio':>6s}")
    for name in given.backbones:
        best = {"plain": float("inf"), "hwsearch": float("inf")}
        for _ in range(given.rounds):
            for label, loop in (("plain", plain), ("hwsearch", train)):
                model = build(BackboneRef(name=name, classes=10), given.px)
                start = time.perf_counter()
                loop(model, data, given.px, recipe)
                best[label] = min(best[label], time.perf_counter() - start)
        per_step = {label: 1e3 * seconds / given.steps for label, seconds in best.items()}
        ratio = per_step["plain"] / per_step["hwsearch"]
        print(f"{name:24s} {per_step['plain']:14.1f} {per_step['hwsearch']:17.1f} {ratio:6.2f}")


if __name__ == "__main__":
    main()
