"""Does a file do what was searched? Exported networks against the ones that were trained.

    pip install -e '.[openvino]'
    PYTHONPATH=benchmarks/search python benchmarks/deploy/fidelity.py FILE.csv

Every family is fine-tuned on the digits as fp32, as uniform int8, with mixed bits, and pruned with
mixed bits, then exported as ``hwsearch export`` does, for a target with ONNX Runtime ("host") or
TensorRT ("jetson-orin-nano"). Columns: accuracy of the module and of the file in both runtimes on
all held-out pictures, how the logits compare, and how many layers run as they were asked to.
"""

import argparse
import csv
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import openvino
import torch
from bench import Bench
from numpy.typing import NDArray
from torch import nn

from hwsearch.accuracy.data.batches import iterate
from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.ladder import CALIBRATION_BATCHES, fine_tune
from hwsearch.accuracy.training import Recipe, calibration_batches
from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.deploy.network_file import network_bytes
from hwsearch.deploy.realised import realised_bits
from hwsearch.hardware.targets import load_profile
from hwsearch.ship.export import ExportOptions, export_model
from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import Knobs
from hwsearch.space.search_space import apply_settings, load_space
from hwsearch.study.asked.pictures import load_pictures
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.jobs.final import WEIGHTS_FILE
from hwsearch.study.written.output import write_layers

BACKBONES: Final = (
    "resnet10t", "mobilenetv2_050", "mobilenetv3_small_050", "lcnet_050", "test_efficientnet",
    "regnetx_002", "test_vit",
)  # fmt: skip
#: What OpenVINO calls weighted layers, and integers.
_WEIGHTED: Final = frozenset({"Convolution", "GroupConvolution", "FullyConnected", "MatMul"})
_INTEGERS: Final = frozenset({"u8", "i8"})

Logits = NDArray[np.float32]
Row = dict[str, str | int | float]


def variants(bench: Bench, knobs: Knobs) -> Iterator[tuple[str, Candidate]]:
    """The four networks of a family."""
    half = (0.25, 0.25, 0.5, 0.5)
    yield "fp32", bench.pricing.backbones.uniform(knobs, FP32)
    yield "uniform int8", bench.pricing.backbones.uniform(knobs, INT8)
    for name, prune in (("mixed bits", (0.0,) * 4), ("pruned, mixed bits", half)):
        yield (
            name,
            bench.expand(
                Knobs(
                    backbone=knobs.backbone,
                    input_px=knobs.input_px,
                    prune=prune,
                    saving=0.5,
                    protect_edges=False,
                    spread=0.5,
                )
            ),
        )


def module_logits(model: nn.Module, data: DataSet, px: int) -> Logits:
    """The logits of a module on all held-out pictures."""
    batches = iterate(data.at(px).test, batch_size=256, mean=data.mean, std=data.std)
    with torch.no_grad():
        return np.asarray(torch.cat([model(images) for images, _ in batches]).numpy())


def file_logits(run: Callable[[Logits], Any], data: DataSet, px: int) -> Logits:
    """The logits of a file, one picture at a time."""
    batches = iterate(data.at(px).test, batch_size=1, mean=data.mean, std=data.std)
    return np.concatenate([run(images.contiguous().numpy()) for images, _ in batches])


def onnxruntime_run(path: Path) -> Callable[[Logits], Any]:
    """ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return lambda picture: session.run(None, {"picture": picture})[0]


def openvino_run(path: Path) -> tuple[Callable[[Logits], Any], dict[str, str]]:
    """OpenVINO on one thread, and the precision in which it runs each convolution and product."""
    compiled = openvino.Core().compile_model(
        str(path),
        "CPU",
        {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1},
    )
    precisions = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = {key: value.get() for key, value in node.get_rt_info().items()}
        if info["layerType"] in _WEIGHTED:
            for name in info["originalLayersNames"].split(","):
                precisions[name.removesuffix("/WithoutBiases")] = info["runtimePrecision"]
    return lambda picture: np.array(compiled({"picture": picture})[0]), precisions


def compared(expected: Logits, found: Logits) -> dict[str, float]:
    """How near the logits of a file are to those of the module."""
    return {
        "logit_correlation": round(float(np.corrcoef(expected.ravel(), found.ravel())[0, 1]), 6),
        "largest_logit_difference": round(float(np.abs(expected - found).max()), 4),
        "logit_spread": round(float(expected.std()), 4),
        "same_answers_percent": round(
            100 * float((expected.argmax(1) == found.argmax(1)).mean()), 3
        ),
    }


def percent(logits: Logits, labels: NDArray[Any]) -> float:
    """Accuracy in percent."""
    return round(100 * float((logits.argmax(1) == labels).mean()), 3)


def row(
    bench: Bench, data: DataSet, name: str, candidate: Candidate, folder: Path, steps: int
) -> Row:
    """Train, export and compare one network."""
    recipe = Recipe(steps=steps, learning_rate=0.02)
    model = fine_tune(bench.plan(candidate), data, recipe)
    network = bench.pricing.backbones.describe(candidate)
    write_layers(folder, network, bench.pricing.predictor)
    (folder / WEIGHTS_FILE).write_bytes(network_bytes(model, bench.training.card(candidate)))
    px = candidate.input_px
    runtime = bench.profile.runtime
    made = export_model(
        folder,
        runtime,
        calibration_batches(data, px, batch_size=64, count=CALIBRATION_BATCHES),
        ExportOptions(),
    )
    onnx.checker.check_model(onnx.load(made.path), full_check=True)
    asked = {layer.path: layer.bits for layer in made.layers}
    realised = realised_bits(made.path, asked)
    in_openvino, precisions = openvino_run(made.path)
    expected = module_logits(model, data, px)
    found = file_logits(onnxruntime_run(made.path), data, px)
    labels = data.test.labels.numpy()
    searched, shipped = percent(expected, labels), percent(found, labels)
    integer = [layer for layer, bits in asked.items() if is_integer(bits)]
    return {
        "target": bench.profile.name,
        "backbone": candidate.backbone,
        "variant": name,
        "pictures": len(labels),
        "searched_accuracy_percent": searched,
        "onnxruntime_accuracy_percent": shipped,
        "lost_pictures": round((searched - shipped) * len(labels) / 100),
        "openvino_accuracy_percent": percent(file_logits(in_openvino, data, px), labels),
        **compared(expected, found),
        "layers": len(asked),
        "int8_asked": len(integer),
        "int8_in_onnxruntime": sum(realised[layer] == INT8 for layer in integer),
        "int8_in_openvino": sum(precisions.get(layer, "") in _INTEGERS for layer in integer),
        "float_asked_int8_in_onnxruntime": sum(
            realised[layer] == INT8 for layer in asked if layer not in integer
        ),
        "opset": made.opset,
    }


def is_integer(bits: LayerBits) -> bool:
    """Whether both are integers."""
    return max(bits.weight_bits, bits.activation_bits) <= 8


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("--targets", nargs="+", default=["host", "jetson-orin-nano"])
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--px", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50)
    given = parser.parse_args()
    rows: list[Row] = []
    for target in given.targets:
        space = apply_settings(
            load_space("tiny"),
            {"backbones": ",".join(given.backbones), "input_px": str(given.px)},
        )
        settings = RunSettings(
            target=target, budget_texts=("100ms",), space=space, weights="scratch"
        )
        data = load_pictures(settings)
        bench = Bench(settings, load_profile(target), data)
        for backbone in given.backbones:
            knobs = Knobs(backbone=backbone, input_px=given.px)
            for name, candidate in variants(bench, knobs):
                with tempfile.TemporaryDirectory() as folder:
                    rows.append(
                        row(bench, data, name, candidate, Path(folder) / "model", given.steps)
                    )
                print(rows[-1], flush=True)
                write(given.csv, rows)


def write(path: Path, rows: list[Row]) -> None:
    """Write what there is so far."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
