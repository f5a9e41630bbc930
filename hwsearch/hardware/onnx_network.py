"""From an ONNX file to fused kernels, by the same conventions as ``hwsearch.nets.trace``.

Batch normalization, activation and one residual add go into the convolution or product before
them; whatever else reads and writes memory is a kernel of its own. Q/DQ pairs are no kernels: they
say in which bits their neighbours run.

Two things only files have: an activation that the exporter spelled out (``x * sigmoid(x)``) is one
operation again, and data that was transposed is copied where a reshape needs it in order.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hwsearch.bits import LayerBits
from hwsearch.errors import BackboneError
from hwsearch.hardware.kernels import WEIGHTED_KINDS, KernelDesc, KernelKind, NetworkDesc
from hwsearch.hardware.onnx_graph import Node, OnnxGraph, Shape, read_graph
from hwsearch.hardware.onnx_spelled import POINTWISE, SPELLED_NORM, with_whole_activations

_POOLINGS: Final = frozenset(
    {
        "AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool",
        "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Resize",
        "Upsample",
    }
)  # fmt: skip
_NORMS: Final = frozenset(
    {
        "GroupNormalization", "InstanceNormalization", "LRN", "LayerNormalization",
        "LpNormalization", "MeanVarianceNormalization", "RMSNormalization",
    }
)  # fmt: skip
_PLAIN: Final = {
    **dict.fromkeys(("Softmax", "LogSoftmax"), KernelKind.SOFTMAX),
    **dict.fromkeys(_POOLINGS, KernelKind.POOLING),
    **dict.fromkeys(_NORMS, KernelKind.NORM),
    **dict.fromkeys(("Concat", "DepthToSpace", "SpaceToDepth", "Tile"), KernelKind.COPY),
}
#: Outputs that share the data of their input, or are another notation of it.
_VIEWS: Final = frozenset(
    {
        "DequantizeLinear", "Dropout", "Expand", "Flatten", "Gather", "Identity", "QuantizeLinear",
        "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
#: Arithmetic that is no activation, and activations that the saturation of integers replaces.
_STRAIGHT: Final = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Relu", "Clip"})
_RESHAPES: Final = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
_KNOWN: Final = frozenset(
    {*POINTWISE, *_PLAIN, *_VIEWS, "BatchNormalization", "Cast", "Conv", "Gemm", "MatMul", "Pad"}
)
_FUSING: Final = WEIGHTED_KINDS | {KernelKind.MATMUL, KernelKind.NORM, KernelKind.ELEMENTWISE}

_FLOAT_BITS: Final = {"FLOAT": 32, "FLOAT16": 16, "BFLOAT16": 16}
_INTEGER_BITS: Final = {"INT8": 8, "UINT8": 8, "INT4": 4, "UINT4": 4, "INT2": 2, "UINT2": 2}


def read_onnx(path: Path, *, input_px: int | None = None) -> NetworkDesc:
    """The fused kernels of an ONNX file, named after the layers where the file names them.

    A layer is W8A8 where both its input and its weight are dequantized from 8 bits, W8A32 where
    the weight alone is, and in the floating-point type of its input otherwise. A weight that
    several nodes read is counted at each of them, as it is read that often.

    Args:
        path: of the file. Its picture has batch 1 or an open batch, which is taken as 1.
        input_px: height and width of the picture where the file leaves them open.

    Raises:
        BackboneError: the file cannot be read; it has other inputs than one square picture; it
            fixes another size than ``input_px`` or leaves it open without one; it holds an
            operator or an element type without a cost model.
        HostError: the package ``onnx`` is not installed.
    """
    graph = read_graph(path, input_px=input_px, known=_KNOWN)
    return _Fuser(path, graph).network()


@dataclass(kw_only=True)
class _Kernel:
    """A kernel that may still take in what follows it."""

    name: str
    kind: KernelKind
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    groups: int = 1
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    macs: int = 0
    input_elements: int
    output_elements: int
    weight_elements: int = 0
    bits: LayerBits
    downsampling: int
    has_bias: bool = False
    has_residual: bool = False
    has_batch_norm: bool = False
    curved: bool = False

    @property
    def weighted(self) -> bool:
        return self.kind in WEIGHTED_KINDS

    def described(self, stage: int) -> KernelDesc:
        return KernelDesc(
            name=self.name,
            kind=self.kind,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            kernel_size=self.kernel_size,
            stride=self.stride,
            groups=self.groups,
            in_size=self.in_size,
            out_size=self.out_size,
            macs=self.macs,
            input_elements=self.input_elements,
            output_elements=self.output_elements,
            weight_elements=self.weight_elements,
            bits=self.bits,
            curved=self.curved,
            stage=stage,
        )


@dataclass(frozen=True, kw_only=True)
class _Value:
    """What is known of a tensor.

    Attributes:
        kernel: the one that wrote it; -1 for the picture.
        strides: in elements, as views leave them; they decide which reshape must copy.
        channel_axis: None where channels are spread over several axes.
        downsampling: of the picture, so far.
        integer_bits: of a tensor that was dequantized; None for floating point.
    """

    kernel: int
    shape: Shape
    strides: Shape
    channel_axis: int | None
    downsampling: int = 1
    integer_bits: int | None = None


class _Fuser:
    """Walks the nodes once; each is a view, joins the kernel before it, or starts one."""

    def __init__(self, path: Path, graph: OnnxGraph) -> None:
        self.path = path
        self.graph = graph
        self.nodes = with_whole_activations(graph)
        self.kernels: list[_Kernel] = []
        self.values: dict[str, _Value] = {}
        self.names: Counter[str] = Counter()
        self.through, self.uses = self._count_uses()

    def network(self) -> NetworkDesc:
        """Fuse the whole graph."""
        shape = self.graph.shapes[self.graph.picture]
        self.values[self.graph.picture] = _Value(
            kernel=-1,
            shape=shape,
            strides=_contiguous(shape),
            channel_axis=self.graph.picture_axis,
        )
        for node in self.nodes:
            value = self._value(node)
            for name in node.outputs:
                # The parts of a split differ in nothing but their shapes.
                self.values[name] = replace(value, shape=self.graph.shapes.get(name, value.shape))
        if not self.kernels:
            raise BackboneError(f"{self.path} computes nothing that takes time; export it again")
        stages = _stages(self.kernels)
        return NetworkDesc(
            name=self.graph.name,
            input_px=self.graph.input_px,
            kernels=tuple(map(_Kernel.described, self.kernels, stages)),
        )

    def _count_uses(self) -> tuple[dict[str, str], Counter[str]]:
        """The tensor behind every view, and how many nodes read it."""
        through = {self.graph.picture: self.graph.picture}
        uses: Counter[str] = Counter()
        for node in self.nodes:
            sources = [through[name] for name in self.graph.activations(node)]
            if node.op in _VIEWS:
                through.update(dict.fromkeys(node.outputs, sources[0]))
            else:
                through.update((name, name) for name in node.outputs)
                uses.update(set(sources))
        uses.update(through[name] for name in self.graph.outputs if name in through)
        return through, uses

    def _value(self, node: Node) -> _Value:
        if node.op in _VIEWS:
            return self._view(node)
        if node.op in POINTWISE:
            return self._pointwise(node)
        if node.op == SPELLED_NORM:
            return self._spelled_norm(node)
        if node.op in _PLAIN:
            weights = self._weight_elements(node) if node.op in _NORMS else 0
            return self._plain(node, _PLAIN[node.op], weights)
        match node.op:
            case "Conv":
                return self._convolution(node)
            case "Gemm" | "MatMul":
                return self._product(node)
            case "BatchNormalization":
                return self._batch_norm(node)
            case "Cast":
                return self._cast(node)
            case "Pad":
                return self._pad(node)
        raise AssertionError(f"{node.op} is known and has no case")

    # -- nodes without a kernel of their own -----------------------------------------------------

    def _view(self, node: Node) -> _Value:
        source = self._source(node)
        shape = self.graph.shapes[node.outputs[0]]
        if node.op in {"Identity", "Dropout"}:
            return source
        if node.op == "QuantizeLinear":
            return replace(source, integer_bits=None)
        if node.op == "DequantizeLinear":
            return replace(source, integer_bits=self._integer_bits(node, node.inputs[0]))
        if node.op == "Transpose":
            return self._transposed(node, source)
        if node.op in _RESHAPES:
            return self._reshaped(node, source)
        if node.op == "Gather":
            return self._gathered(node, source)
        strides = source.strides
        if node.op == "Expand":
            strides = _expanded(source, shape)
        axis = _axis_after_view(source, shape)
        return replace(source, shape=shape, strides=strides, channel_axis=axis)

    def _transposed(self, node: Node, source: _Value) -> _Value:
        rank = len(source.shape)
        order = [int(at) % rank for at in node.attributes.get("perm", range(rank)[::-1])]
        shape = tuple(source.shape[at] for at in order)
        axis = None if source.channel_axis is None else order.index(source.channel_axis)
        moves = len(shape) == 4 and sum(size > 1 for size in shape) > 1
        if moves and source.kernel >= 0 and axis is not None:
            # A change of layout that reaches another kernel; a product takes any layout.
            return self._plain(node, KernelKind.COPY, axis=axis)
        strides = tuple(source.strides[at] for at in order)
        return replace(source, shape=shape, strides=strides, channel_axis=axis)

    def _reshaped(self, node: Node, source: _Value) -> _Value:
        shape = self.graph.shapes[node.outputs[0]]
        axis = _axis_after_view(source, shape)
        strides = _viewed(source.shape, source.strides, shape)
        if strides is None and source.kernel >= 0:
            source = self._plain(
                node, KernelKind.COPY, shape=source.shape, axis=source.channel_axis
            )
        strides = _contiguous(shape) if strides is None else strides
        return replace(source, shape=shape, strides=strides, channel_axis=axis)

    def _gathered(self, node: Node, source: _Value) -> _Value:
        data, indices = node.inputs[:2]
        if indices not in self.graph.constants or data in self.graph.constants:
            raise self._refusal(node, "looks values up by an activation, which has no cost model")
        if self.graph.shapes[indices]:
            return self._plain(node, KernelKind.COPY)
        at = int(node.attributes.get("axis", 0)) % len(source.shape)
        shape = self.graph.shapes[node.outputs[0]]
        strides = source.strides[:at] + source.strides[at + 1 :]
        axis = _axis_after_view(source, shape)
        return replace(source, shape=shape, strides=strides, channel_axis=axis)

    def _cast(self, node: Node) -> _Value:
        """A change of type is written by the kernel before it, as an activation is."""
        source = self._source(node)
        before, after = (self.graph.element_types[n] for n in (node.inputs[0], node.outputs[0]))
        if before == after or source.kernel < 0:
            return replace(source, integer_bits=None)
        if self._fusable(node.inputs[0], node):
            return self._joined(node, source)
        return self._plain(node, KernelKind.COPY)

    def _spelled_norm(self, node: Node) -> _Value:
        """A part of a normalization, which joins the part before it."""
        source = self._source(node)
        if (
            self._fusable(node.inputs[0], node)
            and self.kernels[source.kernel].kind is KernelKind.NORM
        ):
            return self._joined(node, source)
        return self._plain(node, KernelKind.NORM)

    def _pad(self, node: Node) -> _Value:
        source = self._source(node)
        if self.graph.shapes[node.outputs[0]] == source.shape:
            return source
        return self._plain(node, KernelKind.COPY)

    def _batch_norm(self, node: Node) -> _Value:
        source = self._source(node)
        if source.kernel >= 0 and self._alone(node.inputs[0]):
            kernel = self.kernels[source.kernel]
            if kernel.weighted and not kernel.has_batch_norm and not kernel.has_residual:
                # The shift becomes the bias of the layer, the factor goes into its weights.
                kernel.weight_elements += 0 if kernel.has_bias else kernel.out_channels
                kernel.has_bias = kernel.has_batch_norm = True
                return self._joined(node, source)
        return self._plain(node, KernelKind.ELEMENTWISE, 2 * source.shape[1])

    def _pointwise(self, node: Node) -> _Value:
        inputs = self.graph.activations(node)
        host = self._fusing_input(node, inputs)
        if host is None:
            return self._plain(node, KernelKind.ELEMENTWISE, self._weight_elements(node))
        source = self.values[host]
        kernel = self.kernels[source.kernel]
        others = [name for name in inputs if name != host]
        kernel.curved |= node.op not in _STRAIGHT
        if others:
            kernel.has_residual = True
            kernel.input_elements += sum(math.prod(self.values[name].shape) for name in others)
        elif node.op == "Add" or kernel.kind is KernelKind.NORM:
            # A factor goes into the weights of a layer, but a normalization has none.
            elements = self._weight_elements(node)
            kernel.weight_elements += elements
            kernel.has_bias |= elements == kernel.out_channels
        return self._joined(node, source)

    def _fusing_input(self, node: Node, inputs: Sequence[str]) -> str | None:
        """The input whose kernel takes this node in, or None if it needs its own."""
        fusable = [name for name in dict.fromkeys(inputs) if self._fusable(name, node)]
        if not fusable:
            return None
        if len(set(inputs)) == 1:
            return fusable[0]
        if node.op != "Add" or len(inputs) != 2:
            return None
        latest = max(fusable, key=lambda name: self.values[name].kernel)
        kernel = self.kernels[self.values[latest].kernel]
        return latest if kernel.weighted and not kernel.has_residual else None

    def _fusable(self, name: str, node: Node) -> bool:
        source = self.values[name]
        if source.kernel < 0 or not self._alone(name):
            return False
        if self.kernels[source.kernel].kind not in _FUSING:
            return False
        return math.prod(self.graph.shapes[node.outputs[0]]) == math.prod(source.shape)

    def _alone(self, name: str) -> bool:
        return self.uses[self.through[name]] == 1

    def _joined(self, node: Node, source: _Value) -> _Value:
        shape = self.graph.shapes[node.outputs[0]]
        return _Value(
            kernel=source.kernel,
            shape=shape,
            strides=_contiguous(shape),
            channel_axis=source.channel_axis,
            downsampling=source.downsampling,
        )

    # -- nodes with a kernel of their own --------------------------------------------------------

    def _convolution(self, node: Node) -> _Value:
        source = self._source(node)
        window = self.graph.shapes[node.inputs[1]]
        if node.inputs[1] not in self.graph.constants:
            raise self._refusal(node, "has computed weights, which have no cost model")
        if len(window) != 4:
            raise self._refusal(node, "is no 2-d convolution, and only those have a cost model")
        shape = self.graph.shapes[node.outputs[0]]
        groups = int(node.attributes.get("group", 1))
        strides = tuple(int(step) for step in node.attributes.get("strides", (1, 1)))
        in_channels, out_channels = source.shape[1], shape[1]
        kind = KernelKind.CONV
        if groups > 1:
            one_each = groups == in_channels == out_channels
            kind = KernelKind.DEPTHWISE if one_each else KernelKind.GROUPED
        kernel = _Kernel(
            name=self._layer_name(node, node.inputs[1]),
            kind=kind,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=(window[2], window[3]),
            stride=(strides[0], strides[1]),
            groups=groups,
            in_size=(source.shape[2], source.shape[3]),
            out_size=(shape[2], shape[3]),
            macs=math.prod(shape) * math.prod(window[1:]),
            input_elements=math.prod(source.shape),
            output_elements=math.prod(shape),
            weight_elements=self._weight_elements(node, from_input=1),
            bits=self._layer_bits(node, node.inputs[0], node.inputs[1]),
            downsampling=source.downsampling * max(strides),
            has_bias=len(self.graph.weights(node)) > 1,
        )
        return self._started(kernel, shape, axis=1)

    def _product(self, node: Node) -> _Value:
        """A linear layer, or a product of two activations."""
        matrices = [name for name in node.inputs[:2] if name in self.graph.constants]
        if not matrices:
            return self._product_of_activations(node)
        [weight] = matrices
        source = self._source(node)
        shape, window = self.graph.shapes[node.outputs[0]], self.graph.shapes[weight]
        if len(window) != 2:
            raise self._refusal(
                node, f"multiplies by {len(window)}-d weights, which have no cost model"
            )
        # The weight on the left (W x) mixes the rows of a matrix, on the right (x W) the columns.
        axis = len(shape) - 1 if weight == node.inputs[1] else len(shape) - 2
        features_out = shape[axis]
        features_in = math.prod(window) // features_out
        rows = math.prod(shape) // features_out
        kernel = _Kernel(
            name=self._layer_name(node, weight),
            kind=KernelKind.LINEAR,
            in_channels=features_in,
            out_channels=features_out,
            in_size=(rows, 1),
            out_size=(rows, 1),
            macs=math.prod(shape) * features_in,
            input_elements=math.prod(source.shape),
            output_elements=math.prod(shape),
            weight_elements=self._weight_elements(node),
            bits=self._layer_bits(node, self.graph.activations(node)[0], weight),
            downsampling=source.downsampling,
            has_bias=len(self.graph.weights(node)) > 1,
        )
        return self._started(kernel, shape, axis=axis)

    def _product_of_activations(self, node: Node) -> _Value:
        value = self._plain(node, KernelKind.MATMUL)
        first = self.graph.shapes[node.inputs[0]]
        inner = first[-2] if node.attributes.get("transA") else first[-1]
        self.kernels[value.kernel].macs = math.prod(value.shape) * inner
        return value

    def _plain(
        self,
        node: Node,
        kind: KernelKind,
        weight_elements: int = 0,
        *,
        shape: Shape | None = None,
        axis: int | None = None,
    ) -> _Value:
        """A kernel without a weighted layer: it reads its inputs and writes its output."""
        inputs = self.graph.activations(node)
        source = self.values[max(inputs, key=lambda name: math.prod(self.values[name].shape))]
        shape = self.graph.shapes[node.outputs[0]] if shape is None else shape
        kept = _axis_after(source, shape) if axis is None else axis
        in_size, out_size = _size(source.shape, source.channel_axis), _size(shape, kept)
        ratio = max(1, round(in_size[0] / out_size[0])) if out_size[0] > 1 else 1
        channels = _channels(shape, kept)
        # A concatenation reads the channels of all its inputs; none is the main one.
        joins = node.op == "Concat"
        kernel = _Kernel(
            name=self._unique(f"{node.scope}.{node.op}" if node.scope else node.name),
            kind=kind,
            in_channels=channels if joins else _channels(source.shape, source.channel_axis),
            out_channels=channels,
            in_size=in_size,
            out_size=out_size,
            input_elements=sum(math.prod(self.values[name].shape) for name in inputs),
            output_elements=math.prod(shape),
            weight_elements=weight_elements,
            bits=self._plain_bits(node, inputs),
            downsampling=source.downsampling * ratio,
        )
        return self._started(kernel, shape, axis=kept)

    def _started(self, kernel: _Kernel, shape: Shape, *, axis: int | None) -> _Value:
        self.kernels.append(kernel)
        return _Value(
            kernel=len(self.kernels) - 1,
            shape=shape,
            strides=_contiguous(shape),
            channel_axis=axis,
            downsampling=kernel.downsampling,
        )

    # -- bits, weights, names --------------------------------------------------------------------

    def _layer_bits(self, node: Node, activation: str, weight: str) -> LayerBits:
        float_bits = self._activation_bits(node, activation, quantized=False)
        weight_bits = self._quantized_bits(node, weight)
        if weight_bits is None:
            # A runtime that finds weights in floating point computes in it.
            return LayerBits(float_bits, float_bits)
        integer_bits = self.values[activation].integer_bits
        return LayerBits(weight_bits, float_bits if integer_bits is None else integer_bits)

    def _plain_bits(self, node: Node, inputs: Iterable[str]) -> LayerBits:
        """Those of the widest input."""
        width = max(self._activation_bits(node, name) for name in inputs)
        return LayerBits(width, width)

    def _activation_bits(self, node: Node, name: str, *, quantized: bool = True) -> int:
        integer_bits = self.values[name].integer_bits
        if quantized and integer_bits is not None:
            return integer_bits
        kind = self.graph.element_types[name]
        width = _FLOAT_BITS.get(kind) or _INTEGER_BITS.get(kind)
        if width is None:
            raise self._refusal(node, f"reads values of type {kind.lower()}, which have no price")
        return width

    def _quantized_bits(self, node: Node, weight: str) -> int | None:
        """The width that a weight was dequantized from, through transpositions and the like."""
        while weight in self.graph.constant_nodes:
            maker = self.graph.constant_nodes[weight]
            if maker.op == "DequantizeLinear":
                return self._integer_bits(node, maker.inputs[0])
            if maker.op not in _VIEWS | {"Cast"}:
                return None
            weight = maker.inputs[0]
        return None

    def _integer_bits(self, node: Node, name: str) -> int:
        kind = self.graph.element_types[name]
        if kind not in _INTEGER_BITS:
            raise self._refusal(
                node, f"is quantized to {kind.lower()}, which has no price; quantize to int8"
            )
        return _INTEGER_BITS[kind]

    def _weight_elements(self, node: Node, *, from_input: int = 0) -> int:
        """Of constants with a value for each channel or more; a scalar is part of the code."""
        names = [name for name in node.inputs[from_input:] if name in self.graph.constants]
        sizes = (math.prod(self.graph.shapes[name]) for name in names)
        return sum(size for size in sizes if size > 1)

    def _layer_name(self, node: Node, weight: str) -> str:
        """The path of the module, where the file tells it."""
        while weight in self.graph.constant_nodes:
            weight = self.graph.constant_nodes[weight].inputs[0]
        if weight.endswith(".weight"):
            return self._unique(weight.removesuffix(".weight"))
        return self._unique(node.scope or node.name)

    def _unique(self, name: str) -> str:
        self.names[name] += 1
        count = self.names[name]
        return name if count == 1 else f"{name}#{count}"

    def _source(self, node: Node) -> _Value:
        return self.values[self.graph.activations(node)[0]]

    def _refusal(self, node: Node, why: str) -> BackboneError:
        return BackboneError(
            f"{node.label} of {self.path} {why}; replace it, or cut the network before it"
        )


# -- shapes ----------------------------------------------------------------------------------------


def _contiguous(shape: Shape) -> Shape:
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def _expanded(source: _Value, shape: Shape) -> Shape:
    """The strides after broadcasting: repeated axes stand still."""
    added = len(shape) - len(source.shape)
    before = (*(1,) * added, *source.shape)
    strides = (*(0,) * added, *source.strides)
    return tuple(
        step if old == new else 0 for old, new, step in zip(before, shape, strides, strict=True)
    )


def _viewed(shape: Shape, strides: Shape, wanted: Shape) -> Shape | None:
    """The strides of the same data in another shape, or None where it must be copied.

    Axes whose data follow one another are merged into runs; the wanted shape must cut each run
    into whole axes (as ``torch.Tensor.view`` has it).
    """
    runs: list[tuple[int, int]] = []
    for size, step in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if runs and runs[-1][1] == step * size:
            runs[-1] = (runs[-1][0] * size, step)
        else:
            runs.append((size, step))
    result = [1] * len(wanted)
    place = len(wanted) - 1
    for size, step in reversed(runs):
        left = size
        while left > 1:
            if place < 0 or left % wanted[place]:
                return None
            result[place] = step
            step *= wanted[place]
            left //= wanted[place]
            place -= 1
    return tuple(result)


def _size(shape: Shape, axis: int | None) -> tuple[int, int]:
    """(height, width) of what remains beside batch and channels; (tokens, 1) where one remains."""
    rest = [size for at, size in enumerate(shape) if at not in (0, axis)] if axis else []
    return (rest[0], rest[1]) if len(rest) == 2 else (math.prod(rest), 1)


def _channels(shape: Shape, axis: int | None) -> int:
    return math.prod(shape[-1:]) if axis is None else shape[axis]


def _axis_after(source: _Value, shape: Shape) -> int | None:
    """The channel axis after an operation that is no view."""
    if len(shape) == len(source.shape):
        return source.channel_axis
    # A mean over height and width leaves (batch, channels).
    return 1 if len(shape) == 2 else None


def _axis_after_view(source: _Value, shape: Shape) -> int | None:
    axis = source.channel_axis
    if axis is None:
        return None
    channels = source.shape[axis]
    if len(shape) == len(source.shape) and shape[axis] == channels:
        return axis
    places = [at for at, size in enumerate(shape) if size == channels]
    if len(places) == 1:
        return places[0]
    if len(shape) == 2:
        return 1  # flattened before a classifier: features are channels times positions
    return axis if axis < len(shape) and shape[axis] == channels else None


def _stages(kernels: Sequence[_Kernel]) -> list[int]:
    """1 to 4 by how far a kernel has downsampled, the last being 4; by depth where none does."""
    levels = {kernel.downsampling for kernel in kernels if kernel.weighted}
    if len(levels) < 2:
        return [1 + 4 * at // len(kernels) for at in range(len(kernels))]
    return [max(1, 4 - sum(level > kernel.downsampling for level in levels)) for kernel in kernels]
