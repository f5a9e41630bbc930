import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwsearch.deploy.onnx_graph import IR_VERSION, OPSET, Graph
from hwsearch.errors import BackboneError


def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def chain() -> Graph:
    """x -> Relu -> a -> Mul with "two" -> y, and a node that nothing reads."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="first"),
        helper.make_node("Mul", ["a", "two"], ["y"], name="second"),
        helper.make_node("Neg", ["a"], ["nowhere"], name="spare"),
    ]
    two = numpy_helper.from_array(np.array(2, dtype=np.float32), "two")
    graph = helper.make_graph(nodes, "g", [value("x", 1, 4)], [value("y", 1, 4)], [two])
    return Graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)]))


def test_graph_when_written_is_valid_and_without_what_nothing_reads() -> None:
    graph = chain()
    graph.constant("unused", np.ones(3, np.float32))
    model = graph.to_model()
    assert [node.name for node in model.graph.node] == ["first", "second"]
    assert [tensor.name for tensor in model.graph.initializer] == ["two"]
    # A scalar stays one: a scale of shape (1,) is refused by some kernels.
    assert list(model.graph.initializer[0].dims) == []
    assert model.ir_version == IR_VERSION
    assert (graph.input, graph.output) == ("x", "y")


def test_node_when_added_stands_before_its_first_reader() -> None:
    graph = chain()
    graph.add("Abs", ["a"], "b")
    graph.redirect("a", "b", [graph.nodes["second"]])
    assert [node.op_type for node in graph.ordered()] == ["Relu", "Abs", "Mul"]


def test_constant_when_held_twice_must_be_the_same() -> None:
    graph = chain()
    assert graph.constant("c", np.ones(2, np.float32)) == "c"
    assert graph.constant("c", np.ones(2, np.float32)) == "c"
    with pytest.raises(BackboneError, match="uses the name 'c' twice"):
        graph.constant("c", np.zeros(2, np.float32))


def test_loop_when_made_is_refused() -> None:
    graph = chain()
    graph.redirect("x", "y", [graph.nodes["first"]])
    with pytest.raises(BackboneError, match="the exported graph has a loop at"):
        graph.ordered()


def test_graph_when_no_valid_onnx_is_refused() -> None:
    graph = chain()
    graph.nodes["second"].op_type = "NoSuchOperation"
    with pytest.raises(BackboneError, match="is no valid ONNX"):
        graph.to_model()
