"""Candidates priced per second on one core, for traced backbones.

::

    OMP_NUM_THREADS=1 python benchmarks/predictor/throughput.py [--target jetson-nano]

The best of some rounds, from channels and bits of each candidate to its latency.
"""

import argparse
import time

import numpy as np

from hwsearch.hardware.kernels import KernelKind
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.targets import load_profile
from hwsearch.nets.backbone import BackboneRef
from hwsearch.nets.blueprint import make_blueprint
from hwsearch.nets.candidates_table import CandidatesTable


def candidates_per_s(predictor: CostPredictor, name: str, px: int, count: int) -> float:
    """The best of five rounds."""
    table = CandidatesTable.of(make_blueprint(BackboneRef(name=name, classes=10), px))
    rng = np.random.default_rng(0)
    groups = table.blueprint.graph.groups
    kept = np.stack([rng.integers(1, group.channels + 1, count) for group in groups], axis=1)
    legal = predictor.profile.legal_bits(KernelKind.CONV)
    chosen = rng.integers(0, len(legal), (count, len(table.layers)))
    weight_bits = np.array([bits.weight_bits for bits in legal])[chosen]
    activation_bits = np.array([bits.activation_bits for bits in legal])[chosen]
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        latencies = predictor.latencies_ms(table.table(kept, weight_bits, activation_bits))
        best = min(best, time.perf_counter() - start)
    if not (np.isfinite(latencies).all() and (latencies > 0).all()):
        raise ValueError(f"{name}: a latency is not positive and finite")
    return count / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="jetson-nano")
    parser.add_argument("--candidates", type=int, default=4000)
    given = parser.parse_args()
    predictor = CostPredictor(load_profile(given.target))
    print("| backbone | input px | candidates/s |\n|---|---|---|")
    for name, px in (("resnet18", 96), ("mobilenetv2_100", 96), ("efficientnet_lite0", 224)):
        speed = candidates_per_s(predictor, name, px, given.candidates)
        print(f"| {name} | {px} | {speed:,.0f} |")


if __name__ == "__main__":
    main()
