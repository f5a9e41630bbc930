import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from deploy_fixtures import (
    CLASSES,
    NETS,
    MakeShared,
    logits,
    mixed,
    network,
    operations,
    pictures,
    quantized,
    session,
    settled,
    torch_logits,
    weighted,
)
from torch import Tensor, nn

from hwsearch.bits import FP32, INT8
from hwsearch.deploy.export import export_onnx
from hwsearch.errors import BackboneError
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import make_blueprint
from hwsearch.nets.prune import channel_importance, least_important
from hwsearch.nets.quantize import quantize
from hwsearch.nets.realize import pruned


@pytest.mark.parametrize("name", NETS)
def test_plain_network_when_exported_gives_the_same_logits(name: str, file: Path) -> None:
    model, px = network(name), NETS[name]
    made = export_onnx(model, px, file)
    expected = torch_logits(model, pictures(px))
    found = logits(file, pictures(px))
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert [layer.path for layer in made.layers] == weighted_in_order(model, px)
    assert {layer.bits for layer in made.layers} == {FP32}
    assert not operations(file).keys() & {
        "BatchNormalization", "Identity", "Constant", "Shape", "Cast", "Dropout",
        "QuantizeLinear", "DequantizeLinear",
    }  # fmt: skip


def weighted_in_order(model: nn.Module, px: int) -> list[str]:
    """The layers in the order in which they run."""
    order: list[str] = []
    handles = [
        model.get_submodule(path).register_forward_hook(lambda *_, path=path: order.append(path))
        for path in weighted(model)
    ]
    torch_logits(model, pictures(px, 1))
    for handle in handles:
        handle.remove()
    return order


@pytest.mark.parametrize("name", NETS)
def test_file_when_written_is_valid_and_static(name: str, shared: MakeShared) -> None:
    px, made = NETS[name], shared(name, "mixed").file
    model = onnx.load(made.path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert made.opset == 17
    assert model.ir_version == 8
    assert made.input_shape == (1, 3, px, px)
    [picture], [result] = model.graph.input, model.graph.output
    assert (picture.name, result.name) == (made.input_name, made.output_name)
    assert sizes(picture) == [1, 3, px, px]
    assert sizes(result) == [1, CLASSES]
    # Every tensor between has a type and a static shape.
    known = {value.name for value in model.graph.value_info if 0 not in sizes(value)}
    outputs = {name for node in model.graph.node for name in node.output if name}
    assert outputs - known == {made.output_name}
    assert not any(node.doc_string for node in model.graph.node)
    # The node of a layer has its path as name.
    operation = {node.name: node.op_type for node in model.graph.node}
    assert {operation[layer.path] for layer in made.layers} <= {"Conv", "MatMul", "Gemm"}


def sizes(value: onnx.ValueInfoProto) -> list[int]:
    return [size.dim_value for size in value.type.tensor_type.shape.dim]


def test_model_when_exported_is_left_as_it_was(file: Path) -> None:
    model = quantized(network("resnet10t"), 32, mixed)
    model.train()
    before = copy.deepcopy(model.state_dict())
    model.eval()
    expected = torch_logits(model, pictures(32))
    model.train()
    export_onnx(model, 32, file)
    export_onnx(model, 32, file)
    assert model.training
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    model.eval()
    np.testing.assert_array_equal(torch_logits(model, pictures(32)), expected)


def test_file_when_written_twice_has_the_same_bytes(shared: MakeShared, file: Path) -> None:
    first = shared("test_efficientnet", "mixed")
    export_onnx(first.model, 32, file)
    assert file.read_bytes() == first.path.read_bytes()


def test_batch_when_dynamic_is_open(shared: MakeShared, file: Path) -> None:
    model = shared("test_vit", "int8").model
    made = export_onnx(model, 32, file, dynamic_batch=True)
    assert made.input_shape == (None, 3, 32, 32)
    single = logits(file, pictures(32))
    running = session(file)
    several = running.run(None, {made.input_name: pictures(32).numpy()})[0]
    assert several.shape == (6, CLASSES)
    np.testing.assert_allclose(several, single, atol=0.1 * single.std())


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv2_050"])
def test_pruned_network_when_exported_gives_the_same_logits(name: str, file: Path) -> None:
    px = NETS[name]
    ref = BackboneRef(name=name, classes=CLASSES)
    base, blueprint = build(ref, px), make_blueprint(ref, px)
    kept = {group.name: max(1, group.channels // 2) for group in blueprint.graph.groups}
    importance = channel_importance(base, blueprint.trace, blueprint.graph)
    model = settled(pruned(base, blueprint, least_important(importance, kept)), px)
    made = export_onnx(model, px, file)
    expected = torch_logits(model, pictures(px))
    assert np.abs(logits(file, pictures(px)) - expected).max() < 1e-4 * np.abs(expected).max()
    weights = {tensor.name: tuple(tensor.dims) for tensor in onnx.load(file).graph.initializer}
    counts = blueprint.graph.out_channels(blueprint.trace.out_channels(), kept)
    for layer in made.layers:
        assert weights[f"{layer.path}.weight"][0] == counts[layer.path]


class Strange(nn.Module):
    """Has an operation that ONNX has no word for."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, values: Tensor) -> Tensor:
        bent = torch.special.bessel_j0(values.mean((2, 3)))
        result: Tensor = self.head(bent)
        return result


def test_operation_when_unknown_to_onnx_is_named(file: Path) -> None:
    with pytest.raises(BackboneError, match=r"cannot be exported to ONNX at 8 px: .*bessel_j0"):
        export_onnx(Strange(), 8, file)
    assert not file.exists()


class Twice(nn.Module):
    """Runs one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.conv(torch.relu(self.conv(values))).mean((2, 3))
        return result


def test_layer_when_it_runs_twice_is_refused(file: Path) -> None:
    with pytest.raises(BackboneError, match="the layer 'conv' runs twice"):
        export_onnx(Twice(), 8, file)


class Spare(nn.Module):
    """Has a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.spare = nn.Linear(2, 2)

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.conv(values).mean((2, 3))
        return result


def test_layer_when_it_never_runs_is_left_out(file: Path) -> None:
    made = export_onnx(Spare(), 8, file)
    assert [layer.path for layer in made.layers] == ["conv"]
    assert "spare.weight" not in {tensor.name for tensor in onnx.load(file).graph.initializer}


def test_layer_when_quantized_but_never_run_is_refused(file: Path) -> None:
    model = Spare()
    quantize(model, {"spare": INT8}, "affine")
    with pytest.raises(BackboneError, match=r"'spare' is not in the exported graph .* 32 bits"):
        export_onnx(model, 8, file)
