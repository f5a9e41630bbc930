"""Operations between layers run in integers where that spares conversions; ONNX Runtime judges."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from deploy_fixtures import (
    MakeShared,
    logits,
    pictures,
    quantized,
    realised,
    torch_logits,
)
from torch import Tensor, nn
from torch.nn import functional

from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.deploy.export import export_onnx
from hwsearch.deploy.ranges import observe_output_ranges

PX = 8
Between = Callable[[Tensor, Tensor], Tensor]


class Net(nn.Module):
    """Two convolutions, what lies between them and a third one, and a classifier."""

    def __init__(self, between: Between) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.last, self.head = nn.LazyConv2d(8, 1), nn.Linear(8, 4)
        self.between = between
        self(pictures(PX))

    def forward(self, values: Tensor) -> Tensor:
        one = torch.relu(self.one(values))
        last = self.last(self.between(one, self.two(one)))
        result: Tensor = self.head(torch.relu(last).mean((2, 3)))
        return result


def net(between: Between, **bits: LayerBits) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Net(between).eval()
    order = {path: at for at, path in enumerate(("one", "two", "last", "head"))}
    chosen = {at: bits.get(path, INT8) for path, at in order.items()}
    return quantized(model, PX, chosen.__getitem__)


def write(model: nn.Module, px: int, file: Path) -> None:
    export_onnx(model, px, file, output_ranges=observe_output_ranges(model, [pictures(px)]))


@pytest.mark.parametrize(
    ("between", "kernels"),
    [
        (lambda one, two: one + two, {"QLinearAdd": 1}),
        (lambda one, two: torch.relu(one + two), {"QLinearAdd": 1}),
        (lambda one, two: one * two, {"QLinearMul": 1}),
        (lambda one, two: torch.cat((one, two), 1), {"QLinearConcat": 1}),
        (lambda _, two: functional.max_pool2d(two, 2), {"NhwcMaxPool": 1}),
        (lambda _, two: functional.avg_pool2d(two, 2), {"QLinearAveragePool": 1}),
        (lambda _, two: functional.leaky_relu(two), {"QLinearLeakyRelu": 1}),
        (lambda _, two: torch.sigmoid(two), {"QLinearSigmoid": 1}),
        (lambda _, two: functional.silu(two), {"QLinearSigmoid": 1, "QLinearMul": 1}),
        (lambda _, two: functional.hardsigmoid(two), {"QLinearAdd": 1}),
        (lambda _, two: functional.hardswish(two), {"QLinearAdd": 1, "QLinearMul": 1}),
        (
            lambda one, two: functional.max_pool2d(one, 2) + functional.max_pool2d(two, 2),
            {"NhwcMaxPool": 2, "QLinearAdd": 1},
        ),
        (
            lambda one, two: one * torch.sigmoid(two.mean((2, 3), keepdim=True)),
            {"QLinearGlobalAveragePool": 1, "QLinearSigmoid": 1, "QLinearMul": 1},
        ),
    ],
    ids=[
        "sum", "sum and relu", "product", "concatenation", "maximum pooling", "average pooling",
        "leaky relu", "sigmoid", "silu", "hard sigmoid", "hard swish", "sum of poolings",
        "squeeze and excite",
    ],
)  # fmt: skip
def test_operation_when_between_integers_runs_in_integers(
    between: Between, kernels: dict[str, int], file: Path, tmp_path: Path
) -> None:
    model = net(between)
    write(model, PX, file)
    found = realised(file, tmp_path)
    layers = {"QLinearConv": 3, "QGemm": 1, "QLinearGlobalAveragePool": 1}
    # The pooling of the head is one of the kernels; the bias of the classifier is the float sum.
    expected = {name: layers.get(name, 0) + kernels.get(name, 0) for name in layers | kernels}
    ends = {"QuantizeLinear": 1, "Add": 1, "Flatten": 1, "Transpose": found["Transpose"]}
    assert found == expected | ends
    dense, seen = torch_logits(model, pictures(PX)), pictures(PX)
    close = np.abs(logits(file, seen, optimized=tmp_path / "again.onnx") - dense)
    assert close.max() < 0.1 * dense.std()


def test_sum_when_one_term_is_float_stays_float(file: Path, tmp_path: Path) -> None:
    model = net(lambda one, two: one + two.tanh())
    write(model, PX, file)
    assert realised(file, tmp_path)["QLinearAdd"] == 0


def test_operation_when_only_a_float_layer_reads_it_stays_float(file: Path, tmp_path: Path) -> None:
    write(net(lambda _, two: torch.sigmoid(two), last=FP32), PX, file)
    assert realised(file, tmp_path)["QLinearSigmoid"] == 0
    # A sum spares one of two conversions.
    write(net(lambda one, two: one + two, last=FP32), PX, file)
    found = realised(file, tmp_path)
    assert found["QLinearAdd"] == 1
    assert found["DequantizeLinear"] == 1


def test_sum_when_a_term_is_quantized_for_a_layer_only_reads_that(
    file: Path, tmp_path: Path
) -> None:
    write(net(lambda one, two: one + two, one=FP32), PX, file)
    found = realised(file, tmp_path)
    assert found["QLinearAdd"] == 1
    # The float layer's output, once for the layer and the sum.
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 0)


def test_hard_swish_when_the_grid_is_signed_stays_float(file: Path, tmp_path: Path) -> None:
    # Saturation would clip it at -128 steps, not at zero.
    model = quantized(Net(lambda _, two: functional.hardswish(two)).eval(), PX, INT8, "symmetric")
    write(model, PX, file)
    assert realised(file, tmp_path)["HardSigmoid"] == 1
    expected = torch_logits(model, pictures(PX))
    np.testing.assert_allclose(logits(file, pictures(PX)), expected, atol=0.05)


@pytest.mark.parametrize("sides", [1, 2])
def test_hard_swish_when_over_one_pixel_adds_channel_by_channel(
    sides: int, file: Path, tmp_path: Path
) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, PX // sides, stride=PX // sides), nn.Hardswish(),
        nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(8 * sides**2, 4),
    )  # fmt: skip
    made = quantized(model.eval(), PX, INT8)
    write(made, PX, file)
    assert realised(file, tmp_path)["QLinearAdd"] == 1
    [term] = [v for n, v in _constants(file).items() if n.endswith("_term")]
    assert term.shape == ((8, 1, 1) if sides == 1 else ())
    expected = torch_logits(made, pictures(PX))
    found = logits(file, pictures(PX), optimized=tmp_path / "again.onnx")
    np.testing.assert_allclose(found, expected, atol=0.05)


def _constants(file: Path) -> dict[str, np.ndarray]:
    tensors = onnx.load(file).graph.initializer
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tensors}


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv2_050", "test_efficientnet", "lcnet_050"])
def test_network_in_int8_has_no_float_kernel_but_the_last_bias(
    name: str, shared: MakeShared, tmp_path: Path
) -> None:
    found = realised(shared(name, "int8", fusion="relu").path, tmp_path)
    integer = {name for name in found if name.startswith("QLinear")}
    rest = {name: found[name] for name in found.keys() - integer - {"Transpose", "NhwcMaxPool"}}
    assert rest == {"QuantizeLinear": 1, "Flatten": 1, "QGemm": 1, "Add": 1}
