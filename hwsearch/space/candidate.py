"""A candidate: one network of the search space, down to the channels and bits of each layer."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

from hwsearch.bits import LayerBits
from hwsearch.errors import RunError

#: Stages of a network, by resolution; each has a pruning ratio of its own.
STAGES: Final = (1, 2, 3, 4)

_ID_DIGITS: Final = 12


def canonical_json(value: object) -> str:
    """The one way in which a value is written as JSON: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: NaN or an infinity.
        TypeError: not a JSON value.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One point of the search space, equal to another when all fields are.

    ``Candidate.build`` takes mappings and sorts; the plain constructor refuses unsorted pairs.

    Attributes:
        backbone: as the search space names it.
        input_px: side of the square input.
        depth: canonical JSON of the depth argument's value, None for the backbone's own.
        width: the same of the width argument.
        pruning: the ratio asked of stages 1 to 4; how the channels were reached, no part of ``id``.
        channels: (group, kept channels), sorted by group.
        bits: (layer, bits), sorted by layer.

    Raises:
        ValueError: a field out of range, unsorted or repeated names, JSON that is not canonical.
    """

    backbone: str
    input_px: int
    depth: str | None = None
    width: str | None = None
    pruning: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    channels: tuple[tuple[str, int], ...] = ()
    bits: tuple[tuple[str, LayerBits], ...] = ()

    def __post_init__(self) -> None:
        if not self.backbone or self.input_px < 1:
            raise ValueError("a candidate has a backbone and an input of at least 1 px")
        check_ratios(self.pruning)
        for name, text in (("depth", self.depth), ("width", self.width)):
            if text is not None and text != _canonical(text):
                raise ValueError(f"{name} '{text}' is not canonical JSON")
        for what, names in (("channels", self.channels), ("bits", self.bits)):
            _check_sorted(what, [name for name, _ in names])
        for group, kept in self.channels:
            if kept < 1:
                raise ValueError(f"group {group} keeps {kept} channels; at least 1 must stay")

    @classmethod
    def build(
        cls,
        *,
        backbone: str,
        input_px: int,
        channels: Mapping[str, int],
        bits: Mapping[str, LayerBits],
        depth: str | None = None,
        width: str | None = None,
        pruning: Iterable[float] = (0.0, 0.0, 0.0, 0.0),
    ) -> Self:
        """A candidate from mappings by group and by layer; their order does not matter."""
        return cls(
            backbone=backbone,
            input_px=input_px,
            depth=depth,
            width=width,
            pruning=tuple(float(ratio) for ratio in pruning),
            channels=tuple(sorted(channels.items())),
            bits=tuple(sorted(bits.items())),
        )

    @property
    def channel_counts(self) -> dict[str, int]:
        """Kept channels by group."""
        return dict(self.channels)

    @property
    def layer_bits(self) -> dict[str, LayerBits]:
        """Bits by layer."""
        return dict(self.bits)

    @cached_property
    def id(self) -> str:
        """12 hexadecimal digits that two candidates share when they are the same network.

        The pruning ratios are left out: two knob settings that end in the same layers are one
        candidate.
        """
        network = {key: value for key, value in self._plain().items() if key != "pruning"}
        digest = hashlib.sha256(canonical_json(network).encode()).hexdigest()
        return digest[:_ID_DIGITS]

    def to_json(self) -> str:
        """Canonical JSON: equal candidates give equal text."""
        return canonical_json(self._plain())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            RunError: not such a text: unreadable, or with other keys or values.
        """
        try:
            data = json.loads(text)
            fields = {field.name for field in dataclasses.fields(cls)}
            if not isinstance(data, dict) or set(data) != fields:
                raise ValueError(f"the keys must be {', '.join(sorted(fields))}")
            bits = {layer: LayerBits.parse(bits) for layer, bits in data.pop("bits").items()}
            return cls.build(**data, bits=bits)
        except (ValueError, TypeError, AttributeError) as error:
            raise RunError(
                f"the stored candidate '{text[:60]}' cannot be read ({error}); "
                "it was changed, or written by another version"
            ) from None

    def _plain(self) -> dict[str, object]:
        return {
            "backbone": self.backbone,
            "input_px": self.input_px,
            "depth": self.depth,
            "width": self.width,
            "pruning": list(self.pruning),
            "channels": dict(self.channels),
            "bits": {layer: str(bits) for layer, bits in self.bits},
        }


def check_ratios(ratios: tuple[float, ...]) -> None:
    """Refuse what are not four pruning ratios, one for each stage.

    Raises:
        ValueError: another number of ratios, or one outside [0, 0.9].
    """
    if len(ratios) != len(STAGES) or not all(0.0 <= ratio <= 0.9 for ratio in ratios):
        raise ValueError(f"pruning ratios {ratios} are not four numbers from 0 to 0.9")


def _canonical(text: str) -> str | None:
    try:
        return canonical_json(json.loads(text))
    except ValueError:
        return None


def _check_sorted(what: str, names: list[str]) -> None:
    if names != sorted(set(names)):
        raise ValueError(f"{what} must be sorted by name, each name once")
