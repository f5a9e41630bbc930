"""The backbones of a search space, traced when they are first needed; no weights, no data."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

from hwsearch.bits import LayerBits
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.nets.backbone import BackboneRef, build
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
    _base_px: dict[tuple[BackboneRef, int], int] = field(default_factory=dict)

    def variants(self) -> Iterator[Knobs]:
        """Every dense network of the space: backbones at each depth, width and input size."""
        for backbone in self.space.backbones:
            depths, widths = (
                (None,) if choices is None else [canonical_json(one) for one in choices.choices]
                for choices in (backbone.depth, backbone.width)
            )
            for depth, width, px in itertools.product(depths, widths, self.space.input_px):
                yield Knobs(backbone=backbone.name, input_px=px, depth=depth, width=width)

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

    def base_of(self, chosen: Knobs | Candidate) -> tuple[BackboneRef, int]:
        """The backbone of knobs or a candidate, and the input size at which its base is trained.

        Networks that run at any size share base weights, trained at the smallest one.
        """
        ref, px, smallest = self.ref(chosen), chosen.input_px, min(self.space.input_px)
        if (ref, px) not in self._base_px:
            same = _shapes(build(ref, px, device="meta")) == _shapes(
                build(ref, smallest, device="meta")
            )
            self._base_px[ref, px] = smallest if same else px
        return ref, self._base_px[ref, px]

    def blueprint(self, chosen: Knobs | Candidate) -> Blueprint:
        """Kernels and groups of the dense backbone at the input size of knobs or a candidate.

        Raises:
            BackboneError: as ``make_blueprint`` does.
        """
        return self.blueprint_at(self.ref(chosen), chosen.input_px)

    def blueprint_at(self, ref: BackboneRef, px: int) -> Blueprint:
        """Kernels and groups of a dense backbone at an input size.

        Raises:
            BackboneError: as ``make_blueprint`` does.
        """
        if (ref, px) not in self._made:
            self._made[ref, px] = make_blueprint(ref, px)
        return self._made[ref, px]

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


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
