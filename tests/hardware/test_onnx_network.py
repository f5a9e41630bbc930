"""The kernels of ONNX files, judged against the trace of the same module and by hand counts."""

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto
from onnx_files import GRID, Array, floats, node, pair, quantized, write_onnx
from torch import Tensor, nn

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.errors import BackboneError
from hwsearch.hardware.kernels import KernelDesc, KernelKind, NetworkDesc
from hwsearch.hardware.onnx_network import _viewed, read_onnx
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.trace import trace

PX = 64
BACKBONES = (
    "resnet18",
    "mobilenetv2_100",
    "mobilenetv3_small_050",
    "efficientnet_lite0",
    "test_vit",
)

#: Options of torch's exporter that leave batch and size of the picture open.
OPEN_SIZES = {
    "input_names": ["x"],
    "dynamic_axes": {"x": {0: "batch", 2: "height", 3: "width"}},
}


def shapes(network: NetworkDesc) -> Counter[tuple[object, ...]]:
    """All that the cost of a kernel depends on, as often as it occurs."""
    return Counter(
        (
            kernel.kind,
            (kernel.in_channels, kernel.out_channels),
            (kernel.kernel_size, kernel.stride, kernel.groups),
            (kernel.in_size, kernel.out_size),
            (kernel.macs, kernel.weight_elements),
            (kernel.input_elements, kernel.output_elements),
            (kernel.curved, kernel.stage),
        )
        for kernel in network.kernels
    )


def export(model: nn.Module, path: Path, px: int, options: Mapping[str, Any] | None = None) -> Path:
    """torch's exporter, which warns of its own parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = torch.zeros(1, 3, px, px)
        torch.onnx.export(model.eval(), (picture,), path, **{"dynamo": False, **(options or {})})
    return path


def traced(model: nn.Module, px: int) -> NetworkDesc:
    made = trace(model.to("meta"), px)
    return made.describe("network", made.out_channels())


def read(
    path: Path,
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Array] | None = None,
    *,
    picture: Sequence[int | str] = (1, 3, 8, 8),
    picture_type: int = TensorProto.FLOAT,
    outputs: str = "y",
) -> list[KernelDesc]:
    """The kernels of a file made node by node."""
    made = write_onnx(
        path / "net.onnx",
        nodes,
        constants,
        picture=picture,
        picture_type=picture_type,
        outputs=outputs,
    )
    return list(read_onnx(made).kernels)


def kinds(kernels: list[KernelDesc]) -> list[str]:
    return [kernel.kind.value for kernel in kernels]


# -- the same module, traced and exported ----------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
def test_kernels_when_exported_are_those_of_the_trace(name: str, tmp_path: Path) -> None:
    model = build(BackboneRef(name=name, classes=10), PX)
    found = read_onnx(export(model, tmp_path / "net.onnx", PX))
    expected = traced(model, PX)
    assert (found.input_px, found.name) == (PX, "net.onnx")
    assert (found.macs, found.weight_elements) == (expected.macs, expected.weight_elements)
    assert shapes(found) == shapes(expected)
    # The file tells the path of every layer, whichever way it folded the normalization.
    assert {k.name for k in found.weighted} == {k.name for k in expected.weighted}


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_kernels_when_exported_by_dynamo_are_those_of_the_trace(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="torch.onnx.export(dynamo=True) needs it")
    model = build(BackboneRef(name=name, classes=10), PX)
    for parameter in model.parameters():
        # That exporter leaves a bias of zeros out, which only an untrained network has.
        nn.init.uniform_(parameter, 0.01, 0.02)
    found = read_onnx(export(model, tmp_path / "net.onnx", PX, {"dynamo": True, "verbose": False}))
    expected = traced(model, PX)
    assert (found.macs, found.weight_elements) == (expected.macs, expected.weight_elements)
    assert shapes(found) == shapes(expected)
    assert {k.name for k in found.weighted} == {k.name for k in expected.weighted}


class Tokens(nn.Module):
    """What older operator sets spell out: normalization over tokens, gated activations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.act = nn.SiLU()
        self.second = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Mish(), nn.Conv2d(8, 8, 1))
        self.norm = nn.LayerNorm(8)
        self.mix = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8), nn.Hardswish())
        self.head = nn.Linear(8, 10)

    def forward(self, picture: Tensor) -> Tensor:
        values = self.act(self.stem(picture))
        values = values + self.second(values)
        tokens = values.flatten(2).transpose(1, 2)
        tokens = tokens + self.mix(self.norm(tokens))
        result: Tensor = self.head(tokens.mean(1))
        return result


@pytest.mark.parametrize("opset", [13, 14, 17, 20])
def test_kernels_when_activations_are_spelled_out_are_those_of_the_trace(
    opset: int, tmp_path: Path
) -> None:
    model = Tokens()
    found = read_onnx(export(model, tmp_path / "net.onnx", 16, {"opset_version": opset}))
    expected = traced(model, 16)
    assert [k.kind for k in found.kernels].count(KernelKind.NORM) == 1
    assert shapes(found) == shapes(expected)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_kernels_when_sizes_are_open_are_those_of_the_size_asked_for(
    name: str, tmp_path: Path
) -> None:
    model = build(BackboneRef(name=name, classes=10), PX)
    path = export(model, tmp_path / "net.onnx", PX, OPEN_SIZES)
    with pytest.raises(BackboneError, match=r"leaves the size of its picture open; .* --px 224"):
        read_onnx(path)
    assert shapes(read_onnx(path, input_px=PX)) == shapes(traced(model, PX))


def test_kernels_when_a_network_does_not_run_at_that_size_names_the_place(tmp_path: Path) -> None:
    model = build(BackboneRef(name="test_vit", classes=10), PX)
    path = export(model, tmp_path / "net.onnx", PX, OPEN_SIZES)
    with pytest.raises(
        BackboneError, match=r"do not fit together at Add, .*give another --px"
    ) as e:
        read_onnx(path, input_px=96)
    assert len(str(e.value)) < 300


# -- fusion, views and copies ----------------------------------------------------------------------

NORM = {name: floats(3) for name in ("gamma", "beta", "mean", "var")}
W = {"w": floats(3, 3, 1, 1)}
HARD_SWISH = [
    node("Conv", "x w", "c"),
    node("Add", "c three", "a"),
    node("Clip", "a zero six", "b"),
    node("Mul", "c b", "d"),
    node("Div", "d six", "y"),
]
SCALARS = {name: np.array(v, dtype=np.float32) for name, v in
           (("three", 3), ("zero", 0), ("six", 6))}  # fmt: skip

#: By case: nodes, constants, and for each kernel its kind with what else is expected of it.
KERNELS: dict[str, tuple[list[NodeProto], dict[str, Array], list[tuple[str, dict[str, Any]]]]] = {
    "normalization, residual and activation join the convolution; the shift is its bias": (
        [
            node("Conv", "x layer.weight", "c", pads=[1] * 4),
            node("BatchNormalization", "c gamma beta mean var", "n"),
            node("Add", "n x", "s"),
            node("Relu", "s", "y"),
        ],
        {"layer.weight": floats(3, 3, 3, 3), **NORM},
        [
            ("conv", {
                "name": "layer", "bits": FP32, "macs": 8 * 8 * 3 * 3 * 9,
                "weight_elements": 3 * 3 * 9 + 3, "input_elements": 2 * 3 * 8 * 8,
                "output_elements": 3 * 8 * 8, "curved": False,
            }),
        ],
    ),
    "a convolution with a bias gets no second one": (
        [node("Conv", "x w b", "c"), node("BatchNormalization", "c gamma beta mean var", "y")],
        {**W, "b": floats(3), **NORM},
        [("conv", {"weight_elements": 9 + 3})],
    ),
    "a second residual is a kernel": (
        [node("Conv", "x w", "c"), node("Add", "c x", "s"), node("Add", "s x", "y")],
        W,
        [("conv", {}), ("elementwise", {"input_elements": 2 * 3 * 64})],
    ),
    "an activation whose input is read elsewhere is a kernel": (
        [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Concat", "c r", "y", axis=1)],
        W,
        [("conv", {}), ("elementwise", {}), ("copy", {"in_channels": 6, "out_channels": 6})],
    ),
    "an activation that is spelled out is one, and integers cannot clip to it": (
        HARD_SWISH,
        {**W, **SCALARS},
        [("conv", {"weight_elements": 9, "input_elements": 3 * 64, "curved": True})],
    ),
    "a gate that depends on a layer is no activation": (
        [
            node("Conv", "x w", "c"),
            node("GlobalAveragePool", "c", "p"),
            node("Conv", "p v b", "e"),
            node("Sigmoid", "e", "g"),
            node("Mul", "c g", "y"),
        ],
        {**W, "v": floats(3, 3, 1, 1), "b": floats(3)},
        [("conv", {}), ("pooling", {}), ("conv", {"curved": True}),
         ("elementwise", {"input_elements": 3 * 64 + 3})],
    ),
    "a gate of a mean alone is no normalization": (
        [
            node("Conv", "x w", "c"),
            node("ReduceMean", "c axes", "m"),
            node("Sigmoid", "m", "g"),
            node("Mul", "c g", "y"),
        ],
        {**W, "axes": np.array([2, 3])},
        [("conv", {}), ("pooling", {}), ("elementwise", {}), ("elementwise", {})],
    ),
    "a product and a bias are a linear layer": (
        [
            node("Flatten", "x", "f"),
            node("MatMul", "f w", "m"),
            node("Add", "m b", "a"),
            node("Gemm", "a v c", "y", transB=1),
        ],
        {"w": floats(192, 16), "b": floats(16), "v": floats(5, 16), "c": floats(5)},
        [
            ("linear", {"in_channels": 192, "out_channels": 16, "macs": 192 * 16,
                        "weight_elements": 192 * 16 + 16}),
            ("linear", {"in_channels": 16, "macs": 80, "weight_elements": 85}),
        ],
    ),
    "a weight on the left mixes rows": (
        [node("Reshape", "x shape", "r"), node("MatMul", "w r", "y")],
        {"w": floats(7, 3), "shape": np.array([1, 3, 64])},
        [("linear", {"in_channels": 3, "out_channels": 7, "macs": 3 * 7 * 64, "in_size": (64, 1)})],
    ),
    "a product of activations": (
        [
            node("Reshape", "x shape", "a"),
            node("Transpose", "a", "b", perm=[0, 2, 1]),
            node("MatMul", "a b", "m"),
            node("Softmax", "m", "y"),
        ],
        {"shape": np.array([1, 3, 64])},
        [("matmul", {"macs": 3 * 3 * 64, "weight_elements": 0}), ("softmax", {})],
    ),
    "a branch that no output needs is gone": (
        [node("Relu", "x", "y"), node("Conv", "x w", "z"), node("FFT", "z", "q")],
        W,
        [("elementwise", {})],
    ),
    "arithmetic on constants is free, of any operator": (
        [node("CumSum", "w axis", "v"), node("Conv", "x v", "y")],
        {**W, "axis": np.array(0)},
        [("conv", {"macs": 9 * 64})],
    ),
    "a transposition that changes the layout is a copy": (
        [node("Relu", "x", "r"), node("Transpose", "r", "y", perm=[0, 2, 3, 1])],
        {},
        [("elementwise", {}), ("copy", {})],
    ),
    "data of a transposition are put in order: the shuffle of channels in ShuffleNet": (
        [
            node("Conv", "x w", "c"),
            node("Reshape", "c apart", "r"),
            node("Transpose", "r", "t", perm=[0, 2, 1, 3, 4]),
            node("Reshape", "t together", "s"),
            node("Reshape", "s flat", "f"),
            node("Reshape", "f together", "g"),
            node("Conv", "g v", "y"),
        ],
        {
            "w": floats(6, 3, 1, 1),
            "v": floats(6, 6, 1, 1),
            "apart": np.array([1, 2, 3, 8, 8]),
            "together": np.array([1, 6, 8, 8]),
            "flat": np.array([1, 6, 64]),
        },
        [("conv", {}), ("copy", {"input_elements": 6 * 64, "output_elements": 6 * 64}),
         ("conv", {})],
    ),
    "views cost nothing": (
        [
            node("Conv", "x w", "c"),
            node("Split", "c parts", "a b", axis=1),
            node("Slice", "b from to", "s"),
            node("Identity", "s", "i"),
            node("Gather", "i zero", "g", axis=0),
            node("Unsqueeze", "g first", "u"),
            node("Conv", "u v", "y"),
        ],
        {
            "w": floats(8, 3, 1, 1),
            "v": floats(5, 6, 1, 1),
            "parts": np.array([2, 6]),
            "from": np.array([0, 0, 0, 0]),
            "to": np.array([1, 6, 8, 4]),
            "zero": np.array(0),
            "first": np.array([0]),
        },
        [("conv", {"out_channels": 8}), ("conv", {"in_channels": 6, "out_size": (8, 4)})],
    ),
    "padding of nothing is free": (
        [node("Relu", "x", "r"), node("Pad", "r none", "p"), node("Pad", "p one", "y")],
        {"none": np.zeros(8, dtype=np.int64), "one": np.array([0, 0, 0, 0, 0, 0, 1, 1])},
        [("elementwise", {}), ("copy", {"out_size": (9, 9)})],
    ),
    "other operators": (
        [
            node("MaxPool", "x", "p", kernel_shape=[2, 2], strides=[2, 2]),
            node("InstanceNormalization", "p scale shift", "n"),
            node("Tile", "n repeats", "t"),
            node("DepthToSpace", "t", "d", blocksize=2),
            node("Resize", "d - scales", "y"),
        ],
        {
            "scale": floats(3),
            "shift": floats(3),
            "repeats": np.array([1, 4, 1, 1]),
            "scales": np.array([1, 1, 2, 2], dtype=np.float32),
        },
        [("pooling", {}), ("norm", {"weight_elements": 6}), ("copy", {}), ("copy", {}),
         ("pooling", {"out_size": (16, 16)})],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", KERNELS)
def test_kernels_when_counted_by_hand(case: str, tmp_path: Path) -> None:
    nodes, constants, expected = KERNELS[case]
    kernels = read(tmp_path, nodes, constants)
    assert kinds(kernels) == [kind for kind, _ in expected]
    for kernel, (_, known) in zip(kernels, expected, strict=True):
        assert {name: getattr(kernel, name) for name in known} == known


def test_activation_when_a_part_is_read_elsewhere_stays_spelled_out(tmp_path: Path) -> None:
    kernels = read(tmp_path, HARD_SWISH, {**W, **SCALARS}, outputs="y b")
    assert kinds(kernels) == ["conv", "elementwise", "elementwise"]


def test_shape_when_computed_from_the_input_is_folded(tmp_path: Path) -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "batch"),
        node("Unsqueeze", "batch first", "b"),
        node("Concat", "b minus", "shape", axis=0),
        node("Reshape", "x shape", "f"),
        node("MatMul", "f w", "y"),
    ]
    constants = {"zero": np.array(0), "first": np.array([0]), "minus": np.array([-1])}
    constants["w"] = floats(192, 4)
    (kernel,) = read(tmp_path, nodes, constants, picture=("batch", 3, 8, 8))
    assert (kernel.in_channels, kernel.macs) == (192, 768)


def test_channels_when_last_in_the_file_are_found(tmp_path: Path) -> None:
    nodes = [node("Transpose", "x", "t", perm=[0, 3, 1, 2]), node("Conv", "t w", "y")]
    (kernel,) = read(tmp_path, nodes, {"w": floats(4, 3, 1, 1)}, picture=(1, 8, 8, 3))
    assert (kernel.in_channels, kernel.in_size) == (3, (8, 8))


sizes = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@given(sizes, st.randoms(use_true_random=False), st.data())
def test_view_when_possible_has_the_strides_of_numpy(
    shape: list[int], random: Random, data: st.DataObject
) -> None:
    order = list(range(len(shape)))
    random.shuffle(order)
    array = np.arange(math.prod(shape), dtype=np.int8).reshape(shape).transpose(order)
    wanted = data.draw(
        sizes.filter(lambda s: math.prod(s) == math.prod(shape)) | st.just(sorted(shape))
    )
    reshaped = array.reshape(wanted)
    found = _viewed(array.shape, array.strides, tuple(wanted))
    if not np.shares_memory(array, reshaped):
        assert found is None
        return
    assert found is not None
    # An axis of one element has no stride to speak of.
    real = [(f, s) for f, s, n in zip(found, reshaped.strides, wanted, strict=True) if n > 1]
    assert all(stride == expected for stride, expected in real)


# -- bits ------------------------------------------------------------------------------------------


def test_layer_when_input_and_weight_are_dequantized_is_int8(tmp_path: Path) -> None:
    weight, stored = quantized("w", (4, 3, 1, 1))
    nodes = [
        weight,
        *pair("x", "xd"),
        node("Conv", "xd w b", "c"),
        node("Relu", "c", "r"),
        *pair("r", "y"),
    ]
    (kernel,) = read(tmp_path, nodes, {**stored, **GRID, "b": floats(4)})
    assert (kernel.bits, kernel.macs, kernel.weight_elements) == (INT8, 12 * 64, 16)


@pytest.mark.parametrize(
    ("weight_bits", "input_quantized", "expected"),
    [(8, False, "W8A32"), (4, False, "W4A32"), (4, True, "W4A8"), (None, True, "W32A32")],
)
def test_layer_when_its_weight_or_its_input_alone_is_quantized(
    weight_bits: int | None, input_quantized: bool, expected: str, tmp_path: Path
) -> None:
    weight, stored = quantized("w", (4, 3, 1, 1), bits=weight_bits or 8)
    nodes = [*pair("x", "xd"), node("Conv", "xd w" if input_quantized else "x w", "y")]
    if weight_bits is None:
        stored = {"w": floats(4, 3, 1, 1)}
    else:
        nodes.insert(0, weight)
    (kernel,) = read(tmp_path, nodes, {**stored, **GRID})
    assert kernel.bits == LayerBits.parse(expected)
    assert kernel.weight_bytes == 12 * (weight_bits or 32) / 8


def test_linear_when_its_weight_is_transposed_after_dequantization(tmp_path: Path) -> None:
    weight, stored = quantized("w", (5, 192))
    nodes = [
        *pair("x", "xd"),
        node("Flatten", "xd", "f"),
        weight,
        node("Transpose", "w", "t", perm=[1, 0]),
        node("MatMul", "f t", "y"),
    ]
    (kernel,) = read(tmp_path, nodes, {**stored, **GRID})
    assert (kernel.kind, kernel.bits) == (KernelKind.LINEAR, INT8)


def test_residual_when_quantized_is_fused_as_the_search_prices_it(tmp_path: Path) -> None:
    first, stored = quantized("w", (3, 3, 1, 1))
    nodes = [
        first,
        *pair("x", "xd"),
        node("Conv", "xd w", "c"),
        *pair("c", "cd"),
        node("Add", "cd xd", "s"),
        node("Relu", "s", "r"),
        *pair("r", "y"),
    ]
    (kernel,) = read(tmp_path, nodes, {**stored, **GRID})
    assert kernel.input_elements == 2 * 3 * 64


def test_kernel_without_weights_has_the_bits_of_its_widest_input(tmp_path: Path) -> None:
    nodes = [
        *pair("x", "xd"),
        node("MaxPool", "xd", "p", kernel_shape=[2, 2]),
        *pair("p", "pd"),
        node("Concat", "pd pd", "c", axis=1),
        node("Concat", "c pd", "y", axis=1),
    ]
    pooling, both, mixed = read(tmp_path, nodes, GRID)
    assert [pooling.bits, both.bits, mixed.bits] == [INT8, INT8, FP32]


def test_tensors_when_of_half_precision_are_fp16(tmp_path: Path) -> None:
    nodes = [
        node("Cast", "x", "h", to=TensorProto.FLOAT16),
        node("Conv", "h w", "c"),
        node("MaxPool", "c", "p", kernel_shape=[2, 2]),
        node("Cast", "p", "f", to=TensorProto.FLOAT),
        node("Conv", "f v", "y"),
    ]
    half = np.ones((4, 3, 1, 1), dtype=np.float16)
    kernels = read(tmp_path, nodes, {"w": half, "v": floats(2, 4, 1, 1)})
    # The picture is cast on its way in; nothing but a kernel of its own can cast after a pooling.
    assert kinds(kernels) == ["conv", "pooling", "copy", "conv"]
    assert [kernel.bits for kernel in kernels] == [FP16, FP16, FP16, FP32]


def test_cast_when_after_a_layer_is_written_by_it(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "c"),
        node("Cast", "c", "y", to=TensorProto.FLOAT),
    ]
    half = np.ones((4, 3, 1, 1), dtype=np.float16)
    (kernel,) = read(tmp_path, nodes, {"w": half}, picture_type=TensorProto.FLOAT16)
    assert kernel.bits == FP16


def test_weights_when_shared_are_counted_at_each_use(tmp_path: Path) -> None:
    nodes = [node("Conv", "x p.weight", "c"), node("Conv", "c p.weight", "y")]
    first, second = read(tmp_path, nodes, {"p.weight": floats(3, 3, 1, 1)})
    assert (first.name, second.name) == ("p", "p#2")
    assert first.weight_elements == second.weight_elements == 9


# -- what is refused -------------------------------------------------------------------------------


REFUSED: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "operator": (
        [node("Relu", "x", "r"), node("Det", "r", "y", name="/middle/Det")],
        {},
        r"operator Det '/middle/Det' of .*net\.onnx has no cost model; replace it",
    ),
    "operator without a name": (
        [node("Relu", "x", "r"), node("NonZero", "r", "y")],
        {},
        r"operator NonZero 'NonZero_1' of ",
    ),
    "quantized operator": (
        [node("QLinearConv", "x s z w s z s z", "y")],
        {"constants": {"s": floats(1), "z": floats(1), "w": floats(1)}},
        "operator QLinearConv",
    ),
    "other domain": (
        [node("FusedConv", "x", "y", domain="com.microsoft")],
        {"other_domain": "com.microsoft"},
        r"operator com\.microsoft::FusedConv 'com\.microsoft::FusedConv_0'",
    ),
    "computed weights": (
        [node("Reshape", "x shape", "w"), node("Conv", "x w", "y")],
        {"constants": {"shape": np.array([64, 3, 1, 1])}},
        "has computed weights, which have no cost model",
    ),
    "one-dimensional convolution": (
        [node("Reshape", "x shape", "r"), node("Conv", "r w", "y")],
        {"constants": {"shape": np.array([1, 3, 64]), "w": floats(4, 3, 3)}},
        "is no 2-d convolution, and only those have a cost model",
    ),
    "stack of weights": (
        [node("MatMul", "x w", "y")],
        {"constants": {"w": floats(3, 8, 8)}},
        "multiplies by 3-d weights",
    ),
    "embedding": (
        [node("Cast", "x", "i", to=TensorProto.INT64), node("Gather", "w i", "y")],
        {"constants": {"w": floats(3, 8)}},
        "looks values up by an activation",
    ),
    "wide integers": (
        [*pair("x", "xd"), node("Relu", "xd", "y")],
        {"constants": {**GRID, "zero": np.array(0, dtype=np.int16)}},
        "is quantized to int16, which has no price; quantize to int8",
    ),
    "double precision": (
        [node("Relu", "x", "y")],
        {"picture_type": TensorProto.DOUBLE},
        "reads values of type double, which have no price",
    ),
    "two inputs": (
        [node("Add", "x z", "y")],
        {"inputs": {"z": (1, 3, 8, 8)}},
        "has the inputs x, z; hwsearch prices nets of one picture",
    ),
    "no picture": ([node("Relu", "x", "y")], {"picture": (1, 3)}, "input x of .* has 2 dimensions"),
    "batch": ([node("Relu", "x", "y")], {"picture": (8, 3, 8, 8)}, "for batches of 8; export"),
    "rectangle": ([node("Relu", "x", "y")], {"picture": (1, 3, 8, 9)}, "takes pictures of 8 x 9"),
    "open channels": (
        [node("Relu", "x", "y")],
        {"picture": (1, None, 8, 8)},
        "leaves the channels of its picture open",
    ),
    "nothing to do": (
        [node("Flatten", "x", "y")],
        {},
        "computes nothing that takes time",
    ),
    "unknown shape": (
        [node("Relu", "x", "r"), node("Expand", "r shape", "y")],
        {"constants": {"shape": np.ones(2000, dtype=np.int64)}, "opset": 20},
        "does not follow from the input|do not fit together",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_file_when_it_cannot_be_priced_says_why(case: str, tmp_path: Path) -> None:
    nodes, options, message = REFUSED[case]
    path = write_onnx(tmp_path / "net.onnx", nodes, **options)
    with pytest.raises(BackboneError, match=message) as raised:
        read_onnx(path)
    assert "\n" not in str(raised.value)


def test_file_when_it_is_none_says_so(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(BackboneError, match=r"cannot be read \(No such file or directory\)"):
        read_onnx(path)
    path.write_bytes(b"\x89PNG no network" * 9)
    with pytest.raises(BackboneError, match="is not an ONNX file; export the network again"):
        read_onnx(path)
    path.write_bytes(b"")
    with pytest.raises(BackboneError, match="is not an ONNX file with a network"):
        read_onnx(path)


def test_size_when_the_file_fixes_another_is_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "net.onnx", [node("Relu", "x", "y")])
    assert read_onnx(path, input_px=8).input_px == 8
    with pytest.raises(BackboneError, match="for 8 px and cannot be priced at 16 px; leave --px"):
        read_onnx(path, input_px=16)
    with pytest.raises(BackboneError, match="a picture of 0 px is none"):
        read_onnx(path, input_px=0)


def test_weights_when_beside_the_file_are_not_needed(tmp_path: Path) -> None:
    import onnx

    nodes = [node("Conv", "x w", "y")]
    path = write_onnx(tmp_path / "net.onnx", nodes, {"w": floats(64, 3, 3, 3)})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w", size_threshold=0)
    (tmp_path / "w").unlink()
    assert read_onnx(path).macs == 6 * 6 * 64 * 27
