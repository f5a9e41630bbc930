"""An ONNX graph that can be edited: nodes by name, constants as arrays.

Nodes and tensors are found by name. Order is made when the graph is written, so that an edit only
says what reads what.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, ValueInfoProto, helper, numpy_helper

from hwsearch.errors import BackboneError

#: Read by ONNX Runtime, OpenVINO and TensorRT from 8.6 on; the first with LayerNormalization, the
#: last before ReduceMean takes its axes as an input, which TensorRT 8.6 does not read.
OPSET: Final = 17
#: The file format that came with opset 17; runtimes refuse a newer one than they know.
IR_VERSION: Final = 8

Array = NDArray[Any]


class Graph:
    """A graph under edit.

    Attributes:
        nodes: by name, in the order in which they were read and then added.
        constants: by tensor name.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.nodes: dict[str, NodeProto] = {}
        self.constants: dict[str, Array] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        self._inputs: list[ValueInfoProto] = list(graph.input)
        self._outputs: list[ValueInfoProto] = list(graph.output)
        for node in graph.node:
            kept = NodeProto()
            kept.CopyFrom(node)
            kept.name = self.fresh(node.name or node.op_type)
            self.nodes[kept.name] = kept

    @property
    def input(self) -> str:
        """Name of the picture."""
        return self._inputs[0].name

    @property
    def output(self) -> str:
        """Name of the result."""
        return self._outputs[0].name

    def fresh(self, wanted: str) -> str:
        """A name that no node has yet: the wanted one, or one with a number behind it."""
        name, count = wanted, 1
        while name in self.nodes:
            name, count = f"{wanted}_{count}", count + 1
        return name

    def add(self, op: str, inputs: Iterable[str], output: str, **attributes: int) -> NodeProto:
        """Add a node with attributes that are integers, named after its one output."""
        name = self.fresh(output)
        node = helper.make_node(op, list(inputs), [output], name=name)
        node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
        self.nodes[name] = node
        return node

    def constant(self, name: str, value: Array) -> str:
        """Hold a constant under this name; the same name holds the same value.

        Raises:
            BackboneError: the name is taken by something else.
        """
        held = self.constants.get(name)
        if held is not None and not (held.dtype == value.dtype and np.array_equal(held, value)):
            raise BackboneError(
                f"the exported graph uses the name '{name}' twice; rename the layer"
            )
        self.constants[name] = value
        return name

    def rename(self, node: NodeProto, wanted: str) -> None:
        """Give a node another name; whoever has it already is renamed."""
        if node.name == wanted:
            return
        if wanted in self.nodes:
            self.nodes[wanted].name = self.fresh(wanted)
        node.name = wanted
        self.nodes = {each.name: each for each in self.nodes.values()}

    def producer(self, tensor: str) -> NodeProto | None:
        """The node that makes a tensor; None for the picture and for constants."""
        return next((node for node in self.nodes.values() if tensor in node.output), None)

    def readers(self, tensor: str) -> list[NodeProto]:
        """The nodes that read a tensor."""
        return [node for node in self.nodes.values() if tensor in node.input]

    def read_once(self, tensor: str) -> NodeProto | None:
        """The only reader of a tensor; None if there are others, or it is the result."""
        readers = self.readers(tensor)
        return readers[0] if len(readers) == 1 and tensor != self.output else None

    def activations(self, node: NodeProto) -> list[str]:
        """The inputs of a node that depend on the picture."""
        return [name for name in node.input if name and name not in self.constants]

    def redirect(self, old: str, new: str, readers: Collection[NodeProto]) -> None:
        """Let these nodes read another tensor in place of ``old``."""
        for node in readers:
            for position, name in enumerate(node.input):
                if name == old:
                    node.input[position] = new

    def prune(self) -> None:
        """Drop the nodes that the result does not depend on."""
        self.nodes = {node.name: node for node in self.ordered()}

    def ordered(self) -> list[NodeProto]:
        """The nodes that the result depends on, each behind what it reads.

        Otherwise they are in the order of the graph that was read, and what was added stands before
        its first reader: a layer comes where it runs, and two exports have the same bytes.

        Raises:
            BackboneError: an edit has made a loop.
        """
        makers = {name: node for node in self.nodes.values() for name in node.output if name}
        needed = self._needed(makers)
        done: dict[str, NodeProto] = {}
        for first in self.nodes.values():
            waiting = [first] if first.name in needed else []
            open_names: set[str] = set()
            while waiting:
                node = waiting[-1]
                before = [makers[name] for name in node.input if name in makers]
                missing = [maker for maker in before if maker.name not in done]
                if not missing or node.name in done:
                    done.setdefault(node.name, node)
                    open_names.discard(node.name)
                    waiting.pop()
                elif node.name in open_names:
                    raise BackboneError(f"the exported graph has a loop at '{node.name}'")
                else:
                    open_names.add(node.name)
                    waiting.extend(reversed(missing))
        return list(done.values())

    def _needed(self, makers: Mapping[str, NodeProto]) -> set[str]:
        needed: set[str] = set()
        waiting = [makers[self.output]]
        while waiting:
            node = waiting.pop()
            if node.name not in needed:
                needed.add(node.name)
                waiting.extend(makers[name] for name in node.input if name in makers)
        return needed

    def to_model(self) -> onnx.ModelProto:
        """The graph as a model with inferred shapes, checked; what nothing reads is left out.

        Raises:
            BackboneError: it is no valid ONNX.
        """
        nodes = self.ordered()
        read = {name for node in nodes for name in node.input}
        constants = [
            numpy_helper.from_array(np.asarray(value, order="C"), name)
            for name, value in self.constants.items()
            if name in read
        ]
        graph = helper.make_graph(nodes, "hwsearch", self._inputs, self._outputs, constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="hwsearch",
        )
        try:
            onnx.checker.check_model(model, full_check=True)
            return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise BackboneError(f"the exported graph is no valid ONNX: {error}") from error


def attributes(node: NodeProto) -> Mapping[str, Any]:
    """The attributes of a node by name."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def picture_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, int, int]]:
    """Channels, height and width of the tensors of four axes, where they are known."""
    found = {}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        sizes = value.type.tensor_type.shape.dim
        if len(sizes) == 4 and all(size.HasField("dim_value") for size in sizes[1:]):
            channels, height, width = (size.dim_value for size in sizes[1:])
            found[value.name] = (channels, height, width)
    return found


def static_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors whose every size is known."""
    found = {}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        kind = value.type.tensor_type
        if not kind.HasField("shape"):
            continue
        sizes = kind.shape.dim
        if all(size.HasField("dim_value") for size in sizes):
            found[value.name] = tuple(size.dim_value for size in sizes)
    return found
