"""QuantizeLinear and DequantizeLinear around the layers that run in integers.

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
from onnx import NodeProto

from hwsearch.deploy.float_graph import FloatGraph, output_axis
from hwsearch.deploy.onnx_graph import Graph
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

    def grid_at(self, path: str, tensor: str, least: float, greatest: float) -> Grid:
        """A grid for the output of a layer.

        A grid that a following layer has for the same values is used in place of the range: the
        kernel then writes what that layer reads, without another conversion.

        Args:
            path: of a layer that runs in int8.
            tensor: its inner or outer site.
            least: of the values there.
            greatest: of the values there.
        """
        grid = self.plans[path].grid
        assert grid is not None
        return self._grid_ahead(tensor) or grid.over(least, greatest)

    def quantize_output(self, tensor: str, used: Grid) -> None:
        """Let everything that reads the output of a layer read it quantized.

        Args:
            tensor: its inner or outer site.
            used: of 8 bits.
        """
        pair = self._pair(tensor, used)
        own = {self._quantizing(pair).name}
        others = [node for node in self.graph.readers(tensor) if node.name not in own]
        self.graph.redirect(tensor, pair.output, others)

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
    output_ranges: Mapping[str, tuple[float, float]],
    trained: Mapping[str, Grid],
) -> None:
    """Quantize outputs at the sites that ranges are given for.

    Args:
        quantizer: whose layers are quantized.
        sites: by path of the layer.
        output_ranges: by path, or path and ``:inner``.
        trained: grids that the module rounds to itself, by the same keys; they go before ranges.

    Raises:
        BackboneError: a range is not finite, or for no layer that runs in int8.
    """
    # Backwards, so that the grid of a following layer is found wherever there is one.
    for key, (least, greatest) in reversed(list(output_ranges.items())):
        path = key.removesuffix(INNER)
        plan = quantizer.plans.get(path)
        if plan is None:
            raise BackboneError(
                f"an output range is given for '{path}', which is no layer that runs"
            )
        if not plan.runs_in_int8:
            raise BackboneError(
                f"an output range is given for '{path}', which runs in {plan.bits}; only an "
                "integer layer has its output quantized"
            )
        if not -np.inf < least <= greatest < np.inf:
            raise BackboneError(f"the output range of '{path}' is {least} to {greatest}")
        site = sites[path]
        tensor = site.inner if key.endswith(INNER) else site.outer
        if tensor == quantizer.graph.output:
            raise BackboneError(f"'{path}' makes the result, which stays in fp32; drop its range")
        grid = trained.get(key) or quantizer.grid_at(path, tensor, least, greatest)
        quantizer.quantize_output(tensor, grid)
    for path, plan in quantizer.plans.items():
        if plan.integers is None and plan.bits.activation_bits == 32:
            quantizer.keep_float(path, sites[path].inner)
