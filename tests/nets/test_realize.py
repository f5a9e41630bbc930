import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from hwsearch.errors import BackboneError
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import Blueprint, make_blueprint
from hwsearch.nets.realize import check_priced, check_weights, pruned

REF = BackboneRef(name="lcnet_050", classes=10, stem_stride=1)


@pytest.fixture(scope="module")
def blueprint() -> Blueprint:
    return make_blueprint(REF, 32)


@pytest.fixture(scope="module")
def base() -> nn.Module:
    return build(REF, 32)


def test_pruned_when_made_leaves_the_base(blueprint: Blueprint, base: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    group = blueprint.graph.groups[1]
    model = pruned(base, blueprint, {group.name: (0, 2)})
    after = base.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    layer = model.get_submodule(group.name)
    assert isinstance(layer.weight, torch.Tensor)
    assert len(layer.weight) == group.channels - 2
    check_priced(model, blueprint.describe({group.name: group.channels - 2}))


def test_pruned_when_nothing_is_removed_is_a_copy(blueprint: Blueprint, base: nn.Module) -> None:
    model = pruned(base, blueprint, {})
    assert model is not base
    assert all(
        torch.equal(one, two) and one.data_ptr() != two.data_ptr()
        for one, two in zip(model.parameters(), base.parameters(), strict=True)
    )


@pytest.mark.parametrize("check", [check_priced, check_weights])
def test_check_when_channels_differ(
    blueprint: Blueprint, base: nn.Module, check: Callable[[nn.Module, NetworkDesc], None]
) -> None:
    group = blueprint.graph.groups[0]
    wrong = blueprint.describe({group.name: group.channels - 1})
    count = group.channels
    with pytest.raises(BackboneError, match=rf"priced with 3 -> {count - 1} .* has 3 -> {count}"):
        check(base, wrong)


@pytest.mark.parametrize(
    "ref",
    [
        REF,
        BackboneRef(name="resnet10t", classes=10),
        BackboneRef(name="regnety_002", classes=10),
        BackboneRef(name="convnext_atto", classes=10),
        BackboneRef(name="mobilenetv2_050", classes=10),
    ],
    ids=lambda ref: ref.name,
)
def test_weights_of_every_layer_are_checked(ref: BackboneRef) -> None:
    """Each group is pruned in turn, and priced as if it had lost one channel less."""
    blueprint, base = make_blueprint(ref, 32), build(ref, 32)
    for group in blueprint.graph.groups:
        model = pruned(base, blueprint, {group.name: (0, 1)}, traced=False)
        check_weights(model, blueprint.describe({group.name: group.channels - 2}))
        with pytest.raises(BackboneError, match="was priced with"):
            check_weights(model, blueprint.describe({group.name: group.channels - 1}))


def test_check_priced_when_macs_differ(blueprint: Blueprint, base: nn.Module) -> None:
    right = blueprint.describe({})
    kernels = list(right.kernels)
    kernels[3] = dataclasses.replace(kernels[3], macs=kernels[3].macs + 1)
    wrong = NetworkDesc(name=right.name, input_px=32, kernels=tuple(kernels))
    with pytest.raises(BackboneError, match=f"'{kernels[3].name}' was priced with"):
        check_priced(base, wrong)


def test_check_priced_when_kernels_are_missing(blueprint: Blueprint, base: nn.Module) -> None:
    right = blueprint.describe({})
    short = NetworkDesc(name=right.name, input_px=32, kernels=right.kernels[:-1])
    count = len(right.kernels)
    with pytest.raises(BackboneError, match=rf"priced with {count - 1} kernels but has {count}"):
        check_priced(base, short)
