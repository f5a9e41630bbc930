"""How far the rates of the shipped profiles, without their fits, are from published measurements.

::

    python benchmarks/predictor/spec_sheet_interval.py ../shared/data [--nets]

The profiles cite its figures: ``interval`` may not be narrower than the log-std seen here.
"""

import argparse
import csv
import gzip
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from published_nets import jetson_nano_convnet, yolo

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.errors import BackboneError
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import load_profile

_BITS = {"fp32": FP32, "fp16": FP16, "int8": INT8}
_YOLO_BOARDS = {
    "Jetson Orin Nano 8GB": "jetson-orin-nano",
    "Jetson Orin Nano Super 8GB": "jetson-orin-nano-super",
    "Jetson Orin NX 16GB": "jetson-orin-nx",
}
#: The data set's own remark: concatenation copies, anomalous against the same nets on the Nano.
_ANOMALOUS = "densenet"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One network: predicted and measured, in ms or mJ."""

    target: str
    group: str
    net: str
    predicted: float
    measured: float

    @property
    def log_ratio(self) -> float:
        """log(predicted / measured)."""
        return math.log(self.predicted / self.measured)


def compare_nano(data: Path) -> Iterator[Comparison]:
    """Synthetic fp32 convnets on the Jetson Nano: latency, and energy of the board."""
    predictor = CostPredictor(_rates("jetson-nano"))
    with gzip.open(data / "jetson_nano_tensorrt_fp32.csv.gz", "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            desc = jetson_nano_convnet(row["name"], FP32)
            if desc.weight_elements != int(row["params"]):
                raise ValueError(f"{row['name']} was not read as it was measured")
            cost = predictor.predict(desc)
            group = "separable" if row["type"] == "dws" else "dense"
            yield Comparison(
                target="jetson-nano",
                group=f"latency fp32, {group}",
                net=row["name"],
                predicted=cost.latency_ms.value,
                measured=float(row["latency_ms"]),
            )
            if cost.energy_mj is not None:
                yield Comparison(
                    target="jetson-nano",
                    group="energy fp32, board",
                    net=row["name"],
                    predicted=cost.energy_mj.value,
                    measured=float(row["board_energy_mj"]),
                )


def compare_published(data: Path, skipped: list[str]) -> Iterator[Comparison]:
    """Nets of torchvision on AGX Xavier and YOLO on Orin; names that cannot be traced are added."""
    with (data / "jetson_published.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            target, bits = _YOLO_BOARDS.get(row["device"]), _BITS.get(row["precision"].split()[0])
            if not row["runtime"].startswith("TensorRT") or bits is None or row["batch"] != "1":
                continue
            if target is not None and row["model"].startswith("yolo"):
                desc: NetworkDesc | None = yolo(row["model"], 640, bits)
                group = f"latency {row['precision'].split()[0]}, YOLO"
            elif row["device"] == "Jetson AGX Xavier" and "torch2trt_docs" in _origin(row):
                target, desc = "jetson-agx-xavier", _torchvision(row["model"], bits)
                rest = "densenet" if row["model"].startswith(_ANOMALOUS) else "torchvision"
                group = f"latency fp16, {rest}"
            else:
                continue
            if desc is None:
                skipped.append(row["model"])
                continue
            yield Comparison(
                target=target,
                group=group,
                net=f"{row['model']} {row['precision']}",
                predicted=CostPredictor(_rates(target)).latency_ms(desc),
                measured=float(row["latency_ms"]),
            )


def _rates(target: str) -> HardwareProfile:
    return load_profile(target).model_copy(update={"fit": None})


def _origin(row: dict[str, str]) -> str:
    return "torch2trt_docs" if "torch2trt docs/benchmarks" in row["source"] else "other"


def _torchvision(name: str, bits: LayerBits) -> NetworkDesc | None:
    """The network in one width throughout, or None if it cannot be traced."""
    import torch
    import torchvision

    from hwsearch.nets.trace import trace

    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None).eval()
    try:
        traced = trace(model, 224)
    except BackboneError:
        return None
    desc = traced.describe(name, traced.out_channels())
    return desc.with_bits({kernel.name: bits for kernel in desc.weighted})


def _summary(rows: list[Comparison]) -> str:
    logs = [row.log_ratio for row in rows]
    spread = statistics.stdev(logs) if len(logs) > 1 else math.nan
    return (
        f"n={len(rows)}, predicted/measured median {math.exp(statistics.median(logs)):.2f}, "
        f"log-median {statistics.median(logs):+.3f}, log-std {spread:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--nets", action="store_true", help="every published net, too")
    arguments = parser.parse_args()
    skipped: list[str] = []
    rows = [*compare_nano(arguments.data), *compare_published(arguments.data, skipped)]
    if arguments.nets:
        for row in rows:
            if row.target != "jetson-nano":
                ratio = row.predicted / row.measured
                print(f"{row.target},{row.net},{row.predicted:.2f},{row.measured:.2f},{ratio:.2f}")
    for target in dict.fromkeys(row.target for row in rows):
        own = [row for row in rows if row.target == target]
        for group in sorted({row.group for row in own}):
            print(f"{target}: {group}: {_summary([row for row in own if row.group == group])}")
        print(f"{target}: latency, all: {_summary([r for r in own if 'latency' in r.group])}")
    print(f"skipped, cannot be traced: {len(skipped)} ({', '.join(skipped) or 'none'})")


if __name__ == "__main__":
    main()
