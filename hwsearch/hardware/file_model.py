"""What the models of profile files share: strictness, checked numbers, and provenance."""

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic import StringConstraints as _StringConstraints

from hwsearch.bits import LayerBits


def _parse_bits(value: object) -> object:
    return LayerBits.parse(value) if isinstance(value, str) else value


Text = Annotated[str, _StringConstraints(strip_whitespace=True, min_length=1)]
Name = Annotated[str, _StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.@-]*$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)]
Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
BitsText = Annotated[LayerBits, BeforeValidator(_parse_bits), PlainSerializer(str)]


class FileModel(BaseModel):
    """A frozen part of a file; a key that it does not know is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Provenance(FileModel):
    """Where the numbers of a group come from.

    Attributes:
        source: "measured" on this target; "derived" from measurements or from another number;
            "spec sheet" of the maker; "simulated" by somebody's model of the device; "declared"
            by whoever wrote the profile.
        reference: the document, data or command behind it, and what it showed.
        date: when the numbers were read or measured.
    """

    source: Literal["measured", "derived", "spec sheet", "simulated", "declared"]
    reference: Text
    date: date
