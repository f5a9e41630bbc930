"""What a network costs on a target, from the target's profile alone.

Additive over fused kernels, in their order of execution::

    latency = network_overhead + sum over kernels of slowdown * (floor + longer + u * shorter)
    compute = padded_macs / (peak * compute_efficiency)
    memory  = bytes / (bandwidth * bandwidth_fraction)
    longer, shorter = max(compute, memory), min(compute, memory);   u = unhidden_fraction
    energy  = baseline_w * latency + pj_per_mac * macs + pj_per_byte * bytes

A roofline (Williams et al. 2009, doi:10.1145/1498765.1498785) with a floor per kernel, without
which batch-1 latencies come out 4-7 times too low on Jetson boards. ``padded_macs`` counts the
channels that the runtime adds to fill its blocks: 62 channels compute like 64.

The value of a ``Prediction`` is a median; the truth is lognormal around it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Final, Literal, NamedTuple

from hwsearch.bits import LayerBits
from hwsearch.errors import TargetError
from hwsearch.hardware.kernels import KernelDesc, KernelKind, NetworkDesc
from hwsearch.hardware.profile import HardwareProfile, bits_name

Source = Literal["predicted", "measured"]
Bound = Literal["compute", "memory", "floor"]

_STANDARD_NORMAL: Final = NormalDist()

#: Runtimes have stem kernels for pictures: up to four input channels are padded to four only.
_STEM_CHANNELS: Final = 4


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A positive quantity with its uncertainty: lognormal with median ``value``.

    Attributes:
        low: lower end of the central interval of ``confidence``.
        high: upper end of it.
        confidence: strictly between 0 and 1.
        sigma_log: standard deviation of the logarithm; 0 is a certain value.

    Raises:
        ValueError: a number that is not finite, or out of order.
    """

    value: float
    low: float
    high: float
    confidence: float
    source: Source
    sigma_log: float

    def __post_init__(self) -> None:
        # A comparison with NaN is false, so NaN is refused here too.
        if not (0 < self.low <= self.value <= self.high < math.inf):
            raise ValueError(f"prediction out of order: {self.low}, {self.value}, {self.high}")
        if not (0 <= self.sigma_log < math.inf):
            raise ValueError(f"sigma_log {self.sigma_log} is not a finite number from 0 up")
        _check_confidence(self.confidence)

    @classmethod
    def lognormal(
        cls, *, median: float, sigma_log: float, confidence: float, source: Source = "predicted"
    ) -> "Prediction":
        """The prediction with the central interval of a lognormal distribution."""
        factor = math.exp(sigma_log * _central_quantile(confidence))
        return cls(
            value=median,
            low=median / factor,
            high=median * factor,
            confidence=confidence,
            source=source,
            sigma_log=sigma_log,
        )

    def upper(self, confidence: float) -> float:
        """The bound that the truth stays below with this probability (one-sided).

        Raises:
            ValueError: a confidence that is not strictly between 0 and 1.
        """
        _check_confidence(confidence)
        return self.value * math.exp(self.sigma_log * _STANDARD_NORMAL.inv_cdf(confidence))

    def probability_below(self, limit: float) -> float:
        """Probability that the truth is at most ``limit``; 0 for a limit of 0 or less.

        Raises:
            ValueError: ``limit`` is NaN.
        """
        if math.isnan(limit):
            raise ValueError("the limit is NaN")
        if limit <= 0:
            return 0.0
        if self.sigma_log == 0 or math.isinf(limit):
            return 1.0 if self.value <= limit else 0.0
        return _STANDARD_NORMAL.cdf(math.log(limit / self.value) / self.sigma_log)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one inference at batch 1 costs; ``energy_mj`` is None where the profile has none."""

    latency_ms: Prediction
    energy_mj: Prediction | None
    size_bytes: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class KernelCost:
    """The share of one kernel.

    Attributes:
        bits: as asked; a profile's ``runs_as`` may price them as others.
        bytes: memory traffic in the bits that it is priced in.
        bound: the largest of floor, compute and memory time.
    """

    name: str
    kind: KernelKind
    bits: LayerBits
    macs: int
    bytes: float
    latency_ms: float
    energy_mj: float | None
    bound: Bound


class _Rate(NamedTuple):
    """A row of the table (kind, bits), in units that need no conversion per kernel."""

    priced_bits: LayerBits
    us_per_mac: float
    channel_block: int
    slowdown: float
    mj_per_mac: float


class _Times(NamedTuple):
    bytes: float
    compute_us: float
    memory_us: float
    total_us: float


class CostPredictor:
    """Prices networks on one target.

    Args:
        profile: the target.
        confidence: of the central intervals that ``predict`` returns.
    """

    def __init__(self, profile: HardwareProfile, confidence: float = 0.9) -> None:
        _check_confidence(confidence)
        self.profile: Final = profile
        self.confidence: Final = confidence
        kernels, energy = profile.kernels, profile.energy
        reached_gb_per_s = profile.memory.bandwidth_gb_per_s * kernels.bandwidth_fraction
        self._us_per_byte = 1e-3 / reached_gb_per_s
        self._floor_us = kernels.floor_us
        self._unhidden = kernels.unhidden_fraction
        self._mj_per_byte = 0.0 if energy is None else energy.active_pj_per_byte * 1e-9
        self._rates = _rate_table(profile)

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

    def latency_ms(self, desc: NetworkDesc) -> float:
        """The median latency alone, for search loops; raises as ``predict`` does."""
        return self._totals(desc)[0]

    def kernels(self, desc: NetworkDesc) -> tuple[KernelCost, ...]:
        """The cost of every kernel, in order.

        The latencies add up to that of ``predict`` less the network overhead; likewise the
        energies, less the overhead at baseline power. Raises as ``predict`` does.
        """
        return tuple(self._kernel_cost(*priced) for priced in self._priced(desc))

    def _kernel_cost(self, kernel: KernelDesc, rate: _Rate, times: _Times) -> KernelCost:
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
            bound=_bound(self._floor_us, times.compute_us, times.memory_us),
        )

    def _totals(self, desc: NetworkDesc) -> tuple[float, float]:
        """Latency in ms with the overhead, and active energy in mJ (0 without evidence)."""
        latency_us = self.profile.kernels.network_overhead_us
        active_mj = 0.0
        for kernel, rate, times in self._priced(desc):
            latency_us += times.total_us
            active_mj += rate.mj_per_mac * kernel.macs + self._mj_per_byte * times.bytes
        return latency_us / 1e3, active_mj

    def _priced(self, desc: NetworkDesc) -> Iterator[tuple[KernelDesc, _Rate, _Times]]:
        for kernel in desc.kernels:
            rate = self._rates.get((kernel.kind, kernel.bits))
            if rate is None:
                raise self._no_rate(kernel)
            traffic_bytes = _traffic_bytes(kernel, rate.priced_bits)
            compute_us = kernel.macs * _padding(kernel, rate.channel_block) * rate.us_per_mac
            memory_us = traffic_bytes * self._us_per_byte
            longer, shorter = max(compute_us, memory_us), min(compute_us, memory_us)
            total_us = rate.slowdown * (self._floor_us + longer + self._unhidden * shorter)
            yield kernel, rate, _Times(traffic_bytes, compute_us, memory_us, total_us)

    def _no_rate(self, kernel: KernelDesc) -> TargetError:
        legal = self.profile.legal_bits(kernel.kind)
        offered = ", ".join(bits_name(bits) for bits in legal) or "nothing"
        return TargetError(
            f"kernel {kernel.name} ({kernel.kind}) is asked in {kernel.bits}, for which "
            f"{self.profile.name} has no rate; it runs {kernel.kind} in {offered}. "
            "Pick one of these, or another target"
        )


def _rate_table(profile: HardwareProfile) -> dict[tuple[KernelKind, LayerBits], _Rate]:
    table = {}
    for kind, rates in profile.kernels.by_kind.items():
        for bits, rate in rates.items():
            priced_bits = rate.runs_as or bits
            efficiency = rates[priced_bits].compute_efficiency
            assert efficiency is not None, "the profile's validation follows runs_as"
            peak = profile.compute.by_bits[priced_bits]
            mj_per_mac = 0.0
            if profile.energy is not None:
                mj_per_mac = profile.energy.active_pj_per_mac[priced_bits] * 1e-9
            table[kind, bits] = _Rate(
                priced_bits=priced_bits,
                us_per_mac=1e-3 / (peak.peak_gmac_per_s * efficiency),
                channel_block=peak.channel_block,
                slowdown=rate.slowdown,
                mj_per_mac=mj_per_mac,
            )
    return table


def _traffic_bytes(kernel: KernelDesc, bits: LayerBits) -> float:
    """``KernelDesc.bytes`` in other bits; written out because this is the inner loop."""
    activations = kernel.input_elements + kernel.output_elements
    return (activations * bits.activation_bits + kernel.weight_elements * bits.weight_bits) / 8


def _padding(kernel: KernelDesc, block: int) -> float:
    """Padded over real MACs, at least 1.

    Grouped kernels are padded as a whole: their low efficiency already counts the small groups.
    Products of activations are left alone, since their channels are not a layout of the runtime.
    """
    if block == 1 or kernel.kind not in _PADDED_KINDS:
        return 1.0
    factor = _padded(kernel.out_channels, block) / kernel.out_channels
    if kernel.kind in _DENSE_KINDS:
        inner = min(block, _STEM_CHANNELS) if kernel.in_channels <= _STEM_CHANNELS else block
        factor *= _padded(kernel.in_channels, inner) / kernel.in_channels
    return factor


_DENSE_KINDS: Final = frozenset({KernelKind.CONV, KernelKind.LINEAR})
_PADDED_KINDS: Final = _DENSE_KINDS | {KernelKind.DEPTHWISE, KernelKind.GROUPED}


def _padded(channels: int, block: int) -> int:
    return -(-channels // block) * block


def _bound(floor_us: float, compute_us: float, memory_us: float) -> Bound:
    """Ties go to what is named first here."""
    largest = max(floor_us, compute_us, memory_us)
    if compute_us == largest:
        return "compute"
    return "memory" if memory_us == largest else "floor"


@lru_cache(maxsize=64)
def _central_quantile(confidence: float) -> float:
    _check_confidence(confidence)
    return _STANDARD_NORMAL.inv_cdf((1 + confidence) / 2)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not strictly between 0 and 1; try 0.9")
