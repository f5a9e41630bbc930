"""From a candidate to a module: inherited weights, channels removed, layers quantized."""

import copy
from collections.abc import Mapping

from torch import nn

from hwsearch.errors import BackboneError
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.nets.blueprint import Blueprint
from hwsearch.nets.prune import remove_channels
from hwsearch.nets.trace import trace


def pruned(
    base: nn.Module,
    blueprint: Blueprint,
    removed: Mapping[str, tuple[int, ...]],
    *,
    traced: bool = True,
) -> nn.Module:
    """A copy of the base network without these channels.

    Args:
        base: dense, with trained weights; left as it is.
        blueprint: of the same backbone and input size.
        removed: channel positions by group.
        traced: the result is traced and held against the description kernel by kernel; else only
            the shapes of its weights are, which takes a hundredth of the time.

    Raises:
        BackboneError: the module that results is not the network that was priced.
    """
    model = copy.deepcopy(base)
    remove_channels(model, blueprint.trace, removed)
    if removed:
        sizes = {group.name: group.channels for group in blueprint.graph.groups}
        kept = {name: sizes[name] - len(channels) for name, channels in removed.items()}
        check = check_priced if traced else check_weights
        check(model, blueprint.describe(kept))
    return model


def check_weights(model: nn.Module, network: NetworkDesc) -> None:
    """Hold the shapes of a module's weights against the description that was priced.

    Raises:
        BackboneError: they differ; the message names the first layer that does.
    """
    modules = dict(model.named_modules())
    for kernel in network.weighted:
        weight = getattr(modules.get(kernel.name), "weight", None)
        if weight is None or weight.dim() < 2:
            continue  # written without a module of its own; a trace follows it
        found = weight.shape[1] * kernel.groups, weight.shape[0]
        if found != (kernel.in_channels, kernel.out_channels):
            raise BackboneError(
                f"kernel '{kernel.name}' was priced with {kernel.in_channels} -> "
                f"{kernel.out_channels} channels but has {found[0]} -> {found[1]}"
            )


def check_priced(model: nn.Module, network: NetworkDesc) -> None:
    """Trace a module again and compare it with the description that was priced.

    Raises:
        BackboneError: they differ; the message names the first kernel that does.
    """
    shape_only = copy.deepcopy(model).to("meta")
    again = trace(shape_only, network.input_px)
    found = again.describe(network.name, again.out_channels())
    if len(network.kernels) != len(found.kernels):
        raise BackboneError(
            f"{network.name} was priced with {len(network.kernels)} kernels but has "
            f"{len(found.kernels)}"
        )
    for priced, real in zip(network.kernels, found.kernels, strict=True):
        if priced != real:
            raise BackboneError(
                f"kernel '{priced.name}' was priced with {priced.in_channels} -> "
                f"{priced.out_channels} channels but has {real.in_channels} -> {real.out_channels}"
            )
