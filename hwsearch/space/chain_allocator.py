"""From the saving to the bits of every layer, where a change of bits between layers costs too.

Some runtimes convert between integers and floats in kernels of their own: an int8 layer between
two in floats pays for both conversions, and a layer that int8 alone makes slower may still be
cheaper in int8 between two such layers. Costs are then no sum over layers, but a sum over
neighbours. At a price for each unit of cost, the best chain is found exactly by dynamic
programming (Viterbi); the chains at all prices are the lower convex hull of cost and sensitivity,
which is walked to the first that saves enough. It is optimal among the chains of the hull, and
worse than the optimum by less than one step of it.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hwsearch.bits import LayerBits
from hwsearch.space.bit_allocator import BitOption, check_options

#: What a layer costs more in some bits (second) where the layer before it is in others (first).
Arrivals = Mapping[tuple[LayerBits, LayerBits], float]

#: Totals are compared with this slack, relative to the reachable saving.
_SLACK = 1e-9


@dataclass(frozen=True, kw_only=True)
class _Chain:
    """A choice for every layer with its totals."""

    bits: tuple[LayerBits, ...]
    cost: float
    sensitivity: float


def allocate_chain(
    options: Mapping[str, Sequence[BitOption]],
    arrivals: Mapping[str, Arrivals],
    saving: float,
    protected: Collection[str] = (),
) -> dict[str, LayerBits]:
    """Choose one option for each layer, deterministically.

    The reference is every layer at its widest bits. What is reached never costs more than it.

    Args:
        options: by layer in running order, as in ``allocate_bits``; each cost is that of a layer
            whose neighbours have the same bits.
        arrivals: by layer, what it costs more (less, if negative) behind a layer in other bits; a
            pair that is missing costs nothing.
        saving: share of the reachable saving to deliver; 0 gives the reference, 1 a cheapest chain.
        protected: layers that stay at their widest bits.

    Returns:
        Bits by layer, in the order of ``options``.

    Raises:
        ValueError: as ``allocate_bits``, or arrivals of a layer that is not in ``options``.
    """
    check_options(options, saving, protected)
    unknown = sorted(set(arrivals) - set(options))
    if unknown:
        raise ValueError(f"arrivals of {unknown}, which are not among the layers")
    offered = [
        [max(several, key=lambda option: option.bits)] if layer in protected else list(several)
        for layer, several in options.items()
    ]
    steps = [arrivals.get(layer, {}) for layer in options]
    widest = [[max(several, key=lambda option: option.bits)] for several in options.values()]
    reference = _best(widest, steps, 1.0, 1.0)
    cheapest = _best(offered, steps, 1.0, 0.0)
    reachable = reference.cost - cheapest.cost
    chosen = reference
    if saving > 0.0 and reachable > 0.0:
        limit = reference.cost - (saving - _SLACK) * reachable
        hull = [reference, *_between(offered, steps, reference, cheapest), cheapest]
        chosen = min(
            (chain for chain in hull if chain.cost <= limit),
            key=lambda chain: (chain.sensitivity, chain.cost),
        )
    return dict(zip(options, chosen.bits, strict=True))


def _between(
    offered: Sequence[Sequence[BitOption]],
    steps: Sequence[Arrivals],
    dear: _Chain,
    cheap: _Chain,
) -> list[_Chain]:
    """Chains of the hull between two of its chains, from the dear to the cheap end."""
    found: list[_Chain] = []
    waiting = [(dear, cheap)]
    while waiting:
        start, end = waiting.pop()
        saved, lost = start.cost - end.cost, end.sensitivity - start.sensitivity
        if saved <= 0.0:
            continue
        # The normal of the line through both: what lies below the line is better in its direction.
        middle = _best(offered, steps, lost, saved)
        gain = (start.cost - middle.cost) * lost + (start.sensitivity - middle.sensitivity) * saved
        scale = abs(saved * lost) + abs(start.cost * lost) + abs(start.sensitivity * saved)
        inside = end.cost < middle.cost < start.cost
        if gain > 1e-12 * scale and inside:
            found.append(middle)
            waiting += [(start, middle), (middle, end)]
    return sorted(found, key=lambda chain: -chain.cost)


def _best(
    offered: Sequence[Sequence[BitOption]],
    steps: Sequence[Arrivals],
    cost_weight: float,
    sensitivity_weight: float,
) -> _Chain:
    """The chain of the least weighted total; of equals, the one that costs or harms less."""
    weights = cost_weight, sensitivity_weight
    # Per option of the layer: weighted total, cost, sensitivity, and the bits so far.
    ends: list[tuple[float, float, float, tuple[LayerBits, ...]]] = [(0.0, 0.0, 0.0, ())]
    for several, step in zip(offered, steps, strict=True):
        reached = []
        for option in several:
            ways = []
            for total, cost, sensitivity, bits in ends:
                extra = step.get((bits[-1], option.bits), 0.0) if bits else 0.0
                own = option.cost + extra
                ways.append(
                    (
                        total + weights[0] * own + weights[1] * option.sensitivity,
                        cost + own,
                        sensitivity + option.sensitivity,
                        bits,
                    )
                )
            total, cost, sensitivity, bits = min(ways, key=lambda way: way[:3])
            reached.append((total, cost, sensitivity, (*bits, option.bits)))
        ends = reached
    _, cost, sensitivity, bits = min(ends, key=lambda way: way[:3])
    assert math.isfinite(cost)
    return _Chain(bits=bits, cost=cost, sensitivity=sensitivity)
