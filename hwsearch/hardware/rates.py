"""The rates of a profile, per kernel kind and bits, in units that need no conversion per kernel."""

import math
from typing import Final, NamedTuple

import numpy as np

from hwsearch.bits import LayerBits
from hwsearch.errors import TargetError
from hwsearch.hardware.kernel_table import Floats, KernelTable
from hwsearch.hardware.kernels import KernelDesc, KernelKind
from hwsearch.hardware.profile import HardwareProfile, bits_name

#: Runtimes have stem kernels for pictures: up to four input channels are padded to four only.
STEM_CHANNELS: Final = 4

#: The width of activations between kernels that do not run in integers.
_FLOAT_BYTES: Final = 4.0

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


class Separate(NamedTuple):
    """Kernels of their own around some kernels, where the runtime does not fuse them.

    Attributes:
        kernels: how many, of shape (rows, 2): of conversions of the input, of the activation.
        bytes: that they read and write, (rows, 2).
    """

    kernels: Floats
    bytes: Floats


def separate(profile: HardwareProfile, table: KernelTable, activation_bytes: Floats) -> Separate:
    """What runs apart from its kernel on a profile with ``fuses_clips_only``; else nothing.

    A kernel's input is converted where it arrives in other bits than the kernel reads, in floats
    at the start of a network. What arrives is taken to be what the row before left, which is right
    but for the second branch of a residual block. An activation that is no clip is computed in
    floats and leaves floats: behind a kernel in integers it is dequantized first.

    Args:
        profile: of the target.
        table: kernels in running order, network by network.
        activation_bytes: per element, that each row is priced in, (rows,).
    """
    if not profile.kernels.fuses_clips_only or not len(table):
        return Separate(np.zeros((len(table), 2)), np.zeros((len(table), 2)))
    integer, curved = activation_bytes <= 1, table.curved > 0
    leaves = np.where(curved & integer, _FLOAT_BYTES, activation_bytes)
    arrives = np.roll(leaves, 1)
    arrives[np.append(True, np.diff(table.network) != 0)] = _FLOAT_BYTES
    converted = arrives != activation_bytes
    dequantized = curved & integer
    return Separate(
        kernels=np.stack((converted, 1.0 * curved + dequantized), axis=1),
        bytes=np.stack(
            (
                converted * table.input_elements * (arrives + activation_bytes),
                table.output_elements
                * (2 * leaves * curved + (activation_bytes + leaves) * dequantized),
            ),
            axis=1,
        ),
    )


def padding(kernel: KernelDesc, block: int, *, by_group: bool = False) -> float:
    """Padded over real MACs, at least 1.

    Grouped kernels are padded as a whole, since their low efficiency already counts the small
    groups, or each group by itself. Products of activations are left alone, since their channels
    are not a layout of the runtime.

    Args:
        kernel: of any kind.
        block: channels that the runtime computes at a time.
        by_group: as the profile's ``blocks_within_groups`` says.
    """
    if block == 1 or kernel.kind not in _PADDED_KINDS:
        return 1.0
    if by_group and kernel.kind is KernelKind.GROUPED:
        sides = (kernel.in_channels / kernel.groups, kernel.out_channels / kernel.groups)
        return math.prod(math.ceil(side / block) * block / side for side in sides)
    factor = _padded(kernel.out_channels, block) / kernel.out_channels
    if kernel.kind in _DENSE_KINDS:
        inner = min(block, STEM_CHANNELS) if kernel.in_channels <= STEM_CHANNELS else block
        factor *= _padded(kernel.in_channels, inner) / kernel.in_channels
    return factor


def _padded(channels: int, block: int) -> int:
    return -(-channels // block) * block
