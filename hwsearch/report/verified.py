"""``verify.json``: what one exported file reached when it was scored and timed again.

The shipped ``verify.schema.json`` is its JSON schema.
"""

import json
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError, model_validator

from hwsearch.errors import RunError
from hwsearch.report.stored import Amount, Count, Fraction, StoredModel, replace_file

VERIFY_FILE: Final = "verify.json"

BitsText = Annotated[str, Field(pattern=r"^W\d+A\d+$")]
Positive = Annotated[float, Field(gt=0)]


class MeasuredLatency(StoredModel):
    """The latency of one inference at batch 1, timed.

    Attributes:
        low: of the interval in which another measurement lies at ``confidence``.
        sigma_log: standard deviation of the logarithm behind that interval.
        place: "host", "ssh://..." or "trtexec log".
        of_target: the runtime there is the target's, so that the figure replaces the predicted one.
        noise_floor_percent: how far two halves of the rounds differ; null for a log.
    """

    value: Positive
    low: Positive
    high: Positive
    confidence: Fraction
    sigma_log: Amount
    place: str
    runtime: str
    device: str
    of_target: bool
    threads: Count | None
    noise_floor_percent: Amount | None

    @model_validator(mode="after")
    def _ordered(self) -> "MeasuredLatency":
        if not self.low <= self.value <= self.high:
            raise ValueError(f"low {self.low} <= value {self.value} <= high {self.high} must hold")
        return self


class LayerDifference(StoredModel):
    """The bits of a layer that does not run as it was asked to."""

    asked: BitsText
    realised: BitsText


class VerifyFile(StoredModel):
    """``verify.json``.

    Attributes:
        file_hash: SHA-256 of the file, so that nothing is said of another one.
        pictures: of the held-out set, all of it.
        correct: right answers of the file among them; null where it was refused.
        runtime: that scored the file.
        layers: how many weighted layers the file has.
        differences: layers that run in other bits there than was asked, by path.
        refused: why the file cannot be used; null where it can.
        searched_accuracy: of the module; only in files of older versions.
    """

    schema_version: Literal[1]
    file: str
    file_hash: str
    pictures: Annotated[int, Field(gt=0)]
    correct: Count | None
    runtime: str
    host: str
    layers: Count
    differences: dict[str, LayerDifference]
    latency_ms: MeasuredLatency | None
    refused: str | None
    searched_accuracy: Fraction | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "VerifyFile":
        if (self.correct is None) == (self.refused is None):
            raise ValueError("a file is either scored or refused")
        if self.correct is not None and self.correct > self.pictures:
            raise ValueError(f"{self.correct} right of {self.pictures} pictures is no score")
        return self

    @property
    def accuracy(self) -> float | None:
        """Share of right answers."""
        return None if self.correct is None else self.correct / self.pictures


def write_verified(folder: Path, verified: VerifyFile) -> None:
    """Write ``verify.json`` into the folder of a model; raises ``RunError`` if it cannot."""
    content = verified.model_dump_json(indent=1) + "\n"
    replace_file(folder / VERIFY_FILE, content.encode())


def read_verified(folder: Path) -> VerifyFile | None:
    """Read ``verify.json`` of a model; None if there is none.

    Raises:
        RunError: it cannot be read or is not what this module describes.
    """
    path = folder / VERIFY_FILE
    try:
        return VerifyFile.model_validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RunError(
            f"{path}: {key}: {' '.join(first['msg'].split())}; remove it and verify again"
        ) from None


def verify_schema_text() -> str:
    """The JSON schema (draft 2020-12) of ``verify.json``, as it ships with the package."""
    content = VerifyFile.model_json_schema()
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hwsearch verify.json",
        **{key: value for key, value in content.items() if key != "title"},
    }
    return json.dumps(schema, indent=1) + "\n"
