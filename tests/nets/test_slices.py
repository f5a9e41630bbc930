"""A slice is the network that pruning leaves, on the weights of the wide one."""

import copy

import pytest
import torch
from torch import nn

from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import Blueprint, make_blueprint
from hwsearch.nets.prune import channel_importance, least_important, remove_channels
from hwsearch.nets.slices import Slice

PX = 32
#: Residual streams, depthwise and squeeze-excite layers, concatenations.
NETS = (
    "test_resnet",
    "test_efficientnet",
    "mobilenetv3_small_050",
    pytest.param("densenet121", marks=pytest.mark.slow),
)


def cut(name: str) -> tuple[nn.Module, Blueprint, dict[str, tuple[int, ...]]]:
    """A network with random weights, and half of each group of channels to be removed."""
    ref = BackboneRef(name=name, classes=5)
    model, blueprint = build(ref, PX, seed=1), make_blueprint(ref, PX)
    importance = channel_importance(model, blueprint.trace, blueprint.graph)
    kept = {group.name: (group.channels + 1) // 2 for group in blueprint.graph.groups}
    return model, blueprint, least_important(importance, kept)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "densenet121" else n for n in NETS]
)
def test_slice_when_run_gives_what_the_pruned_network_gives(name: str) -> None:
    model, blueprint, removed = cut(name)
    narrow = Slice.make(model, blueprint.trace, removed)
    pruned = copy.deepcopy(model)
    remove_channels(pruned, blueprint.trace, removed)
    images = torch.randn(4, 3, PX, PX, generator=torch.Generator().manual_seed(0))
    pruned.train()
    for module in (pruned, narrow.shell):
        for part in module.modules():
            if isinstance(part, nn.Dropout):
                part.eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = pruned(images)
        torch.manual_seed(0)
        found = narrow(dict(model.named_parameters()), images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_slice_when_trained_moves_the_kept_weights_of_the_wide_network_only() -> None:
    model, blueprint, removed = cut("test_resnet")
    narrow = Slice.make(model, blueprint.trace, removed)
    weights = dict(model.named_parameters())
    narrow(weights, torch.randn(4, 3, PX, PX)).square().sum().backward()  # type: ignore[no-untyped-call]
    group = blueprint.graph.groups[0]
    gradient = weights[f"{group.name}.weight"].grad
    assert gradient is not None
    moved = gradient.flatten(1).abs().sum(1) > 0
    left = torch.ones(len(moved), dtype=torch.bool)
    left[list(removed[group.name])] = False
    assert torch.equal(moved, left)


def test_slice_when_nothing_is_removed_is_the_whole_network() -> None:
    model, blueprint, _ = cut("test_resnet")
    whole = Slice.make(model, blueprint.trace, {})
    assert not whole.kept
    images = torch.randn(4, 3, PX, PX)
    torch.testing.assert_close(whole(dict(model.named_parameters()), images), model.train()(images))
