from pathlib import Path

import onnx
import pytest
from deploy_fixtures import (
    NETS,
    MakeShared,
    network,
    weighted,
)
from onnx import TensorProto, helper

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.deploy.export import export_onnx
from hwsearch.deploy.realised import (
    differences,
    realised_bits,
)
from hwsearch.errors import HostError


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("asked_for", ["int8", "mixed"])
def test_bits_when_outputs_are_quantized_are_8_for_integers_and_fp32_for_the_rest(
    name: str, asked_for: str, shared: MakeShared
) -> None:
    made = shared(name, asked_for, fusion="relu")
    asked = {layer.path: layer.bits for layer in made.file.layers}
    assert set(asked) == set(weighted(made.model))
    found = realised_bits(made.path, asked)
    assert list(found) == list(asked)
    for layer, bits in asked.items():
        integer = max(bits.weight_bits, bits.activation_bits) <= 8
        # The processor's half precision is fp32 between conversions, but for some products.
        assert found[layer] == INT8 if integer else found[layer] in (FP32, FP16), layer


def test_bits_when_outputs_are_not_quantized_are_fp32_in_truth(shared: MakeShared) -> None:
    made = shared("resnet10t", "int8").file
    asked = {layer.path: layer.bits for layer in made.layers}
    found = realised_bits(made.path, asked)
    # The classifier writes floating point from integers.
    integer = {layer.path for layer in made.layers if layer.output_quantized}
    integer.add(made.layers[-1].path)
    assert {layer for layer, bits in found.items() if bits == INT8} == integer
    assert differences(asked, found).keys() == set(asked) - integer


def test_file_when_it_is_read_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    export_onnx(network("resnet10t"), 32, file)
    before = file.read_bytes()
    assert realised_bits(file, {"fc": FP32, "elsewhere": INT8}) == {"fc": FP32, "elsewhere": FP32}
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_file_when_the_runtime_refuses_it_says_why(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    node = helper.make_node("NoSuchOperation", ["x"], ["y"])
    graph = helper.make_graph([node], "g", [value], [result])
    onnx.save(helper.make_model(graph), file)
    with pytest.raises(HostError, match=r"ONNX Runtime [\d.]+ does not run .*NoSuchOperation"):
        realised_bits(file, {})


def test_differences_name_asked_and_realised() -> None:
    asked = {"a": INT8, "b": LayerBits(4, 8), "c": FP32}
    found = differences(asked, {"a": FP32, "b": INT8, "c": FP32})
    assert found == {"a": (INT8, FP32), "b": (LayerBits(4, 8), INT8)}
    assert differences(asked, asked) == {}
