"""What a prediction adds up: the terms of a network on a target, before any factor is learned.

For every class of kernels (kind, variant, window, stride, bits) there are up to eight terms, summed
over the kernels of that class. With the rates of the profile, in ms::

    floor    number of kernels x floor_us
    compute  macs / reached rate
    waste    (padded macs - macs) / reached rate
    input, output, weight    bytes / reached bandwidth
    conversion, activation   kernels apart from it x floor_us + their bytes / reached bandwidth

and one term for the network as a whole, ``overhead``. A term's factor is the exponential of a sum
of effects, from the general to the particular: "compute", "compute/conv", "compute/conv.spatial",
"compute@W8A8" and so on. Each effect is normal around 0 before anything was measured, so what was
learned of one class helps with its relatives, and a class that was never measured stays uncertain.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from hwsearch.bits import LayerBits
from hwsearch.hardware.kernel_table import KIND_NUMBERS, Floats, Ints, KernelTable
from hwsearch.hardware.kernels import KernelKind, NetworkDesc
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.rates import STEM_CHANNELS, TERMS, PricedRows, Rate, Rates, Term

OVERHEAD: Final = "overhead"

_KINDS: Final = tuple(KernelKind)
_CONV: Final = KIND_NUMBERS[KernelKind.CONV]
_WINDOWED: Final = (KernelKind.CONV, KernelKind.DEPTHWISE, KernelKind.GROUPED)
_LARGEST_WINDOW: Final = 15


class KernelClass(NamedTuple):
    """Kernels that share their factors.

    Attributes:
        bits: that the kernels are priced in, whatever was asked: bits that run as others cost what
            those cost, times the slowdown of the profile.
    """

    kind: KernelKind
    stem: bool
    window: int
    strided: bool
    bits: LayerBits

    @property
    def variant(self) -> str:
        """The kind, and for convolutions what sort of it: "conv.pointwise"."""
        if self.kind is not KernelKind.CONV:
            return self.kind.value
        if self.stem:
            return "conv.stem"
        return "conv.pointwise" if self.window == 1 else "conv.spatial"


class Wider(NamedTuple):
    """The same kernels in more bits, where those never cost less.

    Attributes:
        log_room: by how much, in the logarithm, each term costs more in them by the rates alone.
    """

    kernel_class: KernelClass
    log_room: tuple[float, ...]


class Effect(NamedTuple):
    """A learned number that is added up in the logarithm of a factor.

    Attributes:
        sigma: standard deviation before anything was measured.
    """

    name: str
    sigma: float


class Cap(NamedTuple):
    """A factor that another one, times a constant, must not exceed.

    Attributes:
        effects: in the factor.
        log_room: logarithm of the constant.
    """

    effects: tuple[Effect, ...]
    log_room: float


@dataclass(frozen=True, kw_only=True)
class TermMatrix:
    """The terms of some networks.

    Attributes:
        values: of shape (networks, columns), in ms or mJ; the first column is the overhead.
        effects: for each column the effects in its factor.
        caps: for each column what its factor must not exceed; none at all where it is empty.
    """

    values: Floats
    effects: tuple[tuple[Effect, ...], ...]
    caps: tuple[tuple[Cap, ...], ...] = ()

    def of(self, networks: Any) -> "TermMatrix":  # noqa: ANN401 - whatever indexes an array
        """The same columns for some of the networks."""
        return TermMatrix(values=self.values[networks], effects=self.effects, caps=self.caps)


@dataclass(frozen=True, kw_only=True)
class ClassifiedRows:
    """A table's rows with their classes and terms.

    Attributes:
        table: whose rows these are.
        priced: by the rates of the profile.
        classes: the distinct ones.
        of_row: position in ``classes``, of shape (rows,).
        wider: for each class the same in more bits, where those never cost less.
    """

    table: KernelTable
    priced: PricedRows
    classes: tuple[KernelClass, ...]
    of_row: Ints
    wider: tuple[tuple[Wider, ...], ...]


def classify(
    profile: HardwareProfile, table: KernelTable, networks: Sequence[NetworkDesc] = ()
) -> ClassifiedRows:
    """Find the classes of a table and price its rows by the profile's rates alone.

    Args:
        profile: of the target.
        table: kernels of some networks.
        networks: that the table was made of, where they are at hand: an error names the kernel.

    Raises:
        TargetError: a kernel whose kind cannot run in its bits on this target.
    """
    rates = Rates(profile)
    priced = rates.price(table, networks)
    packed, of_row = np.unique(_packed(priced), return_inverse=True)
    classes = tuple(_unpacked(code) for code in packed.tolist())
    return ClassifiedRows(
        table=table,
        priced=priced,
        classes=classes,
        of_row=of_row,
        wider=tuple(_wider(profile, rates.by_pair, one) for one in classes),
    )


def latency_terms(profile: HardwareProfile, rows: ClassifiedRows) -> tuple[Floats, Floats]:
    """Terms of each row, (rows, terms), and overhead of each network, (networks,), in ms."""
    overhead_ms = profile.kernels.network_overhead_us / 1e3
    return rows.priced.values, np.full(rows.table.networks, overhead_ms)


def _wider(
    profile: HardwareProfile, rates: Mapping[tuple[KernelKind, LayerBits], Rate], one: KernelClass
) -> tuple[Wider, ...]:
    if not profile.kernels.narrower_never_slower:
        return ()
    mine, found = rates[one.kind, one.bits], []
    for (kind, bits), rate in rates.items():
        is_wider = (
            kind is one.kind
            and bits != one.bits
            and rate.priced_bits == bits
            and bits.weight_bits >= one.bits.weight_bits
            and bits.activation_bits >= one.bits.activation_bits
            and rate.us_per_mac >= mine.us_per_mac
        )
        if is_wider:
            compute = math.log(rate.us_per_mac / mine.us_per_mac)
            activation = math.log(bits.activation_bits / one.bits.activation_bits)
            weight = math.log(bits.weight_bits / one.bits.weight_bits)
            room = dict.fromkeys(TERMS, 0.0) | {
                "compute": compute, "waste": compute,
                "input": activation, "output": activation, "weight": weight,
            }  # fmt: skip
            found.append(Wider(one._replace(bits=bits), tuple(room[term] for term in TERMS)))
    return tuple(found)


def caps_of(rows: ClassifiedRows, term: int, at: int, *, with_room: bool) -> tuple[Cap, ...]:
    """What the factor of a term of a class must not exceed.

    Args:
        rows: whose class it is.
        term: position in ``TERMS``.
        at: position in ``rows.classes``.
        with_room: the terms are latencies, which in more bits are longer by the rates already; or
            else the factor itself must not be greater.
    """
    return tuple(
        Cap(
            effects_of(TERMS[term], wider.kernel_class),
            wider.log_room[term] if with_room else 0.0,
        )
        for wider in rows.wider[at]
    )


def sum_terms(
    rows: ClassifiedRows, values: Floats, overhead: Floats, *, with_room: bool = True
) -> TermMatrix:
    """Sum terms by network and class; columns that are all zero are left out.

    Args:
        rows: kernels of the networks.
        values: terms of each row, (rows, terms).
        overhead: of each network, (networks,).
        with_room: see ``caps_of``.
    """
    table, count = rows.table, len(rows.classes)
    position = table.network * count + rows.of_row
    size = table.networks * count
    columns: list[Floats] = [overhead]
    effects: list[tuple[Effect, ...]] = [overhead_effects()]
    caps: list[tuple[Cap, ...]] = [()]
    for number, term in enumerate(TERMS):
        sums = np.bincount(position, weights=values[:, number], minlength=size)
        by_class: Floats = sums.astype(np.float64).reshape(table.networks, count)
        for at, kernel_class in enumerate(rows.classes):
            if by_class[:, at].any():
                columns.append(by_class[:, at])
                effects.append(effects_of(term, kernel_class))
                caps.append(caps_of(rows, number, at, with_room=with_room))
    return TermMatrix(values=np.stack(columns, axis=1), effects=tuple(effects), caps=tuple(caps))


def overhead_effects() -> tuple[Effect, ...]:
    """The effects in the factor of a network's overhead."""
    return (_ALL, Effect(OVERHEAD, 1.0))


def effects_of(term: Term, kernel_class: KernelClass) -> tuple[Effect, ...]:
    """The effects in the factor of a term, from the general to the particular.

    The standard deviations say how far boards and runtimes of the published tables lie apart:
    compute of one kind by a factor of about two, memory and bits by less.
    """
    kind, variant = kernel_class.kind.value, kernel_class.variant
    if term in {"conversion", "activation"}:
        return (_ALL, Effect(term, _GENERAL[term]), Effect(f"{term}/{kind}", 0.3))
    found = [_ALL]
    if term in {"input", "output", "weight"}:
        found += [Effect("memory", 0.4), Effect(term, 0.4), Effect(f"{term}/{kind}", 0.4)]
    else:
        found += [Effect(term, _GENERAL[term]), Effect(f"{term}/{kind}", 0.4)]
    if variant != kind:
        found.append(Effect(f"{term}/{variant}", 0.3))
    if kernel_class.kind in _WINDOWED:
        found.append(Effect(f"{term}/{variant}.k{kernel_class.window}", 0.25))
        if kernel_class.strided:
            found.append(Effect(f"{term}/{variant}.strided", 0.25))
    found += [
        Effect(f"{term}@{kernel_class.bits}", 0.3),
        Effect(f"{term}/{kind}@{kernel_class.bits}", 0.2),
    ]
    if kernel_class.kind in _WINDOWED:
        strided = ".strided" if kernel_class.strided else ""
        name = f"{term}/{variant}.k{kernel_class.window}{strided}@{kernel_class.bits}"
        found.append(Effect(name, 0.25))
    return tuple(found)


_ALL: Final = Effect("all", 0.3)
_GENERAL: Final[dict[Term, float]] = {
    "floor": 0.6, "compute": 0.5, "waste": 0.8, "conversion": 0.6, "activation": 0.6,
}  # fmt: skip


def distinct(columns: Sequence[tuple[Effect, ...]]) -> tuple[Effect, ...]:
    """Every effect once, in order of appearance."""
    return tuple(dict.fromkeys(effect for column in columns for effect in column))


def design(columns: Sequence[tuple[Effect, ...]], known: Sequence[str]) -> Floats:
    """Which effect is in the factor of which column: ones and zeros, (columns, effects)."""
    at = {name: position for position, name in enumerate(known)}
    matrix = np.zeros((len(columns), len(known)))
    for row, effects in enumerate(columns):
        for effect in effects:
            matrix[row, at[effect.name]] = 1.0
    return matrix


# -- classes as numbers ---------------------------------------------------------------------------


def _packed(priced: PricedRows) -> Ints:
    """One number per row that holds its class; undone by ``_unpacked``."""
    table = priced.table
    stem = (table.kind == _CONV) & (table.in_channels <= STEM_CHANNELS)
    window = np.minimum(table.window, _LARGEST_WINDOW)
    windowed = np.isin(table.kind, [KIND_NUMBERS[kind] for kind in _WINDOWED])
    code = table.kind * 2 + stem
    code = code * 16 + np.where(windowed, window, 1)
    code = code * 2 + (windowed & (table.stride > 1))
    code = code * 64 + priced.weight_bits
    packed: Ints = code * 64 + priced.activation_bits
    return packed


def _unpacked(code: int) -> KernelClass:
    code, activation_bits = divmod(code, 64)
    code, weight_bits = divmod(code, 64)
    code, strided = divmod(code, 2)
    code, window = divmod(code, 16)
    kind, stem = divmod(code, 2)
    return KernelClass(
        kind=_KINDS[kind],
        stem=bool(stem),
        window=window,
        strided=bool(strided),
        bits=LayerBits(weight_bits, activation_bits),
    )
