"""Are int8 files as fast as those of the stock tool, and as accurate?

    python benchmarks/deploy/int8_speed.py PICTURES results/published/deploy_int8-speed_NAME.csv

Base networks are trained on the pictures (``--data`` of a run) and quantized after training, once
as ``hwsearch export`` does it for ONNX Runtime and once with ``onnxruntime.quantization``
(``quant_pre_process``, ``quantize_static``: Q/DQ, weights per channel, the same calibration
pictures). Both files are optimized by ONNX Runtime, which says how many kernels run, and scored on
all held-out pictures. Latencies are those of one thread: both files take turns in short rounds, a
file has the least of its rounds' medians, and the whole is repeated.

Two files differ on single pictures by chance, more than on all of them. So accuracies are means
over files that were calibrated on other pictures each; ``difference_se_points`` is the standard
error of the difference.
"""

import argparse
import copy
import csv
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from hwsearch.accuracy.base_weights import base_network
from hwsearch.accuracy.data.batches import normalized
from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.data.sources import load_data
from hwsearch.accuracy.ladder import CALIBRATION_BATCHES
from hwsearch.accuracy.training import Recipe, calibration_batches
from hwsearch.bits import INT8
from hwsearch.deploy.export import export_onnx
from hwsearch.deploy.ranges import observe_output_ranges
from hwsearch.deploy.realised import runtime_name
from hwsearch.hardware.targets import load_profile
from hwsearch.nets.backbone import BackboneRef
from hwsearch.nets.quantize import calibrate, quantize

#: With the stride of the stem; those of the default space and one with many residual sums.
BACKBONES: Final = {
    "test_resnet": None, "resnet10t": None, "test_efficientnet": None, "lcnet_050": 1,
    "mobilenetv2_050": None,
}  # fmt: skip
PX: Final = 32
BATCH_SIZE: Final = 64
#: Runs of a file within a round, of which the first are not timed.
RUNS: Final = 33
WARM_UP: Final = 3

Row = dict[str, str | int | float]


def write_ours(network: nn.Module, calibration: Sequence[Tensor], path: Path) -> None:
    """Write the int8 file as a search's export for this machine's ONNX Runtime."""
    model = copy.deepcopy(network)
    scheme = load_profile("host").activation_quantization
    layers = [p for p, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    quantize(model, dict.fromkeys(layers, INT8), scheme)
    calibrate(model, calibration)
    export_onnx(model, PX, path, output_ranges=observe_output_ranges(model, calibration))


class Reader(CalibrationDataReader):  # type: ignore[misc] # no types there
    """Hands pictures to the stock tool, one by one."""

    def __init__(self, pictures: Tensor) -> None:
        self.left = iter(pictures.contiguous().numpy())

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next picture; None behind the last."""
        picture = next(self.left, None)
        return None if picture is None else {"picture": picture[None]}


def write_stock(network: nn.Module, calibration: Sequence[Tensor], path: Path) -> None:
    """Write the int8 file of the stock tool, and the fp32 file that it was made from."""
    plain, prepared = path.with_suffix(".fp32.onnx"), path.with_suffix(".prepared.onnx")
    model = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    torch.onnx.export(
        model, (torch.zeros(1, 3, PX, PX),), plain, dynamo=False, opset_version=17,
        input_names=["picture"], output_names=["logits"],
    )  # fmt: skip
    quant_pre_process(str(plain), str(prepared))
    quantize_static(
        str(prepared),
        str(path),
        Reader(torch.cat(list(calibration))),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def session(path: Path, *, optimized: Path | None = None) -> Any:  # noqa: ANN401 - no types there
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def kernels(path: Path) -> int:
    """How many nodes the graph has that ONNX Runtime makes of a file."""
    optimized = path.with_suffix(".optimized.onnx")
    session(path, optimized=optimized)
    return len(onnx.load(optimized).graph.node)


def answers(path: Path, pictures: Tensor) -> NDArray[np.int64]:
    """The class that a file names for each picture."""
    running = session(path)
    name = running.get_inputs()[0].name
    found = [running.run(None, {name: each[None].numpy()})[0].argmax() for each in pictures]
    return np.array(found)


def latencies_ms(paths: Sequence[Path], rounds: int) -> list[float]:
    """Least median over interleaved rounds, of each file."""
    running = [session(path) for path in paths]
    value = np.random.default_rng(0).standard_normal((1, 3, PX, PX)).astype(np.float32)
    feeds = [{each.get_inputs()[0].name: value} for each in running]
    medians: list[list[float]] = [[] for _ in paths]
    for number in range(rounds):
        for at in np.random.default_rng(number).permutation(len(paths)):
            times = []
            for _ in range(RUNS):
                begin = time.perf_counter()
                running[at].run(None, feeds[at])
                times.append(time.perf_counter() - begin)
            medians[at].append(statistics.median(times[WARM_UP:]))
    return [1e3 * min(each) for each in medians]


def row(
    name: str,
    data: DataSet,
    folder: Path,
    *,
    steps: int = 1000,
    calibrations: int = 5,
    rounds: int = 100,
    repeats: int = 5,
) -> Row:
    """The files of one backbone."""
    ref = BackboneRef(name=name, classes=data.classes, stem_stride=BACKBONES[name])
    recipe = Recipe(steps=steps, batch_size=BATCH_SIZE)
    network = base_network(ref, data, PX, recipe, weights="scratch").model.eval()
    tested = normalized(data.test.images, data.mean, data.std).contiguous()
    labels = data.test.labels.numpy()
    ours, stock = folder / f"{name}_ours.onnx", folder / f"{name}_stock.onnx"
    plain = stock.with_suffix(".fp32.onnx")
    count = CALIBRATION_BATCHES * calibrations
    batches = calibration_batches(data, PX, batch_size=BATCH_SIZE, count=count)
    right: dict[Path, list[NDArray[np.bool_]]] = {ours: [], stock: [], plain: []}
    for first in range(calibrations):
        pictures = batches[first::calibrations]
        write_ours(network, pictures, ours)
        write_stock(network, pictures, stock)
        for path in (ours, stock) if first else right:
            right[path].append(answers(path, tested) == labels)
    shares = {path: np.mean(each, axis=0) for path, each in right.items()}
    difference = shares[ours] - shares[stock]
    percent = {path: round(100 * float(each.mean()), 2) for path, each in shares.items()}
    times = [latencies_ms([ours, stock, plain], rounds) for _ in range(repeats)]
    ratios = [one / other for one, other, _ in times]
    middle = [statistics.median(each) for each in zip(*times, strict=True)]
    return {
        "backbone": name,
        "input_px": PX,
        "ours_nodes": kernels(ours),
        "stock_nodes": kernels(stock),
        "ours_ms": round(middle[0], 4),
        "stock_ms": round(middle[1], 4),
        "fp32_ms": round(middle[2], 4),
        "latency_ratio": round(statistics.median(ratios), 3),
        "least_ratio": round(min(ratios), 3),
        "greatest_ratio": round(max(ratios), 3),
        "ours_percent": percent[ours],
        "stock_percent": percent[stock],
        "fp32_percent": percent[plain],
        "difference_points": round(100 * float(difference.mean()), 2),
        "difference_se_points": round(100 * float(difference.std()) / len(labels) ** 0.5, 2),
        "pictures": len(labels),
        "calibrations": calibrations,
        "runtime": runtime_name(),
    }


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pictures", help="a name or a folder, as --data of a run")
    parser.add_argument("csv", type=Path)
    parser.add_argument("--steps", type=int, default=1000, help="of training")
    parser.add_argument("--calibrations", type=int, default=5, help="files to score of each kind")
    parser.add_argument("--rounds", type=int, default=100, help="of a timing")
    parser.add_argument("--repeats", type=int, default=5, help="timings")
    given = parser.parse_args()
    data = load_data(given.pictures, px=PX)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in BACKBONES:
            rows.append(
                row(
                    name,
                    data,
                    Path(folder),
                    steps=given.steps,
                    calibrations=given.calibrations,
                    rounds=given.rounds,
                    repeats=given.repeats,
                )
            )
            print(rows[-1], flush=True)
    with given.csv.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
