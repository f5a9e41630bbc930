"""Many candidates of one backbone as a table of kernels, by arithmetic on arrays alone."""

import math
from dataclasses import dataclass

import numpy as np

from hwsearch.hardware.kernel_table import KIND_NUMBERS, Ints, KernelTable
from hwsearch.hardware.kernels import KernelKind
from hwsearch.nets.blueprint import Blueprint
from hwsearch.nets.kernel_templates import Channels, KernelTemplate


@dataclass(frozen=True, kw_only=True)
class CandidatesTable:
    """What is the same for all candidates of a blueprint; made once.

    Attributes:
        groups: names, in the order of the columns that ``table`` takes.
        layers: weighted layers, in the order of the bits that ``table`` takes.
    """

    blueprint: Blueprint
    groups: tuple[str, ...]
    layers: tuple[str, ...]

    @classmethod
    def of(cls, blueprint: Blueprint) -> "CandidatesTable":
        """For all candidates of a blueprint."""
        return cls(
            blueprint=blueprint,
            groups=tuple(group.name for group in blueprint.graph.groups),
            layers=tuple(kernel.name for kernel in blueprint.trace.kernels if kernel.weighted),
        )

    def table(self, kept: Ints, weight_bits: Ints, activation_bits: Ints) -> KernelTable:
        """The kernels of some candidates, equal to those of ``Blueprint.describe``.

        Args:
            kept: channels that each group keeps, (candidates, groups).
            weight_bits: of each weighted layer, (candidates, layers).
            activation_bits: of the same.
        """
        kernels = self.blueprint.trace.kernels
        counts = self._channels(kept)
        reads = _made_of([kernel.reads for kernel in kernels], self.layers)
        writes = _made_of([kernel.writes for kernel in kernels], self.layers)
        dense = self._dense()
        in_now, in_dense = counts @ reads, dense @ reads
        out_now, out_dense = counts @ writes, dense @ writes
        columns = _filled(kernels, in_now, in_dense, out_now, out_dense)
        of_layer = _layer_before(kernels, self.layers)
        rows, width = len(kept), len(kernels)
        weighted = np.array([kernel.weighted for kernel in kernels])
        activations = activation_bits[:, of_layer]

        def fixed(values: list[int]) -> Ints:
            return np.tile(np.array(values, dtype=np.int64), rows)

        return KernelTable(
            networks=rows,
            network=np.repeat(np.arange(rows), width),
            kind=fixed([KIND_NUMBERS[kernel.kind] for kernel in kernels]),
            window=fixed([max(kernel.kernel_size) for kernel in kernels]),
            stride=fixed([max(kernel.stride) for kernel in kernels]),
            curved=fixed([int(kernel.curved) for kernel in kernels]),
            weight_bits=np.where(weighted, weight_bits[:, of_layer], activations).ravel(),
            activation_bits=activations.ravel(),
            **{name: column.ravel().astype(np.float64) for name, column in columns.items()},
        )

    def _dense(self) -> Ints:
        channels = self.blueprint.trace.out_channels()
        return np.array([1, *(channels[layer] for layer in self.layers)], dtype=np.int64)

    def _channels(self, kept: Ints) -> Ints:
        """A one, and the output channels of every layer, (candidates, 1 + layers)."""
        at = {layer: position for position, layer in enumerate(self.layers, start=1)}
        groups = self.blueprint.graph.groups
        each = np.zeros((len(groups), len(self.layers) + 1), dtype=np.int64)
        for row, group in enumerate(groups):
            for layer, count in group.outputs:
                each[row, at[layer]] += count
        whole = np.array([group.channels for group in groups], dtype=np.int64)
        counts: Ints = self._dense() - (whole - kept) @ each
        return counts


def _made_of(channels: list[Channels], layers: tuple[str, ...]) -> Ints:
    """For each kernel its fixed channels, and how often it has each layer's, (1 + layers, kernels).

    Its product with what ``CandidatesTable._channels`` gives is ``Channels.count``.
    """
    at = {layer: position for position, layer in enumerate(layers, start=1)}
    matrix = np.zeros((len(layers) + 1, len(channels)), dtype=np.int64)
    for kernel, made_of in enumerate(channels):
        matrix[0, kernel] = made_of.fixed
        for layer in made_of.layers:
            matrix[at[layer], kernel] += 1
    return matrix


def _filled(
    kernels: tuple[KernelTemplate, ...],
    in_now: Ints,
    in_dense: Ints,
    out_now: Ints,
    out_dense: Ints,
) -> dict[str, Ints]:
    """``kernel_templates._filled`` for arrays of the shape (candidates, kernels)."""

    def fixed(values: list[int]) -> Ints:
        return np.array(values, dtype=np.int64)

    in_channels = fixed([kernel.in_channels for kernel in kernels]) * in_now // in_dense
    out_channels = fixed([kernel.out_channels for kernel in kernels]) * out_now // out_dense
    depthwise = np.array([kernel.kind is KernelKind.DEPTHWISE for kernel in kernels])
    groups = np.where(depthwise, out_channels, fixed([kernel.groups for kernel in kernels]))
    weighted = np.array([kernel.weighted for kernel in kernels])
    window = fixed([math.prod(kernel.kernel_size) for kernel in kernels]) * (in_channels // groups)
    has_bias = fixed([int(kernel.has_bias) for kernel in kernels])
    pixels = fixed([math.prod(kernel.out_size) for kernel in kernels])
    each, alone = np.divmod(fixed([kernel.extra_weight_elements for kernel in kernels]), out_dense)
    own_weights = out_channels * (window + has_bias)
    plain_macs = fixed([kernel.macs for kernel in kernels])
    residual = fixed([kernel.residual_elements for kernel in kernels])
    read = fixed([kernel.input_elements for kernel in kernels])
    written = fixed([kernel.output_elements for kernel in kernels])
    return {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "groups": np.broadcast_to(groups, out_channels.shape),
        "macs": np.where(weighted, pixels * out_channels * window, plain_macs),
        "input_elements": read * in_now // in_dense + residual * out_now // out_dense,
        "output_elements": written * out_now // out_dense,
        "weight_elements": each * out_now + alone + np.where(weighted, own_weights, 0),
    }


def _layer_before(kernels: tuple[KernelTemplate, ...], layers: tuple[str, ...]) -> Ints:
    """For each kernel the layer whose bits it has; as in ``NetworkDesc.with_bits``."""
    at = {layer: position for position, layer in enumerate(layers)}
    found, current = [], 0
    for kernel in kernels:
        current = at.get(kernel.name, current)
        found.append(current)
    return np.array(found, dtype=np.int64)
