"""From the saving to the bits of every layer.

Each layer offers options with a cost and a sensitivity (how much accuracy it loses). Wanted: the
least total sensitivity whose total cost is low enough. Some runtimes convert between integers and
floats in kernels of their own: an int8 layer between two in floats pays for both conversions, so
that costs are a sum over neighbours (``arrivals``). Without conversions it is a multiple-choice
knapsack.

At a price for each unit of cost, the best chain follows from dynamic programming backwards
(Viterbi). The price at which the best chains just miss and just meet the limit gives a chain that
meets it and a bound on whatever a partial chain can still become (Lagrangian relaxation; Handler
and Zang 1980, doi 10.1002/net.3230100403). A second pass, forwards, keeps the partial chains that
can still be better and that no other beats in both totals. So the result is the optimum, in 1 to 8
ms for 20 to 120 layers; only where thousands of partial chains are as good as one another are some
of them left out, and then it is no worse than the best chain at a price.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from hwsearch.bits import LayerBits

#: What a layer costs more in some bits (second) where the layer before it is in others (first).
Arrivals = Mapping[tuple[LayerBits, LayerBits], float]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

#: Totals are compared with this slack, relative to the reachable saving: sums of floats differ in
#: their last digits with the order of the layers.
_SLACK: Final = 1e-9
#: Partial chains that are followed at most. Layers whose options all save at the same rate could
#: make any number of them; a twentieth does where nothing is known of sensitivities.
_MOST_CHAINS: Final = 1000


@dataclass(frozen=True, kw_only=True)
class BitOption:
    """What a layer may run in.

    Attributes:
        cost: what the device pays, in any unit that all layers share (ms, mJ or bytes).
        sensitivity: what accuracy pays, in any unit that all layers share.

    Raises:
        ValueError: a cost that is negative, or a number that is not finite.
    """

    bits: LayerBits
    cost: float
    sensitivity: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cost) and math.isfinite(self.sensitivity)) or self.cost < 0:
            raise ValueError(
                f"{self.bits}: cost {self.cost} and sensitivity {self.sensitivity} must be finite, "
                "and the cost not negative"
            )


def allocate_bits(
    options: Mapping[str, Sequence[BitOption]],
    saving: float,
    protected: Collection[str] = (),
    arrivals: Mapping[str, Arrivals] | None = None,
) -> dict[str, LayerBits]:
    """Choose one option for each layer: of those that save enough, the least sensitive in total.

    The reference is every layer at its widest bits. The choice is deterministic. Of choices that
    are as sensitive as one another, it saves no more than it must; where nothing is known
    of sensitivities, many layers are narrowed a little rather than a few by much.

    Args:
        options: by layer in running order, at least one each, no bits twice; each cost is that of a
            layer whose neighbours have the same bits.
        saving: share of the reachable saving (of the layers that are not protected) to deliver;
            0 gives the reference, 1 a cheapest choice.
        protected: layers that stay at their widest bits.
        arrivals: by layer, what it costs more (less, if negative) behind a layer in other bits; a
            pair that is missing costs nothing. Where there are none at all, an option that costs as
            much as the widest or more is never taken.

    Returns:
        Bits by layer, in the order of ``options``.

    Raises:
        ValueError: a saving outside [0, 1], a layer without options or with the same bits twice,
            or a protected layer or arrivals of a layer that is not in ``options``.
    """
    _check(options, saving, protected, arrivals or {})
    if not options:
        return {}
    offered = []
    for name, several in options.items():
        widest, *others = sorted(several, key=lambda option: option.bits, reverse=True)
        narrower = [option for option in others if arrivals or option.cost < widest.cost]
        offered.append([widest] if name in protected else [widest, *narrower])
    steps = [(arrivals or {}).get(name, {}) for name in options]
    layers = _Layers.of(offered, steps)
    reference = layers.totals(np.zeros(len(offered), dtype=np.int64))[0]
    cheapest = layers.totals(layers.chain(layers.cost_alone, layers.arrival)[1])[0]
    reachable = reference - cheapest
    chosen = np.zeros(len(offered), dtype=np.int64)
    if saving > 0.0 and reachable > 0.0:
        limit = reference - (saving - _SLACK) * reachable
        known = layers.sensitivity[np.isfinite(layers.sensitivity)]
        # Ties go to what saves no more than is needed. Halving a layer's cost again harms more than
        # the first time, and the first layers go first.
        tie = (1e-6 * float(np.ptp(known)) or 1.0) / reachable
        saved = np.maximum(0.0, layers.cost[:, :1] - layers.cost)
        share = saved / np.maximum(layers.cost[:, :1], 1e-300)
        order = 0.1 * np.arange(len(offered))[:, None] / len(offered)
        harm = layers.sensitivity + tie * saved * (1.0 + order + 3.0 * share)
        layers = replace(layers, sensitivity=harm)
        most_chains = _MOST_CHAINS if np.ptp(known) > 0.0 else _MOST_CHAINS // 20
        chosen = _least_sensitive(layers, limit, most_chains)
    return {
        name: several[at].bits
        for name, several, at in zip(options, offered, chosen.tolist(), strict=True)
    }


def _check(
    options: Mapping[str, Sequence[BitOption]],
    saving: float,
    protected: Collection[str],
    arrivals: Mapping[str, Arrivals],
) -> None:
    if not 0.0 <= saving <= 1.0:
        raise ValueError(f"saving {saving} is not a share from 0 to 1")
    if unknown := sorted(set(protected) - set(options)):
        raise ValueError(f"protected layers {unknown} are not among the layers")
    if unknown := sorted(set(arrivals) - set(options)):
        raise ValueError(f"arrivals of {unknown}, which are not among the layers")
    for layer, several in options.items():
        if not several or len({option.bits for option in several}) != len(several):
            raise ValueError(f"layer {layer} needs options, each with other bits")


@dataclass(frozen=True, kw_only=True)
class _Layers:
    """All options as arrays, the widest of a layer first.

    Attributes:
        cost, sensitivity: (layers, options); where a layer has fewer options, the cost of the rest
            is 0 and the sensitivity infinite.
        arrival: what an option (last) costs more behind one of the layer before (second),
            (layers, options, options).
    """

    cost: Floats
    sensitivity: Floats
    arrival: Floats

    @classmethod
    def of(cls, offered: Sequence[Sequence[BitOption]], steps: Sequence[Arrivals]) -> "_Layers":
        most = max(map(len, offered))
        cost, sensitivity = np.zeros((2, len(offered), most))
        sensitivity += np.inf
        arrival = np.zeros((len(offered), most, most))
        for layer, several in enumerate(offered):
            cost[layer, : len(several)] = [option.cost for option in several]
            sensitivity[layer, : len(several)] = [option.sensitivity for option in several]
            if layer and steps[layer]:
                arrival[layer, : len(offered[layer - 1]), : len(several)] = [
                    [steps[layer].get((before.bits, option.bits), 0.0) for option in several]
                    for before in offered[layer - 1]
                ]
        return cls(cost=cost, sensitivity=sensitivity, arrival=arrival)

    @property
    def cost_alone(self) -> Floats:
        """Costs, infinite where there is no option."""
        return np.where(np.isinf(self.sensitivity), np.inf, self.cost)

    def totals(self, chosen: Ints) -> tuple[float, float]:
        """Cost and sensitivity of a chain."""
        at = np.arange(len(chosen))
        before = np.append(0, chosen[:-1])
        cost = self.cost[at, chosen] + self.arrival[at, before, chosen]
        return float(cost.sum()), float(self.sensitivity[at, chosen].sum())

    @staticmethod
    def chain(own: Floats, arrival: Floats) -> tuple[Floats, Ints]:
        """The chain of the least total, by dynamic programming backwards.

        Args:
            own: of each option, (layers, options).
            arrival: (layers, options, options).

        Returns:
            The least total of what follows each option, (layers, options), and the position of the
            chosen options, (layers,).
        """
        behind = np.zeros_like(own)
        if not arrival.any():
            behind[:-1] = own[:0:-1].min(1).cumsum()[::-1, None]
            return behind, own.argmin(1)
        best = np.zeros(own.shape, dtype=np.int64)
        for layer in range(len(own) - 1, -1, -1):
            ways = arrival[layer] + (own[layer] + behind[layer])
            best[layer] = ways.argmin(1)
            if layer:
                behind[layer - 1] = ways.min(1)
        chosen, before = [], 0
        for layer in range(len(own)):
            before = int(best[layer, before])
            chosen.append(before)
        return behind, np.array(chosen)


def _least_sensitive(layers: _Layers, limit: float, most_chains: int) -> Ints:
    """The least sensitive chain that costs no more than the limit, which some chain meets."""
    price, known = _price(layers, limit)
    known_sensitivity = layers.totals(known)[1]
    most = known_sensitivity + price * limit
    most += _SLACK * (abs(known_sensitivity) + price * abs(limit))
    behind, _ = layers.chain(price * layers.cost + layers.sensitivity, price * layers.arrival)
    behind_cost, _ = layers.chain(layers.cost_alone, layers.arrival)
    # Of each partial chain that is kept: totals and its last option.
    cost, sensitivity, last = np.zeros(1), np.zeros(1), np.zeros(1, dtype=np.int64)
    finite = layers.sensitivity[np.isfinite(layers.sensitivity)]
    span = 3.0 * np.abs(finite).sum() or 1.0
    kept: list[tuple[Ints, Ints]] = []
    for layer, own_cost in enumerate(layers.cost):
        costs = cost[:, None] + layers.arrival[layer][last] + own_cost
        sensitivities = sensitivity[:, None] + layers.sensitivity[layer]
        promising = (costs + behind_cost[layer] <= limit) & (
            sensitivities + price * costs + behind[layer] <= most
        )
        parent, option = promising.nonzero()
        cost, sensitivity = costs[promising], sensitivities[promising]
        order = np.lexsort((sensitivity, cost, option))
        parent, option, cost, sensitivity = (
            values[order] for values in (parent, option, cost, sensitivity)
        )
        # Of two with the same last option, the dearer must be less sensitive. The span keeps
        # options apart: each starts below all that came before.
        least = np.minimum.accumulate(sensitivity - span * option)
        better = np.append(True, least[1:] < least[:-1])[: len(least)]
        (left,) = better.nonzero()
        if len(left) > most_chains:
            left = left[np.linspace(0, len(left) - 1, most_chains).astype(np.int64)]
        parent, last, cost, sensitivity = (
            values[left] for values in (parent, option, cost, sensitivity)
        )
        kept.append((parent, last))
    if not len(cost) or sensitivity.min() > known_sensitivity:
        return known
    at = int(np.lexsort((cost, sensitivity))[0])
    chosen = []
    for parent, option in reversed(kept):
        chosen.append(int(option[at]))
        at = int(parent[at])
    return np.array(chosen[::-1])


def _price(layers: _Layers, limit: float) -> tuple[float, Ints]:
    """A price of cost, and a chain that meets the limit and is a best one at that price.

    Best chains at falling and rising prices close in on the limit from both sides.
    """
    price = 0.0
    _, dear = layers.chain(layers.sensitivity, 0.0 * layers.arrival)
    dear_cost, dear_sensitivity = layers.totals(dear)
    if dear_cost <= limit:
        return price, dear
    _, cheap = layers.chain(layers.cost_alone, layers.arrival)
    while True:
        cheap_cost, cheap_sensitivity = layers.totals(cheap)
        price = max(0.0, cheap_sensitivity - dear_sensitivity) / (dear_cost - cheap_cost)
        own = price * layers.cost + layers.sensitivity
        _, middle = layers.chain(own, price * layers.arrival)
        cost, sensitivity = layers.totals(middle)
        ends = dear_sensitivity + price * dear_cost
        if sensitivity + price * cost >= ends - _SLACK * abs(ends) or cost in (
            dear_cost,
            cheap_cost,
        ):
            return price, cheap
        if cost <= limit:
            cheap = middle
        else:
            dear_cost, dear_sensitivity = cost, sensitivity
