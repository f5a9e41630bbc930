"""Candidates priced per second on one core, for traced backbones.

::

    OMP_NUM_THREADS=1 python benchmarks/predictor/throughput.py [--target jetson-nano]

The best of some rounds, from channels and bits of each candidate to its latency: per second of
processor time, which other programs on the core do not take from, and per second of the clock.
"""

import argparse
import time
from typing import Final

import numpy as np

from hwsearch.hardware.kernels import KernelKind
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.targets import load_profile
from hwsearch.nets.backbone import BackboneRef
from hwsearch.nets.blueprint import make_blueprint
from hwsearch.nets.candidates_table import CandidatesTable

_ROUNDS: Final = 9


def candidates_per_s(
    predictor: CostPredictor, name: str, px: int, count: int
) -> tuple[float, float]:
    """The best of some rounds, by processor time and by the clock."""
    table = CandidatesTable.of(make_blueprint(BackboneRef(name=name, classes=10), px))
    rng = np.random.default_rng(0)
    groups = table.blueprint.graph.groups
    kept = np.stack([rng.integers(1, group.channels + 1, count) for group in groups], axis=1)
    legal = predictor.profile.legal_bits(KernelKind.CONV)
    chosen = rng.integers(0, len(legal), (count, len(table.layers)))
    weight_bits = np.array([bits.weight_bits for bits in legal])[chosen]
    activation_bits = np.array([bits.activation_bits for bits in legal])[chosen]
    best_cpu_s = best_s = float("inf")
    for _ in range(_ROUNDS):
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        latencies = predictor.latencies_ms(table.table(kept, weight_bits, activation_bits))
        best_cpu_s = min(best_cpu_s, time.process_time() - start_cpu_s)
        best_s = min(best_s, time.perf_counter() - start_s)
    if not (np.isfinite(latencies).all() and (latencies > 0).all()):
        raise ValueError(f"{name}: a latency is not positive and finite")
    return count / best_cpu_s, count / best_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="jetson-nano")
    parser.add_argument("--candidates", type=int, default=4000)
    given = parser.parse_args()
    predictor = CostPredictor(load_profile(given.target))
    print("| backbone | input px | candidates per s of one core | by the clock |")
    print("| --- | --- | --- | --- |")
    for name, px in (("resnet18", 96), ("mobilenetv2_100", 96), ("efficientnet_lite0", 224)):
        by_cpu, by_clock = candidates_per_s(predictor, name, px, given.candidates)
        print(f"| {name} | {px} | {by_cpu:,.0f} | {by_clock:,.0f} |")


if __name__ == "__main__":
    main()
