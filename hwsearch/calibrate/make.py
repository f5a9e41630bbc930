"""From a recipe to the ONNX file that is measured.

Weights are random: how long a kernel takes does not depend on them, as long as nothing in them is
subnormal or infinite. So batch normalization gets the statistics that its inputs have, which keeps
activations near 1 through any depth, and activations get their scales on random pictures.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from hwsearch.bits import LayerBits
from hwsearch.calibrate.recipe import Recipe
from hwsearch.deploy.export import export_onnx
from hwsearch.deploy.ranges import observe_output_ranges
from hwsearch.hardware.runtimes import Fusion
from hwsearch.nets.backbone import build
from hwsearch.nets.blueprint import Blueprint
from hwsearch.nets.quantize import Scheme, calibrate, quantize
from hwsearch.nets.realize import pruned

_PICTURES: Final = 4


def write_net(
    recipe: Recipe,
    blueprint: Blueprint,
    path: Path,
    *,
    scheme: Scheme = "affine",
    fusion: Fusion | None = "relu",
    seed: int = 0,
) -> None:
    """Write the ONNX file of a net, Q/DQ and casts as an export of a search has them.

    Args:
        recipe: of the net.
        blueprint: of its backbone at its size.
        path: of the file; its folder exists.
        scheme: of quantized activations.
        fusion: of the runtime (``observe_output_ranges``); None leaves outputs in floating point.
        seed: of weights and pictures.

    Raises:
        BackboneError: the net cannot be made or exported.
        OSError: the file cannot be written.
    """
    write_network(
        blueprint,
        recipe.kept(blueprint),
        recipe.bits(blueprint),
        path,
        scheme=scheme,
        fusion=fusion,
        seed=seed,
    )


def write_network(
    blueprint: Blueprint,
    kept: Mapping[str, int],
    bits: Mapping[str, LayerBits],
    path: Path,
    *,
    scheme: Scheme = "affine",
    fusion: Fusion | None = "relu",
    seed: int = 0,
) -> None:
    """Write the ONNX file of a network as ``write_net`` does; raises what that raises.

    Args:
        blueprint: of the backbone at its size.
        kept: channels by group.
        bits: by layer.
        path: of the file; its folder exists.
        scheme: of quantized activations.
        fusion: of the runtime.
        seed: of weights and pictures.
    """
    input_px = blueprint.trace.input_px
    pictures = _pictures(input_px, seed)
    model = build(blueprint.ref, input_px, seed=seed)
    removed = {
        group.name: tuple(range(kept[group.name], group.channels))
        for group in blueprint.graph.groups
        if kept[group.name] < group.channels
    }
    model = pruned(model, blueprint, removed)
    _settle(model, pictures)
    quantize(model, bits, scheme)
    calibrate(model, [pictures])
    ranges = {} if fusion is None else observe_output_ranges(model, [pictures], fusion=fusion)
    export_onnx(model, input_px, path, output_ranges=ranges)


def _pictures(input_px: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(_PICTURES, 3, input_px, input_px, generator=generator)


def _settle(model: nn.Module, pictures: Tensor) -> None:
    """Give every batch normalization the mean and variance of what it sees."""
    norms = [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad():
        model(pictures)
    model.eval()
