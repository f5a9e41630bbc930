"""What each layer of a network costs in the bits it may run in, for the allocator of bits."""

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from hwsearch.bits import FP32, LayerBits
from hwsearch.hardware.kernels import KernelKind, NetworkDesc
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.space.bit_allocator import Arrivals, BitOption, allocate_bits
from hwsearch.study.asked.admission import value_of
from hwsearch.study.asked.settings import RunSettings
from hwsearch.units import Quantity

Sensitivity = Mapping[str, Mapping[LayerBits, float]]


@dataclass(frozen=True, kw_only=True)
class BitCosts:
    """Spreads a saving over the layers of a network, by what they cost on the target of a run."""

    settings: RunSettings
    predictor: CostPredictor

    def allocate(
        self,
        network: NetworkDesc,
        saving: float,
        *,
        sensitivity: Sensitivity | None = None,
        unfused: frozenset[str] = frozenset(),
        protected: Collection[str] = (),
    ) -> dict[str, LayerBits]:
        """The bits of every weighted layer.

        Args:
            network: pruned; its bits do not matter.
            saving: share of the reachable saving to deliver, from 0 to 1.
            sensitivity: by layer and bits; none where only cost matters.
            unfused: layers that the runtime does not run in int8.
            protected: layers that stay at their widest bits.
        """
        options = self.options(network, sensitivity, unfused)
        arrivals = None
        if self.predictor.profile.kernels.fuses_clips_only:
            arrivals = self.arrivals(network, options)
        return allocate_bits(options, saving, protected, arrivals)

    def offered(self, kind: KernelKind) -> tuple[LayerBits, ...]:
        """Bits that the profile offers and the space admits; else the widest that it runs."""
        legal = self.predictor.profile.legal_bits(kind)
        admitted = tuple(bits for bits in legal if self.settings.space.admits(bits))
        return admitted or legal[:1] or (FP32,)

    def options(
        self,
        network: NetworkDesc,
        sensitivity: Sensitivity | None,
        unfused: frozenset[str] = frozenset(),
    ) -> dict[str, tuple[BitOption, ...]]:
        """For every weighted layer, what each offered width costs and harms.

        Costs are in shares, so that latency, energy and size add up: of the budget, or of what the
        network takes at its widest bits where a quantity is brought down without a budget. Kernels
        without weights count with the weighted kernel before them, whose activation bits they take.
        """
        offered = {
            kernel.name: _without_int8(self.offered(kernel.kind), kernel.name in unfused)
            for kernel in network.weighted
        }
        widths = sorted({bits for options in offered.values() for bits in options}, reverse=True)
        whole = self._wholes(network, offered)
        costs = {
            bits: self._layer_costs(network, _nearest(offered, bits), whole) for bits in widths
        }
        return {
            name: tuple(
                BitOption(
                    bits=bits,
                    cost=costs[bits][name],
                    sensitivity=0.0 if sensitivity is None else sensitivity[name][bits],
                )
                for bits in options
            )
            for name, options in offered.items()
        }

    def arrivals(
        self, network: NetworkDesc, options: Mapping[str, tuple[BitOption, ...]]
    ) -> dict[str, Arrivals]:
        """What each layer costs more behind a layer in other bits, in the shares of ``options``.

        From networks in which two widths take turns: there every layer has its neighbour's input.
        """
        offered = {
            name: tuple(option.bits for option in several) for name, several in options.items()
        }
        alike = {
            (name, option.bits): option.cost
            for name, several in options.items()
            for option in several
        }
        whole = self._wholes(network, offered)
        found: dict[str, dict[tuple[LayerBits, LayerBits], float]] = {name: {} for name in offered}
        names = list(offered)
        widths = {bits for several in offered.values() for bits in several}
        for pair in itertools.permutations(sorted(widths, reverse=True), 2):
            turns = dict(zip(names, itertools.cycle(pair), strict=False))
            bits = {
                name: turns[name] if turns[name] in offered[name] else offered[name][0]
                for name in names
            }
            costs = self._layer_costs(network, bits, whole)
            for before, name in itertools.pairwise(names):
                if (bits[before], bits[name]) == (turns[before], turns[name]):
                    step = (bits[before], bits[name])
                    found[name][step] = costs[name] - alike[name, bits[name]]
        return dict(found)

    def _wholes(
        self, network: NetworkDesc, offered: Mapping[str, tuple[LayerBits, ...]]
    ) -> dict[Quantity, float]:
        """What a cost is a share of, for each quantity that is brought down."""
        widest = network.with_bits({name: max(options) for name, options in offered.items()})
        cost = self.predictor.predict(widest)
        limits = {budget.quantity: budget.limit for budget in self.settings.budgets}
        return {
            quantity: limits.get(quantity) or value_of(cost, quantity)
            for quantity in self.settings.quantities
        }

    def _layer_costs(
        self,
        network: NetworkDesc,
        bits: Mapping[str, LayerBits],
        whole: Mapping[Quantity, float],
    ) -> dict[str, float]:
        priced = network.with_bits(bits)
        layer, costs = network.weighted[0].name, dict.fromkeys(bits, 0.0)
        for kernel, cost in zip(priced.kernels, self.predictor.kernels(priced), strict=True):
            layer = kernel.name if kernel.name in costs else layer
            if "latency" in whole:
                costs[layer] += cost.latency_ms / whole["latency"]
            if "energy" in whole and cost.energy_mj is not None:
                costs[layer] += cost.energy_mj / whole["energy"]
            if "size" in whole:
                costs[layer] += kernel.weight_bytes / whole["size"]
        return costs


def _nearest(offered: Mapping[str, tuple[LayerBits, ...]], bits: LayerBits) -> dict[str, LayerBits]:
    """These bits where a layer has them, else its first."""
    return {name: bits if bits in options else options[0] for name, options in offered.items()}


def _without_int8(options: tuple[LayerBits, ...], refused: bool) -> tuple[LayerBits, ...]:
    """The options but for integers throughout, where those are refused and others are left."""
    if not refused:
        return options
    kept = tuple(b for b in options if max(b.weight_bits, b.activation_bits) > 8)
    return kept or options
