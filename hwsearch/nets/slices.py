"""Narrow networks that share the weights of a wide one.

A slice is the network that pruning would leave, run on views of the wide network's weights: its
gradients reach the wide network, and its forward pass costs what the narrow network costs. So many
widths are trained at once (slimmable networks, arXiv:1812.08928; sandwich rule, arXiv:1903.05134).
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from hwsearch.errors import BackboneError
from hwsearch.hardware.kernel_templates import Trace
from hwsearch.nets.prune import remove_channels

#: For each dimension of a tensor the positions that stay; None where all do.
Kept = tuple[Tensor | None, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """One narrow network inside a wide one.

    Attributes:
        shell: the narrow network; its own weights are not used, its batch statistics are.
        kept: positions that stay of each parameter that is narrower, by name.
    """

    shell: nn.Module
    kept: Mapping[str, Kept]

    @classmethod
    def make(cls, wide: nn.Module, trace: Trace, removed: Mapping[str, tuple[int, ...]]) -> Self:
        """Cut a slice out of a wide network, which is left as it is.

        Args:
            wide: has the dense shapes.
            trace: of the dense network.
            removed: channel positions by group (``least_important``).

        Raises:
            BackboneError: the channels cannot be removed, or what is left of a parameter is not
                a choice of positions along its dimensions.
        """
        # Each weight is replaced by its own position, so that pruning tells what it keeps. In
        # double precision positions are exact up to 2**53.
        numbered = copy.deepcopy(wide).double()
        for parameter in numbered.parameters():
            positions = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.data = positions.view(parameter.shape)
        remove_channels(numbered, trace, removed)
        shapes = {name: parameter.shape for name, parameter in wide.named_parameters()}
        kept = {
            name: _kept_positions(name, parameter.detach().long(), shapes[name])
            for name, parameter in numbered.named_parameters()
            if parameter.shape != shapes[name]
        }
        shell = numbered.float().to(memory_format=torch.channels_last)
        return cls(shell=shell.train(), kept=kept)

    def __call__(self, wide: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """Outputs of the narrow network on the wide one's weights.

        Args:
            wide: parameters of the wide network by name.
            images: (N, 3, px, px).
        """
        weights = {
            name: _chosen(parameter, self.kept[name]) if name in self.kept else parameter
            for name, parameter in wide.items()
        }
        outputs: Tensor = torch.func.functional_call(self.shell, weights, (images,))
        return outputs


def _kept_positions(name: str, left: Tensor, shape: torch.Size) -> Kept:
    """Positions along each dimension from the numbers that are left of ``arange`` in a shape."""
    kept: list[Tensor | None] = []
    again = torch.zeros_like(left)
    stride = 1
    for dimension in reversed(range(len(shape))):
        first = left
        for other in reversed(range(len(shape))):
            if other != dimension:
                first = first.select(other, 0)
        positions = (first // stride) % shape[dimension]
        broadcast = [-1 if at == dimension else 1 for at in range(len(shape))]
        again += positions.view(broadcast) * stride
        stride *= shape[dimension]
        kept.insert(0, None if len(positions) == shape[dimension] else positions)
    if not torch.equal(again, left):
        raise BackboneError(f"what pruning leaves of '{name}' is no choice of its channels")
    return tuple(kept)


def _chosen(parameter: Tensor, kept: Kept) -> Tensor:
    for dimension, positions in enumerate(kept):
        if positions is not None:
            parameter = parameter.index_select(dimension, positions)
    return parameter
