"""The rates of a profile, per kernel kind and bits, in units that need no conversion per kernel."""

from typing import Final, NamedTuple

import numpy as np

from hwsearch.bits import LayerBits
from hwsearch.errors import TargetError
from hwsearch.hardware.kernel_table import Floats
from hwsearch.hardware.kernels import KernelDesc, KernelKind
from hwsearch.hardware.profile import HardwareProfile, bits_name

#: Runtimes have stem kernels for pictures: up to four input channels are padded to four only.
STEM_CHANNELS: Final = 4

_DENSE_KINDS: Final = frozenset({KernelKind.CONV, KernelKind.LINEAR})
_PADDED_KINDS: Final = _DENSE_KINDS | {KernelKind.DEPTHWISE, KernelKind.GROUPED}


class Rate(NamedTuple):
    """What a kind of kernels makes of a pair of widths.

    Attributes:
        priced_bits: the bits that it runs in; other than asked where the profile says so.
        slowdown: factor on the latency in these bits.
    """

    priced_bits: LayerBits
    us_per_mac: float
    channel_block: int
    slowdown: float
    mj_per_mac: float


def rate_table(profile: HardwareProfile) -> dict[tuple[KernelKind, LayerBits], Rate]:
    """All rates of a profile."""
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
            table[kind, bits] = Rate(
                priced_bits=priced_bits,
                us_per_mac=1e-3 / (peak.peak_gmac_per_s * efficiency),
                channel_block=peak.channel_block,
                slowdown=rate.slowdown,
                mj_per_mac=mj_per_mac,
            )
    return table


def weight_slowdown(profile: HardwareProfile, weight_bytes: Floats | float) -> Floats | float:
    """How much longer the weights of a network take than if all fitted on the chip, at least 1.

    Args:
        profile: of the target; 1 if it has no memory of its own for weights.
        weight_bytes: of whole networks, in the bits that they are priced in.
    """
    on_chip_mb, off_chip = profile.memory.on_chip_mb, profile.memory.off_chip_gb_per_s
    if on_chip_mb is None or off_chip is None:
        return 1.0
    reached = profile.memory.bandwidth_gb_per_s * profile.kernels.bandwidth_fraction
    streamed = np.maximum(0.0, 1 - on_chip_mb * 1e6 / np.maximum(weight_bytes, 1.0))
    slowdown: Floats = 1 + streamed * (reached / off_chip - 1)
    return slowdown


def no_rate(profile: HardwareProfile, kind: KernelKind, bits: LayerBits, name: str) -> TargetError:
    """The error for a kernel that has no rate."""
    legal = ", ".join(bits_name(one) for one in profile.legal_bits(kind)) or "nothing"
    return TargetError(
        f"kernel {name} ({kind}) is asked in {bits}, for which "
        f"{profile.name} has no rate; it runs {kind} in {legal}. "
        "Pick one of these, or another target"
    )


def padding(kernel: KernelDesc, block: int) -> float:
    """Padded over real MACs, at least 1.

    Grouped kernels are padded as a whole: their low efficiency already counts the small groups.
    Products of activations are left alone, since their channels are not a layout of the runtime.
    """
    if block == 1 or kernel.kind not in _PADDED_KINDS:
        return 1.0
    factor = _padded(kernel.out_channels, block) / kernel.out_channels
    if kernel.kind in _DENSE_KINDS:
        inner = min(block, STEM_CHANNELS) if kernel.in_channels <= STEM_CHANNELS else block
        factor *= _padded(kernel.in_channels, inner) / kernel.in_channels
    return factor


def _padded(channels: int, block: int) -> int:
    return -(-channels // block) * block
