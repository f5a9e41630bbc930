"""The few knobs that the study turns; allocators expand them into channels and bits per layer.

Searching 60 to 120 raw per-layer bits is hopeless within a few hundred trials. Nine knobs that a
deterministic allocator expands reached in 100 trials what raw bits did not in 1000.

=================  ==========================================================================
knob               meaning
=================  ==========================================================================
backbone           the dense network to start from
input_px           side of the square input
prune_stage1..4    share of the channels to remove in each stage (stages go by resolution)
saving             share of the saving reachable by lower bits that must be delivered: 0 keeps
                   every layer at its widest bits, 1 gives every layer its cheapest
protect_edges      the first layer and the classifier stay at their widest bits
spread             0 removes the same share of every layer of a stage, 1 goes by importance
depth.BACKBONE     value of the depth argument, for backbones that offer one (canonical JSON)
width.BACKBONE     the same for the width argument
=================  ==========================================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from hwsearch.errors import RunError
from hwsearch.space.candidate import STAGES, canonical_json, check_ratios
from hwsearch.space.search_space import ArgumentChoices, SearchSpace

#: What a knob can be set to; the kinds that a study can store.
Choice = bool | int | float | str

#: Steps of the saving knob: eighths are finer than what one layer more or less changes.
SAVINGS: Final = tuple(step / 8 for step in range(9))
SPREADS: Final = (0.0, 0.5, 1.0)

_ALWAYS: Final = (
    "backbone",
    "input_px",
    *(f"prune_stage{stage}" for stage in STAGES),
    "saving",
    "protect_edges",
    "spread",
)


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """One setting of all knobs.

    Attributes:
        backbone: as the search space names it.
        input_px: side of the square input.
        depth: canonical JSON of the depth argument's value, None for the backbone's own.
        width: the same of the width argument.
        prune: ratios of stages 1 to 4, each from 0 to 0.9.
        saving: from 0 to 1.
        protect_edges: whether the first layer and the classifier keep their widest bits.
        spread: from 0 to 1.

    Raises:
        ValueError: a value out of its range.
    """

    backbone: str
    input_px: int
    depth: str | None = None
    width: str | None = None
    prune: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    saving: float = 0.0
    protect_edges: bool = True
    spread: float = 0.0

    def __post_init__(self) -> None:
        if not self.backbone or self.input_px < 1:
            raise ValueError("knobs name a backbone and an input of at least 1 px")
        check_ratios(self.prune)
        for name, share in (("saving", self.saving), ("spread", self.spread)):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} {share} is not a share from 0 to 1")

    @classmethod
    def from_choices(cls, choices: Mapping[str, Choice]) -> Self:
        """Read one choice for each knob, as ``to_choices`` writes them.

        Depths and widths of other backbones may be there (a sampler that knows no conditions
        draws them too) and have no effect.

        Raises:
            RunError: a knob is missing or unknown.
            ValueError: a value out of its range.
        """
        unknown = [name for name in choices if name not in _ALWAYS and not _is_argument(name)]
        missing = [name for name in _ALWAYS if name not in choices]
        if unknown or missing:
            raise RunError(
                f"knobs do not fit this version: unknown {unknown}, missing {missing}; "
                "start a new run"
            )
        backbone = str(choices["backbone"])
        return cls(
            backbone=backbone,
            input_px=int(choices["input_px"]),
            depth=_text(choices.get(f"depth.{backbone}")),
            width=_text(choices.get(f"width.{backbone}")),
            prune=tuple(float(choices[f"prune_stage{stage}"]) for stage in STAGES),
            saving=float(choices["saving"]),
            protect_edges=bool(choices["protect_edges"]),
            spread=float(choices["spread"]),
        )

    def to_choices(self) -> dict[str, Choice]:
        """The choice of each knob that has an effect, in the order of ``knob_choices``."""
        choices: dict[str, Choice] = {
            "backbone": self.backbone,
            "input_px": self.input_px,
            **{f"prune_stage{stage}": self.prune[stage - 1] for stage in STAGES},
            "saving": self.saving,
            "protect_edges": self.protect_edges,
            "spread": self.spread,
        }
        if self.depth is not None:
            choices[f"depth.{self.backbone}"] = self.depth
        if self.width is not None:
            choices[f"width.{self.backbone}"] = self.width
        return choices


def knob_choices(space: SearchSpace) -> dict[str, tuple[Choice, ...]]:
    """What each knob can be set to, in a fixed order; a knob may have a single choice.

    ``depth.X`` and ``width.X`` have an effect only where the backbone is X.
    """
    choices: dict[str, tuple[Choice, ...]] = {
        "backbone": tuple(backbone.name for backbone in space.backbones),
        "input_px": space.input_px,
        **{f"prune_stage{stage}": space.pruning.ratios for stage in STAGES},
        "saving": SAVINGS,
        "protect_edges": (False, True),
        "spread": SPREADS,
    }
    for backbone in space.backbones:
        if backbone.depth is not None:
            choices[f"depth.{backbone.name}"] = _argument_texts(backbone.depth)
        if backbone.width is not None:
            choices[f"width.{backbone.name}"] = _argument_texts(backbone.width)
    return choices


def dense(backbone: str, input_px: int) -> Knobs:
    """The knobs of the unpruned network at its own depth and width and its widest bits."""
    return Knobs(backbone=backbone, input_px=input_px)


def anchors(space: SearchSpace) -> list[Knobs]:
    """What any search starts from: each backbone dense and half pruned, at its cheapest bits.

    At the smallest input; all dense ones first. Their first layer and classifier are not protected:
    where 8 bits are the cheapest in every layer, this is the uniform int8 baseline.
    """
    ratios, px = space.pruning.ratios, min(space.input_px)
    cheap = [replace(dense(backbone.name, px), saving=1.0) for backbone in space.backbones]
    half = (ratios[len(ratios) // 2],) * len(STAGES)
    return [
        *(replace(knobs, protect_edges=False) for knobs in cheap),
        *(replace(knobs, prune=half) for knobs in cheap),
    ]


def _argument_texts(argument: ArgumentChoices) -> tuple[str, ...]:
    return tuple(canonical_json(choice) for choice in argument.choices)


def _is_argument(name: str) -> bool:
    return name.startswith(("depth.", "width."))


def _text(choice: Choice | None) -> str | None:
    return None if choice is None else str(choice)
