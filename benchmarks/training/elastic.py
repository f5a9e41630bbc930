"""Elastic against dense base networks, and both against a plain script, at equal processor time.

::

    OMP_NUM_THREADS=1 python benchmarks/training/elastic.py PICTURES --seconds 100 200 --seeds 3

=========  ==========================================================================
arm        how the time is used
=========  ==========================================================================
plain      a loop as people write it: SGD with Nesterov momentum, warm-up and cosine,
           shift and flip, label smoothing; knows nothing of the tool
dense      ``BaseTraining`` without narrow networks
elastic    ``BaseTraining`` as a run uses it
unmixed    the same without mixed pictures
=========  ==========================================================================

Each row has the held-out accuracy of the whole network and of four narrower ones, whose channels
are removed by importance and whose batch norm is re-estimated, without a step of training; with
``--tune 4`` also after so many passes of fine-tuning. A row is added when it is finished; what is
there is not run again.
"""

import argparse
import copy
import csv
import math
import time
import unittest.mock
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from statistics import mean
from typing import Final

import torch
from torch import nn

from hwsearch.accuracy import base_training
from hwsearch.accuracy.agreement import agreement
from hwsearch.accuracy.base_training import _MIXED_FROM_PASS, WHOLE_SHARE, BaseTraining
from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.data.sources import load_data
from hwsearch.accuracy.elastic import Importance, Widths
from hwsearch.accuracy.training import (
    LABEL_SMOOTHING,
    Recipe,
    evaluate,
    reestimate_batch_norm,
    train,
    training_batches,
)
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import Blueprint, make_blueprint
from hwsearch.nets.prune import channel_importance, least_important, remove_channels
from hwsearch.space.candidate import STAGES
from hwsearch.space.channel_allocator import allocate_channels

_ROOT: Final = Path(__file__).resolve().parents[2]
ARMS: Final = ("plain", "dense", "elastic", "unmixed")
RATIOS: Final = (0.0, 0.25, 0.5, 0.625, 0.75)
_STRIDES: Final = {"lcnet_050": 1}
_PX, _BATCH, _MANY = 32, 64, 10**9
_RATE: Final = 0.05
#: As a search of the default space removes channels.
_WIDTHS: Final = Widths(ratios=(0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75), granularity=8)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One base network.

    Attributes:
        seconds: of processor time that its training took.
        steps: optimizer steps.
        percent_0 to percent_75: held-out accuracy with that share of all channels removed.
        tuned_0 to tuned_75: the same after fine-tuning; nan where there was none.
        narrow_s: seconds for a narrow network: removal, re-estimation and a validation score.
    """

    backbone: str
    arm: str
    seconds: float
    seed: int
    steps: int
    percent_0: float
    percent_25: float
    percent_50: float
    percent_62: float
    percent_75: float
    tuned_0: float
    tuned_25: float
    tuned_50: float
    tuned_62: float
    tuned_75: float
    narrow_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pictures", help="as --data of a run")
    parser.add_argument("--seconds", type=float, nargs="+", default=[120.0, 240.0, 480.0, 960.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--backbones", default="test_resnet,test_efficientnet,resnet10t")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--tune", type=int, default=0, help="passes of fine-tuning")
    parser.add_argument("--name", default=None, help="of the pictures in the name of the file")
    parser.add_argument("--out", type=Path, default=None, help="CSV file")
    given = parser.parse_args()
    name = given.name or Path(given.pictures).name
    out = given.out or (
        _ROOT / "results" / "published"
        / f"training_elastic_{name}-{_PX}px-seeds{given.seeds}_{date.today().isoformat()}.csv"
    )  # fmt: skip
    torch.set_num_threads(1)
    # Schedules follow the clock: let it count what this process alone takes.
    time.monotonic = time.process_time
    for seed in range(given.seeds):
        data = load_data(given.pictures, px=_PX, seed=seed)
        for seconds in given.seconds:
            for backbone in given.backbones.split(","):
                for arm in given.arms.split(","):
                    known = {(r.backbone, r.arm, r.seconds, r.seed) for r in read_rows(out)}
                    if (backbone, arm, seconds, seed) in known:
                        continue
                    row = run(backbone, arm, seconds, seed, data, given.tune)
                    write_rows(out, [*read_rows(out), row])
                    print(row, flush=True)
    print(summary(read_rows(out)))
    print(f"\nwritten to {out}")


def run(backbone: str, arm: str, seconds: float, seed: int, data: DataSet, passes: int) -> Trained:
    """Train one network and score it at all widths."""
    ref = BackboneRef(name=backbone, classes=data.classes, stem_stride=_STRIDES.get(backbone))
    blueprint = make_blueprint(ref, _PX)
    model = build(ref, _PX, seed=seed)
    count = [0]

    def on_step(_done: int, _total: int) -> None:
        count[0] += 1

    importance: Importance | None = None
    if arm == "plain":
        plain(model, data, seconds, seed, on_step)
    else:
        recipe = Recipe(steps=_MANY, batch_size=_BATCH, learning_rate=_RATE, seed=seed)
        with unittest.mock.patch.object(
            base_training, "_MIXED_FROM_PASS", math.inf if arm == "unmixed" else _MIXED_FROM_PASS
        ):
            work = BaseTraining(model, blueprint, data, recipe)
        work.train_whole(_MANY, WHOLE_SHARE * seconds, on_step=on_step)
        widths = None if arm == "dense" else _WIDTHS
        work.anneal(_MANY, (1 - WHOLE_SHARE) * seconds, widths=widths, on_step=on_step)
        importance = work.importance
    if importance is None:
        importance = channel_importance(model, blueprint.trace, blueprint.graph)
    begin = time.process_time()
    narrow = [narrowed(model, blueprint, importance, ratio, data) for ratio in RATIOS]
    for one in narrow:
        evaluate(one, data.validation, data)
    narrow_s = (time.process_time() - begin) / len(narrow)
    percents = [100 * evaluate(one, data.test, data).accuracy for one in narrow]
    tuned = [math.nan] * len(RATIOS)
    if passes:
        steps = passes * len(data.train) // _BATCH
        for at, one in enumerate(narrow):
            train(one, data, _PX, Recipe(steps=steps, learning_rate=0.02, seed=seed))
            reestimate_batch_norm(one, data, _PX, batch_size=_BATCH)
            tuned[at] = 100 * evaluate(one, data.test, data).accuracy
    return Trained(
        backbone=backbone, arm=arm, seconds=seconds, seed=seed, steps=count[0],
        percent_0=percents[0], percent_25=percents[1], percent_50=percents[2],
        percent_62=percents[3], percent_75=percents[4],
        tuned_0=tuned[0], tuned_25=tuned[1], tuned_50=tuned[2], tuned_62=tuned[3],
        tuned_75=tuned[4], narrow_s=narrow_s,
    )  # fmt: skip


def plain(model: nn.Module, data: DataSet, seconds: float, seed: int, on_step: object) -> None:
    """What people write: one loop, a schedule over the whole time."""
    model.to(memory_format=torch.channels_last).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [
            {"params": decayed, "weight_decay": 5e-4},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=_RATE,
        momentum=0.9,
        nesterov=True,
    )
    torch.manual_seed(seed)
    batches = training_batches(data, _PX, Recipe(steps=1, batch_size=_BATCH, seed=seed))
    begin, done = time.process_time(), 0
    while (share := (time.process_time() - begin) / seconds) < 1:
        rate = _RATE * min(1.0, (done + 1) / 66) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, labels = next(batches)
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(images), labels, label_smoothing=LABEL_SMOOTHING)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        done += 1
        if callable(on_step):
            on_step(done, done)
    model.eval()


def narrowed(
    model: nn.Module, blueprint: Blueprint, importance: Importance, ratio: float, data: DataSet
) -> nn.Module:
    """The network with a share of all channels removed and batch norm re-estimated."""
    groups = _WIDTHS.groups(blueprint, importance)
    kept = allocate_channels(groups, (ratio,) * len(STAGES), 0.0)
    one = copy.deepcopy(model)
    remove_channels(one, blueprint.trace, least_important(importance, kept))
    reestimate_batch_norm(one, data, _PX, batch_size=_BATCH)
    return one


def read_rows(path: Path) -> list[Trained]:
    """The rows so far; none if there is no file."""
    if not path.is_file():
        return []
    kinds = {field.name: field.type for field in fields(Trained)}
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Trained(**{name: kinds[name](text) for name, text in row.items()})  # type: ignore[operator]
            for row in csv.DictReader(file)
        ]


def write_rows(path: Path, rows: Sequence[Trained]) -> None:
    """Write the whole file, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Trained))
        for row in rows:
            writer.writerow(
                f"{cell:.6g}" if isinstance(cell, float) else cell for cell in asdict(row).values()
            )
    part.replace(path)


def summary(rows: Sequence[Trained]) -> str:
    """Means over the seeds, a line for each backbone, arm and time."""
    names = ("percent_0", "percent_25", "percent_50", "percent_62", "percent_75")
    tuned = tuple(name.replace("percent", "tuned") for name in names)
    lines = ["| backbone | arm | s | seeds | steps | " + " | ".join((*names, *tuned)) + " | tau |"]
    lines.append("|" + " --- |" * (6 + len(names) + len(tuned)))
    for key in sorted({(r.backbone, r.seconds, r.arm) for r in rows}):
        own = [r for r in rows if (r.backbone, r.seconds, r.arm) == key]
        cells = [f"{mean(getattr(r, name) for r in own):.1f}" for name in (*names, *tuned)]
        tau = "-"
        if not math.isnan(own[0].tuned_0):
            found = agreement(
                [getattr(r, name) for r in own for name in names],
                [getattr(r, name) for r in own for name in tuned],
            )
            tau = "-" if found is None else f"{found.tau:.2f}"
        lines.append(
            f"| {key[0]} | {key[2]} | {key[1]:g} | {len(own)} | {mean(r.steps for r in own):.0f} | "
            + " | ".join(cells)
            + f" | {tau} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
