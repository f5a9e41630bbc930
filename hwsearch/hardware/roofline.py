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

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from hwsearch.bits import LayerBits
from hwsearch.hardware.cost import Bound, Cost, KernelCost, Prediction, check_confidence
from hwsearch.hardware.kernel_table import Floats, KernelTable, kernel_table
from hwsearch.hardware.kernels import KernelDesc, NetworkDesc
from hwsearch.hardware.latency_parts import LatencyTerms
from hwsearch.hardware.learned.terms import TERMS, classify
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.rates import (
    Rate,
    no_rate,
    padding,
    rate_table,
    separate,
    weight_slowdown,
)


class _Times(NamedTuple):
    bytes: float
    compute_us: float
    memory_us: float
    total_us: float


class Roofline:
    """Prices networks on one target.

    Args:
        profile: the target.
        confidence: of the central intervals that ``predict`` returns.
    """

    def __init__(self, profile: HardwareProfile, confidence: float = 0.9) -> None:
        check_confidence(confidence)
        self.profile: Final = profile
        self.confidence: Final = confidence
        kernels, energy = profile.kernels, profile.energy
        reached_gb_per_s = profile.memory.bandwidth_gb_per_s * kernels.bandwidth_fraction
        self._us_per_byte = 1e-3 / reached_gb_per_s
        self._floor_us = kernels.floor_us
        self._unhidden = kernels.unhidden_fraction
        self._mj_per_byte = 0.0 if energy is None else energy.active_pj_per_byte * 1e-9
        self._rates = rate_table(profile)

    def predict(self, desc: NetworkDesc) -> Cost:
        """Latency, energy and size of a network, each kernel in its own bits.

        Raises:
            TargetError: a kernel whose kind cannot run in its bits on this target.
        """
        interval = self.profile.interval
        latency_ms, active_mj = self._totals(desc)
        energy = None
        if self.profile.energy is not None:
            energy = Prediction.lognormal(
                median=self.profile.energy.baseline_w * latency_ms + active_mj,
                sigma_log=interval.energy_sigma_log,
                confidence=self.confidence,
            )
        return Cost(
            latency_ms=Prediction.lognormal(
                median=latency_ms,
                sigma_log=interval.latency_sigma_log,
                confidence=self.confidence,
            ),
            energy_mj=energy,
            size_bytes=desc.size_bytes,
            macs=desc.macs,
        )

    def predict_all(self, networks: Sequence[NetworkDesc]) -> list[Cost]:
        """The costs of many networks, in their order."""
        return [self.predict(network) for network in networks]

    def latency_ms(self, desc: NetworkDesc) -> float:
        """The median latency alone, for search loops; raises as ``predict`` does."""
        return self._totals(desc)[0]

    def predict_terms(self, networks: Sequence[NetworkDesc]) -> tuple[list[Cost], LatencyTerms]:
        """The costs of many networks, with the terms of their latencies."""
        return self.predict_all(networks), self.terms(kernel_table(networks))

    def latencies_ms(self, table: KernelTable) -> Floats:
        """The median latencies of many networks, (networks,)."""
        return self.terms(table).latency_ms

    def terms(self, table: KernelTable) -> LatencyTerms:
        """The median latencies of many networks, by term; what is hidden of one is left out."""
        rows = classify(self.profile, table)
        compute, memory = (
            [TERMS.index(term) for term in terms]
            for terms in (("compute", "waste"), ("input", "output", "weight"))
        )
        of_term = rows.values.copy()
        computes = of_term[:, compute].sum(1) >= of_term[:, memory].sum(1)
        of_term[:, memory] *= np.where(computes, self._unhidden, 1.0)[:, None]
        of_term[:, compute] *= np.where(computes, 1.0, self._unhidden)[:, None]
        overhead_ms = self.profile.kernels.network_overhead_us / 1e3
        latency_ms = overhead_ms + table.per_network(of_term.sum(1))
        return LatencyTerms(table=table, latency_ms=latency_ms, of_term=of_term)

    def kernels(self, desc: NetworkDesc) -> tuple[KernelCost, ...]:
        """The cost of every kernel, in order.

        The latencies add up to that of ``predict`` less the network overhead; likewise the
        energies, less the overhead at baseline power. Raises as ``predict`` does.
        """
        return tuple(self._kernel_cost(*priced) for priced in self._priced(desc))

    def _kernel_cost(self, kernel: KernelDesc, rate: Rate, times: _Times) -> KernelCost:
        energy_mj = None
        if self.profile.energy is not None:
            energy_mj = self.profile.energy.baseline_w * times.total_us / 1e3
            energy_mj += rate.mj_per_mac * kernel.macs + self._mj_per_byte * times.bytes
        return KernelCost(
            name=kernel.name,
            kind=kernel.kind,
            bits=kernel.bits,
            macs=kernel.macs,
            bytes=times.bytes,
            latency_ms=times.total_us / 1e3,
            energy_mj=energy_mj,
            bound=bound_of(self._floor_us, times.compute_us, times.memory_us),
        )

    def _totals(self, desc: NetworkDesc) -> tuple[float, float]:
        """Latency in ms with the overhead, and active energy in mJ (0 without evidence)."""
        latency_us = self.profile.kernels.network_overhead_us
        active_mj = 0.0
        for kernel, rate, times in self._priced(desc):
            latency_us += times.total_us
            active_mj += rate.mj_per_mac * kernel.macs + self._mj_per_byte * times.bytes
        return latency_us / 1e3, active_mj

    def _priced(self, desc: NetworkDesc) -> Iterator[tuple[KernelDesc, Rate, _Times]]:
        streaming = self._weight_slowdown(desc)
        by_group = self.profile.kernels.blocks_within_groups
        for kernel, (apart, apart_bytes) in zip(desc.kernels, self._separate(desc), strict=True):
            rate = self._rate(kernel)
            padded = padding(kernel, rate.channel_block, by_group=by_group)
            traffic_bytes = _traffic_bytes(kernel, rate.priced_bits)
            compute_us = kernel.macs * padded * rate.us_per_mac
            memory_us = traffic_bytes * self._us_per_byte
            if streaming != 1.0:
                weight_us = _weight_bytes(kernel, rate.priced_bits) * self._us_per_byte
                memory_us += (streaming - 1) * weight_us
            longer, shorter = max(compute_us, memory_us), min(compute_us, memory_us)
            apart_us = apart * self._floor_us + apart_bytes * self._us_per_byte
            total_us = self._floor_us + longer + self._unhidden * shorter + apart_us
            yield (
                kernel,
                rate,
                _Times(
                    bytes=traffic_bytes + apart_bytes,
                    compute_us=compute_us,
                    memory_us=memory_us + apart_us,
                    total_us=rate.slowdown * total_us,
                ),
            )

    def _separate(self, desc: NetworkDesc) -> Sequence[tuple[float, float]]:
        """Of each kernel: how many others run apart from it, and the bytes of those."""
        if not self.profile.kernels.fuses_clips_only:
            return [(0.0, 0.0)] * len(desc.kernels)
        widths = [self._rate(kernel).priced_bits.activation_bits / 8 for kernel in desc.kernels]
        apart = separate(self.profile, kernel_table([desc]), np.array(widths))
        return list(zip(apart.kernels.sum(1), apart.bytes.sum(1), strict=True))

    def _rate(self, kernel: KernelDesc) -> Rate:
        rate = self._rates.get((kernel.kind, kernel.bits))
        if rate is None:
            raise no_rate(self.profile, kernel.kind, kernel.bits, kernel.name)
        return rate

    def _weight_slowdown(self, desc: NetworkDesc) -> float:
        if self.profile.memory.on_chip_mb is None:
            return 1.0
        weight_bytes = sum(
            _weight_bytes(kernel, self._rate(kernel).priced_bits) for kernel in desc.kernels
        )
        return float(weight_slowdown(self.profile, weight_bytes))


def _weight_bytes(kernel: KernelDesc, bits: LayerBits) -> float:
    return kernel.weight_elements * bits.weight_bits / 8


def _traffic_bytes(kernel: KernelDesc, bits: LayerBits) -> float:
    """``KernelDesc.bytes`` in other bits; written out because this is the inner loop."""
    activations = kernel.input_elements + kernel.output_elements
    return (activations * bits.activation_bits + kernel.weight_elements * bits.weight_bits) / 8


def bound_of(floor_us: float, compute_us: float, memory_us: float) -> Bound:
    """What takes the longest; ties go to what is named first here: compute, memory, floor."""
    largest = max(floor_us, compute_us, memory_us)
    if compute_us == largest:
        return "compute"
    return "memory" if memory_us == largest else "floor"
