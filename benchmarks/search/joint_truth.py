"""A joint space of which every candidate was trained: the truth that searches are replayed on.

::

    python benchmarks/search/joint_truth.py PICTURES --name cifar10-7k

Two backbones x three stages x {nothing, a quarter, half pruned} x {fp32, int8, W4A8}: 1,458 in all.
The first stage is the tool's stages 1 and 2 together. Channels and weights come from the trained
base network as in a trial. Each different network is scored on inherited weights, after the steps
of the first rung, and after a fine-tuning of its own from the base network, all fake-quantized.

One row for each network is appended as it is done; the same command goes on where it stopped. Rows
depend on the seed and the number of threads (OMP_NUM_THREADS); seconds depend on what else the
machine does, and those that are published are of a busy one.
"""

import argparse
import csv
import io
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from bench import Bench

from hwsearch.accuracy.ladder import advance, fine_tune, held_out_score, inherit, validation_score
from hwsearch.accuracy.training import Recipe
from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import Knobs
from hwsearch.study.asked.pictures import load_pictures
from hwsearch.study.asked.preflight import check

BACKBONES: Final = ("test_resnet", "test_efficientnet")
RATIOS: Final = (0.0, 0.25, 0.5)
BITS: Final = {"fp32": FP32, "int8": INT8, "W4A8": LayerBits(weight_bits=4, activation_bits=8)}
#: The tool's stages in each stage of this space.
STAGES: Final = ((1, 2), (3,), (4,))
PX: Final = 32
COLUMNS: Final = (
    "candidate", "backbone", "ratio1", "ratio2", "ratio3", "bits1", "bits2", "bits3", "size_bytes",
    "macs", "bit_operations", "validation", "rung0_correct", "rung1_correct", "final_correct",
    "held_out", "held_out_correct", "rung0_s", "rung1_s", "final_s",
)  # fmt: skip
_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One choice for each stage.

    Attributes:
        ratios: of the channels of a stage that are pruned.
        bits: names of ``BITS``.
    """

    backbone: str
    ratios: tuple[float, ...]
    bits: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pictures", nargs="?", default="digits", help="as --data of a run")
    parser.add_argument("--name", default=None, help="of the pictures in the name of the file")
    parser.add_argument("--steps", type=int, default=40, help="of a candidate's fine-tuning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=None, help="networks that are trained now")
    parser.add_argument("--backbone", choices=BACKBONES, help="train only those of this one now")
    parser.add_argument("--drawn", action="store_true", help="in random order, for a part of them")
    parser.add_argument("--out", type=Path, default=_ROOT / "results" / "published")
    given = parser.parse_args()
    name = given.name or Path(given.pictures).name
    path = given.out / f"search_joint-truth_{name}-steps{given.steps}-seed{given.seed}.csv"
    backbones = BACKBONES if given.backbone is None else (given.backbone,)
    order = np.random.default_rng(given.seed) if given.drawn else None
    bench = bench_of(given.pictures, given.seed)
    train_all(bench, path, given.steps, backbones, given.most, order)
    print(f"written to {path}")


def bench_of(pictures: str, seed: int, target: str = "jetson-orin-nano") -> Bench:
    """Where candidates of the space are made and described."""
    checked = check(
        target=target, budgets=("1000ms",), data=pictures, space="tiny",
        trials=1, time_limit=None, confidence=0.9, seed=seed, download=False,
        settings={"backbones": ",".join(BACKBONES), "input_px": str(PX)},
    )  # fmt: skip
    data = load_pictures(checked.settings)
    return Bench(checked.settings, checked.profile, data)


def choices() -> Iterator[Choice]:
    """The whole space, one backbone after the other."""
    for backbone in BACKBONES:
        for ratios in itertools.product(RATIOS, repeat=len(STAGES)):
            for bits in itertools.product(BITS, repeat=len(STAGES)):
                yield Choice(backbone=backbone, ratios=ratios, bits=bits)


def candidate_of(choice: Choice, bench: Bench) -> Candidate:
    """The network of a choice; layers have the bits of their stage."""
    by_stage = {stage: at for at, several in enumerate(STAGES) for stage in several}
    prune = tuple(choice.ratios[by_stage[stage]] for stage in sorted(by_stage))
    knobs = Knobs(backbone=choice.backbone, input_px=PX, prune=prune)
    layers = bench.pricing.backbones.blueprint(knobs).describe({}).weighted
    return Candidate.build(
        backbone=choice.backbone,
        input_px=PX,
        pruning=prune,
        channels=bench.pricing.plain_channels(knobs),
        bits={layer.name: BITS[choice.bits[by_stage[layer.stage]]] for layer in layers},
    )


def train_all(
    bench: Bench,
    path: Path,
    steps: int,
    backbones: Sequence[str],
    most: int | None,
    drawn: np.random.Generator | None = None,
) -> None:
    """Train what is not in the file yet.

    Args:
        bench: of the pictures.
        path: of the file.
        steps: of a network's fine-tuning.
        backbones: that are trained now.
        most: networks that are trained now, at most; None for all.
        drawn: draws their order; None for that of the space.
    """
    done = {row["candidate"] for row in read_rows(path)}
    every: dict[str, tuple[Choice, Candidate]] = {}
    for choice in (one for one in choices() if one.backbone in backbones):
        candidate = candidate_of(choice, bench)
        every.setdefault(candidate.id, (choice, candidate))
    order = list(every)
    if drawn is not None:
        order = [order[at] for at in drawn.permutation(len(order))]
    todo = [every[one] for one in order if one not in done][:most]
    start = time.perf_counter()
    for number, (choice, candidate) in enumerate(todo, start=1):
        append_row(path, train_one(choice, candidate, bench, steps))
        if number % 20 == 0:
            left_s = (time.perf_counter() - start) / number * (len(todo) - number)
            print(f"{number} of {len(todo)}, {left_s / 60:.0f} min left", flush=True)


def train_one(
    choice: Choice, candidate: Candidate, bench: Bench, steps: int
) -> dict[str, str | int | float]:
    """Train one network; its row."""
    data = bench.data
    network = bench.pricing.backbones.describe(candidate)
    first = bench.settings.space.training.rung_steps[0]
    begin = time.perf_counter()
    batch_size = bench.settings.space.training.batch_size
    model = inherit(bench.plan(candidate), data, batch_size=batch_size)
    rung0 = validation_score(model, data, PX)
    rung0_s = time.perf_counter() - begin
    advance(model, data, PX, _recipe(candidate, bench, first, "rung"))
    rung1 = validation_score(model, data, PX)
    rung1_s = time.perf_counter() - begin
    begin = time.perf_counter()
    model = fine_tune(bench.plan(candidate), data, _recipe(candidate, bench, steps, "final"))
    final, held_out = validation_score(model, data, PX), held_out_score(model, data, PX)
    final_s = time.perf_counter() - begin
    return {
        "candidate": candidate.id,
        "backbone": choice.backbone,
        **{f"ratio{at}": ratio for at, ratio in enumerate(choice.ratios, start=1)},
        **{f"bits{at}": bits for at, bits in enumerate(choice.bits, start=1)},
        "size_bytes": network.size_bytes,
        "macs": network.macs,
        "bit_operations": bit_operations(network),
        "validation": final.total,
        "rung0_correct": rung0.correct,
        "rung1_correct": rung1.correct,
        "final_correct": final.correct,
        "held_out": held_out.total,
        "held_out_correct": held_out.correct,
        "rung0_s": round(rung0_s, 2),
        "rung1_s": round(rung1_s, 2),
        "final_s": round(final_s, 2),
    }


def _recipe(candidate: Candidate, bench: Bench, steps: int, use: str) -> Recipe:
    return bench.training.recipe(bench.base_of(candidate), steps, candidate.id, use)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows so far; none if there is no file. A line that was cut off is not one."""
    if not path.is_file():
        return []
    return list(csv.DictReader(_whole_lines(path.read_text("utf-8"))))


def append_row(path: Path, row: dict[str, str | int | float]) -> None:
    """Add one row, after a header in a new file; a line that was cut off is dropped."""
    text = path.read_text("utf-8") if path.is_file() else ""
    kept = "".join(_whole_lines(text))
    added = io.StringIO()
    writer = csv.DictWriter(added, COLUMNS, lineterminator="\n")
    if not kept:
        writer.writeheader()
    writer.writerow(row)
    if kept != text:
        path.write_text(kept, "utf-8")
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(added.getvalue())


def _whole_lines(text: str) -> list[str]:
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def bit_operations(network: NetworkDesc) -> int:
    """The sum over weighted layers of MACs x bits of weights x bits of activations."""
    return sum(
        layer.macs * layer.bits.weight_bits * layer.bits.activation_bits
        for layer in network.weighted
    )


def _silent(*_: object) -> None:
    """Progress is told by candidate."""


if __name__ == "__main__":
    main()
