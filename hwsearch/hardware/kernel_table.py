"""The kernels of many networks as columns, so that all are priced in a few array operations."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from hwsearch.hardware.kernels import KernelKind, NetworkDesc

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

#: A kernel kind's number in ``KernelTable.kind``.
KIND_NUMBERS: Final = {kind: kind.number for kind in KernelKind}
#: Columns that number or count something, and so can be compared and packed.
_WHOLE: Final = {"kind", "window", "stride", "curved", "weight_bits", "activation_bits"}


@dataclass(frozen=True, kw_only=True)
class KernelTable:
    """One row per kernel; all columns have the shape (rows,).

    Attributes:
        networks: how many networks; some may have no row.
        network: which of them a row belongs to, from 0.
        kind: number of the kernel kind (``KIND_NUMBERS``).
        window: the longer side of the kernel's window.
        stride: the longer one.
        curved: 1 where an activation other than a clip was fused, else 0.
        in_channels, out_channels, groups: as in ``KernelDesc``, like all that follow.
    """

    networks: int
    network: Ints
    kind: Ints
    window: Ints
    stride: Ints
    curved: Ints
    in_channels: Floats
    out_channels: Floats
    groups: Floats
    macs: Floats
    input_elements: Floats
    output_elements: Floats
    weight_elements: Floats
    weight_bits: Ints
    activation_bits: Ints

    def __len__(self) -> int:
        return len(self.network)

    def per_network(self, values: Floats) -> Floats:
        """Sums of a value per row, of shape (networks,)."""
        sums: Floats = np.bincount(self.network, weights=values, minlength=self.networks).astype(
            np.float64
        )
        return sums

    def of(self, networks: Sequence[int] | Ints) -> "KernelTable":
        """The rows of some of the networks, which are numbered again in this order.

        A network that is asked for twice is there twice.
        """
        chosen = np.asarray(networks, dtype=np.int64)
        by_network = np.argsort(self.network, kind="stable")
        counts = np.bincount(self.network, minlength=self.networks)
        starts, wanted = np.cumsum(counts) - counts, counts[chosen]
        # Positions of each chosen network's rows among those sorted by network.
        within = np.arange(wanted.sum()) - np.repeat(np.cumsum(wanted) - wanted, wanted)
        rows = by_network[np.repeat(starts[chosen], wanted) + within]
        columns = {
            field.name: getattr(self, field.name)[rows]
            for field in fields(self)
            if field.name not in {"networks", "network"}
        }
        number = np.repeat(np.arange(len(chosen)), wanted)
        return KernelTable(networks=len(chosen), network=number, **columns)


def kernel_table(networks: Sequence[NetworkDesc]) -> KernelTable:
    """The kernels of some networks, in their order."""
    counts = [len(network.kernels) for network in networks]
    names = [field.name for field in fields(KernelTable)][2:]
    rows = np.concatenate([np.empty((0, len(names))), *(network.rows for network in networks)])
    columns = {
        name: column.astype(np.int64) if name in _WHOLE else column.copy()
        for name, column in zip(names, rows.T, strict=True)
    }
    number = np.repeat(np.arange(len(networks)), counts)
    return KernelTable(networks=len(networks), network=number, **columns)
