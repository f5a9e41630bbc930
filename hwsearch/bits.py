"""The bit-widths of one layer's weights and activations."""

import re
from dataclasses import dataclass
from typing import Final

#: Every width that a layer can have. 32 and 16 are floating point, the rest are integers.
WIDTHS: Final = (2, 3, 4, 5, 6, 7, 8, 16, 32)

_TEXT = re.compile(r"W(\d+)A(\d+)")


@dataclass(frozen=True, order=True)
class LayerBits:
    """Weight and activation bits of one layer, written ``W8A8``.

    Raises:
        ValueError: a width outside ``WIDTHS``, or a float width beside an integer activation
            width, which no runtime executes.
    """

    weight_bits: int
    activation_bits: int

    def __post_init__(self) -> None:
        for width in (self.weight_bits, self.activation_bits):
            if width not in WIDTHS:
                raise ValueError(f"{width} bits is not a width; pick one of {WIDTHS}")
        if self.weight_bits > 8 and self.weight_bits != self.activation_bits:
            raise ValueError(
                f"{self}: weights of {self.weight_bits} bits go with activations of the same width"
            )

    @classmethod
    def parse(cls, text: str) -> "LayerBits":
        """Read the form ``W8A8``; raises ``ValueError`` on anything else."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"'{text}' is not of the form W8A8")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"W{self.weight_bits}A{self.activation_bits}"


FP32: Final = LayerBits(32, 32)
FP16: Final = LayerBits(16, 16)
INT8: Final = LayerBits(8, 8)
