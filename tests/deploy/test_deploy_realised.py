from pathlib import Path

import numpy as np
import onnx
import pytest
from deploy_fixtures import NETS, mixed, network, operations, pictures, quantized, weighted
from onnx import TensorProto, helper, numpy_helper

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.deploy.export import export_onnx
from hwsearch.deploy.ranges import observe_output_ranges
from hwsearch.deploy.realised import (
    difference_text,
    differences,
    realised_bits,
    runtime_name,
)
from hwsearch.errors import HostError

W4A8, W8A16 = LayerBits(4, 8), LayerBits(8, 16)


@pytest.mark.parametrize("name", NETS)
def test_bits_when_everything_is_int8_are_realised(name: str, tmp_path: Path) -> None:
    px, file = NETS[name], tmp_path / "model.onnx"
    model = quantized(network(name), px, INT8)
    ranges = observe_output_ranges(model, [pictures(px)])
    made = export_onnx(model, px, file, output_ranges=ranges)
    asked = {layer.path: layer.bits for layer in made.layers}
    assert set(asked) == set(weighted(model))
    assert realised_bits(file, asked) == asked


@pytest.mark.parametrize("name", NETS)
def test_bits_when_mixed_are_8_for_integers_and_fp32_for_the_rest(
    name: str, tmp_path: Path
) -> None:
    px, file = NETS[name], tmp_path / "model.onnx"
    model = quantized(network(name), px, mixed)
    ranges = observe_output_ranges(model, [pictures(px)])
    made = export_onnx(model, px, file, output_ranges=ranges)
    asked = {layer.path: layer.bits for layer in made.layers}
    found = realised_bits(file, asked)
    assert list(found) == list(asked)
    for layer, bits in asked.items():
        integer = max(bits.weight_bits, bits.activation_bits) <= 8
        # The processor's half precision is fp32 between conversions, but for some products.
        assert found[layer] == INT8 if integer else found[layer] in (FP32, FP16), layer


def test_bits_when_outputs_are_not_quantized_are_fp32_in_truth(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    model = quantized(network("resnet10t"), 32, INT8)
    made = export_onnx(model, 32, file)
    asked = {layer.path: layer.bits for layer in made.layers}
    found = realised_bits(file, asked)
    fused = {layer.path for layer in made.layers if layer.output_quantized}
    # The classifier writes floating point from integers.
    assert {layer for layer, bits in found.items() if bits == INT8} == fused | {
        made.layers[-1].path
    }
    assert differences(asked, found).keys() == set(asked) - fused - {made.layers[-1].path}


def test_bits_when_a_layer_is_no_part_of_the_file_are_fp32(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    export_onnx(network("resnet10t"), 32, file)
    assert realised_bits(file, {"elsewhere": INT8}) == {"elsewhere": FP32}


def test_file_when_it_is_read_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    export_onnx(network("resnet10t"), 32, file)
    before = file.read_bytes()
    realised_bits(file, {"fc": FP32})
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
    assert operations(file)["Conv"] > 0


def test_file_when_the_runtime_refuses_it_says_why(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    node = helper.make_node("NoSuchOperation", ["x"], ["y"])
    graph = helper.make_graph([node], "g", [value], [result])
    onnx.save(helper.make_model(graph), file)
    with pytest.raises(HostError, match=r"ONNX Runtime [\d.]+ does not run .*NoSuchOperation"):
        realised_bits(file, {})


def test_half_when_the_kernel_has_half_weights_is_half(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    weight = numpy_helper.from_array(np.ones((4, 4), np.float16), "fc.weight")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 4])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT16, [1, 4])
    node = helper.make_node("MatMul", ["x", "fc.weight"], ["y"])
    graph = helper.make_graph([node], "g", [value], [result], [weight])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), file)
    assert realised_bits(file, {"fc": FP16})["fc"] in (FP16, FP32)


def test_differences_name_asked_and_realised() -> None:
    asked = {"a": INT8, "b": W4A8, "c": FP32}
    found = differences(asked, {"a": FP32, "b": INT8, "c": FP32})
    assert found == {"a": (INT8, FP32), "b": (W4A8, INT8)}
    assert differences(asked, asked) == {}


def test_difference_text_counts_layers_of_one_kind() -> None:
    pairs = dict.fromkeys(("a", "b", "c"), (INT8, FP32)) | {"d": (W8A16, FP32)}
    assert difference_text(pairs) == (
        "3 layers asked for W8A8 run as W32A32 (a, b, ...); "
        "1 layer asked for W8A16 runs as W32A32 (d)"
    )
    assert difference_text({}) == ""


def test_runtime_is_named_with_its_version() -> None:
    assert runtime_name().startswith("ONNX Runtime 1.")
