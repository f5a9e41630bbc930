"""What ONNX Runtime makes of the files: the judge of exports."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from deploy_fixtures import (
    NETS,
    Bits,
    logits,
    mixed,
    network,
    operations,
    pictures,
    quantized,
    realised,
    torch_logits,
)
from torch import Tensor, nn

from hwsearch.bits import FP32, INT8
from hwsearch.deploy.export import ExportedFile, export_onnx
from hwsearch.deploy.ranges import observe_output_ranges
from hwsearch.nets.quantize import Scheme, calibrate, quantize


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def exported(name: str, bits: Bits, file: Path, *, outputs: bool) -> ExportedFile:
    px = NETS[name]
    model = quantized(network(name), px, bits)
    ranges = observe_output_ranges(model, [pictures(px)]) if outputs else None
    return export_onnx(model, px, file, output_ranges=ranges)


def int8_layers(made: ExportedFile, kind: str) -> int:
    """How many layers of a kind of node are asked for in integers throughout."""
    kinds = {node.name: node.op_type for node in onnx.load(made.path).graph.node}
    return sum(
        kinds[layer.path] == kind and max(layer.bits.weight_bits, layer.bits.activation_bits) <= 8
        for layer in made.layers
    )


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("bits", [lambda _: INT8, mixed], ids=["int8", "mixed"])
def test_convolutions_when_outputs_are_quantized_run_as_asked(
    name: str, bits: Bits, file: Path, tmp_path: Path
) -> None:
    made = exported(name, bits, file, outputs=True)
    found = realised(file, tmp_path)
    # As many as were asked for: none falls back, and no float layer is quantized unasked.
    assert found["QLinearConv"] == int8_layers(made, "Conv")
    assert found["QGemm"] == int8_layers(made, "Gemm")
    assert found["MatMulIntegerToFloat"] == int8_layers(made, "MatMul")


def test_convolutions_when_only_inputs_are_quantized_mostly_run_in_float(
    file: Path, tmp_path: Path
) -> None:
    made = exported("resnet10t", lambda _: INT8, file, outputs=False)
    found = realised(file, tmp_path)
    asked = int8_layers(made, "Conv")
    assert found["QLinearConv"] == sum(layer.output_quantized for layer in made.layers) < asked


def test_convolution_when_its_output_is_said_to_be_quantized_runs_in_int8(
    file: Path, tmp_path: Path
) -> None:
    made = exported("mobilenetv2_050", lambda _: INT8, file, outputs=True)
    quantized_outputs = sum(layer.output_quantized for layer in made.layers)
    assert realised(file, tmp_path)["QLinearConv"] == quantized_outputs == 52
    assert realised(file, tmp_path)["QLinearAdd"] == 10


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
@pytest.mark.parametrize(
    ("bits", "share"), [(lambda _: INT8, 0.5), (mixed, 0.75)], ids=["int8", "mixed"]
)
def test_logits_when_quantized_are_those_of_the_fake_quantized_module(
    name: str, scheme: Scheme, bits: Bits, share: float, file: Path
) -> None:
    px = NETS[name]
    plain = network(name)
    model = quantized(plain, px, bits, scheme)
    export_onnx(model, px, file)
    expected, dense = torch_logits(model, pictures(px)), torch_logits(plain, pictures(px))
    found = logits(file, pictures(px))
    # Values in the middle between two integers fall either way, and half-precision outputs are
    # rounded. A random network of 52 layers amplifies that, as it does what quantization changes:
    # an input larger by 1e-6 moves the logits of the fake-quantized module as much.
    noise = np.sqrt(np.square(expected - dense).mean())
    assert np.sqrt(np.square(found - expected).mean()) < share * noise
    decided = margin(expected) > 2 * np.abs(found - expected).max(1)
    assert (found.argmax(1) == expected.argmax(1))[decided].all()


def margin(values: np.ndarray) -> np.ndarray:
    """How far the first of each row is ahead of the second."""
    ranked = np.sort(values, 1)
    return np.asarray(ranked[:, -1] - ranked[:, -2])


@pytest.mark.parametrize("name", ["resnet10t", "test_efficientnet", "test_vit"])
def test_logits_when_outputs_are_quantized_stay_near(name: str, file: Path, tmp_path: Path) -> None:
    px = NETS[name]
    model = quantized(network(name), px, INT8)
    ranges = observe_output_ranges(model, [pictures(px)])
    export_onnx(model, px, file, output_ranges=ranges)
    expected = torch_logits(model, pictures(px))
    found = logits(file, pictures(px), optimized=tmp_path / "optimized.onnx")
    correlation = np.corrcoef(found.ravel(), expected.ravel())[0, 1]
    assert correlation > 0.98
    assert np.abs(found - expected).max() < 0.5 * expected.std()


class Sandwich(nn.Module):
    """A float convolution between integer ones."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.first, self.middle = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.last = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 4)
        self.between = between

    def forward(self, values: Tensor) -> Tensor:
        middle = self.between(self.middle(self.first(values).relu()))
        result: Tensor = self.head(self.last(middle).relu().mean((2, 3)))
        return result


@pytest.mark.parametrize(
    "between", [nn.Identity(), nn.ReLU(), nn.MaxPool2d(2)], ids=["nothing", "relu", "pooling"]
)
def test_float_layer_when_between_integers_stays_float(
    between: nn.Module, file: Path, tmp_path: Path
) -> None:
    model = Sandwich(between).eval()
    quantize(model, {"first": INT8, "middle": FP32, "last": INT8}, "affine")
    calibrate(model, [pictures(16)])
    ranges = observe_output_ranges(model, [pictures(16)])
    export_onnx(model, 16, file, output_ranges=ranges)
    assert realised(file, tmp_path)["QLinearConv"] == 2
    # One operation stops ONNX Runtime from quantizing it; it changes nothing.
    assert operations(file)["Max"] == 1
    expected = torch_logits(model, pictures(16))
    found = logits(file, pictures(16), optimized=tmp_path / "again.onnx")
    np.testing.assert_allclose(found, expected, atol=0.03)
