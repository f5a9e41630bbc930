"""The backbones of a search space, traced when they are first needed; no weights, no data."""

from dataclasses import dataclass, field

from hwsearch.bits import LayerBits
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.nets.backbone import BackboneRef
from hwsearch.nets.blueprint import Blueprint, make_blueprint
from hwsearch.space.candidate import Candidate, canonical_json
from hwsearch.space.knobs import Knobs
from hwsearch.space.search_space import SearchSpace


@dataclass(frozen=True, kw_only=True)
class Backbones:
    """What candidates are made of, by arithmetic on the shapes of their dense backbone.

    Attributes:
        classes: outputs of the classifier.
    """

    space: SearchSpace
    classes: int
    _made: dict[tuple[BackboneRef, int], Blueprint] = field(default_factory=dict)

    def ref(self, chosen: Knobs | Candidate) -> BackboneRef:
        """The backbone that knobs or a candidate name."""
        entry = self.space.backbone(chosen.backbone)
        arguments: list[str] = []
        for choices, text in ((entry.depth, chosen.depth), (entry.width, chosen.width)):
            if choices is not None and text is not None:
                arguments.append(f"{canonical_json(choices.argument)}:{text}")
        return BackboneRef(
            name=chosen.backbone,
            classes=self.classes,
            stem_stride=entry.stem_stride,
            arguments="{" + ",".join(sorted(arguments)) + "}",
        )

    def blueprint(self, chosen: Knobs | Candidate) -> Blueprint:
        """Kernels and groups of the dense backbone.

        Raises:
            BackboneError: as ``make_blueprint`` does.
        """
        key = (self.ref(chosen), chosen.input_px)
        if key not in self._made:
            self._made[key] = make_blueprint(*key)
        return self._made[key]

    def describe(self, candidate: Candidate) -> NetworkDesc:
        """The fused kernels of a candidate.

        Raises:
            BackboneError: as ``make_blueprint`` does, or the candidate has unknown groups.
            ValueError: the candidate has other layers than the backbone.
        """
        return self.blueprint(candidate).describe(candidate.channel_counts, candidate.layer_bits)

    def uniform(self, chosen: Knobs, bits: LayerBits) -> Candidate:
        """The dense network with the same bits in every layer."""
        blueprint = self.blueprint(chosen)
        return Candidate.build(
            backbone=chosen.backbone,
            input_px=chosen.input_px,
            depth=chosen.depth,
            width=chosen.width,
            channels={group.name: group.channels for group in blueprint.graph.groups},
            bits={kernel.name: bits for kernel in blueprint.trace.kernels if kernel.weighted},
        )
