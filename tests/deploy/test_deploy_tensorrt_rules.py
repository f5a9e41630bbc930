"""What TensorRT's documentation asks of a network with explicit quantization, held to the files."""

import numpy as np
import onnx
import pytest
from deploy_fixtures import NETS, MakeShared
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hwsearch.deploy.export import ExportedFile

WEIGHTED = ("Conv", "Gemm", "MatMul")


class Read:
    """A file, to be asked."""

    def __init__(self, made: ExportedFile) -> None:
        graph = onnx.load(made.path).graph
        self.nodes = list(graph.node)
        self.constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.kinds = {
            value.name: value.type.tensor_type.elem_type
            for value in (*graph.input, *graph.value_info, *graph.output)
        }

    def of(self, kind: str) -> list[NodeProto]:
        return [node for node in self.nodes if node.op_type == kind]

    def readers(self, tensor: str) -> list[NodeProto]:
        return [node for node in self.nodes if tensor in node.input]


@pytest.fixture(params=[(name, bits) for name in NETS for bits in ("int8", "mixed")], ids=str)
def read(request: pytest.FixtureRequest, shared: MakeShared) -> tuple[Read, ExportedFile]:
    name, asked = request.param
    made = shared(name, asked, "symmetric", fusion="residual").file
    return Read(made), made


def test_quantization_is_symmetric_with_constant_scales(read: tuple[Read, ExportedFile]) -> None:
    file, _ = read
    pairs = [*file.of("QuantizeLinear"), *file.of("DequantizeLinear")]
    assert pairs
    for node in pairs:
        scale, zero = file.constants[node.input[1]], file.constants[node.input[2]]
        assert scale.dtype == np.float32
        assert (scale > 0).all()
        assert zero.dtype == np.int8
        assert not zero.any()


def test_activations_have_one_scale_and_weights_one_per_output_channel(
    read: tuple[Read, ExportedFile],
) -> None:
    file, _ = read
    for node in file.of("DequantizeLinear"):
        scale = file.constants[node.input[1]]
        if node.input[0] not in file.constants:
            assert scale.ndim == 0
            continue
        axis = helper.get_attribute_value(node.attribute[0])
        [reader] = file.readers(node.output[0])
        if reader.op_type == "Cast":  # weights of 8 bits with activations of 16
            [reader] = file.readers(reader.output[0])
        channels = 0
        if reader.op_type == "MatMul":
            channels = 1
        elif reader.op_type == "Gemm":
            transposed = {a.name: helper.get_attribute_value(a) for a in reader.attribute}
            channels = 0 if transposed.get("transB", 0) else 1
        assert axis == channels
        assert scale.shape == (file.constants[node.input[0]].shape[axis],)


def test_integers_are_dequantized_and_nothing_else_reads_them(
    read: tuple[Read, ExportedFile],
) -> None:
    file, _ = read
    for node in file.of("QuantizeLinear"):
        readers = file.readers(node.output[0])
        assert readers
        for reader in readers:
            passing = {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"}
            assert reader.op_type in {"DequantizeLinear", *passing}


def test_integer_layers_read_both_sides_dequantized_and_their_bias_in_fp32(
    read: tuple[Read, ExportedFile],
) -> None:
    file, made = read
    nodes = {node.name: node for node in file.nodes}
    integer = [
        layer
        for layer in made.layers
        if max(layer.bits.weight_bits, layer.bits.activation_bits) <= 8
    ]
    assert integer
    for layer in integer:
        node = nodes[layer.path]
        for name in node.input[:2]:
            assert file.makers[name].op_type == "DequantizeLinear", layer.path
        for name in node.input[2:]:
            assert file.constants[name].dtype == np.float32


def test_half_precision_is_in_the_types_and_nowhere_mixed(
    read: tuple[Read, ExportedFile],
) -> None:
    file, _ = read
    half = {name for name, kind in file.kinds.items() if kind == TensorProto.FLOAT16}
    half |= {name for name, value in file.constants.items() if value.dtype == np.float16}
    for node in file.nodes:
        if node.op_type in WEIGHTED:
            types = {name in half for name in (*node.input, *node.output)}
            assert len(types) == 1, node.name
