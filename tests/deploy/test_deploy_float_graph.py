from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deploy_fixtures import network, pictures, quantized, settled, torch_logits
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from hwsearch.bits import INT8, LayerBits
from hwsearch.deploy.export import export_onnx
from hwsearch.deploy.float_graph import FloatGraph, float_graph, output_axis
from hwsearch.deploy.plan import take_off
from hwsearch.errors import BackboneError

PX = 8


def made_of(model: nn.Module, px: int = PX) -> FloatGraph:
    return float_graph(*take_off(model), px)


def evaluated(made: FloatGraph, values: Tensor) -> Any:  # noqa: ANN401
    """By the reference implementation of ONNX, without a runtime."""
    running: Any = ReferenceEvaluator(made.graph.to_model())
    return np.concatenate(
        [running.run(None, {made.graph.input: one[None].numpy()})[0] for one in values]
    )


class Normed(nn.Module):
    """A layer with normalization; the middle value may be read a second time."""

    def __init__(self, *, bias: bool, twice: bool = False, affine: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, bias=bias)
        self.norm = nn.BatchNorm2d(6, affine=affine, eps=1e-3)
        self.head = nn.Linear(6, 4)
        self.twice = twice

    def forward(self, values: Tensor) -> Tensor:
        middle = self.conv(values)
        normed = torch.relu(self.norm(middle))
        if self.twice:
            normed = normed + middle
        result: Tensor = self.head(normed.mean((2, 3)))
        return result


@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_when_folded_is_the_definition(*, bias: bool) -> None:
    model = settled(Normed(bias=bias), PX)
    made = made_of(model)
    held = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    factor = held["norm.weight"] / np.sqrt(held["norm.running_var"] + 1e-3)
    old = held["conv.bias"] if bias else np.zeros(6)
    shift, mean, weight = held["norm.bias"], held["norm.running_mean"], held["conv.weight"]
    np.testing.assert_allclose(
        made.graph.constants["conv.weight"], weight * factor[:, None, None, None], rtol=1e-5
    )
    np.testing.assert_allclose(
        made.graph.constants["conv.bias"], shift + factor * (old - mean), rtol=1e-4, atol=1e-6
    )
    assert "BatchNormalization" not in kinds(made)
    expected = torch_logits(model, pictures(PX))
    np.testing.assert_allclose(evaluated(made, pictures(PX)), expected, rtol=1e-4, atol=1e-5)


def kinds(made: FloatGraph) -> list[str]:
    return [node.op_type for node in made.graph.ordered()]


def test_batch_norm_when_its_input_is_read_twice_stays() -> None:
    model = settled(Normed(bias=True, twice=True), PX)
    made = made_of(model)
    assert kinds(made).count("BatchNormalization") == 1
    np.testing.assert_array_equal(
        made.graph.constants["conv.weight"], model.get_parameter("conv.weight").detach().numpy()
    )
    expected = torch_logits(model, pictures(PX))
    np.testing.assert_allclose(evaluated(made, pictures(PX)), expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_when_behind_a_linear_layer_is_folded() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * PX * PX, 5), nn.BatchNorm1d(5)).eval()
    model.get_parameter("2.weight").data[0] = -2.0
    model.get_buffer("2.running_var").fill_(0.5)
    made = made_of(model)
    assert kinds(made) == ["Flatten", "Gemm"]
    expected = torch_logits(model, pictures(PX))
    np.testing.assert_allclose(evaluated(made, pictures(PX)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 2])
def test_integers_when_folded_give_the_folded_weight(bits: int) -> None:
    model = quantized(settled(Normed(bias=False), PX), PX, LayerBits(bits, 8))
    made = made_of(model)
    plan = made.plans["conv"]
    assert plan.integers is not None
    assert plan.scales is not None
    np.testing.assert_allclose(
        plan.integers * plan.scales[:, None, None, None],
        made.graph.constants["conv.weight"],
        rtol=1e-5,
        atol=1e-8,
    )
    trained = take_off(model)[1]["conv"].integers
    assert trained is not None
    signs = np.sign(model.get_parameter("norm.weight").detach().numpy()).astype(np.int8)
    assert (signs < 0).any()
    np.testing.assert_array_equal(plan.integers, trained * signs[:, None, None, None])


def test_weight_of_a_token_layer_when_transposed_keeps_its_name() -> None:
    model = network("test_vit")
    made = made_of(model, 32)
    node = made.graph.nodes["blocks.0.attn.qkv"]
    assert node.op_type == "MatMul"
    assert node.input[1] == "blocks.0.attn.qkv.weight"
    np.testing.assert_array_equal(
        made.graph.constants["blocks.0.attn.qkv.weight"],
        model.get_parameter("blocks.0.attn.qkv.weight").detach().numpy().T,
    )
    assert output_axis(node) == 1
    assert output_axis(made.graph.nodes["head"]) == 0
    assert output_axis(made.graph.nodes["patch_embed.proj"]) == 0


class Equal(nn.Module):
    """Two layers with the same weights, which the exporter stores once."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.two.load_state_dict(self.one.state_dict())

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.norm(self.two(torch.relu(self.one(values)))).mean((2, 3))
        return result


def test_layers_when_their_weights_are_equal_are_told_apart() -> None:
    model = Equal().eval()
    with torch.no_grad():
        model.get_parameter("norm.weight").fill_(3.0)
    made = made_of(model)
    assert list(made.plans) == ["one", "two"]
    assert (made.graph.constants["one.weight"] != made.graph.constants["two.weight"]).all()
    expected = torch_logits(model, pictures(PX))
    np.testing.assert_allclose(evaluated(made, pictures(PX)), expected, rtol=1e-4, atol=1e-5)


class Standardized(nn.Conv2d):
    """A convolution whose weight is computed from the one that is trained."""

    def forward(self, values: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        result: Tensor = nn.functional.conv2d(values, weight, self.bias).mean((2, 3))
        return result


def test_weight_when_computed_is_exported_in_fp32_and_refused_in_int8(tmp_path: Path) -> None:
    model = nn.Sequential(Standardized(3, 4, 1))
    made = made_of(model)
    expected = torch_logits(model, pictures(PX))
    np.testing.assert_allclose(evaluated(made, pictures(PX)), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(BackboneError, match=r"'0' is not in the exported graph .* of its own"):
        export_onnx(quantized(model, PX, INT8), PX, tmp_path / "a.onnx")


class Mean(nn.Module):
    """A mean over the height and width of what a convolution makes."""

    def __init__(self, sides: int, *, keeps_axes: bool) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, PX // sides, PX // sides), nn.Conv2d(6, 4, 1)
        self.fc = nn.Linear(6, 4)
        self.keeps_axes = keeps_axes

    def forward(self, values: Tensor) -> Tensor:
        mean = self.conv(values).mean((2, 3), keepdim=self.keeps_axes)
        result: Tensor = self.head(mean).flatten(1) if self.keeps_axes else self.fc(mean)
        return result


@pytest.mark.parametrize(
    ("sides", "keeps_axes", "dynamic_batch"),
    [(1, False, False), (1, True, True), (2, True, False), (2, False, True)],
)
def test_mean_over_the_picture_is_a_pooling_and_none_over_one_pixel(
    sides: int, keeps_axes: bool, dynamic_batch: bool
) -> None:
    model = Mean(sides, keeps_axes=keeps_axes).eval()
    made = float_graph(*take_off(model), PX, dynamic_batch=dynamic_batch)
    kinds = [node.op_type for node in made.graph.nodes.values()]
    assert "ReduceMean" not in kinds
    assert kinds.count("GlobalAveragePool") == (sides > 1)
    found = evaluated(made, pictures(PX))
    np.testing.assert_allclose(found, torch_logits(model, pictures(PX)), atol=1e-5)


def test_mean_over_other_axes_is_left_alone() -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 1)

        def forward(self, values: Tensor) -> Tensor:
            result: Tensor = self.conv(values).mean((1, 3))
            return result

    model = Other().eval()
    made = made_of(model)
    assert "ReduceMean" in [node.op_type for node in made.graph.nodes.values()]
    found = evaluated(made, pictures(PX))
    np.testing.assert_allclose(found, torch_logits(model, pictures(PX)), atol=1e-5)
