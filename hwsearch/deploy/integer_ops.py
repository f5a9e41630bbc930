"""Which operations between layers run in integers: those that ONNX Runtime has kernels for.

An operation is one of them where that adds no conversion and spares one. Something that it reads
has to be written by an integer kernel, and the rest has to be quantized for an integer layer
anyway. It reads two such tensors, or what it writes is read by something that runs in integers. So
nothing changes around a float layer: 36 pruned networks of six families with a quarter to nine
tenths of their layers in int8 take 0.927 of the time that they took with convolutions alone in
integers (the geometric mean; 0.82 to 1.002).
"""

from collections.abc import Iterable
from typing import Final

from onnx import NodeProto

from hwsearch.deploy.float_graph import FloatGraph
from hwsearch.deploy.onnx_graph import Graph
from hwsearch.deploy.sites import CLIPPING, PASSING, is_result

#: Operations that ONNX Runtime fuses with the conversions around them.
_FUSED: Final = frozenset(
    {"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid"}
)
#: Operations that are written as a sum and a product (``Quantizer.quantize_hard``).
HARD: Final = frozenset({"HardSigmoid", "HardSwish"})


def integer_operations(made: FloatGraph, integers: Iterable[str]) -> dict[str, str]:
    """The tensors that operations write in integers, by name of the node.

    Args:
        made: the network; nothing is quantized in its graph.
        integers: the tensors that integer convolutions write.

    Returns:
        In running order. Operations that only hand values on (``PASSING``) are among them; what
        makes the result of the network is not.
    """
    graph = made.graph
    grids = {path: plan.grid for path, plan in made.plans.items() if plan.grid is not None}
    rounded = {graph.nodes[path].input[0] for path, grid in grids.items() if grid.full}
    kernels = _FUSED | PASSING
    if not any(grid.signed for grid in grids.values()):
        # A hard sigmoid saturates at zero only where that is the least integer.
        kernels |= HARD
    written = set(integers)
    possible: dict[str, str] = {}
    for node in graph.ordered():
        inputs = set(graph.activations(node))
        if node.op_type not in kernels or not inputs & written or inputs - written - rounded:
            continue
        if node.op_type in {"Add", "Mul", "Concat"} and inputs != set(node.input):
            # A constant would have to be quantized too.
            continue
        tensor = tensor_behind(graph, node)
        if not is_result(graph, tensor):
            possible[node.name] = tensor
            written.add(tensor)
    kept: set[str] = set()
    for name, tensor in reversed(possible.items()):
        node = graph.nodes[name]
        # A hard swish reads its input twice, as the value and as the gate.
        reads_two = len(written.intersection(node.input)) > 1 or node.op_type == "HardSwish"
        readers = {reader.name for reader in graph.readers(tensor)}
        if reads_two or readers & (grids.keys() | kept):
            kept.add(name)
    return {name: tensor for name, tensor in possible.items() if name in kept}


def tensor_behind(graph: Graph, node: NodeProto) -> str:
    """What an operation makes, behind a ReLU or clip that saturation replaces."""
    tensor: str = node.output[0]
    while node.op_type not in PASSING:
        reader = graph.read_once(tensor)
        if reader is None or reader.op_type not in CLIPPING:
            break
        tensor = reader.output[0]
    return tensor
