"""Which bits pay on a machine, kind by kind, from what was measured there.

The fit splits the time of whole networks over their kernels. For each kind and each pair of widths
below fp32 it says how long the same kernels take in both; that ratio decides what the profile
offers. int8 is not faster as such: a depthwise int8 kernel of ONNX Runtime on x86 was seen to take
more than twice the time of the fp32 one. Where a runtime converts between widths in kernels of its
own (``fuses_clips_only``), a slower kernel may still pay between others in its bits: there every
width that was measured is offered at its speed, and the allocator of bits weighs the conversions.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hwsearch.bits import FP32, LayerBits
from hwsearch.hardware.file_model import Provenance
from hwsearch.hardware.kernels import KernelKind, NetworkDesc
from hwsearch.hardware.learned.predictor import LearnedPredictor
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.profile import HardwareProfile, bits_name

#: A width must save so much of a kind's time to be offered: a tenth is the error of a fit to some
#: thirty networks.
_WORTH_IT: Final = 0.95
_OTHER_RATES: Final = "Other rates from before: "
#: Kernels of a kind in these bits that must have been measured.
_LEAST_KERNELS: Final = 5


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How long one kind of kernels takes in some bits, over the same kernels in fp32.

    Attributes:
        time_ratio: below 1 the bits are faster.
        kernels: in these bits, in the measured networks.
    """

    kind: KernelKind
    bits: LayerBits
    time_ratio: float
    kernels: int

    @property
    def pays(self) -> bool:
        """Whether the bits are worth offering."""
        return self.time_ratio < _WORTH_IT

    def __str__(self) -> str:
        return f"{self.kind} {1 / self.time_ratio:.2g} x"


def speeds(fitted: HardwareProfile, measurements: Sequence[Measurement]) -> tuple[Speed, ...]:
    """The speed of every kind in every pair of widths that was measured beside fp32.

    Args:
        fitted: a profile with a fit to these measurements.
        measurements: networks with kernels in several bits.

    Returns:
        By kind and bits; a pair with fewer than 5 measured kernels is left out.
    """
    predictor = LearnedPredictor(fitted)
    networks = [one.network for one in measurements]
    counts = _counts(networks)
    found = []
    for bits in dict.fromkeys(bits for _, bits in counts if bits != FP32):
        narrow, wide = _totals(predictor, networks, bits), _totals(predictor, networks, FP32)
        found += [
            Speed(kind=kind, bits=bits, time_ratio=narrow[kind] / wide[kind], kernels=count)
            for kind in KernelKind
            if (count := counts.get((kind, bits), 0)) >= _LEAST_KERNELS
        ]
    return tuple(found)


def offer(
    profile: HardwareProfile,
    found: Sequence[Speed],
    *,
    provenance: Provenance,
    only_changes: bool = False,
) -> HardwareProfile:
    """The profile with rates of the measured ratios.

    Bits that do not pay run as fp32, unless the profile prices conversions between widths.

    Args:
        profile: without a fit; a kind or bits that were not measured keep their rates.
        found: see ``speeds``.
        provenance: of the measurements.
        only_changes: leave rates alone where the profile offers what pays already.
    """
    content = profile.model_dump(mode="json")
    by_kind = content["kernels"]["by_kind"]
    for speed in found:
        rates = by_kind[speed.kind.value]
        wide = rates[str(FP32)]["compute_efficiency"]
        offered = speed.bits in profile.legal_bits(speed.kind)
        # Where fp32 itself runs as something else there is nothing to compare with.
        wanted = speed.pays or profile.kernels.fuses_clips_only
        if wide is not None and not (only_changes and offered == wanted):
            rates[str(speed.bits)] = _rate(profile, speed, wide)
    content["kernels"]["provenance"] = {
        "source": "derived",
        "reference": _reference(profile, found),
        "date": provenance.date,
    }
    return HardwareProfile.model_validate(content)


def _rate(profile: HardwareProfile, speed: Speed, wide_efficiency: float) -> dict[str, object]:
    if not speed.pays and not profile.kernels.fuses_clips_only:
        return {"runs_as": str(FP32), "slowdown": round(max(1.0, speed.time_ratio), 2)}
    peaks = profile.compute.by_bits
    share = peaks[FP32].peak_gmac_per_s / peaks[speed.bits].peak_gmac_per_s / speed.time_ratio
    return {"compute_efficiency": min(1.0, float(f"{wide_efficiency * share:.3g}"))}


def _reference(profile: HardwareProfile, found: Sequence[Speed]) -> str:
    """How fast each kind is in each pair of widths, and where the rest is from."""
    lists = [
        f"{bits_name(bits)} over fp32: "
        + ", ".join(str(speed) for speed in found if speed.bits == bits)
        for bits in dict.fromkeys(speed.bits for speed in found)
    ]
    measured = "; ".join(lists) or "no bits beside fp32"
    slower = "what is not faster is priced and not offered"
    if profile.kernels.fuses_clips_only:
        slower = "what is not faster may still spare conversions"
    # Of a profile that was fitted before, only what its rates came from then.
    before = profile.kernels.provenance.reference.rpartition(_OTHER_RATES)[2]
    return f"Speed as measured, {measured}; {slower}. {_OTHER_RATES}{before}"


def _counts(networks: Sequence[NetworkDesc]) -> Mapping[tuple[KernelKind, LayerBits], int]:
    counts: dict[tuple[KernelKind, LayerBits], int] = {}
    for network in networks:
        for kernel in network.kernels:
            key = (kernel.kind, kernel.bits)
            counts[key] = counts.get(key, 0) + 1
    return counts


def _totals(
    predictor: LearnedPredictor, networks: Sequence[NetworkDesc], bits: LayerBits
) -> dict[KernelKind, float]:
    """Time of all kernels of each kind in one pair of widths, in ms."""
    totals = dict.fromkeys(KernelKind, 0.0)
    for network in _in_bits(networks, bits):
        for cost in predictor.kernels(network):
            totals[cost.kind] += cost.latency_ms
    return totals


def _in_bits(networks: Sequence[NetworkDesc], bits: LayerBits) -> Iterator[NetworkDesc]:
    for network in networks:
        kernels = tuple(dataclasses.replace(kernel, bits=bits) for kernel in network.kernels)
        yield dataclasses.replace(network, kernels=kernels)
