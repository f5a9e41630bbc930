"""Where the output of a layer can be quantized, as the runtimes fuse what comes behind it.

ONNX Runtime's int8 convolution ends behind a ReLU or a clip, which saturation replaces. TensorRT
and OpenVINO take any activation and one residual add into the convolution.
"""

from dataclasses import dataclass
from typing import Final

from onnx import NodeProto

from hwsearch.deploy.onnx_graph import Graph

#: Operations that saturation of an integer replaces.
CLIPPING: Final = frozenset({"Relu", "Clip"})
#: Arithmetic on each element by itself.
ELEMENTWISE: Final = frozenset(
    {
        "Add", "Sub", "Mul", "Div", "Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh",
        "Erf", "LeakyRelu", "Elu", "Selu", "Celu", "PRelu", "Softplus", "Exp", "Log", "Sqrt", "Neg",
        "Abs", "Pow", "Min", "Max", "Reciprocal", "Softsign", "ThresholdedRelu",
    }
)  # fmt: skip
#: Operations whose output holds values of their input only, so that one grid fits both.
PASSING: Final = frozenset(
    {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather"}
)


@dataclass(frozen=True, kw_only=True)
class Site:
    """The tensors behind one layer at which its output can be quantized.

    Attributes:
        inner: behind the layer, its bias and a ReLU or clip.
        outer: behind its whole activation and residual add as well; the same as ``inner`` where
            there is no more than that.
        residual: an addition of two activations lies between them.
        result: nothing but a view lies between ``outer`` and the result of the network.
    """

    inner: str
    outer: str
    residual: bool
    result: bool


def find_sites(graph: Graph, paths: list[str]) -> dict[str, Site]:
    """The sites of layers; of two layers that one addition reads, the later takes it.

    Args:
        graph: before anything is quantized.
        paths: of the layers, in running order.
    """
    claimed: set[str] = set()
    found = {path: _walk(graph, graph.nodes[path], claimed) for path in reversed(paths)}
    return {path: found[path] for path in paths}


def _walk(graph: Graph, layer: NodeProto, claimed: set[str]) -> Site:
    tensor = inner = layer.output[0]
    clipping, residual = True, False
    while True:
        step = _step(graph, tensor)
        if step is None:
            break
        node, is_sum = step
        if is_sum and (residual or node.name in claimed):
            break
        residual = residual or is_sum
        tensor = node.output[0]
        bias = node.op_type == "Add" and not is_sum and inner == layer.output[0]
        clipping = clipping and not residual and (bias or node.op_type in CLIPPING)
        if residual and is_sum:
            claimed.add(node.name)
        if clipping:
            inner = tensor
    return Site(inner=inner, outer=tensor, residual=residual, result=is_result(graph, tensor))


def _step(graph: Graph, tensor: str) -> tuple[NodeProto, bool] | None:
    """The next node that fuses into what made a tensor, and whether it adds another activation."""
    if tensor == graph.output:
        return None
    readers = graph.readers(tensor)
    if len(readers) == 1 and readers[0].op_type in ELEMENTWISE:
        others = [name for name in graph.activations(readers[0]) if name != tensor]
        if not others:
            return readers[0], False
        return (readers[0], True) if readers[0].op_type == "Add" else None
    if len(readers) == 2:
        gate = _gate(graph, tensor, readers)
        return None if gate is None else (gate, False)
    return None


def _gate(graph: Graph, tensor: str, readers: list[NodeProto]) -> NodeProto | None:
    """The product x * f(x) that SiLU and GELU are written as, if that is what reads x."""
    product = next((node for node in readers if node.op_type == "Mul"), None)
    start = next((node for node in readers if node is not product), None)
    if product is None:
        return None
    while start is not None and start.op_type in ELEMENTWISE:
        if product.name in {node.name for node in graph.readers(start.output[0])}:
            return product if graph.read_once(start.output[0]) is not None else None
        following = graph.read_once(start.output[0])
        if following is None or len(graph.activations(following)) != 1:
            return None
        start = following
    return None


def is_result(graph: Graph, tensor: str) -> bool:
    """Whether nothing but a view lies between a tensor and the result of the network."""
    while tensor != graph.output:
        node = graph.read_once(tensor)
        if node is None or node.op_type not in PASSING:
            return False
        tensor = node.output[0]
    return True
