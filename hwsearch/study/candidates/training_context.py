"""What training needs: pictures, base networks and recipes; each process has its own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hwsearch.accuracy.base_weights import BaseNetwork, Source, WeightsPolicy, read_base
from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.elastic import Importance
from hwsearch.accuracy.ladder import Plan
from hwsearch.accuracy.training import Recipe, Score
from hwsearch.deploy.network_file import NetworkCard
from hwsearch.errors import HostError
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.nets.backbone import BackboneRef
from hwsearch.nets.prune import channel_importance, least_important
from hwsearch.space.candidate import Candidate
from hwsearch.study.asked.effort import full_steps
from hwsearch.study.asked.settings import RunSettings, derived_seed
from hwsearch.study.candidates.backbones import Backbones
from hwsearch.study.candidates.pricing_context import widths_of

#: Highest learning rate of a network that is trained on, from a base network that was trained here
#: or from one with pretrained weights. 50 steps take the latter's EfficientNet-Lite0 from 64.6 % to
#: 64.8 % with 0.01, and to 55.6 % with 0.05.
_FINE_TUNING_RATE, _GENTLE_RATE = 0.02, 0.01


@dataclass(frozen=True, kw_only=True)
class Base:
    """A trained base network, which lies in the cache under its key.

    Attributes:
        px: input size at which it was trained.
        steps: optimizer steps of its training.
    """

    ref: BackboneRef
    px: int
    key: str
    source: Source
    validation: Score
    steps: int

    @classmethod
    def of(cls, network: BaseNetwork, ref: BackboneRef, px: int) -> "Base":
        """What is told of a network, without its weights."""
        return cls(
            ref=ref,
            px=px,
            key=network.key,
            source=network.source,
            validation=network.validation,
            steps=network.steps,
        )


class TrainingContext:
    """Makes networks of candidates from their base networks.

    Base networks are read from the cache when they are first needed, and kept.

    Attributes:
        settings: of the run.
        profile: of the target, for the activation scheme and the runtime of its layers.
        data: the pictures.
        backbones: of the space, as shapes.
    """

    def __init__(
        self,
        settings: RunSettings,
        profile: HardwareProfile,
        data: DataSet,
        backbones: Backbones | None = None,
    ) -> None:
        self.settings = settings
        self.profile = profile
        self.data = data
        self.backbones = backbones or Backbones(space=settings.space, classes=len(data.class_names))
        self.widths = widths_of(settings, profile)
        self._networks: dict[str, tuple[BaseNetwork, Importance]] = {}

    def network(self, base: Base) -> BaseNetwork:
        """The network of a base, with its weights.

        Raises:
            HostError: it is gone from the cache.
        """
        return self._loaded(base)[0]

    def importance(self, base: Base) -> Importance:
        """Of each channel of each group of a base network."""
        return self._loaded(base)[1]

    def keep(self, network: BaseNetwork, base: Base) -> None:
        """Keep a network that was just trained, so that it is not read again."""
        importance = network.importance
        if importance is None:
            blueprint = self.backbones.blueprint_at(base.ref, base.px)
            importance = channel_importance(network.model, blueprint.trace, blueprint.graph)
        self._networks[base.key] = (network, importance)

    def plan(self, candidate: Candidate, base: Base) -> Plan:
        """How to make a candidate's network from its base."""
        return Plan(
            base=self.network(base).model,
            blueprint=self.backbones.blueprint(candidate),
            removed=least_important(self.importance(base), candidate.channel_counts),
            bits=candidate.layer_bits,
            scheme=self.profile.activation_quantization,
        )

    def card(self, candidate: Candidate) -> NetworkCard:
        """What a candidate's network is, as it is written beside its weights."""
        return NetworkCard(
            ref=self.backbones.ref(candidate),
            candidate=candidate,
            scheme=self.profile.activation_quantization,
            mean=self.data.mean,
            std=self.data.std,
            class_names=self.data.class_names,
        )

    # -- recipes ----------------------------------------------------------------------------------

    def weights_of(self, ref: BackboneRef) -> WeightsPolicy | Path:
        """Where the base weights of a backbone start."""
        path = self.settings.space.backbone(ref.name).weights
        return self.settings.weights if path is None else Path(path)

    @property
    def base_recipe(self) -> Recipe:
        """How a base network is trained where no clock decides."""
        training = self.settings.space.training
        return Recipe(
            steps=self._full_steps(training.base_steps, self.settings.lengths.base_passes),
            batch_size=training.batch_size,
            seed=derived_seed(self.settings.seed, "base"),
        )

    @property
    def final_steps(self) -> int:
        """Optimizer steps of full fine-tuning where no clock decides."""
        least = self.settings.space.training.final_steps
        return self._full_steps(least, self.settings.lengths.final_passes)

    def recipe(self, base: Base, steps: int, *use: object) -> Recipe:
        """How a network is trained on from its base.

        Args:
            base: that it starts from.
            steps: optimizer steps.
            use: what the training is for, from which its seed follows.
        """
        return Recipe(
            steps=steps,
            batch_size=self.settings.space.training.batch_size,
            learning_rate=_FINE_TUNING_RATE if base.source == "trained" else _GENTLE_RATE,
            seed=derived_seed(self.settings.seed, *use),
        )

    def passes(self, steps: float) -> float:
        """How often optimizer steps see the training pictures."""
        return steps * self.settings.space.training.batch_size / len(self.data.train)

    def _full_steps(self, least: int, passes: int) -> int:
        batch_size = self.settings.space.training.batch_size
        return full_steps(least, len(self.data.train), batch_size, passes=passes)

    def _loaded(self, base: Base) -> tuple[BaseNetwork, Importance]:
        if base.key not in self._networks:
            network = read_base(base.key, base.ref, base.px, self.base_recipe.seed)
            if network is None:
                raise HostError(
                    f"the base network of {base.ref.name} is gone from the cache; go on with: "
                    "hwsearch run --resume, which trains it again"
                )
            self.keep(network, base)
        return self._networks[base.key]


#: Is called with the step and the number of steps of a training.
OnStep = Callable[[int, int], None]
