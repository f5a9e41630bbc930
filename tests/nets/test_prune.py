"""Kept channels are read off weights that hold their own position, not asked of the code."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch_pruning
from torch import Tensor, nn

from hwsearch.errors import BackboneError
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import Blueprint, make_blueprint
from hwsearch.nets.prune import (
    ChannelGraph,
    PruningGroup,
    channel_graph,
    channel_importance,
    least_important,
    remove_channels,
)
from hwsearch.nets.trace import trace

PX = 64
RATIOS = (0.25, 0.5, 0.75)
#: Input position plus this times output position is exact in a float32.
BASE = 4096

Layer = nn.Conv2d | nn.Linear


def layers_of(model: nn.Module) -> dict[str, Layer]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def kept_at(blueprint: Blueprint, ratio: float) -> dict[str, int]:
    return {g.name: max(1, round(g.channels * (1 - ratio))) for g in blueprint.graph.groups}


def drawn(blueprint: Blueprint, kept: Mapping[str, int], seed: int) -> dict[str, tuple[int, ...]]:
    """Random channels to remove from each group, so that no order hides a mistake."""
    random = np.random.default_rng(seed)
    return {
        group.name: tuple(
            sorted(random.choice(group.channels, group.channels - kept[group.name], False).tolist())
        )
        for group in blueprint.graph.groups
        if kept[group.name] < group.channels
    }


def write_positions(model: nn.Module) -> None:
    """Let every weight hold BASE * output + input, and everything of one dimension its index."""
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.dim() == 1:
                tensor.copy_(torch.arange(len(tensor)))
            elif name.endswith("weight"):
                outputs = BASE * torch.arange(tensor.shape[0])[:, None]
                code = outputs + torch.arange(tensor.shape[1])
                tensor.copy_(code.reshape(*code.shape, *[1] * (tensor.dim() - 2)).expand_as(tensor))


@dataclass(frozen=True)
class Kept:
    """Dense positions of what a pruned layer still has."""

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]


def read_positions(layer: Layer) -> Kept:
    weight = layer.weight.detach().long()
    first = weight.flatten(2)[:, :, 0] if weight.dim() > 2 else weight
    outputs, inputs = first[:, 0] // BASE, first[0] % BASE
    # Each weight is where its row and its column say: nothing was mixed, re-drawn or repeated.
    whole = (BASE * outputs[:, None] + inputs).reshape(*first.shape, *[1] * (weight.dim() - 2))
    assert torch.equal(whole.expand_as(weight), weight)
    assert (outputs.diff() > 0).all()
    assert (inputs.diff() > 0).all()
    return Kept(tuple(outputs.tolist()), tuple(inputs.tolist()))


def randomize_norms(model: nn.Module, seed: int) -> None:
    """Statistics and factors that tell channels apart, a few factors negative."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.copy_(torch.randn(module.num_features, generator=random) / 5)
                module.running_var.copy_(torch.rand(module.num_features, generator=random) + 0.5)
                module.weight.copy_(torch.rand(module.num_features, generator=random) + 0.8)
                module.weight[::5] *= -1
                module.bias.copy_(torch.randn(module.num_features, generator=random) / 5)


def test_pruning_when_backbone_is_shipped(shipped: BackboneRef) -> None:
    blueprint, model = make_blueprint(shipped, PX), build(shipped, PX)
    assert blueprint.graph.groups
    importance = channel_importance(model, blueprint.trace, blueprint.graph)
    macs = [blueprint.describe({}).macs]
    for ratio in RATIOS:
        kept = kept_at(blueprint, ratio)
        pruned = copy.deepcopy(model)
        remove_channels(pruned, blueprint.trace, least_important(importance, kept))

        pictures = torch.randn(2, 3, PX, PX, generator=torch.Generator().manual_seed(0))
        logits = pruned.train()(pictures)
        assert logits.shape == (2, shipped.classes)
        logits.square().sum().backward()
        gradients = [p.grad for p in pruned.parameters()]
        assert all(g is not None and bool(torch.isfinite(g).all()) for g in gradients)

        again = trace(pruned.to("meta"), PX)
        found = again.describe(shipped.name, again.out_channels())
        asked = blueprint.describe(kept)
        assert found.kernels == asked.kernels
        assert found.kernels[0].in_channels == 3
        assert again.out_channels()[blueprint.trace.classifier] == shipped.classes
        macs.append(asked.macs)
    assert macs == sorted(set(macs), reverse=True)


def test_pruning_when_weights_are_inherited(shipped: BackboneRef) -> None:
    blueprint, model = make_blueprint(shipped, PX), build(shipped, PX)
    removed = drawn(blueprint, kept_at(blueprint, 0.5), seed=1)
    write_positions(model)
    norms = {k.name: k.batch_norm for k in blueprint.trace.kernels if k.weighted and k.batch_norm}
    remove_channels(model, blueprint.trace, removed)
    kept = {name: read_positions(layer) for name, layer in layers_of(model).items()}
    for group in blueprint.graph.groups:
        stay = sorted(set(range(group.channels)) - set(removed[group.name]))
        assert kept[group.name].outputs[: len(stay)] == tuple(stay)
        for path, each in group.outputs:
            assert len(kept[path].outputs) == each * len(stay)
    for name, layer in layers_of(model).items():
        if layer.bias is not None:
            assert tuple(layer.bias.long().tolist()) == kept[name].outputs
        if name in norms:
            norm = model.get_submodule(norms[name])
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.num_features == len(kept[name].outputs)
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                assert tensor is not None
                assert tuple(tensor.long().tolist()) == kept[name].outputs
    assert kept[blueprint.trace.classifier].outputs == tuple(range(shipped.classes))
    assert kept[blueprint.trace.kernels[0].name].inputs == (0, 1, 2)


def test_pruning_when_removed_channels_lead_nowhere(shipped: BackboneRef) -> None:
    blueprint, dense = make_blueprint(shipped, PX), build(shipped, PX)
    if any(isinstance(m, nn.LayerNorm | nn.GroupNorm) for m in dense.modules()):
        pytest.skip("a layer normalization reads all channels, those that lead nowhere as well")
    randomize_norms(dense, seed=2)
    removed = drawn(blueprint, kept_at(blueprint, 0.5), seed=3)
    marked = copy.deepcopy(dense)
    write_positions(marked)
    remove_channels(marked, blueprint.trace, removed)
    with torch.no_grad():
        for name, layer in layers_of(dense).items():
            inputs = read_positions(layers_of(marked)[name]).inputs
            gone = sorted(set(range(layer.weight.shape[1])) - set(inputs))
            layer.weight[:, gone] = 0
    pruned = copy.deepcopy(dense)
    remove_channels(pruned, blueprint.trace, removed)
    pictures = torch.randn(2, 3, PX, PX, generator=torch.Generator().manual_seed(4)).double()
    with torch.no_grad():
        before: Tensor = dense.double().eval()(pictures)
        after: Tensor = pruned.double().eval()(pictures)
    assert before.std() > 0
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-6 * float(before.abs().max()))


@pytest.fixture(scope="module")
def small() -> tuple[Blueprint, nn.Module]:
    ref = BackboneRef(name="lcnet_050", classes=10, stem_stride=1)
    return make_blueprint(ref, 32), build(ref, 32)


def test_channel_graph_when_traced_has_disjoint_outputs(shipped: BackboneRef) -> None:
    blueprint = make_blueprint(shipped, PX)
    layers = [layer for group in blueprint.graph.groups for layer, _ in group.outputs]
    assert len(layers) == len(set(layers))
    assert blueprint.trace.classifier not in layers
    assert not blueprint.trace.pinned.intersection(layers)
    order = [kernel.name for kernel in blueprint.trace.kernels]
    heads = [order.index(group.name) for group in blueprint.graph.groups]
    assert heads == sorted(heads)


def test_channel_graph_when_attention_keeps_heads() -> None:
    ref = BackboneRef(name="vit_tiny_patch16_224", classes=10)
    blueprint = make_blueprint(ref, 32)
    names = {group.name for group in blueprint.graph.groups}
    assert "blocks.0.mlp.fc1" in names
    assert not any("qkv" in layer for g in blueprint.graph.groups for layer, _ in g.outputs)


def test_channel_graph_when_model_is_real_is_the_same(small: tuple[Blueprint, nn.Module]) -> None:
    blueprint, model = small
    assert channel_graph(model, blueprint.trace) == blueprint.graph


def test_importance_when_scaled_has_mean_one(small: tuple[Blueprint, nn.Module]) -> None:
    blueprint, model = small
    found = channel_importance(model, blueprint.trace, blueprint.graph)
    assert list(found) == [group.name for group in blueprint.graph.groups]
    for group in blueprint.graph.groups:
        assert found[group.name].shape == (group.channels,)
        assert found[group.name].mean() == pytest.approx(1.0)
        assert (found[group.name] >= 0).all()


def test_importance_when_a_channel_is_zero_is_least() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 4),
    )  # fmt: skip
    traced = trace(copy.deepcopy(model).to("meta"), 8)
    graph = channel_graph(model, traced)
    with torch.no_grad():
        layers_of(model)["0"].weight[4] = 0
        layers_of(model)["4"].weight[:, 4] = 0
    scores = channel_importance(model, traced, graph)
    assert scores["0"].argmin() == 4
    assert scores["0"][4] == 0
    assert least_important(scores, {"0": 5}) == {"0": (4,)}


def test_importance_when_all_weights_are_zero_is_refused(
    small: tuple[Blueprint, nn.Module],
) -> None:
    blueprint, model = small
    empty = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in empty.parameters():
            parameter.zero_()
    with pytest.raises(BackboneError, match="no finite importance; check the base weights"):
        channel_importance(empty, blueprint.trace, blueprint.graph)


def test_importance_when_a_weight_is_nan_is_refused(small: tuple[Blueprint, nn.Module]) -> None:
    blueprint, model = small
    broken = copy.deepcopy(model)
    with torch.no_grad():
        layers_of(broken)[blueprint.graph.groups[0].name].weight[0] = float("nan")
    with pytest.raises(BackboneError, match="no finite importance; check the base weights"):
        channel_importance(broken, blueprint.trace, blueprint.graph)


def test_least_important_when_tied_goes_by_position() -> None:
    scores = {"a": np.array([2.0, 1.0, 1.0, 1.0]), "b": np.ones(2)}
    assert least_important(scores, {"a": 2, "b": 2}) == {"a": (1, 2)}


def test_out_channels_when_counted() -> None:
    group = PruningGroup(name="a", channels=4, stage=1, outputs=(("a", 1), ("b", 2)))
    graph = ChannelGraph(groups=(group,))
    dense = {"a": 4, "b": 8, "c": 5}
    assert graph.out_channels(dense, {}) == dense
    assert graph.out_channels(dense, {"a": 3}) == {"a": 3, "b": 6, "c": 5}


@pytest.mark.parametrize("kept", [{"a": 0}, {"a": 5}, {"b": 1}])
def test_out_channels_when_impossible_is_refused(kept: dict[str, int]) -> None:
    graph = ChannelGraph(groups=(PruningGroup(name="a", channels=4, stage=1, outputs=(("a", 1),)),))
    with pytest.raises(BackboneError, match="no such group or count"):
        graph.out_channels({"a": 4}, kept)


def test_remove_channels_when_none_left_is_refused(small: tuple[Blueprint, nn.Module]) -> None:
    blueprint, model = small
    group = blueprint.graph.groups[0]
    with pytest.raises(BackboneError, match=f"of '{group.name}' leaves none"):
        remove_channels(
            copy.deepcopy(model), blueprint.trace, {group.name: tuple(range(group.channels))}
        )


def test_remove_channels_when_no_group_is_refused(small: tuple[Blueprint, nn.Module]) -> None:
    blueprint, model = small
    with pytest.raises(BackboneError, match="'nowhere' heads no group"):
        remove_channels(copy.deepcopy(model), blueprint.trace, {"nowhere": (0,)})


@pytest.mark.parametrize("training", [True, False])
def test_remove_channels_when_done_restores_state(
    small: tuple[Blueprint, nn.Module], training: bool
) -> None:
    blueprint, model = small
    pruned = copy.deepcopy(model).train(training)
    frozen = next(name for name, _ in pruned.named_parameters())
    pruned.get_parameter(frozen).requires_grad_(False)
    remove_channels(pruned, blueprint.trace, {blueprint.graph.groups[-1].name: (0,)})
    assert pruned.training is training
    assert [n for n, p in pruned.named_parameters() if not p.requires_grad] == [frozen]


class Ends(nn.Module):
    """Whatever a test puts between a stem and a classifier; a layer beside them sees no picture."""

    def __init__(self, middle: nn.Module, features: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.middle = middle
        self.shift = nn.Linear(8, features)
        self.constant = nn.Parameter(torch.ones(8))
        self.head = nn.Linear(features, 4)

    def forward(self, picture: Tensor) -> Tensor:
        values = self.middle(self.stem(picture)).mean((2, 3))
        result: Tensor = self.head(values + self.shift(self.constant))
        return result


def groups_of(model: nn.Module) -> ChannelGraph:
    shapes = copy.deepcopy(model).to("meta")
    return channel_graph(shapes, trace(shapes, 16))


def test_channel_graph_when_a_depthwise_layer_multiplies_leaves_it_whole() -> None:
    # Output 2 n and 2 n + 1 belong to input n: no count but even ones could be kept.
    graph = groups_of(Ends(nn.Conv2d(8, 16, 3, groups=8), 16))
    assert graph.groups == ()


def test_channel_graph_when_a_layer_runs_on_constants_leaves_it_whole() -> None:
    graph = groups_of(Ends(nn.Conv2d(8, 12, 3), 12))
    assert [group.name for group in graph.groups] == ["stem"]


@pytest.mark.parametrize("part", ["build_dependency", "get_all_groups"])
def test_channel_graph_when_channels_cannot_be_followed_is_refused(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise ZeroDivisionError("modulo by zero")  # as of a network that unrolls windows

    monkeypatch.setattr(torch_pruning.DependencyGraph, part, lost)
    with pytest.raises(BackboneError, match=r"\(ZeroDivisionError: modulo by zero\); use another"):
        groups_of(Ends(nn.Conv2d(8, 12, 3), 12))
