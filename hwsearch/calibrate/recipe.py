"""A net for calibration as text: what is needed to make it again, and nothing else."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from hwsearch.bits import LayerBits
from hwsearch.errors import UserError
from hwsearch.nets.backbone import BackboneRef
from hwsearch.nets.blueprint import Blueprint

#: Columns of a table of recipes.
COLUMNS: Final = ("net", "arguments", "classes", "px", "kept_channels", "layer_bits")

_RUN: Final = re.compile(r"(.+?)(?:x(\d+))?")
_ID_DIGITS: Final = 8

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One network, down to the channels and bits of each layer.

    Attributes:
        backbone: a timm name, or ``package.module:function``.
        arguments: of the function, as canonical JSON.
        classes: outputs.
        input_px: side of the picture.
        kept_channels: of each prunable group, in running order.
        layer_bits: of each weighted layer, in running order.
    """

    backbone: str
    arguments: str = "{}"
    classes: int
    input_px: int
    kept_channels: tuple[int, ...]
    layer_bits: tuple[LayerBits, ...]

    @property
    def ref(self) -> BackboneRef:
        """What makes the dense backbone."""
        return BackboneRef(name=self.backbone, classes=self.classes, arguments=self.arguments)

    @property
    def name(self) -> str:
        """Readable and distinct: the backbone, the size and a digest of the rest."""
        digest = hashlib.sha256("|".join(self.row().values()).encode()).hexdigest()
        return f"{self.backbone.rpartition(':')[2]}-{self.input_px}px-{digest[:_ID_DIGITS]}"

    def kept(self, blueprint: Blueprint) -> dict[str, int]:
        """Kept channels by group.

        Raises:
            UserError: the backbone has another number of groups.
        """
        groups = [group.name for group in blueprint.graph.groups]
        return _matched(self, "groups", groups, self.kept_channels)

    def bits(self, blueprint: Blueprint) -> dict[str, LayerBits]:
        """Bits by layer.

        Raises:
            UserError: the backbone has another number of layers.
        """
        layers = [kernel.name for kernel in blueprint.trace.kernels if kernel.weighted]
        return _matched(self, "layers", layers, self.layer_bits)

    def row(self) -> dict[str, str]:
        """The columns of a table; equal neighbours are counted: ``16x3 24``."""
        return {
            "net": self.backbone,
            "arguments": self.arguments,
            "classes": str(self.classes),
            "px": str(self.input_px),
            "kept_channels": _runs(map(str, self.kept_channels)),
            "layer_bits": _runs(map(str, self.layer_bits)),
        }


def read_channels(text: str) -> tuple[int, ...]:
    """Read the column ``kept_channels``.

    Raises:
        UserError: something else than counts from 1 up.
    """
    words = _listed(text)
    if not all(word.isdecimal() and int(word) for word in words):
        raise UserError(f"kept_channels '{text}' are not counts, as in 16x3 24")
    return tuple(int(word) for word in words)


def read_layer_bits(text: str) -> tuple[LayerBits, ...]:
    """Read the column ``layer_bits``.

    Raises:
        UserError: something else than widths.
    """
    try:
        return tuple(LayerBits.parse(word) for word in _listed(text))
    except ValueError as error:
        raise UserError(f"layer_bits {error}, as in W8A8x10 W32A32") from None


def _matched(
    recipe: Recipe, what: str, names: Sequence[str], values: Sequence[ValueT]
) -> dict[str, ValueT]:
    if len(names) != len(values):
        raise UserError(
            f"{recipe.backbone} has {len(names)} {what} here and {len(values)} in the table, which "
            "another version of timm or hwsearch wrote; measure again"
        )
    return dict(zip(names, values, strict=True))


def _runs(words: Iterable[str]) -> str:
    counted = ((word, len(list(equal))) for word, equal in itertools.groupby(words))
    return " ".join(word if count == 1 else f"{word}x{count}" for word, count in counted)


def _listed(text: str) -> list[str]:
    words: list[str] = []
    for part in text.split():
        match = _RUN.fullmatch(part)
        assert match is not None, "any text without spaces matches"
        words += [match[1]] * int(match[2] or 1)
    return words
