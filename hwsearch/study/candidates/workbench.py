"""What the trials of a run share: blueprints, base networks, importance and sensitivity.

Everything is made when it is first needed, so a backbone that no candidate within the budget uses
is never trained.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from torch import nn

from hwsearch.accuracy.base_weights import BaseNetwork, WeightsPolicy, base_network
from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.elastic import Importance, Widths
from hwsearch.accuracy.ladder import Plan
from hwsearch.accuracy.sensitivity import sensitivity_table
from hwsearch.accuracy.training import Recipe
from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.deploy.network_file import NetworkCard
from hwsearch.deploy.runnable import layers_without_int8
from hwsearch.hardware.cost import Cost
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.recalibration import Recalibration
from hwsearch.hardware.runtimes import runtime_facts
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import Blueprint, make_blueprint
from hwsearch.nets.prune import channel_importance, least_important
from hwsearch.space.candidate import Candidate, canonical_json
from hwsearch.space.channel_allocator import allocate_channels
from hwsearch.space.knobs import Knobs
from hwsearch.study.asked.admission import value_of
from hwsearch.study.asked.effort import full_steps
from hwsearch.study.asked.settings import RunSettings, derived_seed
from hwsearch.study.candidates.backbones import Backbones
from hwsearch.study.candidates.bit_costs import BitCosts

#: Highest learning rate of a network that is trained on, from a base network that was trained here
#: or from one with pretrained weights. 50 steps take the latter's EfficientNet-Lite0 from 64.6 % to
#: 64.8 % with 0.01, and to 55.6 % with 0.05.
_FINE_TUNING_RATE, _GENTLE_RATE = 0.02, 0.01
#: What a training step takes beside its MACs, as MACs of a picture: 301 trials of ten-minute runs
#: on CIFAR-10 pictures took 1.4 s each and 0.33 s more for every million of MACs.
FIXED_MACS: Final = 4e6


#: By backbone and the input size at which they are trained.
Bases = Mapping[tuple[BackboneRef, int], BaseNetwork]


@dataclass(kw_only=True)
class Prepared:
    """A base network with what was learned about its channels and layers.

    Attributes:
        sensitivity: of its layers, by input size.
        unfused: layers that the target's runtime does not run in int8, by input size.
    """

    base: BaseNetwork
    importance: Importance
    sensitivity: dict[int, dict[str, dict[LayerBits, float]]] = field(default_factory=dict)
    unfused: dict[int, frozenset[str]] = field(default_factory=dict)


class Workbench:
    """Expands knobs into candidates, prices them, and plans their networks.

    Attributes:
        wall_s: seconds spent so far, by phase.
        ship_s: seconds that a file of this run took to be exported, scored and timed; None until
            files were.
    """

    def __init__(
        self,
        settings: RunSettings,
        profile: HardwareProfile,
        data: DataSet,
        *,
        on_phase: Callable[[str], None],
        on_step: Callable[[int, int], None],
    ) -> None:
        self.settings = settings
        self.profile = profile
        self.data = data
        self.predictor = CostPredictor(profile, settings.confidence)
        self.bit_costs = BitCosts(settings=settings, predictor=self.predictor)
        self.wall_s: dict[str, float] = {}
        self.ship_s: float | None = None
        self._on_phase, self._on_step = on_phase, on_step
        self._backbones = Backbones(space=settings.space, classes=len(data.class_names))
        self._prepared: dict[tuple[BackboneRef, int], Prepared] = {}
        self._needed: Callable[[], Bases] | None = None
        self._base_px: dict[tuple[BackboneRef, int], int] = {}
        self.widths = Widths(
            ratios=settings.space.pruning.ratios, granularity=profile.channel_granularity
        )

    # -- shapes and cost, without weights ---------------------------------------------------------

    def ref(self, knobs: Knobs | Candidate) -> BackboneRef:
        """The backbone that knobs or a candidate name."""
        return self._backbones.ref(knobs)

    def blueprint(self, knobs: Knobs | Candidate) -> Blueprint:
        """Kernels and groups of the dense backbone."""
        with self.timed("trace"):
            return self._backbones.blueprint(knobs)

    def cheapest(self, knobs: Knobs) -> tuple[Cost, NetworkDesc]:
        """The least cost that any candidate of this backbone and input size can have.

        The most pruned network, every layer at the bits that cost it least.
        """
        blueprint = self.blueprint(knobs)
        ratio = max(self.settings.space.pruning.ratios)
        groups = self.widths.groups(blueprint, None)
        kept = allocate_channels(groups, (ratio,) * 4, 0.0)
        network = blueprint.describe(kept)
        network = network.with_bits(self.bit_costs.allocate(network, 1.0))
        return self.predictor.predict(network), network

    def price(self, candidate: Candidate) -> Cost:
        """The predicted cost of a candidate."""
        return self.predictor.predict(self.describe(candidate))

    def describe(self, candidate: Candidate) -> NetworkDesc:
        """The fused kernels of a candidate."""
        return self._backbones.describe(candidate)

    def baseline(self, backbone: Knobs, bits: LayerBits) -> Candidate:
        """The dense network with the same bits in every layer."""
        return self._backbones.uniform(backbone, bits)

    def plain_channels(self, knobs: Knobs) -> dict[str, int]:
        """Channels to keep in each group where all channels are equally important."""
        return allocate_channels(self.widths.groups(self.blueprint(knobs), None), knobs.prune, 0.0)

    def plain_cost(self, knobs: Knobs) -> Cost:
        """The predicted cost of knobs where all channels and layers are alike."""
        network = self.blueprint(knobs).describe(self.plain_channels(knobs))
        return self.predictor.predict(
            network.with_bits(self.bit_costs.allocate(network, knobs.saving))
        )

    def variants(self) -> Iterator[Knobs]:
        """Every dense network of the space: backbones at each depth, width and input size."""
        for backbone in self.settings.space.backbones:
            depths, widths = (
                (None,) if choices is None else [canonical_json(one) for one in choices.choices]
                for choices in (backbone.depth, backbone.width)
            )
            for depth, width, px in itertools.product(depths, widths, self.settings.space.input_px):
                yield Knobs(backbone=backbone.name, input_px=px, depth=depth, width=width)

    def base_of(self, knobs: Knobs | Candidate) -> tuple[BackboneRef, int]:
        """The backbone of knobs or a candidate, and the input size at which its base is trained."""
        ref = self.ref(knobs)
        return ref, self._base_input(ref, knobs.input_px)

    def step_effort(self, knobs: Knobs) -> float:
        """What a training step of the dense network takes, as MACs of a picture."""
        return self.blueprint(knobs).describe({}).macs + FIXED_MACS

    def recalibrate(self, recalibration: Recalibration) -> None:
        """Correct all predictions from here on."""
        self.predictor = CostPredictor(self.profile, self.settings.confidence, recalibration)
        self.bit_costs = BitCosts(settings=self.settings, predictor=self.predictor)

    def plain_bits(self, knobs: Knobs) -> dict[str, LayerBits]:
        """Bits of the dense network's layers where all of them are equally sensitive."""
        blueprint = self.blueprint(knobs)
        network = blueprint.describe({})
        edges = {network.weighted[0].name, blueprint.trace.classifier}
        return self.bit_costs.allocate(
            network, knobs.saving, protected=edges if knobs.protect_edges else ()
        )

    # -- what needs base weights ------------------------------------------------------------------

    def expand(self, knobs: Knobs) -> Candidate:
        """Spread the knobs over channels and layers; trains the base network if there is none."""
        blueprint = self.blueprint(knobs)
        prepared = self.prepared(knobs)
        with self.timed("allocate"):
            groups = self.widths.groups(blueprint, prepared.importance)
            kept = allocate_channels(groups, knobs.prune, knobs.spread)
            network = blueprint.describe(kept)
        unfused = self._unfused(prepared, blueprint)
        sensitivity = self._sensitivity(prepared, blueprint)
        with self.timed("allocate"):
            edges = {network.weighted[0].name, blueprint.trace.classifier}
            bits = self.bit_costs.allocate(
                network,
                knobs.saving,
                sensitivity=sensitivity,
                unfused=unfused,
                protected=edges if knobs.protect_edges else (),
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

    def plan(self, candidate: Candidate) -> Plan:
        """How to make a candidate's network from its base."""
        prepared = self.prepared(candidate)
        return Plan(
            base=prepared.base.model,
            blueprint=self.blueprint(candidate),
            removed=least_important(prepared.importance, candidate.channel_counts),
            bits=candidate.layer_bits,
            scheme=self.profile.activation_quantization,
        )

    def card(self, candidate: Candidate) -> NetworkCard:
        """What a candidate's network is, as it is written beside its weights."""
        return NetworkCard(
            ref=self.ref(candidate),
            candidate=candidate,
            scheme=self.profile.activation_quantization,
            mean=self.data.mean,
            std=self.data.std,
            class_names=self.data.class_names,
        )

    def prepared(self, knobs: Knobs | Candidate) -> Prepared:
        """The trained base network behind knobs or a candidate."""
        ref, px = self.base_of(knobs)
        if (ref, px) not in self._prepared and self._needed is not None:
            needed, self._needed = self._needed, None
            self.adopt(needed())
        if (ref, px) not in self._prepared:
            self._on_phase(f"base weights of {ref.name} at {px} px")
            with self.timed("base weights"):
                base = self._base(ref, px)
            self._prepare(ref, px, base)
        return self._prepared[ref, px]

    def adopt_when_needed(self, make: Callable[[], Bases]) -> None:
        """Take base networks of this run when one of them is needed; it may never be."""
        self._needed = make

    def adopt(self, bases: Bases) -> None:
        """Take base networks that were trained for this run."""
        for (ref, px), base in bases.items():
            self._prepare(ref, px, base)

    def _prepare(self, ref: BackboneRef, px: int, base: BaseNetwork) -> None:
        importance = base.importance
        if importance is None:
            with self.timed("allocate"):
                at_base = make_blueprint(ref, px)
                importance = channel_importance(base.model, at_base.trace, at_base.graph)
        self._prepared[ref, px] = Prepared(base=base, importance=importance)

    def timed(self, phase: str) -> "_Timer":
        """Add the time of a ``with`` block to a phase."""
        return _Timer(self.wall_s, phase)

    @property
    def export_s(self) -> float:
        """Seconds that an export took when backbones were checked; 0 if none was."""
        checks = sum(len(prepared.unfused) for prepared in self._prepared.values())
        return self.wall_s.get("export check", 0.0) / checks if checks else 0.0

    @property
    def final_steps(self) -> int:
        """Optimizer steps of full fine-tuning where no clock decides."""
        training = self.settings.space.training
        return full_steps(
            training.final_steps,
            len(self.data.train),
            training.batch_size,
            passes=self.settings.lengths.final_passes,
        )

    def fine_tuning_rate(self, candidate: Candidate) -> float:
        """Highest learning rate at which a candidate's network is trained on from its base."""
        trained = self.prepared(candidate).base.source == "trained"
        return _FINE_TUNING_RATE if trained else _GENTLE_RATE

    @property
    def base_recipe(self) -> Recipe:
        """How a base network is trained where no clock decides."""
        training = self.settings.space.training
        return Recipe(
            steps=full_steps(
                training.base_steps,
                len(self.data.train),
                training.batch_size,
                passes=self.settings.lengths.base_passes,
            ),
            batch_size=training.batch_size,
            seed=derived_seed(self.settings.seed, "base"),
        )

    def weights_of(self, ref: BackboneRef) -> WeightsPolicy | Path:
        """Where the base weights of a backbone start."""
        path = self.settings.space.backbone(ref.name).weights
        return self.settings.weights if path is None else Path(path)

    def _base(self, ref: BackboneRef, px: int) -> BaseNetwork:
        return base_network(
            ref,
            self.data,
            px,
            self.base_recipe,
            weights=self.weights_of(ref),
            download=self.settings.download,
            widths=self.widths,
            on_step=self._on_step,
        )

    def _base_input(self, ref: BackboneRef, px: int) -> int:
        """Networks that run at any size share base weights, trained at the smallest one."""
        smallest = min(self.settings.space.input_px)
        if (ref, px) not in self._base_px:
            same = _shapes(build(ref, px, device="meta")) == _shapes(
                build(ref, smallest, device="meta")
            )
            self._base_px[(ref, px)] = smallest if same else px
        return self._base_px[(ref, px)]

    def _sensitivity(
        self, prepared: Prepared, blueprint: Blueprint
    ) -> dict[str, dict[LayerBits, float]]:
        px = blueprint.trace.input_px
        if px not in prepared.sensitivity:
            self._on_phase(f"sensitivity of {blueprint.ref.name} at {px} px, layer by layer")
            options = {
                kernel.name: self.bit_costs.offered(kernel.kind)
                for kernel in blueprint.describe({}).weighted
            }
            with self.timed("sensitivity"):
                prepared.sensitivity[px] = sensitivity_table(
                    prepared.base,
                    blueprint,
                    options,
                    self.data,
                    scheme=self.profile.activation_quantization,
                )
        return prepared.sensitivity[px]

    def _unfused(self, prepared: Prepared, blueprint: Blueprint) -> frozenset[str]:
        """Layers for which int8 is not to be offered, since the runtime runs them in fp32.

        Raises:
            BackboneError: the backbone cannot be exported, which had better be known now.
        """
        px = blueprint.trace.input_px
        if px not in prepared.unfused:
            layers = [kernel.name for kernel in blueprint.describe({}).weighted]
            with self.timed("export check"):
                found = layers_without_int8(
                    prepared.base.model, px, layers, self.profile.activation_quantization
                )
            here = runtime_facts(self.profile.runtime).runs_here
            prepared.unfused[px] = found if here else frozenset()
        return prepared.unfused[px]

    def values(self, cost: Cost) -> tuple[float, ...]:
        """The costs that the search brings down, in the order of the objectives."""
        return tuple(value_of(cost, quantity) for quantity in self.settings.quantities)


class _Timer:
    def __init__(self, wall_s: dict[str, float], phase: str) -> None:
        self._wall_s, self._phase, self._start = wall_s, phase, 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        spent = time.perf_counter() - self._start
        self._wall_s[self._phase] = self._wall_s.get(self._phase, 0.0) + spent


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


#: The two baselines of every run: name in ``front.json`` and bits of every layer.
BASELINES = (("dense-fp32", FP32), ("uniform-int8", INT8))
