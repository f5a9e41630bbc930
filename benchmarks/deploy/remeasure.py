"""Does a latency hold when it is measured again, later and in another process?

Models that runs returned, against the budgets that they were returned under::

    hwsearch run --target host --budget 0.1ms --seed 1 --out RUNS        (and so on)
    python benchmarks/deploy/remeasure.py collect FOLDER RUNS/*
    python benchmarks/deploy/remeasure.py measure FOLDER second
    python benchmarks/deploy/remeasure.py compare FOLDER results/published/deploy_returned.csv

Networks as a search would find them, in any number, without any training::

    python benchmarks/deploy/remeasure.py make FOLDER --count 120
    python benchmarks/deploy/remeasure.py measure FOLDER first
    python benchmarks/deploy/remeasure.py measure FOLDER second
    python benchmarks/deploy/remeasure.py compare FOLDER results/published/deploy_remeasured.csv

``collect`` takes the files of fronts and baselines with the latency that their run measured.
``make`` exports backbones, pruning ratios and bits at random, weights too, since time does not
depend on them. ``measure`` takes latencies as ``hwsearch verify`` does. ``compare`` says how many
lie within the 90 % interval of the first measurement, and how many break the budget of their run;
where there was no run, the tightest budget that hwsearch would have offered the model under, at a
confidence of 0.9.
"""

import argparse
import csv
import json
import math
import random
import shutil
from pathlib import Path
from typing import Final

import torch

from hwsearch.bits import FP32, INT8
from hwsearch.deploy.export import export_onnx
from hwsearch.deploy.ranges import observe_output_ranges
from hwsearch.hardware.measure.places import parse_place
from hwsearch.hardware.measure.protocol import measure
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import make_blueprint
from hwsearch.nets.prune import least_important
from hwsearch.nets.quantize import calibrate, quantize
from hwsearch.nets.realize import pruned
from hwsearch.report.stored import read_front
from hwsearch.ship.verify import latencies_of
from hwsearch.space.channel_allocator import ChannelGroup, allocate_channels

BACKBONES: Final = (
    "resnet10t", "mobilenetv2_050", "mobilenetv3_small_050", "lcnet_050", "test_efficientnet",
    "mnasnet_050",
)  # fmt: skip
CONFIDENCE: Final = 0.9
#: Normal quantiles of 0.9: of one side, and of an interval around the middle.
ONE_SIDED: Final = 1.2816
TWO_SIDED: Final = 1.6449


def make(folder: Path, count: int, seed: int) -> None:
    """Write so many files."""
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        name, px = draw.choice(BACKBONES), draw.choice((32, 48, 64))
        path = folder / f"{number:03d}_{name}_{px}.onnx"
        ref = BackboneRef(name=name, classes=10)
        blueprint = make_blueprint(ref, px)
        ratios = tuple(draw.choice((0.0, 0.25, 0.5)) for _ in range(4))
        groups = [
            ChannelGroup(
                name=group.name, stage=group.stage, channels=group.channels,
                importance=(1.0,) * group.channels, granularity=8,
            )
            for group in blueprint.graph.groups
        ]  # fmt: skip
        kept = allocate_channels(groups, ratios, 0.0)
        scores = {group.name: torch.rand(group.channels).double().numpy() for group in groups}
        model = pruned(build(ref, px), blueprint, least_important(scores, kept)).eval()
        share = draw.choice((0.0, 0.5, 1.0))
        layers = [kernel.name for kernel in blueprint.trace.kernels if kernel.weighted]
        quantize(model, {x: INT8 if draw.random() < share else FP32 for x in layers}, "affine")
        pictures = torch.randn(2, 3, px, px, generator=torch.Generator().manual_seed(number))
        calibrate(model, [pictures])
        export_onnx(model, px, path, output_ranges=observe_output_ranges(model, [pictures]))
        print(path.name, flush=True)


def collect(folder: Path, runs: list[Path]) -> None:
    """Copy the timed files of some runs, and what was measured of them there."""
    folder.mkdir(parents=True, exist_ok=True)
    first: dict[str, dict[str, object]] = {}
    for run in runs:
        front = read_front(run)
        (budget_ms,) = (one.limit for one in front.budgets if one.quantity == "latency")
        offered = len(front.front)
        for at, model in enumerate([*front.front, *front.baselines]):
            latency, artefact = model.latency_ms, model.artefact
            if latency is None or latency.source != "measured" or artefact is None:
                print(f"{run.name}: a model without a measured latency is left out")
                continue
            name = f"{len(first):03d}_{run.name}_{Path(artefact).parent.name}"
            shutil.copyfile(run / artefact, folder / f"{name}.onnx")
            first[name] = {
                "value": latency.value,
                "low": latency.low,
                "high": latency.high,
                "budget_ms": budget_ms if at < offered else None,
            }
    (folder / "first.json").write_text(json.dumps(first), encoding="utf-8")
    print(f"{len(first)} models of {len(runs)} runs")


def take(folder: Path, label: str) -> None:
    """Measure all files once, as ``hwsearch verify --on host`` does."""
    files = {path.stem: path for path in sorted(folder.glob("*.onnx"))}
    report = measure(files, parse_place("host"))
    found = latencies_of(report, CONFIDENCE, of_target=True)
    text = json.dumps({name: json.loads(each.model_dump_json()) for name, each in found.items()})
    (folder / f"{label}.json").write_text(text, encoding="utf-8")
    print(f"{len(found)} files, noise floor {report.noise_floor_percent:.2f} %", *report.warnings)


def compare(folder: Path, table: Path) -> None:
    """Hold the second measurement against the first."""
    first, second = (
        json.loads((folder / f"{label}.json").read_text(encoding="utf-8"))
        for label in ("first", "second")
    )
    rows = []
    for name, before in first.items():
        after = second[name]["value"]
        budget = before["budget_ms"] if "budget_ms" in before else _tightest(before)
        rows.append(
            {
                "net": name,
                "first_ms": round(before["value"], 5),
                "low_ms": round(before["low"], 5),
                "high_ms": round(before["high"], 5),
                "second_ms": round(after, 5),
                "difference_percent": round(100 * (after / before["value"] - 1), 2),
                "inside_interval": before["low"] <= after <= before["high"],
                "budget_ms": None if budget is None else round(budget, 5),
                "breaks_budget": None if budget is None else after > budget,
            }
        )
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    logs = [math.log(float(row["second_ms"]) / float(row["first_ms"])) for row in rows]
    inside = sum(bool(row["inside_interval"]) for row in rows) / len(rows)
    held = [row for row in rows if row["budget_ms"] is not None]
    breaks = sum(bool(row["breaks_budget"]) for row in held)
    spread = math.sqrt(sum(x * x for x in logs) / len(logs))
    print(
        f"{len(rows)} models: {100 * inside:.1f} % inside the 90 % interval; {breaks} of "
        f"{len(held)} with a budget break it ({100 * breaks / max(1, len(held)):.1f} %); root mean "
        f"square of the log difference {spread:.4f}"
    )


def _tightest(before: dict[str, float]) -> float:
    """The least budget that a measured latency meets at ``CONFIDENCE``, in ms."""
    sigma_log = math.log(before["high"] / before["low"]) / (2 * TWO_SIDED)
    return before["value"] * math.exp(ONE_SIDED * sigma_log)


def main() -> None:
    """Do one step."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    one = steps.add_parser("make")
    one.add_argument("folder", type=Path)
    one.add_argument("--count", type=int, default=120)
    one.add_argument("--seed", type=int, default=0)
    zero = steps.add_parser("collect")
    zero.add_argument("folder", type=Path)
    zero.add_argument("runs", type=Path, nargs="+")
    two = steps.add_parser("measure")
    two.add_argument("folder", type=Path)
    two.add_argument("label", choices=["first", "second"])
    three = steps.add_parser("compare")
    three.add_argument("folder", type=Path)
    three.add_argument("csv", type=Path)
    given = parser.parse_args()
    if given.step == "make":
        make(given.folder, given.count, given.seed)
    elif given.step == "collect":
        collect(given.folder, given.runs)
    elif given.step == "measure":
        take(given.folder, given.label)
    else:
        compare(given.folder, given.csv)


if __name__ == "__main__":
    main()
