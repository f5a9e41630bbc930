"""What a predicted latency is made of: launches, arithmetic and memory, in floats and in integers.

A machine that differs from the one of its profile does so in these. 120 networks of 0.03 to 0.8 ms
took 0.33 to 1.26 times on an AMD EPYC what the profile of an Intel Xeon predicts. That is a root
mean square of 22 % with one factor for all, 17 % with one for each width, 11 % with one for each
part.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from hwsearch.hardware.kernel_table import Floats, KernelTable
from hwsearch.hardware.rates import TERMS

#: Terms by part; the parts are those of floats, then those of integers, behind the overhead.
_OF_PART: Final = {
    "floor": ("floor",),
    "compute": ("compute", "waste"),
    "memory": ("input", "output", "weight"),
    "apart": ("conversion", "activation"),
}
#: Names are stored with the timed networks of a run: they do not change.
PARTS: Final = (
    "overhead",
    *(f"{part} of {width}" for width in ("floats", "integers") for part in _OF_PART),
)
#: Activations and weights of so many bits are integers.
_INTEGER_BITS: Final = 8


@dataclass(frozen=True, kw_only=True)
class LatencyTerms:
    """Predicted latencies by the terms of their kernels.

    Attributes:
        table: the kernels.
        latency_ms: median of each network, (networks,).
        of_term: share of each term of each kernel in it, in ms, (rows, terms); the overhead of the
            network is what is left.
    """

    table: KernelTable
    latency_ms: Floats
    of_term: Floats

    @property
    def of_kernels(self) -> Floats:
        """The parts of each kernel in ms, (rows, parts); none of them is overhead."""
        columns = [
            self.of_term[:, [TERMS.index(term) for term in terms]].sum(1)
            for terms in _OF_PART.values()
        ]
        parts = np.stack(columns, axis=1)
        widths = np.maximum(self.table.weight_bits, self.table.activation_bits)
        integer = (widths <= _INTEGER_BITS)[:, None]
        overhead = np.zeros((len(parts), 1))
        return np.concatenate((overhead, parts * ~integer, parts * integer), axis=1)

    @property
    def of_networks(self) -> Floats:
        """The parts of each network in ms, (networks, parts); they add up to its latency."""
        kernels = self.of_kernels
        found = np.stack([self.table.per_network(column) for column in kernels.T], axis=1)
        # Sums that agree to the last digits may leave less than nothing of a small overhead.
        found[:, 0] = np.maximum(self.latency_ms - found.sum(1), 1e-9 * self.latency_ms)
        return found
