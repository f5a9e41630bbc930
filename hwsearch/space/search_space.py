"""The search space: what a run may choose from, as read from ``search_spaces/*.yaml``.

Every mistake of a file is reported at once with its line. pydantic reports the entries of a list
one by one; what concerns several entries (one given twice) is added by ``Unique``.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    StrictInt,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from hwsearch.bits import WIDTHS, LayerBits
from hwsearch.errors import SpaceError
from hwsearch.files import named_files, nearest, read_model
from hwsearch.space.entries import Ascending, Unique, all_mistakes, mistake
from hwsearch.space.timm_names import check_timm_name

#: The version of the file format that this release reads.
SCHEMA_VERSION: Final = 1

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_ARGUMENT = re.compile(r"[A-Za-z_]\w*")


class _FileModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _width(value: int) -> int:
    if value not in WIDTHS:
        allowed = ", ".join(str(width) for width in WIDTHS)
        raise ValueError(f"{value} are bits that no target runs; pick from {allowed}")
    return value


def _json_value(value: object) -> object:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValueError("not a finite number; give any JSON value") from None
    return value


_Count = Annotated[StrictInt, Field(ge=1)]
_Choice = Annotated[JsonValue, AfterValidator(_json_value)]
_Ratio = Annotated[float, Field(strict=True, ge=0.0, le=0.9, allow_inf_nan=False)]
_Pixels = Annotated[StrictInt, Field(ge=8, le=1024)]
_WIDTHS_READER: Final[TypeAdapter[tuple[int, ...]]] = TypeAdapter(
    Annotated[
        tuple[Annotated[StrictInt, AfterValidator(_width)], ...],
        Unique,
        Ascending,
    ]
)


def _bits(value: object) -> tuple[int, ...] | str:
    # Not a union: pydantic would report the mistakes of both members, on the line of the key.
    if value == "target":
        return "target"
    if not isinstance(value, list | tuple):
        raise ValueError("write 'target' (what the target offers) or a list of bits, as in [4, 8]")
    return _WIDTHS_READER.validate_python(value)


def _listed_bits(bits: tuple[int, ...] | str) -> list[int] | str:
    return bits if isinstance(bits, str) else list(bits)


Bits = Annotated[
    tuple[int, ...] | Literal["target"], PlainValidator(_bits), PlainSerializer(_listed_bits)
]


class ArgumentChoices(_FileModel):
    """Values for one argument of the function that builds a backbone.

    Attributes:
        argument: its name, as in ``layers`` of a timm ResNet.
        choices: JSON values, as given to the function.
    """

    argument: str
    choices: Annotated[tuple[_Choice, ...], Unique]

    @field_validator("argument")
    @classmethod
    def _is_argument(cls, argument: str) -> str:
        if not _ARGUMENT.fullmatch(argument):
            raise ValueError(f"'{argument}' is not the name of an argument")
        return argument


class Backbone(_FileModel):
    """A network family member that may be picked; a plain name is short for ``{name: ...}``.

    Attributes:
        name: a timm name, with or without a pretrained tag, or ``package.module:function``.
        stem_stride: stride of the stem convolution in place of its own; 1 suits 32 px.
        weights: a local safetensors file, relative to the folder of the space file.
        depth: values of the argument that sets the depth.
        width: values of the argument that sets the width.
    """

    name: str
    stem_stride: Annotated[StrictInt, Field(ge=1, le=8)] | None = None
    weights: str | None = None
    depth: ArgumentChoices | None = None
    width: ArgumentChoices | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if ":" not in name:
            check_timm_name(name)
        elif not _FUNCTION.fullmatch(name):
            raise ValueError(f"'{name}' is not of the form package.module:function")
        return name

    @field_validator("weights")
    @classmethod
    def _is_safetensors(cls, weights: str | None) -> str | None:
        if weights is not None and ("://" in weights or not weights.endswith(".safetensors")):
            raise ValueError(
                f"'{weights}' is not a local safetensors file; convert other formats first"
            )
        return weights


class Pruning(_FileModel):
    """How many channels may be removed.

    Attributes:
        ratios: shares of a stage's channels, from 0 to 0.9; 0 (keep all) is always one of them.
    """

    ratios: Annotated[tuple[_Ratio, ...], Unique, Ascending]

    @field_validator("ratios")
    @classmethod
    def _keeps_dense(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        if 0.0 not in ratios:
            raise ValueError("0.0 must be one of the ratios: the dense network is the reference")
        return ratios


class Training(_FileModel):
    """Lengths of training in optimizer steps; the command line may change them.

    The effort of a run may ask for more of base networks and finalists, and under a time limit the
    clock decides how long those are trained.

    Attributes:
        base_steps: the base network, at least, once for each backbone.
        rung_steps: the two rungs of the ladder, a few tens and about a hundred.
        final_steps: each finalist before it is exported, at least.
        batch_size: pictures in each step.
    """

    base_steps: _Count = 600
    rung_steps: tuple[_Count, _Count] = (30, 100)
    final_steps: _Count = 300
    batch_size: _Count = 64

    @field_validator("rung_steps")
    @classmethod
    def _climbs(cls, rung_steps: tuple[int, int]) -> tuple[int, int]:
        if rung_steps[0] >= rung_steps[1]:
            raise ValueError(f"{list(rung_steps)} does not climb; the second rung must be longer")
        return rung_steps


class SearchSpace(_FileModel):
    """What a run may choose from. Lists of numbers are kept in ascending order.

    Attributes:
        backbones: at least one; the dense networks that are pruned and quantized.
        input_px: sides of the square input, 8 to 1024 px.
        weight_bits: widths that a layer's weights may have; "target" is what the profile offers.
        activation_bits: the same for the activations.
        training: defaults of the run.
        trials: default number of trials.
    """

    schema_version: StrictInt
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    summary: Annotated[str, Field(min_length=1)]
    backbones: Annotated[tuple[Backbone, ...], Unique]
    input_px: Annotated[tuple[_Pixels, ...], Unique, Ascending]
    pruning: Pruning
    weight_bits: Bits = "target"
    activation_bits: Bits = "target"
    training: Training = Training()
    trials: _Count = 100

    @field_validator("schema_version")
    @classmethod
    def _is_readable(cls, version: int) -> int:
        if version > SCHEMA_VERSION:
            raise ValueError(
                f"the file has version {version}, this hwsearch reads {SCHEMA_VERSION}; upgrade it"
            )
        if version < SCHEMA_VERSION:
            raise ValueError(f"version {version} never was; write schema_version: {SCHEMA_VERSION}")
        return version

    @model_validator(mode="after")
    def _has_a_pair(self) -> Self:
        weights, activations = self.weight_bits, self.activation_bits
        if weights == "target" or activations == "target" or min(weights) <= 8:
            return self
        # LayerBits refuses a float weight beside another width.
        if not set(weights) & set(activations):
            text = f"weights of {list(weights)} bits need activations of the same width; add it"
            raise all_mistakes([mistake(("activation_bits",), text)])
        return self

    def admits(self, bits: LayerBits) -> bool:
        """Whether the space lets a layer have these bits; the target decides where it is asked."""
        return _is_in(bits.weight_bits, self.weight_bits) and _is_in(
            bits.activation_bits, self.activation_bits
        )

    def backbone(self, name: str) -> Backbone:
        """The backbone of this name.

        Raises:
            SpaceError: the space has no such backbone.
        """
        names = [backbone.name for backbone in self.backbones]
        if name not in names:
            raise SpaceError(
                f"space '{self.name}' has no backbone '{name}'.{nearest(name, names)} "
                f"Pick one of: {', '.join(names)}"
            )
        return self.backbones[names.index(name)]


def load_space(name_or_path: str | Path) -> SearchSpace:
    """Read a search space by name ("tiny") or path ("my/space.yaml").

    Weights files are resolved against the folder of the space file.

    Raises:
        SpaceError: no such space or weights file.
        FileModelError: all mistakes of the file.
    """
    path = _find(name_or_path)
    space = read_model(path, SearchSpace)
    backbones = tuple(_with_weights(backbone, path) for backbone in space.backbones)
    return space.model_copy(update={"backbones": backbones})


def list_spaces() -> dict[str, Path]:
    """The spaces that can be named, with their files, sorted by name."""
    return named_files("search_spaces")


#: The keys of ``--set`` and where they are in the model.
_SETTINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "backbones": ("backbones",),
    "input_px": ("input_px",),
    "ratios": ("pruning", "ratios"),
    "weight_bits": ("weight_bits",),
    "activation_bits": ("activation_bits",),
    "base_steps": ("training", "base_steps"),
    "rung_steps": ("training", "rung_steps"),
    "final_steps": ("training", "final_steps"),
    "batch_size": ("training", "batch_size"),
    "trials": ("trials",),
}
_LISTS: Final = frozenset(
    {"backbones", "input_px", "ratios", "weight_bits", "activation_bits", "rung_steps"}
)


def apply_settings(space: SearchSpace, settings: Mapping[str, str]) -> SearchSpace:
    """Change a space as ``--set key=value`` asks; lists are written with commas.

    A backbone that the space already has keeps its stem stride, weights and choices.

    Raises:
        SpaceError: an unknown key, or a value that the file would not be allowed to have.
    """
    data: dict[str, Any] = space.model_dump()
    for key, text in settings.items():
        if key not in _SETTINGS:
            known = list(_SETTINGS)
            raise SpaceError(
                f"--set has no key '{key}'.{nearest(key, known)} Pick one of: {', '.join(known)}"
            )
        *outer, last = _SETTINGS[key]
        inside = data[outer[0]] if outer else data
        inside[last] = _read_setting(key, text, space)
    try:
        return SearchSpace.model_validate(data)
    except ValidationError as error:
        raise SpaceError("; ".join(_setting_mistakes(error, settings))) from None


def _read_setting(key: str, text: str, space: SearchSpace) -> object:
    if key == "backbones":
        known = {backbone.name: backbone.model_dump() for backbone in space.backbones}
        return [known.get(name, name) for name in _parts(text)]
    if text.strip() == "target" or key not in _LISTS:
        return _number(text.strip())
    return [_number(part) for part in _parts(text)]


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _number(text: str) -> object:
    # What is no number stays text, so that the model refuses it in its own words.
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _setting_mistakes(error: ValidationError, settings: Mapping[str, str]) -> list[str]:
    """One clause for each mistake, naming the setting as the user wrote it."""
    clauses: Counter[str] = Counter()
    for item in error.errors():
        at = tuple(str(part) for part in item["loc"])
        key = next(key for key, path in _SETTINGS.items() if at[: len(path)] == path)
        message = str(item["msg"]).removeprefix("Value error, ")
        given = settings.get(key)
        setting = key if given is None else f"--set {key}={given}"
        clauses[f"{setting}: {message[:1].lower()}{message[1:]}"] += 1
    return list(clauses)


def _is_in(width: int, allowed: tuple[int, ...] | Literal["target"]) -> bool:
    return allowed == "target" or width in allowed


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.is_file():
        return path
    spaces = list_spaces()
    name = str(name_or_path)
    if name in spaces:
        return spaces[name]
    if len(path.parts) > 1 or path.suffix in {".yaml", ".yml"}:
        raise SpaceError(f"no file '{name}'; give a path to a space, or one of: {_names(spaces)}")
    raise SpaceError(
        f"no search space '{name}'.{nearest(name, spaces)} "
        f"Pick one of: {_names(spaces)}; or give the path of a YAML file"
    )


def _names(spaces: Mapping[str, Path]) -> str:
    return ", ".join(spaces)


def _with_weights(backbone: Backbone, space_file: Path) -> Backbone:
    if backbone.weights is None:
        return backbone
    weights = space_file.parent / Path(backbone.weights).expanduser()
    if not weights.is_file():
        raise SpaceError(
            f"{space_file}: the weights of {backbone.name}, '{weights}', are not there; "
            "give a safetensors file, or remove the key to train from the start"
        )
    return backbone.model_copy(update={"weights": str(weights)})
