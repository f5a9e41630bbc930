from pathlib import Path

import numpy as np
import onnx
import pytest
from deploy_fixtures import NETS, logits, network, operations, pictures, quantized, torch_logits
from onnx import TensorProto
from torch import Tensor, nn

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.deploy.export import export_onnx
from hwsearch.nets.quantize import calibrate, quantize

PX = 8


class Chain(nn.Sequential):
    """Four convolutions with activations, pooled."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for at in range(4):
            layers += [nn.Conv2d(3 if at == 0 else 8, 8, 1), nn.Hardswish()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def chain(*bits: LayerBits) -> nn.Module:
    model = Chain().eval()
    quantize(model, {str(2 * at): each for at, each in enumerate(bits)}, "affine")
    calibrate(model, [pictures(PX)])
    return model


def types(file: Path) -> dict[str, int]:
    graph = onnx.load(file).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def halves(file: Path) -> list[str]:
    """The operations that write half precision, in running order."""
    known = types(file)
    nodes = onnx.load(file).graph.node
    return [n.op_type for n in nodes if known[n.output[0]] == TensorProto.FLOAT16]


def test_neighbours_when_in_half_share_their_casts(file: Path) -> None:
    export_onnx(chain(FP32, FP16, FP16, FP32), PX, file)
    assert operations(file)["Cast"] == 2
    # The activation behind a layer goes with it, into the same kernel.
    assert halves(file) == ["Cast", "Conv", "HardSwish", "Conv", "HardSwish"]


def test_half_when_between_integers_is_cast_on_both_sides(file: Path) -> None:
    model = chain(INT8, FP16, INT8, FP32)
    export_onnx(model, PX, file)
    assert operations(file)["Cast"] == 2
    assert halves(file) == ["Cast", "Conv", "HardSwish"]
    known = types(file)
    for node in onnx.load(file).graph.node:
        if node.op_type == "QuantizeLinear":
            assert known.get(node.input[0], TensorProto.FLOAT) == TensorProto.FLOAT
    expected = torch_logits(model, pictures(PX))
    np.testing.assert_allclose(logits(file, pictures(PX)), expected, atol=0.01)


def test_integer_weights_when_run_in_half_are_cast(file: Path) -> None:
    model = chain(LayerBits(8, 16), FP32, FP32, FP32)
    export_onnx(model, PX, file)
    assert operations(file)["DequantizeLinear"] == 1
    assert operations(file)["QuantizeLinear"] == 0
    assert operations(file)["Cast"] == 3  # the picture, the weight, the output
    expected = torch_logits(model, pictures(PX))
    np.testing.assert_allclose(logits(file, pictures(PX)), expected, atol=2e-3)


def test_weight_when_beyond_half_precision_saturates(file: Path) -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)
            nn.init.constant_(self.conv.weight, 1e6)

        def forward(self, values: Tensor) -> Tensor:
            result: Tensor = self.conv(values).mean((2, 3))
            return result

    model = Large()
    quantize(model, {"conv": FP16}, "affine")
    export_onnx(model, PX, file)
    [held] = [t for t in onnx.load(file).graph.initializer if t.name == "conv.weight_half"]
    assert np.isfinite(onnx.numpy_helper.to_array(held)).all()


@pytest.mark.parametrize("name", ["mobilenetv2_050", "test_vit"])
def test_network_when_in_half_differs_by_its_rounding(name: str, file: Path) -> None:
    px = NETS[name]
    model = quantized(network(name), px, FP16)
    export_onnx(model, px, file)
    expected = torch_logits(model, pictures(px))
    found = logits(file, pictures(px))
    # Outputs are rounded to 11 bits as well, in up to 53 layers.
    assert np.abs(found - expected).max() < 0.15 * expected.std()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999
    assert "Conv" in halves(file)
    assert "LayerNormalization" not in halves(file)
