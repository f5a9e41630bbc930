"""Half precision, as a strongly typed runtime wants it: the types in the graph, casts between.

A layer that was asked for in 16 bits computes in them, and so does whatever only reads such
layers; so a chain of them has one cast at either end.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from onnx import NodeProto, TensorProto

from hwsearch.deploy.onnx_graph import Array, Graph
from hwsearch.deploy.plan import LayerPlan
from hwsearch.deploy.sites import ELEMENTWISE

#: Operations whose values stay within half precision if their inputs do. Normalizations and powers,
#: which may leave it on the way, are computed in fp32.
_FOLLOWING: Final = (
    ELEMENTWISE - {"Exp", "Log", "Pow", "Sqrt", "Reciprocal"}
) | {
    "AveragePool", "Concat", "Flatten", "Gather", "GlobalAveragePool", "MatMul", "MaxPool", "Pad",
    "ReduceMean", "Reshape", "Slice", "Softmax", "Split", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip

_HALF_LIMIT: Final = float(np.finfo(np.float16).max)


def halve(graph: Graph, plans: Mapping[str, LayerPlan]) -> None:
    """Give the layers of 16-bit activations, and what follows them, half precision."""
    half = _half_nodes(graph, plans)
    tensors = {name for node in half.values() for name in node.output}
    for node in half.values():
        _halve_constants(graph, node)
    _cast_inputs(graph, half, tensors)
    _cast_outputs(graph, half, tensors)


def _half_nodes(graph: Graph, plans: Mapping[str, LayerPlan]) -> dict[str, NodeProto]:
    half: dict[str, NodeProto] = {}
    made: set[str] = set()
    for node in graph.ordered():
        plan = plans.get(node.name)
        if plan is not None:
            chosen = plan.bits.activation_bits == 16
        else:
            inputs = graph.activations(node)
            chosen = node.op_type in _FOLLOWING and bool(inputs) and made.issuperset(inputs)
        if chosen:
            half[node.name] = node
            made.update(node.output)
    return half


def _halve_constants(graph: Graph, node: NodeProto) -> None:
    for position, name in enumerate(node.input):
        value = graph.constants.get(name)
        if value is not None and value.dtype == np.float32:
            node.input[position] = graph.constant(f"{name}_half", _rounded(value))


def _rounded(value: Array) -> Array:
    return np.asarray(value.clip(-_HALF_LIMIT, _HALF_LIMIT), dtype=np.float16)


def _cast_inputs(graph: Graph, half: Mapping[str, NodeProto], made: set[str]) -> None:
    """Cast what half-precision nodes read from others, once for each tensor."""
    for node in half.values():
        for name in dict.fromkeys(graph.activations(node)):
            if name in made:
                continue
            target = f"{name}_to_half"
            if graph.producer(target) is None:
                graph.add("Cast", [name], target, to=TensorProto.FLOAT16)
            graph.redirect(name, target, [node])


def _cast_outputs(graph: Graph, half: Mapping[str, NodeProto], made: set[str]) -> None:
    """Cast what other nodes read from half-precision ones; the result of the network is fp32."""
    for name in sorted(made):
        if name == graph.output:
            source = f"{name}_in_half"
            for node in half.values():
                node.output[:] = [source if output == name else output for output in node.output]
            graph.redirect(name, source, graph.readers(name))
            graph.add("Cast", [source], name, to=TensorProto.FLOAT)
            continue
        others = [node for node in graph.readers(name) if node.name not in half]
        if others:
            target = f"{name}_to_float"
            graph.add("Cast", [name], target, to=TensorProto.FLOAT)
            graph.redirect(name, target, others)
