from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from deploy_fixtures import (
    NETS,
    MakeShared,
    logits,
    operations,
    pictures,
    quantized,
    torch_logits,
    weight_of,
    weighted,
)
from onnx import numpy_helper
from torch import Tensor, nn

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.deploy.export import export_onnx
from hwsearch.errors import BackboneError
from hwsearch.nets.quantize import Scheme, calibrate, quantize

PX = 8


class Net(nn.Module):
    """Two convolutions that read one tensor, a third behind both, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.left, self.right = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, values: Tensor) -> Tensor:
        stem = torch.relu(self.stem(values))
        middle = torch.relu(self.left(stem) + self.right(stem))
        result: Tensor = self.head(torch.relu(self.last(middle)).mean((2, 3)))
        return result


@pytest.fixture
def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net().eval()


def initializers(file: Path) -> dict[str, Any]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(file).graph.initializer}


def nodes(file: Path) -> dict[str, onnx.NodeProto]:
    return {node.name: node for node in onnx.load(file).graph.node}


def maker(file: Path, tensor: str) -> onnx.NodeProto:
    return next(node for node in nodes(file).values() if tensor in node.output)


@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_pair_when_on_an_input_has_the_calibrated_grid(
    net: nn.Module, file: Path, scheme: Scheme
) -> None:
    model = quantized(net, PX, INT8, scheme)
    export_onnx(model, PX, file)
    held = initializers(file)
    for path in weighted(net):
        dequantize = maker(file, nodes(file)[path].input[0])
        quantize_node = maker(file, dequantize.input[0])
        assert (dequantize.op_type, quantize_node.op_type) == (
            "DequantizeLinear",
            "QuantizeLinear",
        )
        assert list(dequantize.input[1:]) == list(quantize_node.input[1:])
        scale, zero = (held[name] for name in dequantize.input[1:])
        assert scale.shape == zero.shape == ()
        assert scale == model.get_buffer(f"{path}.input_quantizer.scale").numpy()[0]
        assert zero == model.get_buffer(f"{path}.input_quantizer.zero_point").numpy()[0]
        assert zero.dtype == (np.int8 if scheme == "symmetric" else np.uint8)
        assert scheme == "affine" or zero == 0


@pytest.mark.parametrize("bits", [2, 8])
def test_weight_when_quantized_holds_the_trained_integers(
    net: nn.Module, file: Path, bits: int
) -> None:
    model = quantized(net, PX, LayerBits(bits, 8))
    export_onnx(model, PX, file)
    held = initializers(file)
    for path in weighted(net):
        dequantize = maker(file, nodes(file)[path].input[1])
        integers, scales, zeros = (held[name] for name in dequantize.input)
        assert integers.dtype == zeros.dtype == np.int8
        assert not zeros.any()
        # Channels are on axis 0; only a product of tokens has its weight transposed.
        [axis] = [item.i for item in dequantize.attribute if item.name == "axis"]
        assert axis == 0
        trained = model.get_parameter(f"{path}.parametrizations.weight.original").detach()
        quantizer: Any = model.get_submodule(f"{path}.parametrizations.weight.0")
        largest = 2 ** (bits - 1) - 1
        steps = trained.abs().flatten(1).amax(1) * quantizer.clip / largest
        expected = (trained / steps.reshape(-1, *[1] * (trained.dim() - 1))).numpy()
        expected = np.clip(np.rint(expected), -largest, largest)
        # A weight in the middle between two integers may fall on either.
        assert np.abs(integers - expected).max() <= 1
        assert (integers != expected).mean() < 0.01
        np.testing.assert_allclose(
            integers * scales.reshape(-1, *[1] * (integers.ndim - 1)),
            weight_of(model, path),
            rtol=1e-6,
        )


def test_pair_when_two_layers_read_one_tensor_is_shared(net: nn.Module, file: Path) -> None:
    export_onnx(quantized(net, PX, INT8), PX, file)
    found = nodes(file)
    assert found["left"].input[0] == found["right"].input[0]
    # The picture, the stem's output, the sum, the pooled vector; and five weights.
    assert operations(file)["QuantizeLinear"] == 4
    assert operations(file)["DequantizeLinear"] == 4 + 5


def test_pairs_when_their_scales_differ_are_apart(net: nn.Module, file: Path) -> None:
    model = quantized(net, PX, INT8)
    model.get_buffer("left.input_quantizer.scale").mul_(2)
    export_onnx(model, PX, file)
    found = nodes(file)
    assert found["left"].input[0] != found["right"].input[0]
    assert operations(file)["QuantizeLinear"] == 5
    expected = torch_logits(model, pictures(PX))
    np.testing.assert_allclose(logits(file, pictures(PX)), expected, atol=0.02)


@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
@pytest.mark.parametrize("bits", [2, 6, 8])
def test_activation_when_below_8_bits_saturates_where_its_grid_ends(
    file: Path, bits: int, scheme: Scheme
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    quantize(model, {"0": LayerBits(8, bits)}, scheme)
    calibrate(model, [pictures(PX)])
    export_onnx(model, PX, file)
    assert operations(file)["Clip"] == (bits < 8)
    far = pictures(PX) * 10
    np.testing.assert_allclose(logits(file, far), torch_logits(model, far), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("bits", ["int8", "mixed"])
def test_pairs_when_counted_are_those_asked_for(name: str, bits: str, shared: MakeShared) -> None:
    made = shared(name, bits).file
    by_name = nodes(made.path)
    for layer in made.layers:
        asked, node = layer.bits, by_name[layer.path]
        read = set(node.input[:2])
        above = [n.op_type for n in by_name.values() if read & set(n.output)]
        # The weight of a layer that computes in half precision has a cast between.
        wanted = (asked.weight_bits <= 8 and asked.activation_bits != 16) + (
            asked.activation_bits <= 8
        )
        assert above.count("DequantizeLinear") == wanted
    found = operations(made.path)
    weights = sum(layer.bits.weight_bits <= 8 for layer in made.layers)
    assert found["DequantizeLinear"] == found["QuantizeLinear"] + weights
    inputs = [layer for layer in made.layers if layer.bits.activation_bits <= 8]
    assert found["QuantizeLinear"] <= len(inputs)
    assert not any(
        layer.output_quantized and layer.bits.activation_bits > 8 for layer in made.layers
    )


def test_output_when_a_following_layer_has_a_grid_uses_that(net: nn.Module, file: Path) -> None:
    model = quantized(net, PX, INT8)
    export_onnx(model, PX, file)
    before = operations(file)
    made = export_onnx(model, PX, file, output_ranges={"stem": (0.0, 4.0)})
    assert operations(file) == before
    flags = {layer.path: layer.output_quantized for layer in made.layers}
    # The sum's other term is read in floating point, the vector is pooled before it is quantized.
    assert flags == {"stem": True, "left": False, "right": False, "last": False, "head": False}


def test_output_when_nothing_quantizes_it_gets_the_range(net: nn.Module, file: Path) -> None:
    model = quantized(net, PX, INT8)
    export_onnx(model, PX, file)
    before = operations(file)["QuantizeLinear"]
    made = export_onnx(model, PX, file, output_ranges={"last": (0.0, 2.0)})
    assert operations(file)["QuantizeLinear"] == before + 1
    assert {layer.path for layer in made.layers if layer.output_quantized} == {"stem", "last"}
    [pooling] = [
        n for n in nodes(file).values() if n.op_type in {"ReduceMean", "GlobalAveragePool"}
    ]
    dequantize = maker(file, pooling.input[0])
    scale, zero = (initializers(file)[name] for name in dequantize.input[1:])
    assert scale == pytest.approx(2 / 255)
    assert zero == 0
    assert zero.dtype == np.uint8


def test_range_when_given_as_inner_is_before_the_sum(net: nn.Module, file: Path) -> None:
    model = quantized(net, PX, INT8)
    ranges = {"left:inner": (-1.0, 1.0), "right:inner": (-1.0, 1.0)}
    made = export_onnx(model, PX, file, output_ranges=ranges)
    assert {"left", "right"} <= {layer.path for layer in made.layers if layer.output_quantized}
    [total] = [node for node in nodes(file).values() if node.name.endswith("/Add")]
    assert [maker(file, name).op_type for name in total.input] == ["DequantizeLinear"] * 2


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"nowhere": (0.0, 1.0)}, "for 'nowhere', which is no layer that runs"),
        ({"left": (0.0, 1.0)}, "for 'left', which runs in W32A32; only an integer layer"),
        ({"right": (0.0, 1.0)}, "for 'right', which runs in W16A16"),
        ({"last": (1.0, 0.0)}, "range of 'last' is 1.0 to 0.0"),
        ({"last": (0.0, float("inf"))}, "range of 'last' is 0.0 to inf"),
        ({"last": (float("nan"), 1.0)}, "range of 'last' is nan to 1.0"),
        ({"head": (0.0, 1.0)}, "'head' makes the result, which stays in fp32"),
    ],
)
def test_range_when_it_cannot_be_used_is_refused(
    net: nn.Module, file: Path, ranges: dict[str, tuple[float, float]], message: str
) -> None:
    bits = {"stem": INT8, "left": FP32, "right": FP16, "last": INT8, "head": INT8}
    quantize(net, bits, "affine")
    calibrate(net, [pictures(PX)])
    with pytest.raises(BackboneError, match=message):
        export_onnx(net, PX, file, output_ranges=ranges)
    assert not file.exists()
