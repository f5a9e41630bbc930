"""Activations and normalizations that an exporter spelled out, put together again.

``x * sigmoid(x)`` is one activation to every runtime, and ``(x - mean) / sqrt(variance)`` is one
normalization, but older exporters write them as four to nine nodes.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from hwsearch.hardware.onnx_graph import Node, OnnxGraph
from hwsearch.hardware.operators import ONNX, POINTWISE_KINDS

#: The operator of a node that stands for a spelled-out part of a normalization.
SPELLED_NORM: Final = "a spelled-out normalization"
_POINTWISE: Final = frozenset(op for op, kind in ONNX.items() if kind in POINTWISE_KINDS)
_MEAN: Final = "ReduceMean"


def with_whole_activations(graph: OnnxGraph) -> tuple[Node, ...]:
    """The nodes of a graph, with each spelled-out function as one node of one input.

    Such a function starts from one tensor, joins again, and is read by nothing else on the way. It
    keeps the operator that closes it, or is a ``SPELLED_NORM`` where a mean is part of it.
    """
    found = _Spelled(graph)
    absorbed: set[int] = set()
    for at, node in enumerate(graph.nodes):
        if node.op in _POINTWISE or node.op == _MEAN:
            absorbed |= found.visit(at, node)
    return tuple(found.whole(at) for at in range(len(graph.nodes)) if at not in absorbed)


class _Spelled:
    """Follows nodes back to the one tensor that they start from.

    Attributes:
        roots: by node, that tensor.
        members: by node, all nodes between it and its root, itself included.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph
        self.roots: dict[int, str] = {}
        self.members: dict[int, frozenset[int]] = {}
        self.makers: dict[str, int] = {}
        self.readers: dict[str, set[int]] = {}
        for at, node in enumerate(graph.nodes):
            for name in graph.activations(node):
                self.readers.setdefault(name, set()).add(at)

    def visit(self, at: int, node: Node) -> frozenset[int]:
        """Note a node; those before it that belong to the function that it closes."""
        inputs = list(dict.fromkeys(self.graph.activations(node)))
        if len(inputs) == 1:
            self._note(at, node, inputs[0], frozenset({at}))
        if len(inputs) != 2:
            return frozenset()
        first, second = (dict(self._back(name)) for name in inputs)
        root = next((name for name in first if name in second), None)
        if root is None:
            return frozenset()
        members = first[root] | second[root] | {at}
        if not (self._closed(members, at) and self._is_function(members, at, root)):
            return frozenset()
        self._note(at, node, root, members)
        return members - {at}

    def whole(self, at: int) -> Node:
        """A node as what it stands for."""
        node, members = self.graph.nodes[at], self.members.get(at, frozenset())
        if len(members) < 2:
            return node
        op = SPELLED_NORM if self._has_mean(members) else node.op
        return replace(node, op=op, inputs=(self.roots[at],), spelled=True)

    def _note(self, at: int, node: Node, root: str, members: frozenset[int]) -> None:
        self.roots[at], self.members[at] = root, members
        self.makers[node.outputs[0]] = at

    def _back(self, name: str) -> Iterator[tuple[str, frozenset[int]]]:
        """A tensor and those before it, each with the nodes in between, the nearest first."""
        members: frozenset[int] = frozenset()
        yield name, members
        while name in self.makers:
            at = self.makers[name]
            members |= self.members[at]
            name = self.roots[at]
            yield name, members

    def _closed(self, members: frozenset[int], last: int) -> bool:
        """Whether nothing but the members reads what they make on the way."""
        inside = {name for at in members - {last} for name in self.graph.nodes[at].outputs}
        read = set().union(*(self.readers.get(name, set()) for name in inside))
        return read <= members and not inside & self.graph.outputs

    def _is_function(self, members: frozenset[int], last: int, root: str) -> bool:
        """Whether they keep the shape; a mean belongs to ``x - mean`` and ``x / deviation`` only.

        In ``x * gate(mean(x))`` runtimes pool and multiply in kernels of their own.
        """
        node = self.graph.nodes[last]
        same = self.graph.shapes[root] == self.graph.shapes[node.outputs[0]]
        return same and (node.op in {"Sub", "Div"} or not self._has_mean(members))

    def _has_mean(self, members: frozenset[int]) -> bool:
        return any(self.graph.nodes[at].op == _MEAN for at in members)
