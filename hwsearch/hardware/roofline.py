"""What a network costs on a target, from the rates of its profile alone.

Additive over fused kernels, in their order of execution::

    latency = network_overhead + sum over kernels of slowdown * total
    total   = floor + longer + u * shorter + apart
    compute = padded_macs / (peak * compute_efficiency)
    memory  = bytes / (bandwidth * bandwidth_fraction), weights that do not fit on the chip
              over the slower link if the device has such a memory
    longer, shorter = max(compute, memory), min(compute, memory);   u = unhidden_fraction
    apart   = floor and memory time of the kernels around it that the runtime does not fuse
    energy  = baseline_w * latency + pj_per_mac * macs + pj_per_byte * bytes

A roofline (Williams et al. 2009, doi:10.1145/1498765.1498785) with a floor per kernel, without
which batch-1 latencies come out 4-7 times too low on Jetson boards. ``padded_macs`` counts the
channels that the runtime adds to fill its blocks: 62 channels compute like 64.

The value of a ``Prediction`` is a median; the truth is lognormal around it.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from hwsearch.hardware.cost import Bound, Cost, KernelCost, Prediction, check_confidence
from hwsearch.hardware.kernel_table import Floats, KernelTable, kernel_table
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.latency_parts import LatencyTerms
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.rates import (
    APART_TERMS,
    COMPUTE_TERMS,
    MEMORY_TERMS,
    TERMS,
    PricedRows,
    Rates,
)


class Roofline:
    """Prices networks on one target.

    Args:
        profile: the target.
        confidence: of the central intervals that ``predict_terms`` returns.
    """

    def __init__(self, profile: HardwareProfile, confidence: float = 0.9) -> None:
        check_confidence(confidence)
        self.profile: Final = profile
        self.confidence: Final = confidence
        self._rates = Rates(profile)

    def predict_terms(self, networks: Sequence[NetworkDesc]) -> tuple[list[Cost], LatencyTerms]:
        """The costs of many networks, in their order, with the terms of their latencies.

        Raises:
            TargetError: a kernel whose kind cannot run in its bits on this target.
        """
        profile = self.profile
        rows = self._rates.price(kernel_table(networks), networks)
        terms = self._terms(rows)
        energies_mj: list[float | None] = [None] * len(networks)
        if profile.energy is not None:
            active_mj = rows.table.per_network(self._active_mj(rows))
            energies_mj = (profile.energy.baseline_w * terms.latency_ms + active_mj).tolist()
        costs = [
            Cost(
                latency_ms=Prediction.lognormal(
                    median=latency_ms,
                    sigma_log=profile.interval.latency_sigma_log,
                    confidence=self.confidence,
                ),
                energy_mj=None
                if energy_mj is None
                else Prediction.lognormal(
                    median=energy_mj,
                    sigma_log=profile.interval.energy_sigma_log,
                    confidence=self.confidence,
                ),
                size_bytes=network.size_bytes,
                macs=network.macs,
            )
            for network, latency_ms, energy_mj in zip(
                networks, terms.latency_ms.tolist(), energies_mj, strict=True
            )
        ]
        return costs, terms

    def terms(self, table: KernelTable, networks: Sequence[NetworkDesc] = ()) -> LatencyTerms:
        """The median latencies of many networks, by term; what is hidden of one is left out."""
        return self._terms(self._rates.price(table, networks))

    def kernels(self, desc: NetworkDesc) -> tuple[KernelCost, ...]:
        """The cost of every kernel, in order; raises as ``predict_terms`` does."""
        rows = self._rates.price(kernel_table([desc]), [desc])
        latency_ms = self._terms(rows).of_term.sum(1)
        energy_mj = None
        if self.profile.energy is not None:
            energy_mj = self.profile.energy.baseline_w * latency_ms + self._active_mj(rows)
        return kernel_costs(desc, rows, latency_ms, energy_mj, rows.values)

    def _terms(self, rows: PricedRows) -> LatencyTerms:
        of_term = rows.values.copy()
        unhidden = self.profile.kernels.unhidden_fraction
        compute, memory = of_term[:, COMPUTE_TERMS], of_term[:, MEMORY_TERMS]
        computes = (compute.sum(1) >= memory.sum(1))[:, None]
        memory *= np.where(computes, unhidden, 1.0)
        compute *= np.where(computes, 1.0, unhidden)
        overhead_ms = self.profile.kernels.network_overhead_us / 1e3
        latency_ms = overhead_ms + rows.table.per_network(of_term.sum(1))
        return LatencyTerms(table=rows.table, latency_ms=latency_ms, of_term=of_term)

    def _active_mj(self, rows: PricedRows) -> Floats:
        """Energy beside the baseline power, (rows,), of a profile that has any."""
        assert self.profile.energy is not None
        mj_per_byte = self.profile.energy.active_pj_per_byte * 1e-9
        active_mj: Floats = rows.mj_per_mac * rows.table.macs + mj_per_byte * rows.bytes.sum(1)
        return active_mj


def kernel_costs(
    desc: NetworkDesc,
    rows: PricedRows,
    latency_ms: Floats,
    energy_mj: Floats | None,
    of_term: Floats,
) -> tuple[KernelCost, ...]:
    """The cost of every kernel of one network, in order.

    Args:
        desc: the network.
        rows: its kernels.
        latency_ms: of each, (rows,).
        energy_mj: of each, (rows,); None where the profile says nothing of energy.
        of_term: (rows, terms), in any unit: the largest of floor, compute and memory is the bound.
    """
    times = (
        of_term[:, TERMS.index("floor")],
        of_term[:, COMPUTE_TERMS].sum(1),
        of_term[:, MEMORY_TERMS].sum(1) + of_term[:, APART_TERMS].sum(1),
    )
    energies = [None] * len(desc.kernels) if energy_mj is None else energy_mj.tolist()
    columns = (rows.bytes.sum(1), latency_ms, *times)
    return tuple(
        KernelCost(
            name=kernel.name,
            kind=kernel.kind,
            bits=kernel.bits,
            macs=kernel.macs,
            bytes=traffic_bytes,
            latency_ms=kernel_ms,
            energy_mj=kernel_mj,
            bound=bound_of(floor, compute, memory),
        )
        for kernel, kernel_mj, traffic_bytes, kernel_ms, floor, compute, memory in zip(
            desc.kernels, energies, *(column.tolist() for column in columns), strict=True
        )
    )


def bound_of(floor: float, compute: float, memory: float) -> Bound:
    """What takes the longest; ties go to what is named first here: compute, memory, floor."""
    largest = max(floor, compute, memory)
    if compute == largest:
        return "compute"
    return "memory" if memory == largest else "floor"
