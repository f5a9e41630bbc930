"""Nets that could be measured: backbones of several families, pruned unevenly, in mixed bits.

Drawn by a seed, so that the same pool is there again when a killed measurement goes on.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from hwsearch.bits import FP32, LayerBits
from hwsearch.calibrate.recipe import Recipe
from hwsearch.hardware.kernels import WEIGHTED_KINDS, KernelKind, NetworkDesc
from hwsearch.nets.backbone import BackboneRef
from hwsearch.nets.blueprint import Blueprint, make_blueprint

STACK: Final = "hwsearch.calibrate.stack:stack"
#: Outputs of the classifier: digits, a user's folder, ImageNet.
_CLASSES: Final = (10, 100, 1000)
#: The least share of its channels that a group keeps.
_LEAST_KEPT: Final = 0.25
#: Draws for each net of a pool before it is found that there are no more.
_MOST_DRAWS: Final = 20


@dataclass(frozen=True, kw_only=True)
class Family:
    """A backbone and the sizes of picture at which it is drawn.

    Attributes:
        arguments: of the function that makes it, as canonical JSON.
    """

    backbone: str
    arguments: str = "{}"
    input_px: tuple[int, ...]


def _stack(**arguments: object) -> Family:
    return Family(
        backbone=STACK, arguments=json.dumps(arguments, sort_keys=True), input_px=(32, 64, 96)
    )


#: What a search tries, small enough that thirty of them are measured in minutes; and stacks.
FAMILIES: Final = (
    Family(backbone="resnet10t", input_px=(32, 64, 96, 160)),
    Family(backbone="resnet18", input_px=(32, 64, 96, 224)),
    Family(backbone="resnet50", input_px=(32, 64, 128)),
    Family(backbone="mobilenetv2_050", input_px=(64, 96, 128, 224)),
    Family(backbone="mobilenetv2_100", input_px=(64, 96, 160, 224)),
    Family(backbone="mobilenetv3_small_100", input_px=(64, 96, 160, 224)),
    Family(backbone="mobilenetv3_large_100", input_px=(64, 96, 160, 224)),
    Family(backbone="mobilenetv4_conv_small", input_px=(64, 96, 160, 224)),
    Family(backbone="efficientnet_lite0", input_px=(64, 96, 160, 224)),
    Family(backbone="efficientnet_b0", input_px=(64, 96, 160)),
    Family(backbone="mnasnet_050", input_px=(64, 96, 160)),
    Family(backbone="lcnet_100", input_px=(64, 96, 160)),
    Family(backbone="regnetx_002", input_px=(64, 96, 160)),
    Family(backbone="test_resnet", input_px=(32, 64, 96)),
    Family(backbone="test_efficientnet", input_px=(32, 64, 96)),
    Family(backbone="convnext_atto", input_px=(64, 96)),
    Family(backbone="test_vit", input_px=(64, 96, 160)),
    _stack(block="plain", width=32, depth=2),
    _stack(block="plain", width=16, depth=3, window=5),
    _stack(block="plain", width=64, depth=1, window=3, activation="silu"),
    _stack(block="residual", width=48, depth=2),
    _stack(block="pointwise", width=64, depth=4),
    _stack(block="pointwise", width=128, depth=2, activation="hardswish"),
    _stack(block="separable", width=32, depth=3),
    _stack(block="separable", width=64, depth=2, window=5, activation="hardswish"),
    _stack(block="depthwise", width=64, depth=2),
    _stack(block="depthwise", width=32, depth=2, window=5),
    _stack(block="depthwise", width=48, depth=1, window=7),
    _stack(block="grouped", width=64, depth=2),
    _stack(block="grouped", width=32, depth=2, window=5),
)


@dataclass(frozen=True, kw_only=True)
class PoolNet:
    """A net that could be measured, as the predictor sees it."""

    recipe: Recipe
    network: NetworkDesc


@dataclass(frozen=True, kw_only=True)
class Blueprints:
    """Blueprints of backbones, each made once."""

    made: dict[tuple[BackboneRef, int], Blueprint] = field(default_factory=dict)

    def of(self, ref: BackboneRef, input_px: int) -> Blueprint:
        """The blueprint of a backbone at a size."""
        key = (ref, input_px)
        if key not in self.made:
            self.made[key] = make_blueprint(ref, input_px)
        return self.made[key]

    def describe(self, recipe: Recipe) -> NetworkDesc:
        """The fused kernels of a recipe.

        Raises:
            UserError: the recipe was written for another version of its backbone.
            BackboneError: there is no such backbone here.
        """
        blueprint = self.of(recipe.ref, recipe.input_px)
        return blueprint.describe(recipe.kept(blueprint), recipe.bits(blueprint))


def draw_pool(
    count: int,
    *,
    widths: Sequence[LayerBits],
    granularity: int,
    seed: int,
    blueprints: Blueprints,
    families: Sequence[Family] = FAMILIES,
    on_drawn: Callable[[int, int], None] | None = None,
) -> list[PoolNet]:
    """Draw different nets, the families taking turns.

    Args:
        count: how many.
        widths: bits that a layer may have beside fp32.
        granularity: channels are kept in multiples of it.
        seed: of all draws.
        blueprints: where they are kept.
        families: what is drawn from.
        on_drawn: called with how many there are and ``count``.

    Raises:
        BackboneError: a backbone cannot be built here.
        ValueError: there are not so many different nets.
    """
    rng = np.random.default_rng(seed)
    found: dict[Recipe, PoolNet] = {}
    for draw in range(_MOST_DRAWS * count):
        if len(found) == count:
            break
        family = families[draw % len(families)]
        recipe = _recipe(family, rng, widths, granularity, blueprints)
        if recipe not in found:
            found[recipe] = PoolNet(recipe=recipe, network=blueprints.describe(recipe))
            if on_drawn is not None:
                on_drawn(len(found), count)
    if len(found) < count:
        raise ValueError(f"only {len(found)} of {count} nets differ; ask for fewer")
    return list(found.values())


def _recipe(
    family: Family,
    rng: np.random.Generator,
    widths: Sequence[LayerBits],
    granularity: int,
    blueprints: Blueprints,
) -> Recipe:
    size = int(rng.integers(len(family.input_px)))
    input_px = family.input_px[size]
    # One for each size: a blueprint takes a third of a second, and the head hardly any time.
    classes = _CLASSES[size % len(_CLASSES)]
    ref = BackboneRef(name=family.backbone, arguments=family.arguments, classes=classes)
    blueprint = blueprints.of(ref, input_px)
    return Recipe(
        backbone=ref.name,
        arguments=ref.arguments,
        classes=ref.classes,
        input_px=input_px,
        kept_channels=_kept(blueprint, rng, granularity),
        layer_bits=_layer_bits(blueprint, rng, widths),
    )


def _kept(blueprint: Blueprint, rng: np.random.Generator, granularity: int) -> tuple[int, ...]:
    """A quarter dense, a quarter pruned evenly, half of them each group by itself."""
    channels = [group.channels for group in blueprint.graph.groups]
    pattern, even = rng.random(), rng.uniform(_LEAST_KEPT, 1)
    each = rng.uniform(_LEAST_KEPT, 1, len(channels))
    if pattern < 0.25:
        return tuple(channels)
    shares = np.full(len(channels), even) if pattern < 0.5 else each
    return tuple(
        _snapped(share * count, count, granularity)
        for share, count in zip(shares, channels, strict=True)
    )


def _snapped(kept: float, channels: int, granularity: int) -> int:
    blocks = max(1, round(kept / granularity))
    return min(channels, blocks * granularity)


def _layer_bits(
    blueprint: Blueprint, rng: np.random.Generator, widths: Sequence[LayerBits]
) -> tuple[LayerBits, ...]:
    """A quarter in fp32, a quarter narrow throughout; the rest by kind, part or layer."""
    kinds = [kernel.kind for kernel in blueprint.trace.kernels if kernel.weighted]
    pattern, count = rng.random(), len(kinds)
    narrow = widths[int(rng.integers(len(widths)))] if widths else FP32
    ends_in_float = rng.random() < 0.5
    if pattern < 0.25:
        chosen = np.zeros(count, dtype=bool)
    elif pattern < 0.5:
        chosen = np.ones(count, dtype=bool)
    elif pattern < 0.7:
        chosen = _of_kinds(kinds, rng)
    elif pattern < 0.85:
        border, first = int(rng.integers(1, count + 1)), rng.random() < 0.5
        chosen = (np.arange(count) < border) == first
    else:
        chosen = rng.random(count) < rng.uniform(0.2, 0.8)
    if ends_in_float and count > 2:
        chosen[[0, -1]] = False
    return tuple(narrow if one else FP32 for one in chosen)


def _of_kinds(
    kinds: Sequence[KernelKind], rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    known = [kind for kind in KernelKind if kind in WEIGHTED_KINDS]
    taken = dict(zip(known, rng.random(len(known)) < 0.5, strict=True))
    # The usual case first: everything but what the runtime is slow at.
    if rng.random() < 0.5:
        taken = {kind: kind is not KernelKind.DEPTHWISE for kind in known}
    return np.array([taken[kind] for kind in kinds], dtype=bool)
