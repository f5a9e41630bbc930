"""The rates of a profile, per kernel kind and bits, in units that need no conversion per kernel."""

from typing import Final, NamedTuple

from hwsearch.bits import LayerBits
from hwsearch.errors import TargetError
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
