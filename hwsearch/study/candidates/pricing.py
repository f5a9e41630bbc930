"""What the sampler knows of knobs before a trial: predicted costs, admission, features.

No weights are needed, so knobs of a backbone that was never trained are priced like all others, and
a resumed run prices them as before. Without importance and sensitivity channels are spread evenly
and bits go by predicted saving alone, on the dense network; the trial itself allocates both anew
and is held against the budgets by what it becomes. Kept are the stage ratios, the bits that a
saving pays for on this target, and the kernels, which decide the cost; what is missing moves
channels and bits between layers of one stage.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from hwsearch.bits import LayerBits
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.sampler.priced import Parameters, Priced
from hwsearch.space.candidate import STAGES
from hwsearch.space.knobs import Knobs
from hwsearch.study.candidates.pricing_context import FIXED_MACS, PricingContext


class KnobPricer:
    """Prices knobs for ``KnownCostSampler``.

    Features are those of ``network_features``. The effort of a trial goes by MACs, which need no
    clock, so that a resumed run proposes what it would have proposed; its root is told, which on
    NAS-Bench-201 saves as much time as the effort itself and leaves large networks more trials.

    Args:
        pricing: of the run.
    """

    def __init__(self, pricing: PricingContext) -> None:
        self._pricing = pricing
        self._channels: dict[Knobs, dict[str, int]] = {}
        self._bits: dict[Knobs, dict[str, LayerBits]] = {}

    def __call__(self, candidates: Sequence[Parameters], /) -> Priced:
        """Prices in the order of the settings of knobs."""
        knobs = [Knobs.from_choices(choices) for choices in candidates]
        kept = [self._kept(one) for one in knobs]
        networks = [
            self._pricing.backbones.blueprint(one).describe(channels, self._bits_of(one))
            for one, channels in zip(knobs, kept, strict=True)
        ]
        costs = self._pricing.predictor.predict_all(networks)
        held = [self._pricing.admit(cost) for cost in costs]
        return Priced(
            costs=np.array([self._pricing.values(cost) for cost in costs]),
            violations=np.array([list(one.violations.values()) for one in held]),
            features=np.array([network_features(network) for network in networks]),
            effort=np.sqrt([network.macs + FIXED_MACS for network in networks]),
            keys=[_key(one, channels) for one, channels in zip(knobs, kept, strict=True)],
        )

    def _kept(self, knobs: Knobs) -> dict[str, int]:
        """Channels by group; each ratio is allocated once for all groups."""
        by_stage = {
            stage: self._uniform(knobs, ratio)
            for stage, ratio in zip(STAGES, knobs.prune, strict=True)
        }
        groups = self._pricing.backbones.blueprint(knobs).graph.groups
        return {group.name: by_stage[group.stage][group.name] for group in groups}

    def _uniform(self, knobs: Knobs, ratio: float) -> dict[str, int]:
        plain = replace(
            knobs, prune=(ratio,) * len(STAGES), saving=0.0, protect_edges=True, spread=0.0
        )
        if plain not in self._channels:
            self._channels[plain] = self._pricing.plain_channels(plain)
        return self._channels[plain]

    def _bits_of(self, knobs: Knobs) -> dict[str, LayerBits]:
        plain = replace(knobs, prune=(0.0,) * len(STAGES), spread=0.0)
        if plain not in self._bits:
            self._bits[plain] = self._pricing.plain_bits(plain)
        return self._bits[plain]


def network_features(network: NetworkDesc) -> list[float]:
    """What is known of a network's accuracy without weights.

    Returns:
        Logarithms of MACs and size, and the mean binary logarithm of weight and activation bits,
        each layer counting by its MACs.
    """
    weighted = network.weighted
    macs = np.array([kernel.macs for kernel in weighted], dtype=np.float64)
    bits = np.array([(k.bits.weight_bits, k.bits.activation_bits) for k in weighted])
    return [
        float(np.log(network.macs)),
        float(np.log(network.size_bytes)),
        *(macs @ np.log2(bits) / macs.sum()).tolist(),
    ]


def _key(knobs: Knobs, kept: dict[str, int]) -> Hashable:
    """The same for knobs that end in the same channels and are told apart by nothing else.

    A spread has no effect without pruning, nor has the protection of the edges without a saving.
    """
    pruned = any(ratio > 0 for ratio in knobs.prune)
    return (
        knobs.backbone,
        knobs.input_px,
        knobs.depth,
        knobs.width,
        tuple(kept.items()),
        knobs.spread if pruned else None,
        knobs.saving,
        knobs.protect_edges if knobs.saving > 0 else None,
    )
