"""What ONNX Runtime makes of the files: the judge of exports."""

from pathlib import Path

import numpy as np
import pytest
from deploy_fixtures import (
    NETS,
    MakeShared,
    logits,
    network,
    operations,
    pictures,
    realised,
    torch_logits,
)
from torch import Tensor, nn

from hwsearch.bits import FP32, INT8
from hwsearch.deploy.export import export_onnx
from hwsearch.deploy.ranges import observe_output_ranges
from hwsearch.nets.quantize import Scheme, calibrate, quantize


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(
    ("asked", "scheme", "share"),
    [("int8", "affine", 0.5), ("mixed", "affine", 0.75), ("mixed", "symmetric", 0.75)],
)
def test_logits_when_quantized_are_those_of_the_fake_quantized_module(
    name: str, asked: str, scheme: Scheme, share: float, shared: MakeShared
) -> None:
    made = shared(name, asked, scheme)
    values = pictures(made.px)
    expected, dense = torch_logits(made.model, values), torch_logits(network(name), values)
    found = logits(made.path, values)
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
def test_logits_when_outputs_are_quantized_stay_near(
    name: str, shared: MakeShared, tmp_path: Path
) -> None:
    made = shared(name, "int8", fusion="relu")
    expected = torch_logits(made.model, pictures(made.px))
    found = logits(made.path, pictures(made.px), optimized=tmp_path / "optimized.onnx")
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
