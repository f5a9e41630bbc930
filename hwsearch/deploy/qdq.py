"""QuantizeLinear and DequantizeLinear around what runs in integers.

The rules are those of the runtimes: weights per output channel with zero point 0, activations per
tensor, int8 with zero point 0 where the grid is symmetric (TensorRT) and uint8 elsewhere.

The bias stays in fp32: TensorRT refuses an integer one (onnxruntime issue 14229), and ONNX Runtime
from 1.21 on makes its own for a convolution (its pull request 22889). It does not for a product
that writes floating point, whose bias is an addition of its own here: else ONNX Runtime 1.32 would
run the product in fp32 and unpack its weights each time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from onnx import NodeProto, helper

from hwsearch.deploy.float_graph import FloatGraph, output_axis
from hwsearch.deploy.integer_ops import HARD
from hwsearch.deploy.onnx_graph import Graph, attributes
from hwsearch.deploy.plan import Grid, LayerPlan
from hwsearch.deploy.sites import CLIPPING, PASSING, Site
from hwsearch.errors import BackboneError

#: What a layer's path is followed by to name its inner site (``hwsearch.deploy.sites``).
INNER: Final = ":inner"


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """A QuantizeLinear with its DequantizeLinear."""

    source: str
    grid: Grid
    output: str


class Quantizer:
    """Puts quantization into a graph; pairs on one tensor with one grid are shared."""

    def __init__(self, made: FloatGraph) -> None:
        self.graph: Graph = made.graph
        self.plans: Mapping[str, LayerPlan] = made.plans
        self._shapes: Mapping[str, tuple[int, int, int]] = made.shapes
        self._pairs: dict[tuple[str, Grid], _Pair] = {}

    def quantize_layers(self) -> None:
        """Quantize the weights and inputs of every layer whose plan says so."""
        for plan in self.plans.values():
            node = self.graph.nodes[plan.path]
            if plan.integers is not None:
                self._weight(node, plan)
            if plan.grid is not None:
                pair = self._pair(node.input[0], plan.grid)
                node.input[0] = pair.output
            if plan.runs_in_int8 and node.op_type != "Conv":
                self._part_bias(node)

    def grid_at(self, tensor: str, least: float, greatest: float) -> Grid:
        """A grid for an output.

        A grid that a following layer has for the same values is used in place of the range: the
        kernel then writes what that layer reads, without another conversion.

        Args:
            tensor: the output.
            least: of the values there.
            greatest: of the values there.
        """
        scheme = next(plan.grid for plan in self.plans.values() if plan.grid is not None)
        return self._grid_ahead(tensor) or scheme.over(least, greatest)

    def quantize_output(self, tensor: str, used: Grid) -> None:
        """Let everything that reads an output read it quantized.

        Args:
            tensor: the output.
            used: of 8 bits.
        """
        pair = self._pair(tensor, used)
        own = {self._quantizing(pair).name}
        others = [node for node in self.graph.readers(tensor) if node.name not in own]
        self.graph.redirect(tensor, pair.output, others)

    def read_quantized(self, node: NodeProto) -> None:
        """Let an operation read integers where a float layer's output is quantized for a layer."""
        for pair in self._pairs.values():
            if pair.grid.full:
                self.graph.redirect(pair.source, pair.output, [node])

    def pass_on(self, node: NodeProto) -> None:
        """Let everything behind an operation read the integers that it hands on, in their grid."""
        for pair in list(self._pairs.values()):
            if pair.output == node.input[0]:
                self.quantize_output(node.output[0], pair.grid)

    def quantize_hard(self, node: NodeProto, grid: Grid) -> None:
        """Run a hard sigmoid or a hard swish in integers.

        They have no kernels, but the sums and products that they consist of have:
        ``clip(a x + b, 0, 1)`` is ``a (x + b / a)``, where saturation clips and the factor only
        changes a scale. So lcnet_050 has 101 kernels in place of 163, and takes 144 us, not 167.

        Args:
            node: reads unsigned integers.
            grid: of what it makes.
        """
        graph, name = self.graph, node.name
        [source], [target] = node.input, node.output
        if node.op_type == "HardSwish":
            gate, slope, offset = f"{name}_gate", 1 / 6, 0.5
            reach = 1.0
            graph.nodes[name] = helper.make_node("Mul", [source, gate], [target], name=name)
            self.quantize_output(target, grid)
        else:
            given = attributes(node)
            gate, slope, offset = target, given.get("alpha", 0.2), given.get("beta", 0.5)
            reach = min(grid.reach[1], 1.0)
            del graph.nodes[name]
        readers = graph.readers(gate)
        channels, *sides = self._shapes.get(target, (1, 0, 0))
        # Over one pixel a scalar would be added to each channel by itself: 24 us for 1280.
        ones = np.ones((channels, 1, 1) if sides == [1, 1] else (), dtype=np.uint8)
        term_scale, sum_scale, gate_scale = (
            graph.constant(f"{name}_{word}_scale", np.array(scale, dtype=np.float32))
            for word, scale in (
                ("term", offset / slope), ("sum", reach / 255 / slope), ("gate", reach / 255),
            )
        )  # fmt: skip
        zero = graph.constant(f"{name}_zero_point", np.array(0, dtype=np.uint8))
        term = graph.constant(f"{name}_term", ones)
        graph.add("DequantizeLinear", [term, term_scale, zero], f"{name}_term_dequantized")
        graph.add("Add", [source, f"{name}_term_dequantized"], f"{name}_sum")
        graph.add("QuantizeLinear", [f"{name}_sum", sum_scale, zero], f"{name}_quantized")
        dequantized = f"{name}_dequantized"
        graph.add("DequantizeLinear", [f"{name}_quantized", gate_scale, zero], dequantized)
        graph.redirect(gate, dequantized, readers)

    def _weight(self, node: NodeProto, plan: LayerPlan) -> None:
        assert plan.integers is not None
        assert plan.scales is not None
        axis, name = output_axis(node), node.input[1]
        integers = plan.integers if axis == 0 else np.moveaxis(plan.integers, 0, axis)
        self.graph.constants[name] = np.ascontiguousarray(integers)
        scale = self.graph.constant(f"{name}_scale", plan.scales)
        zero = self.graph.constant(f"{name}_zero_point", np.zeros(len(plan.scales), np.int8))
        output = f"{name}_dequantized"
        self.graph.add("DequantizeLinear", [name, scale, zero], output, axis=axis)
        node.input[1] = output

    def _part_bias(self, node: NodeProto) -> None:
        """Make the bias of a product an addition that ONNX Runtime does not merge with it."""
        graph = self.graph
        if node.op_type == "Gemm" and len(node.input) == 3:
            bias, target = node.input.pop(), node.output[0]
            node.output[0] = f"{node.name}_product"
            graph.add("Add", [node.output[0], bias], target)
            return
        following = graph.read_once(node.output[0])
        if following is None or following.op_type != "Add":
            return
        for position, name in enumerate(following.input):
            bias_value = graph.constants.get(name)
            if bias_value is not None and bias_value.ndim == 1:
                # It merges one of shape (n,) only.
                row = graph.constant(f"{node.name}.bias_row", bias_value.reshape(1, 1, -1))
                following.input[position] = row

    def keep_float(self, path: str, inner: str) -> None:
        """Keep a layer in fp32 although it reads and writes integers.

        ONNX Runtime (1.32) otherwise quantizes the weights of such a layer by itself, unasked
        ("WeightBiasQuantization"). A maximum with the least float changes nothing and stops it.

        Args:
            path: of a layer with float weights.
            inner: its inner site.
        """
        node = self.graph.nodes[path]
        if self._reads_integers(node.input[0]) and self._is_quantized_ahead(inner):
            least = self.graph.constant(
                "least_float", np.array(np.finfo(np.float32).min, dtype=np.float32)
            )
            target = f"{inner}_kept_float"
            self.graph.redirect(inner, target, self.graph.readers(inner))
            self.graph.add("Max", [inner, least], target)

    def _reads_integers(self, tensor: str) -> bool:
        maker = self.graph.producer(tensor)
        while maker is not None and maker.op_type in PASSING:
            maker = self.graph.producer(maker.input[0])
        return maker is not None and maker.op_type == "DequantizeLinear"

    def _is_quantized_ahead(self, tensor: str) -> bool:
        reader = self.graph.read_once(tensor)
        while reader is not None and reader.op_type in PASSING | CLIPPING:
            reader = self.graph.read_once(reader.output[0])
        return reader is not None and reader.op_type == "QuantizeLinear"

    def _pair(self, tensor: str, grid: Grid) -> _Pair:
        """The pair on a tensor with this grid, made if it is not there."""
        key = (tensor, grid)
        if key not in self._pairs:
            count = sum(source == tensor for source, _ in self._pairs)
            stem = tensor if count == 0 else f"{tensor}#{count}"
            self._pairs[key] = self._made(tensor, grid, stem)
        return self._pairs[key]

    def _made(self, tensor: str, grid: Grid, stem: str) -> _Pair:
        graph = self.graph
        scale = graph.constant(f"{stem}_scale", np.array(grid.scale, dtype=np.float32))
        kind = np.int8 if grid.signed else np.uint8
        zero = graph.constant(f"{stem}_zero_point", np.array(grid.zero_point, dtype=kind))
        source = tensor
        if not grid.full:
            # Fewer bits than 8 are held in 8; the integers saturate where the grid ends.
            low, high = (
                graph.constant(f"{stem}_{word}", np.array(end, dtype=np.float32))
                for word, end in zip(("least", "greatest"), grid.reach, strict=True)
            )
            source = f"{stem}_clipped"
            graph.add("Clip", [tensor, low, high], source)
        graph.add("QuantizeLinear", [source, scale, zero], f"{stem}_quantized")
        output = f"{stem}_dequantized"
        graph.add("DequantizeLinear", [f"{stem}_quantized", scale, zero], output)
        return _Pair(source=tensor, grid=grid, output=output)

    def _quantizing(self, pair: _Pair) -> NodeProto:
        """The QuantizeLinear of a pair of 8 bits."""
        maker = self.graph.producer(pair.output)
        assert maker is not None
        quantizing = self.graph.producer(maker.input[0])
        assert quantizing is not None
        return quantizing

    def _grid_ahead(self, tensor: str) -> Grid | None:
        """The 8-bit grid on a tensor, or behind operations that only hand its values on."""
        while True:
            for (source, grid), _ in self._pairs.items():
                if source == tensor and grid.full:
                    return grid
            node = self.graph.read_once(tensor)
            if node is None or node.op_type not in PASSING:
                return None
            tensor = node.output[0]


def quantize_outputs(
    quantizer: Quantizer,
    sites: Mapping[str, Site],
    operations: Mapping[str, str],
    output_ranges: Mapping[str, tuple[float, float]],
) -> None:
    """Quantize outputs at the sites that ranges are given for.

    Args:
        quantizer: whose layers are quantized.
        sites: by path of the layer.
        operations: the tensors behind operations that run in integers, by name of the node.
        output_ranges: by path, path and ``:inner``, or name of the node.

    Raises:
        BackboneError: a range is not finite, or for no layer that runs in int8.
    """
    handed_on: list[NodeProto] = []
    # Backwards, so that the grid of a following layer is found wherever there is one.
    for key, (least, greatest) in reversed(list(output_ranges.items())):
        tensor = _tensor_at(key, quantizer, sites, operations)
        path = key.removesuffix(INNER)
        if not -np.inf < least <= greatest < np.inf:
            raise BackboneError(f"the output range of '{path}' is {least} to {greatest}")
        node = quantizer.graph.nodes[path]
        if node.op_type in PASSING:
            handed_on.append(node)
            continue
        grid = quantizer.grid_at(tensor, least, greatest)
        if node.op_type in HARD:
            quantizer.quantize_hard(node, grid)
        else:
            quantizer.quantize_output(tensor, grid)
    for name in operations.keys() & quantizer.graph.nodes.keys():
        quantizer.read_quantized(quantizer.graph.nodes[name])
    for node in reversed(handed_on):
        quantizer.pass_on(node)
    for path, plan in quantizer.plans.items():
        if plan.integers is None and plan.bits.activation_bits == 32:
            quantizer.keep_float(path, sites[path].inner)


def _tensor_at(
    key: str, quantizer: Quantizer, sites: Mapping[str, Site], operations: Mapping[str, str]
) -> str:
    """The output that a range is given for.

    Raises:
        BackboneError: it is the network's, or of no layer that runs in int8.
    """
    path, plan = key.removesuffix(INNER), quantizer.plans.get(key.removesuffix(INNER))
    if key in operations:
        tensor = operations[key]
    elif plan is None:
        raise BackboneError(f"an output range is given for '{path}', which is no layer that runs")
    elif not plan.runs_in_int8:
        raise BackboneError(
            f"an output range is given for '{path}', which runs in {plan.bits}; only an "
            "integer layer has its output quantized"
        )
    else:
        tensor = sites[path].inner if key.endswith(INNER) else sites[path].outer
    if tensor == quantizer.graph.output:
        raise BackboneError(f"'{path}' makes the result, which stays in fp32; drop its range")
    return tensor
