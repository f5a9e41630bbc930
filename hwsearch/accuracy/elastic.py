"""Elastic training: one base network whose narrow forms work too, without training of their own.

Each step trains the whole network on the labels, then the narrowest one and a random one between
on what the whole network answers (sandwich rule and in-place distillation, arXiv:1903.05134). All
share their weights, and a narrow network costs what a narrow network costs (``nets/slices.py``).
The channels stay in one order from then on: a network of any width keeps the most important ones.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from hwsearch.accuracy.training import backward
from hwsearch.nets.blueprint import Blueprint
from hwsearch.nets.prune import channel_importance, least_important
from hwsearch.nets.slices import Slice
from hwsearch.space.candidate import STAGES
from hwsearch.space.channel_allocator import ChannelGroup, allocate_channels

#: Random widths that are cut out once and then drawn from: cutting one takes 20 ms and more.
_WIDTHS: Final = 24
#: Weight of a narrow network's loss beside that of the whole one. In 100 s on CIFAR-10 test_resnet
#: reached 68.3, 65.0 and 63.2 % whole, half and at a quarter with it; with 0.5 68.5, 64.7 and 62.1.
_NARROW_WEIGHT: Final = 1.0

Importance = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Which widths a base network is to work at.

    Attributes:
        ratios: shares of a stage's channels that may be removed, in ascending order.
        granularity: channels are kept in multiples of it.
    """

    ratios: tuple[float, ...]
    granularity: int

    def groups(self, blueprint: Blueprint, importance: Importance | None) -> list[ChannelGroup]:
        """Groups of channels for the allocator; all alike where no importance is given."""
        return [
            ChannelGroup(
                name=group.name,
                stage=group.stage,
                channels=group.channels,
                importance=(1.0,) * group.channels
                if importance is None
                else tuple(float(score) for score in importance[group.name]),
                granularity=self.granularity,
            )
            for group in blueprint.graph.groups
        ]


class ElasticNetwork:
    """A network in training with the narrow ones inside it.

    Args:
        model: the whole network, trained so far that its weights tell channels apart.
        blueprint: of it.
        widths: at which it is to work.
        seed: of the random widths.

    Attributes:
        importance: of each channel of each group when the narrow networks were cut; their order.

    Raises:
        BackboneError: a narrow network cannot be cut out.
    """

    def __init__(
        self, model: nn.Module, blueprint: Blueprint, widths: Widths, *, seed: int
    ) -> None:
        self._parameters = dict(model.named_parameters())
        self.importance = channel_importance(model, blueprint.trace, blueprint.graph)
        self._random = np.random.default_rng(seed)
        groups = widths.groups(blueprint, self.importance)
        largest = widths.ratios[-1]

        def cut(ratios: tuple[float, ...], spread: float) -> Slice:
            kept = allocate_channels(groups, ratios, spread)
            return Slice.make(model, blueprint.trace, least_important(self.importance, kept))

        self._narrowest = cut((largest,) * len(STAGES), 0.0)
        self._between = [
            cut(
                tuple(float(one) for one in self._random.choice(widths.ratios, len(STAGES))),
                float(self._random.choice((0.0, 0.5, 1.0))),
            )
            for _ in range(_WIDTHS)
        ]

    def teach(self, images: Tensor, outputs: Tensor) -> None:
        """Add the gradients of the narrowest network and of a random one.

        Args:
            images: of the batch, (N, 3, px, px).
            outputs: logits of the whole network for them, (N, classes); the narrow ones learn them.

        Raises:
            BackboneError: the loss is not finite.
        """
        answers = functional.softmax(outputs.detach(), 1)
        between = self._between[int(self._random.integers(len(self._between)))]
        for narrow in (self._narrowest, between):
            found = functional.log_softmax(narrow(self._parameters, images), 1)
            backward(-_NARROW_WEIGHT * (answers * found).sum(1).mean())
