"""From an ONNX file to its fused kernels.

The nodes of the file are put into the words of ``hwsearch.hardware.fuser``, which fuses them. Q/DQ
pairs are no kernels: they say in which bits their neighbours run.

Two things only files have: an activation that the exporter spelled out (``x * sigmoid(x)``) is one
operation again, and data that was transposed is put in order where a reshape needs it, which torch
records as an operation of its own.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Final

from hwsearch.bits import LayerBits
from hwsearch.errors import BackboneError
from hwsearch.hardware.fuser import Op, Shape, fuse
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.onnx_graph import Node, OnnxGraph, read_graph
from hwsearch.hardware.onnx_spelled import SPELLED_NORM, with_whole_activations
from hwsearch.hardware.operators import ONNX, VIEW_KINDS, OpKind

_RESHAPES: Final = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
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
    graph = read_graph(path, input_px=input_px, known=frozenset(ONNX))
    reader = _Reader(path, graph)
    for node in with_whole_activations(graph):
        reader.add(node)
    fused = fuse(
        reader.ops,
        picture=graph.picture,
        picture_shape=graph.shapes[graph.picture],
        picture_axis=graph.picture_axis,
        outputs=sorted(graph.outputs),
    )
    if not fused.kernels:
        raise BackboneError(f"{path} computes nothing that takes time; export it again")
    dense = {kernel.name: kernel.out_channels for kernel in fused.kernels}
    kernels = [
        replace(kernel.describe(dense, dense), bits=reader.bits(at))
        for kernel, at in zip(fused.kernels, fused.started_by, strict=True)
    ]
    return NetworkDesc(name=graph.name, input_px=graph.input_px, kernels=tuple(kernels))


class _Reader:
    """Nodes of a file as operations.

    Attributes:
        ops: so far.
        nodes: for each the one that it comes from.
        integer_bits: of the tensors that were dequantized.
        strides: of the tensors in elements, as views leave them; they decide which reshape must
            copy.
    """

    def __init__(self, path: Path, graph: OnnxGraph) -> None:
        self.path = path
        self.graph = graph
        self.ops: list[Op] = []
        self.nodes: list[Node] = []
        self.integer_bits: dict[str, int] = {}
        self.strides = {graph.picture: _contiguous(graph.shapes[graph.picture])}

    def add(self, node: Node) -> None:
        """Take in the next node of the graph, as one operation or two.

        Raises:
            BackboneError: the node is of a form that has no cost model.
        """
        op = self._op(node)
        if op.kind in VIEW_KINDS:
            source, target = self.graph.activations(node)[0], node.outputs[0]
            strides = self._strides(node, op, self.strides[source])
            if strides is None:
                copy = f"{source} in the order of {target}"
                in_order = replace(op, kind=OpKind.CLONE, outputs=(copy,), shape=op.in_shapes[0])
                self._note(in_order, node)
                op = replace(op, inputs=(copy,))
                strides = _contiguous(op.shape)
            self.strides.update(dict.fromkeys(node.outputs, strides))
            bits = self.integer_bits.get(source)
            if node.op == "DequantizeLinear":
                bits = self._read_integer_bits(node, node.inputs[0])
            if bits is not None and node.op not in {"QuantizeLinear", "Cast"}:
                self.integer_bits.update(dict.fromkeys(node.outputs, bits))
        else:
            for name in node.outputs:
                self.strides[name] = _contiguous(self.graph.shapes.get(name, ()))
        self._note(op, node)

    def bits(self, at: int) -> LayerBits:
        """Of the kernel that an operation began with.

        Raises:
            BackboneError: a tensor is of a type that has no price.
        """
        op, node = self.ops[at], self.nodes[at]
        names = self.graph.activations(node)
        if op.kind not in {OpKind.CONVOLUTION, OpKind.LINEAR}:
            # Those of the widest input.
            width = max(
                self.integer_bits.get(name) or self._float_bits(node, name) for name in names
            )
            return LayerBits(width, width)
        float_bits = self._float_bits(node, names[0])
        weight_bits = self._quantized_bits(node, self.graph.weights(node)[0])
        if weight_bits is None:
            # A runtime that finds weights in floating point computes in it.
            return LayerBits(float_bits, float_bits)
        return LayerBits(weight_bits, self.integer_bits.get(names[0], float_bits))

    def _note(self, op: Op, node: Node) -> None:
        self.ops.append(op)
        self.nodes.append(node)

    def _op(self, node: Node) -> Op:
        shapes = self.graph.shapes
        inputs, weights = self.graph.activations(node), self.graph.weights(node)
        shape = shapes[node.outputs[0]]
        # A scalar is part of the code.
        sizes = [math.prod(shapes[name]) for name in weights]
        op = Op(
            kind=self._kind(node),
            label=f"{node.scope}.{node.op}" if node.scope else node.name,
            inputs=inputs,
            in_shapes=tuple(shapes[name] for name in inputs),
            outputs=node.outputs,
            shape=shape,
            weight_elements=sum(size for size in sizes if size > 1),
            has_bias=len(weights) > 1,
        )
        match op.kind:
            case OpKind.TRANSPOSE:
                order = node.attributes.get("perm", range(len(shape))[::-1])
                return replace(op, order=tuple(int(at) % len(shape) for at in order))
            case OpKind.CONCATENATION:
                return replace(op, axis=int(node.attributes["axis"]) % len(shape))
            case OpKind.BATCH_NORM:
                return replace(op, layer=node.name)
            case OpKind.CONVOLUTION:
                return self._convolution(node, op)
            case OpKind.LINEAR:
                return self._linear(node, op)
            case OpKind.PRODUCT:
                return replace(
                    op, inner=op.in_shapes[0][-2 if node.attributes.get("transA") else -1]
                )
        return op

    def _kind(self, node: Node) -> OpKind:
        """What a node is to the fuser, which for some operators depends on its inputs."""
        shapes, constants = self.graph.shapes, self.graph.constants
        if node.op == SPELLED_NORM:
            return OpKind.NORM_PART
        match node.op:
            case "Gather":
                data, indices = node.inputs[:2]
                if indices not in constants or data in constants:
                    raise self._refusal(
                        node, "looks values up by an activation, which has no cost model"
                    )
                return OpKind.COPY if shapes[indices] else OpKind.PART
            case "Cast":
                before, after = (
                    self.graph.element_types[name] for name in (node.inputs[0], node.outputs[0])
                )
                return OpKind.VIEW if before == after else OpKind.CAST
            case "Pad":
                same = shapes[node.outputs[0]] == shapes[node.inputs[0]]
                return OpKind.VIEW if same else OpKind.COPY
            case "Gemm" | "MatMul" if constants.isdisjoint(node.inputs[:2]):
                return OpKind.PRODUCT
        # A function that was spelled out keeps the operator that closes it.
        return OpKind.CURVED if node.spelled else ONNX[node.op]

    def _convolution(self, node: Node, op: Op) -> Op:
        window = self.graph.shapes[node.inputs[1]]
        if node.inputs[1] not in self.graph.constants:
            raise self._refusal(node, "has computed weights, which have no cost model")
        if len(window) != 4:
            raise self._refusal(node, "is no 2-d convolution, and only those have a cost model")
        height, width = node.attributes.get("strides", (1, 1))
        return replace(
            op,
            layer=self._layer_name(node, node.inputs[1]),
            window=(window[2], window[3]),
            stride=(int(height), int(width)),
            groups=int(node.attributes.get("group", 1)),
            axis=1,
        )

    def _linear(self, node: Node, op: Op) -> Op:
        weight = self.graph.weights(node)[0]
        window, rank = self.graph.shapes[weight], len(op.shape)
        if len(window) != 2:
            raise self._refusal(
                node, f"multiplies by {len(window)}-d weights, which have no cost model"
            )
        # The weight on the left (W x) mixes the rows of a matrix, on the right (x W) the columns.
        axis = rank - 1 if weight == node.inputs[1] else rank - 2
        return replace(
            op,
            layer=self._layer_name(node, weight),
            axis=axis,
            inner=math.prod(window) // op.shape[axis],
        )

    def _layer_name(self, node: Node, weight: str) -> str:
        """The path of the module, where the file tells it."""
        while weight in self.graph.constant_nodes:
            weight = self.graph.constant_nodes[weight].inputs[0]
        if weight.endswith(".weight"):
            return weight.removesuffix(".weight")
        return node.scope or node.name

    def _strides(self, node: Node, op: Op, strides: Shape) -> Shape | None:
        """The strides of a view in elements, or None where its input must be put in order."""
        before, after = op.in_shapes[0], op.shape
        if op.kind is OpKind.TRANSPOSE:
            return tuple(strides[at] for at in op.order)
        if node.op in _RESHAPES:
            return _viewed(before, strides, after)
        if node.op == "Gather":
            at = int(node.attributes.get("axis", 0)) % len(before)
            return strides[:at] + strides[at + 1 :]
        # After broadcasting, repeated axes stand still.
        added = len(after) - len(before)
        padded = zip((1,) * added + before, after, (0,) * added + strides, strict=True)
        expands = node.op == "Expand"
        return tuple(0 if expands and old != new else step for old, new, step in padded)

    # -- bits ------------------------------------------------------------------------------------

    def _float_bits(self, node: Node, name: str) -> int:
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
                return self._read_integer_bits(node, maker.inputs[0])
            if ONNX.get(maker.op) not in VIEW_KINDS | {OpKind.CAST}:
                return None
            weight = maker.inputs[0]
        return None

    def _read_integer_bits(self, node: Node, name: str) -> int:
        kind = self.graph.element_types[name]
        if kind not in _INTEGER_BITS:
            raise self._refusal(
                node, f"is quantized to {kind.lower()}, which has no price; quantize to int8"
            )
        return _INTEGER_BITS[kind]

    def _refusal(self, node: Node, why: str) -> BackboneError:
        return BackboneError(
            f"{node.label} of {self.path} {why}; replace it, or cut the network before it"
        )


def _contiguous(shape: Shape) -> Shape:
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


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
