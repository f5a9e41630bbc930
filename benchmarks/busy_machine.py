"""Training steps on a machine on which other programs run, by how long idle threads spin.

    python benchmarks/busy_machine.py

A thread of torch that waits for another one spins at first (libgomp's GOMP_SPINCOUNT), which takes
the processor from whatever else runs on it. Each setting is timed alone and beside programs
that keep the first core busy, in processes of their own and in turn; the minimum over the rounds
counts.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from typing import Final

#: Name of a setting, and the environment that makes it.
SETTINGS: Final = {
    "libgomp's default": {},
    "spin 3000": {"GOMP_SPINCOUNT": "3000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}
_TIMED: Final = "--timed-here"


def step_ms(backbone: str, steps: int) -> float:
    """Milliseconds of a training step at batch 64 and 32 px, in this process."""
    from hwsearch.accuracy.data.sources import load_data
    from hwsearch.accuracy.training import Recipe, train
    from hwsearch.nets.backbone import BackboneRef, build

    data = load_data("digits", px=32)
    model = build(BackboneRef(name=backbone, classes=10), 32)
    train(model, data, 32, Recipe(steps=2))
    start = time.perf_counter()
    train(model, data, 32, Recipe(steps=steps))
    return 1e3 * (time.perf_counter() - start) / steps


def in_another_process(setting: dict[str, str], backbone: str, steps: int) -> float:
    """The same in a process that starts with an environment."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_"))}
    ended = subprocess.run(
        [sys.executable, __file__, _TIMED, "--backbone", backbone, "--steps", str(steps)],
        env=plain | setting,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return float(ended.stdout)


def spin() -> None:
    """Keep the first core busy until it is ended; pinned, as measurements of latencies are."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    while True:
        pass


def main() -> None:
    """Time every setting, alone and beside busy programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--programs", type=int, default=2, help="busy ones, in the second column")
    parser.add_argument(_TIMED, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.timed_here:
        print(step_ms(given.backbone, given.steps))
        return
    best: dict[tuple[str, bool], float] = {}
    for _ in range(given.rounds):
        for name, setting in SETTINGS.items():
            for busy in (False, True):
                others = [
                    multiprocessing.Process(target=spin) for _ in range(given.programs * busy)
                ]
                for other in others:
                    other.start()
                try:
                    found = in_another_process(setting, given.backbone, given.steps)
                finally:
                    for other in others:
                        other.kill()
                        other.join()
                best[name, busy] = min(best.get((name, busy), float("inf")), found)
    reference = best[next(iter(SETTINGS)), False]
    print(f"{given.backbone}, ms a step, and that over the default's on an idle machine")
    print(
        f"{'setting':20s} {'alone':>8s} {'ratio':>6s} {'beside busy programs':>22s} {'ratio':>6s}"
    )
    for name in SETTINGS:
        alone, beside = best[name, False], best[name, True]
        print(
            f"{name:20s} {alone:8.1f} {alone / reference:6.2f} {beside:22.1f} "
            f"{beside / reference:6.2f}"
        )


if __name__ == "__main__":
    main()
