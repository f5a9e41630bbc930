"""The rates of a profile, per kernel kind and bits, and what they make of kernels: terms in ms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

import numpy as np

from hwsearch.bits import LayerBits
from hwsearch.errors import TargetError
from hwsearch.hardware.kernel_table import Floats, Ints, KernelTable
from hwsearch.hardware.kernels import KernelKind, NetworkDesc
from hwsearch.hardware.profile import HardwareProfile, bits_name

#: Runtimes have stem kernels for pictures: up to four input channels are padded to four only.
STEM_CHANNELS: Final = 4

#: The width of activations between kernels that do not run in integers.
_FLOAT_BYTES: Final = 4.0
#: Column of ``PricedRows.bytes``.
_WEIGHT_BYTES: Final = 2

#: What the latency of a kernel is made of.
Term = Literal["floor", "compute", "waste", "input", "output", "weight", "conversion", "activation"]
TERMS: Final[tuple[Term, ...]] = get_args(Term)
#: Columns of terms that are arithmetic, of those that move the data of the kernel itself, and of
#: those that run apart from it.
COMPUTE_TERMS: Final = slice(TERMS.index("compute"), TERMS.index("waste") + 1)
MEMORY_TERMS: Final = slice(TERMS.index("input"), TERMS.index("weight") + 1)
APART_TERMS: Final = slice(TERMS.index("conversion"), TERMS.index("activation") + 1)

_DENSE_KINDS: Final = np.isin(list(KernelKind), (KernelKind.CONV, KernelKind.LINEAR))
_PADDED_KINDS: Final = _DENSE_KINDS | np.isin(
    list(KernelKind), (KernelKind.DEPTHWISE, KernelKind.GROUPED)
)


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


@dataclass(frozen=True, kw_only=True)
class PricedRows:
    """A table's rows by the rates of a profile alone.

    Attributes:
        table: whose rows these are.
        values: of shape (rows, terms), in ms, in the order of ``TERMS``; nothing is hidden yet.
        padded_macs: with the channels that the runtime adds, (rows,).
        bytes: read, written, of the weights, and of the kernels apart for conversions and for
            activations, in the bits that a row is priced in, (rows, 5).
        weight_bits, activation_bits: that a row is priced in, (rows,).
        mj_per_mac: (rows,).
    """

    table: KernelTable
    values: Floats
    padded_macs: Floats
    bytes: Floats
    weight_bits: Ints
    activation_bits: Ints
    mj_per_mac: Floats


class Rates:
    """The rates of a profile, for tables of kernels."""

    def __init__(self, profile: HardwareProfile) -> None:
        self.profile: Final = profile
        self.by_pair: Final[dict[tuple[KernelKind, LayerBits], Rate]] = {}
        for kind, rates in profile.kernels.by_kind.items():
            for bits, rate in rates.items():
                priced_bits = rate.runs_as or bits
                efficiency = rates[priced_bits].compute_efficiency
                assert efficiency is not None, "the profile's validation follows runs_as"
                peak = profile.compute.by_bits[priced_bits]
                mj_per_mac = 0.0
                if profile.energy is not None:
                    mj_per_mac = profile.energy.active_pj_per_mac[priced_bits] * 1e-9
                self.by_pair[kind, bits] = Rate(
                    priced_bits=priced_bits,
                    us_per_mac=1e-3 / (peak.peak_gmac_per_s * efficiency),
                    channel_block=peak.channel_block,
                    slowdown=rate.slowdown,
                    mj_per_mac=mj_per_mac,
                )
        # Position in ``by_pair``, or -1, by kind, weight bits and activation bits.
        self._position = np.full((len(KernelKind), 64, 64), -1)
        for at, (kind, bits) in enumerate(self.by_pair):
            self._position[kind.number, bits.weight_bits, bits.activation_bits] = at
        self._columns = np.array(
            [
                (bits.weight_bits, bits.activation_bits, *others)
                for bits, *others in self.by_pair.values()
            ]
        )

    def price(self, table: KernelTable, networks: Sequence[NetworkDesc] = ()) -> PricedRows:
        """Price the rows of a table.

        Args:
            table: kernels of some networks.
            networks: that the table was made of, where they are at hand: an error names the
                kernel.

        Raises:
            TargetError: a kernel whose kind cannot run in its bits on this target.
        """
        profile = self.profile
        kernels = profile.kernels
        position = self._position[table.kind, table.weight_bits, table.activation_bits]
        if len(position) and position.min() < 0:
            raise self._no_rate(table, int(np.argmax(position < 0)), networks)
        columns = self._columns[position].T
        weight_bits, activation_bits, us_per_mac, block, slowdown, mj_per_mac = columns
        padded_macs = table.macs * _padding(table, block, by_group=kernels.blocks_within_groups)
        apart = separate(profile, table, activation_bits / 8)
        traffic = np.empty((len(table), 5))
        traffic[:, 0] = table.input_elements * activation_bits / 8
        traffic[:, 1] = table.output_elements * activation_bits / 8
        traffic[:, _WEIGHT_BYTES] = table.weight_elements * weight_bits / 8
        traffic[:, 3:] = apart.bytes
        values_us = np.empty((len(table), len(TERMS)))
        values_us[:, 0] = kernels.floor_us
        values_us[:, 1] = table.macs * us_per_mac
        values_us[:, 2] = (padded_macs - table.macs) * us_per_mac
        values_us[:, 3:] = traffic * (
            1e-3 / (profile.memory.bandwidth_gb_per_s * kernels.bandwidth_fraction)
        )
        values_us[:, APART_TERMS] += apart.kernels * kernels.floor_us
        if profile.memory.on_chip_mb is not None:
            streaming = weight_slowdown(profile, table.per_network(traffic[:, _WEIGHT_BYTES]))
            values_us[:, TERMS.index("weight")] *= streaming[table.network]
        return PricedRows(
            table=table,
            values=values_us * (slowdown / 1e3)[:, None],
            padded_macs=padded_macs,
            bytes=traffic,
            weight_bits=weight_bits.astype(np.int64),
            activation_bits=activation_bits.astype(np.int64),
            mj_per_mac=mj_per_mac,
        )

    def _no_rate(
        self, table: KernelTable, row: int, networks: Sequence[NetworkDesc]
    ) -> TargetError:
        kind = list(KernelKind)[table.kind[row]]
        bits = LayerBits(int(table.weight_bits[row]), int(table.activation_bits[row]))
        names = [kernel.name for network in networks for kernel in network.kernels]
        legal = ", ".join(map(bits_name, self.profile.legal_bits(kind))) or "nothing"
        return TargetError(
            f"kernel {names[row] if names else 'of this network'} ({kind}) is asked in {bits}, for "
            f"which {self.profile.name} has no rate; it runs {kind} in {legal}. "
            "Pick one of these, or another target"
        )


def _padding(table: KernelTable, block: Floats, *, by_group: bool) -> Floats:
    """Padded over real MACs, at least 1.

    Grouped kernels are padded as a whole, since their low efficiency already counts the small
    groups, or each group by itself. Products of activations are left alone, since their channels
    are not a layout of the runtime.

    Args:
        table: kernels of any kind.
        block: channels that the runtime computes at a time, (rows,).
        by_group: as the profile's ``blocks_within_groups`` says.
    """
    inputs, outputs = table.in_channels, table.out_channels
    inner_block = np.where(inputs <= STEM_CHANNELS, np.minimum(block, STEM_CHANNELS), block)
    outer = np.ceil(outputs / block) * block / outputs
    inner = np.ceil(inputs / inner_block) * inner_block / inputs
    factor: Floats = np.where(_PADDED_KINDS[table.kind], outer, 1.0)
    factor *= np.where(_DENSE_KINDS[table.kind], inner, 1.0)
    if by_group:
        inputs, outputs = inputs / table.groups, outputs / table.groups
        whole = np.ceil(inputs / block) * np.ceil(outputs / block) * block**2
        grouped = table.kind == KernelKind.GROUPED.number
        factor = np.where(grouped, whole / (inputs * outputs), factor)
    return factor


def weight_slowdown(profile: HardwareProfile, weight_bytes: Floats) -> Floats:
    """How much longer the weights of a network take than if all fitted on the chip, at least 1.

    Args:
        profile: of the target; 1 if it has no memory of its own for weights.
        weight_bytes: of whole networks, in the bits that they are priced in, (networks,).
    """
    on_chip_mb, off_chip = profile.memory.on_chip_mb, profile.memory.off_chip_gb_per_s
    if on_chip_mb is None or off_chip is None:
        return np.ones_like(weight_bytes)
    reached = profile.memory.bandwidth_gb_per_s * profile.kernels.bandwidth_fraction
    streamed = np.maximum(0.0, 1 - on_chip_mb * 1e6 / np.maximum(weight_bytes, 1.0))
    slowdown: Floats = 1 + streamed * (reached / off_chip - 1)
    return slowdown


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
