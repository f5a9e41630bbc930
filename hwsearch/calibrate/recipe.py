"""A net for calibration as text: what is needed to make it again, and nothing else."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from hwsearch.bits import LayerBits
from hwsearch.errors import UserError
from hwsearch.nets.backbone import BackboneRef
from hwsearch.nets.blueprint import Blueprint

#: Columns of a table of recipes.
COLUMNS: Final = ("backbone", "arguments", "classes", "input_px", "kept_channels", "layer_bits")

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
            "backbone": self.backbone,
            "arguments": self.arguments,
            "classes": str(self.classes),
            "input_px": str(self.input_px),
            "kept_channels": _runs(map(str, self.kept_channels)),
            "layer_bits": _runs(map(str, self.layer_bits)),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> Self:
        """Read what ``row`` gave.

        Raises:
            UserError: a column is missing or holds something else.
        """
        try:
            return cls(
                backbone=row["backbone"],
                arguments=json.dumps(json.loads(row["arguments"]), sort_keys=True),
                classes=int(row["classes"]),
                input_px=int(row["input_px"]),
                kept_channels=tuple(int(one) for one in _listed(row["kept_channels"])),
                layer_bits=tuple(LayerBits.parse(one) for one in _listed(row["layer_bits"])),
            )
        except KeyError as error:
            raise UserError(f"a net lacks {error}; columns are {', '.join(COLUMNS)}") from None
        except ValueError as error:
            raise UserError(f"net '{row['backbone']}' cannot be read: {error}") from None


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
