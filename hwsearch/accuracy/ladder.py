"""The fidelity ladder: cheap scores first, more training only for candidates that earn it.

Rung 0 inherits the base weights, removes channels, re-estimates batch norm and calibrates; it
takes no optimizer step. Each further rung trains on from the rung before it. On the digits, rank
correlation (Kendall) with the accuracy after full fine-tuning is 0.34 for rung 0, 0.65 after 12
steps and 0.66 after 40 (``benchmarks/search/ladder.py``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.training import (
    Recipe,
    Score,
    calibration_batches,
    evaluate,
    reestimate_batch_norm,
    train,
)
from hwsearch.bits import LayerBits
from hwsearch.nets.blueprint import Blueprint
from hwsearch.nets.quantize import Scheme, activations_in_float, calibrate, quantize
from hwsearch.nets.realize import pruned

#: Batches of pictures that activation scales are chosen on.
CALIBRATION_BATCHES: Final = 4

OnStep = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to make of a base network.

    Attributes:
        base: dense, trained; it is copied.
        removed: channel positions by group.
        bits: of every weighted layer.
    """

    base: nn.Module
    blueprint: Blueprint
    removed: Mapping[str, tuple[int, ...]]
    bits: Mapping[str, LayerBits]
    scheme: Scheme

    @property
    def px(self) -> int:
        """Side of the input."""
        return self.blueprint.trace.input_px


def inherit(plan: Plan, data: DataSet, *, batch_size: int, traced: bool = False) -> nn.Module:
    """Rung 0: the pruned and fake-quantized network on inherited weights, no step taken.

    Of a trial only the shapes of the weights are held against what was priced: to trace it again
    took a third of the lowest rung of lcnet_050. What is tuned fully, and shipped, is traced.
    """
    model = pruned(plan.base, plan.blueprint, plan.removed, traced=traced)
    model.to(memory_format=torch.channels_last)
    quantize(model, plan.bits, plan.scheme)
    _settle(model, data, plan.px, batch_size)
    return model


def advance(
    model: nn.Module, data: DataSet, px: int, recipe: Recipe, *, on_step: OnStep | None = None
) -> None:
    """Train a network further, in place, and bring statistics and scales up to date."""
    train(model, data, px, recipe, on_step=on_step)
    _settle(model, data, px, recipe.batch_size)


def fine_tune(
    plan: Plan, data: DataSet, recipe: Recipe, *, on_step: OnStep | None = None
) -> nn.Module:
    """Full fine-tuning: the network that is exported.

    Outputs of integer layers are rounded in its file only, not in training: mobilenetv2_050,
    pruned and with five layers in int8, had 317.8 of 359 pictures right when it was rounded
    afterwards, and 307.8 when it was trained so (means of 4 seeds).
    """
    model = inherit(plan, data, batch_size=recipe.batch_size, traced=True)
    advance(model, data, plan.px, recipe, on_step=on_step)
    return model


def validation_score(model: nn.Module, data: DataSet, px: int) -> Score:
    """Score on the validation split, which the search may look at."""
    return evaluate(model, data.at(px).validation, data)


def held_out_score(model: nn.Module, data: DataSet, px: int) -> Score:
    """Score on the test split, which the search never looks at."""
    return evaluate(model, data.at(px).test, data)


def _settle(model: nn.Module, data: DataSet, px: int, batch_size: int) -> None:
    with activations_in_float(model):
        reestimate_batch_norm(model, data, px, batch_size=batch_size)
    batches = calibration_batches(data, px, batch_size=batch_size, count=CALIBRATION_BATCHES)
    calibrate(model, batches)
