"""From knobs to candidates and their costs: no weights, no data, no ONNX Runtime.

What depends on weights comes in as ``LayerFacts``, which a job finds out (``study.jobs.layers``).
"""

from dataclasses import dataclass, replace
from typing import Final

from hwsearch.accuracy.elastic import Importance, Widths
from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.hardware.cost import Cost
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.recalibration import Recalibration
from hwsearch.nets.blueprint import Blueprint
from hwsearch.space.candidate import STAGES, Candidate
from hwsearch.space.channel_allocator import allocate_channels
from hwsearch.space.knobs import Knobs
from hwsearch.study.asked.admission import Admission, admission, value_of
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.candidates.backbones import Backbones
from hwsearch.study.candidates.bit_costs import BitCosts

#: The two baselines of every run: name in ``front.json`` and bits of every layer.
BASELINES: Final = (("dense-fp32", FP32), ("uniform-int8", INT8))

#: What a training step takes beside its MACs, as MACs of a picture: 301 trials of ten-minute runs
#: on CIFAR-10 pictures took 1.4 s each and 0.33 s more for every million of MACs.
FIXED_MACS: Final = 4e6


@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """What a trained base network says about its channels and layers at one input size.

    Attributes:
        importance: of each channel of each group.
        sensitivity: of each layer to each of the bits that it may have.
        unfused: layers for which int8 is not offered, since the runtime runs them in fp32.
    """

    importance: Importance
    sensitivity: dict[str, dict[LayerBits, float]]
    unfused: frozenset[str]


class PricingContext:
    """Expands knobs into candidates and prices them.

    Attributes:
        settings: of the run.
        profile: of the target.
        backbones: of the space, as shapes.
        predictor: of costs; ``recalibrate`` makes a new one.
        bit_costs: spreads a saving over layers by what the predictor says.
        widths: at which networks of the space are pruned.
    """

    def __init__(self, settings: RunSettings, profile: HardwareProfile, classes: int) -> None:
        self.settings = settings
        self.profile = profile
        self.backbones = Backbones(space=settings.space, classes=classes)
        self.widths = widths_of(settings, profile)
        self.predictor = CostPredictor(profile, settings.confidence)
        self.bit_costs = BitCosts(settings=settings, predictor=self.predictor)

    def recalibrate(self, recalibration: Recalibration) -> None:
        """Correct all predictions from here on."""
        self.predictor = CostPredictor(self.profile, self.settings.confidence, recalibration)
        self.bit_costs = BitCosts(settings=self.settings, predictor=self.predictor)

    # -- costs ------------------------------------------------------------------------------------

    def price(self, candidate: Candidate) -> Cost:
        """The predicted cost of a candidate."""
        return self.predictor.predict(self.backbones.describe(candidate))

    def admit(self, cost: Cost) -> Admission:
        """How a cost stands to the budgets of the run."""
        return admission(cost, self.settings.budgets, self.settings.confidence)

    def values(self, cost: Cost) -> tuple[float, ...]:
        """The costs that the search brings down, in the order of the objectives."""
        return tuple(value_of(cost, quantity) for quantity in self.settings.quantities)

    def cheapest(self, knobs: Knobs) -> tuple[Cost, NetworkDesc]:
        """The least cost that any candidate of this backbone and input size can have.

        The most pruned network, every layer at the bits that cost it least.
        """
        ratio = max(self.settings.space.pruning.ratios)
        network = self._plain(replace(knobs, prune=(ratio,) * len(STAGES), saving=1.0))
        return self.predictor.predict(network), network

    def plain_cost(self, knobs: Knobs) -> Cost:
        """The predicted cost of knobs where all channels and layers are alike."""
        return self.predictor.predict(self._plain(knobs))

    def _plain(self, knobs: Knobs) -> NetworkDesc:
        network = self.backbones.blueprint(knobs).describe(self.plain_channels(knobs))
        return network.with_bits(self.bit_costs.allocate(network, knobs.saving))

    def step_effort(self, knobs: Knobs) -> float:
        """What a training step of the dense network takes, as MACs of a picture."""
        return self.backbones.blueprint(knobs).describe({}).macs + FIXED_MACS

    # -- from knobs to a network ------------------------------------------------------------------

    def plain_channels(self, knobs: Knobs) -> dict[str, int]:
        """Channels to keep in each group where all channels are equally important."""
        groups = self.widths.groups(self.backbones.blueprint(knobs), None)
        return allocate_channels(groups, knobs.prune, 0.0)

    def plain_bits(self, knobs: Knobs) -> dict[str, LayerBits]:
        """Bits of the dense network's layers where all of them are equally sensitive."""
        blueprint = self.backbones.blueprint(knobs)
        network = blueprint.describe({})
        protected = _edges(blueprint, network) if knobs.protect_edges else frozenset()
        return self.bit_costs.allocate(network, knobs.saving, protected=protected)

    def offered_bits(self, blueprint: Blueprint) -> dict[str, tuple[LayerBits, ...]]:
        """The bits that each weighted layer of a backbone may have."""
        return {
            kernel.name: self.bit_costs.offered(kernel.kind)
            for kernel in blueprint.describe({}).weighted
        }

    def expand(self, knobs: Knobs, facts: LayerFacts) -> Candidate:
        """Spread the knobs over channels and layers."""
        blueprint = self.backbones.blueprint(knobs)
        groups = self.widths.groups(blueprint, facts.importance)
        kept = allocate_channels(groups, knobs.prune, knobs.spread)
        network = blueprint.describe(kept)
        bits = self.bit_costs.allocate(
            network,
            knobs.saving,
            sensitivity=facts.sensitivity,
            unfused=facts.unfused,
            protected=_edges(blueprint, network) if knobs.protect_edges else frozenset(),
        )
        return Candidate.build(
            backbone=knobs.backbone,
            input_px=knobs.input_px,
            depth=knobs.depth,
            width=knobs.width,
            pruning=knobs.prune,
            channels=kept,
            bits=bits,
        )


def widths_of(settings: RunSettings, profile: HardwareProfile) -> Widths:
    """At which widths networks are pruned: ratios of the space, granularity of the target."""
    return Widths(ratios=settings.space.pruning.ratios, granularity=profile.channel_granularity)


def _edges(blueprint: Blueprint, network: NetworkDesc) -> frozenset[str]:
    """The first and the last layer, which are often kept at wide bits."""
    return frozenset({network.weighted[0].name, blueprint.trace.classifier})
