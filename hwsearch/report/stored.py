"""The files of a run folder: what the study writes and every report reads.

The models here are the single definition of ``front.json``, ``run.json`` and ``trials.csv``. The
shipped ``front.schema.json`` and ``run.schema.json`` are their JSON schemas.
"""

import csv
import io
import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from hwsearch.bits import LayerBits
from hwsearch.errors import RunError
from hwsearch.files import write_atomically
from hwsearch.hardware.cost import Prediction
from hwsearch.units import CANONICAL_UNIT, Quantity

SCHEMA_VERSION: Final = 1

RUN_FILE: Final = "run.json"
FRONT_FILE: Final = "front.json"
TRIALS_FILE: Final = "trials.csv"

Source = Literal["predicted", "measured"]
TrialState = Literal["completed", "stopped", "over_budget", "duplicate", "failed", "finalized"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Tau = Annotated[float, Field(ge=-1, le=1)]

#: Room for the last digit: Wilson's upper bound at accuracy 1 is 1 only up to rounding.
_ROUNDING: Final = 1e-9


class StoredModel(BaseModel):
    """A part of a stored file, which says nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Open(BaseModel):
    """A nested part of ``run.json`` that may say more than what is needed."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class CostEntry(StoredModel):
    """One cost of a model, with the interval in which it lies at ``confidence``."""

    value: Amount
    low: Amount
    high: Amount
    confidence: Fraction
    source: Source

    @classmethod
    def of(cls, prediction: Prediction) -> "CostEntry":
        """A prediction as the files write it."""
        return cls(
            value=prediction.value,
            low=prediction.low,
            high=prediction.high,
            confidence=prediction.confidence,
            source=prediction.source,
        )

    @model_validator(mode="after")
    def _ordered(self) -> "CostEntry":
        if not self.low - _ROUNDING <= self.value <= self.high + _ROUNDING:
            raise ValueError(f"low {self.low} <= value {self.value} <= high {self.high} must hold")
        return self


class BudgetEntry(StoredModel):
    """An upper limit that was asked for, in the canonical unit of its quantity."""

    quantity: Quantity
    limit: Annotated[float, Field(gt=0)]
    unit: Literal["ms", "mJ", "B"]
    confidence: Fraction

    @model_validator(mode="after")
    def _canonical(self) -> "BudgetEntry":
        if self.unit != CANONICAL_UNIT[self.quantity]:
            expected = CANONICAL_UNIT[self.quantity]
            raise ValueError(f"a {self.quantity} budget is in {expected}, not {self.unit}")
        return self


class ProfileEntry(StoredModel):
    """The hardware profile that priced the run."""

    name: str
    hash: str
    evidence: str
    runtime: str
    power_mode: str | None


class VerifiedEntry(StoredModel):
    """What the exported file reached when it was scored again."""

    accuracy: Fraction
    latency_ms: Amount | None
    runtime: str
    host: str


class _Entry(StoredModel):
    """What a model of the front, a baseline and the closest point have in common.

    Accuracies are fractions on held-out data that the search never saw.
    """

    trial: Count | None
    backbone: str
    input_px: Annotated[int, Field(gt=0)]
    depth: JsonValue
    width: JsonValue
    pruning: dict[str, Fraction]
    weight_bits: dict[str, int]
    activation_bits: dict[str, int]
    accuracy: Fraction | None
    accuracy_ci95: tuple[Fraction, Fraction] | None
    latency_ms: CostEntry
    energy_mj: CostEntry | None
    size_bytes: Count
    macs: Count
    meets_budget_probability: Fraction
    artefact: str | None
    verified: VerifiedEntry | None
    layers: str | None

    @model_validator(mode="after")
    def _consistent(self) -> "_Entry":
        if self.weight_bits.keys() != self.activation_bits.keys():
            raise ValueError("weight_bits and activation_bits must name the same layers")
        for layer, weight_bits in self.weight_bits.items():
            try:
                LayerBits(weight_bits, self.activation_bits[layer])
            except ValueError as error:
                raise ValueError(f"layer {layer}: {error}") from None
        if (self.accuracy is None) != (self.accuracy_ci95 is None):
            raise ValueError("accuracy and accuracy_ci95 go together")
        if self.accuracy is not None and self.accuracy_ci95 is not None:
            low, high = self.accuracy_ci95
            if not low - _ROUNDING <= self.accuracy <= high + _ROUNDING:
                raise ValueError(f"accuracy {self.accuracy} is outside its interval {low} - {high}")
        return self

    @property
    def bits(self) -> Counter[LayerBits]:
        """How many layers have which bits."""
        return Counter(
            LayerBits(bits, self.activation_bits[layer]) for layer, bits in self.weight_bits.items()
        )

    def cost(self, quantity: Quantity) -> CostEntry | None:
        """The cost in the canonical unit of a quantity; a size is exact."""
        if quantity == "latency":
            return self.latency_ms
        if quantity == "energy":
            return self.energy_mj
        size = float(self.size_bytes)
        # Storage follows from the layer shapes and the bits: nothing about it is uncertain.
        return CostEntry(value=size, low=size, high=size, confidence=1.0, source="predicted")


class ModelEntry(_Entry):
    """A model of the front."""

    trial: Count
    accuracy: Fraction
    accuracy_ci95: tuple[Fraction, Fraction]


class BaselineEntry(_Entry):
    """A model that nobody searched for, against which the front is held."""

    name: str
    trial: None
    accuracy: Fraction
    accuracy_ci95: tuple[Fraction, Fraction]


class ClosestEntry(_Entry):
    """The candidate that misses the budget by the least; it need not have been trained."""


class ReachableEntry(StoredModel):
    """The least of one quantity that any candidate reaches."""

    value: Amount
    unit: Literal["ms", "mJ", "B"]


class FrontFile(StoredModel):
    """``front.json``: the front, its baselines and the pick.

    ``closest`` and ``minimum_reachable`` are for a front that is empty because nothing met the
    budget, ``baseline_pick`` (a position in ``baselines``) for one that no model is picked from,
    because a baseline is better; older runs lack ``proxy_kendall_tau_ci90``. The other keys are
    always there.
    """

    schema_version: Literal[1]
    target: str
    alias: str | None
    profile: ProfileEntry
    budgets: Annotated[tuple[BudgetEntry, ...], Field(min_length=1)]
    data: dict[str, JsonValue]
    baselines: tuple[BaselineEntry, ...]
    pick: Count | None
    pick_reason: str
    proxy_kendall_tau: Tau | None
    notes: tuple[str, ...]
    front: tuple[ModelEntry, ...]
    proxy_kendall_tau_ci90: tuple[Tau, Tau] | None = None
    closest: ClosestEntry | None = None
    minimum_reachable: dict[Quantity, ReachableEntry] | None = None
    baseline_pick: Count | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "FrontFile":
        trials = [model.trial for model in self.front]
        if len(set(trials)) != len(trials):
            raise ValueError("a trial is in the front twice")
        if self.pick is not None and self.pick not in trials:
            raise ValueError(f"pick {self.pick} is not a trial of the front {sorted(trials)}")
        if self.pick is not None and self.baseline_pick is not None:
            raise ValueError("the pick is a model or a baseline, not both")
        if self.baseline_pick is not None and self.baseline_pick >= len(self.baselines):
            raise ValueError(f"baseline_pick {self.baseline_pick} is no baseline's position")
        quantities = [budget.quantity for budget in self.budgets]
        if len(set(quantities)) != len(quantities):
            raise ValueError("a quantity has two budgets")
        return self

    @property
    def scored(self) -> tuple[ModelEntry | BaselineEntry, ...]:
        """Front and baselines: all that was trained fully and scored on held-out data."""
        return (*self.front, *self.baselines)

    @property
    def picked(self) -> ModelEntry | None:
        """The model of the front that ``pick`` names."""
        return next((model for model in self.front if model.trial == self.pick), None)

    @property
    def picked_baseline(self) -> BaselineEntry | None:
        """The baseline to use where none of the models is."""
        return None if self.baseline_pick is None else self.baselines[self.baseline_pick]

    @property
    def to_use(self) -> ModelEntry | BaselineEntry | None:
        """The pick, be it a model or a baseline."""
        return self.picked or self.picked_baseline

    def dense_baseline(self, backbone: str) -> BaselineEntry | None:
        """The dense fp32 baseline of a backbone, or the first one of any backbone."""
        dense = [baseline for baseline in self.baselines if baseline.name == "dense-fp32"]
        same = [baseline for baseline in dense if baseline.backbone == backbone]
        return next(iter(same or dense), None)


class HostEntry(_Open):
    """The machine on which the search ran."""

    cpu: str
    cores: int
    memory_gb: float
    os: str
    python: str


class RunProfileEntry(_Open):
    """The hardware profile, by content."""

    name: str
    hash: str
    evidence: str


class DataEntry(_Open):
    """The pictures, by content."""

    content_hash: str


class CountsEntry(_Open):
    """How many trials came to which end."""

    priced: Count
    over_budget: Count
    trained: Count
    stopped: Count
    completed: Count
    duplicates: Count
    failed: Count


class RunFile(StoredModel):
    """``run.json``: what was asked, where and with what it ran. ``finished`` is null until then."""

    schema_version: Literal[1]
    command: str
    configuration: dict[str, JsonValue]
    fingerprint: str
    versions: dict[str, str]
    seed: int
    workers: Count = 1
    host: HostEntry
    data: DataEntry
    profile: RunProfileEntry
    started: datetime
    finished: datetime | None
    wall_s: dict[str, Amount]
    counts: CountsEntry
    sampler: str


class TrialRow(StoredModel):
    """One line of ``trials.csv``; an empty cell is None. Accuracies are fractions."""

    trial: Count
    state: TrialState
    candidate: str | None
    backbone: str | None
    input_px: int | None
    prune_stage1: Fraction | None
    prune_stage2: Fraction | None
    prune_stage3: Fraction | None
    prune_stage4: Fraction | None
    mean_weight_bits: Amount | None
    mean_activation_bits: Amount | None
    rung: Count | None
    accuracy_rung0: Fraction | None
    accuracy_rung1: Fraction | None
    accuracy_rung2: Fraction | None
    validation_accuracy: Fraction | None
    latency_ms: Amount | None
    latency_ms_low: Amount | None
    latency_ms_high: Amount | None
    energy_mj: Amount | None
    energy_mj_low: Amount | None
    energy_mj_high: Amount | None
    size_bytes: Amount | None
    macs: Amount | None
    meets_budget_probability: Fraction | None
    reason: str | None
    train_s: Amount | None
    knobs: str | None

    @property
    def best_known_accuracy(self) -> float | None:
        """The validation accuracy, or that of the last rung of a trial that was stopped early."""
        ladder = (
            self.validation_accuracy,
            self.accuracy_rung2,
            self.accuracy_rung1,
            self.accuracy_rung0,
        )
        return next((accuracy for accuracy in ladder if accuracy is not None), None)

    def cost(self, quantity: Quantity) -> float | None:
        """The predicted cost in the canonical unit of a quantity."""
        if quantity == "latency":
            return self.latency_ms
        return self.energy_mj if quantity == "energy" else self.size_bytes


#: The header of ``trials.csv``.
TRIAL_COLUMNS: Final = tuple(TrialRow.model_fields)


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """Everything that a report needs, as read from one run folder."""

    folder: Path
    run: RunFile
    front: FrontFile
    trials: tuple[TrialRow, ...]


FileT = TypeVar("FileT", bound=StoredModel)


def read_run(folder: Path) -> StoredRun:
    """Read and check the stored results of a run.

    Raises:
        RunError: the folder or one of its files is missing, cannot be read, was written by a
            newer version, or is not what this module describes.
    """
    if not folder.is_dir():
        raise RunError(f"{folder} is not a folder; give a run folder, as they are in results/")
    return StoredRun(
        folder=folder,
        run=read_run_file(folder),
        front=read_front(folder),
        trials=_read_trials(folder / TRIALS_FILE),
    )


def read_front(folder: Path) -> FrontFile:
    """Read and check ``front.json`` alone; raises ``RunError`` as ``read_run`` does."""
    return read_stored(folder / FRONT_FILE, FrontFile)


def read_run_file(folder: Path) -> RunFile:
    """Read and check ``run.json`` alone; raises ``RunError`` as ``read_run`` does."""
    return read_stored(folder / RUN_FILE, RunFile)


def read_stored(path: Path, model: type[FileT]) -> FileT:
    """Read and check a JSON file of a run folder; raises ``RunError`` as ``read_run`` does."""
    text = _read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise RunError(f"{path} is not JSON; take it from a backup or run again") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise RunError(
            f"{path} has schema_version {version} and this hwsearch reads {SCHEMA_VERSION}; "
            "install a newer hwsearch"
        )
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise RunError(_problem(str(path), error)) from None


def schema_text(model: type[RunFile] | type[FrontFile]) -> str:
    """The JSON schema (draft 2020-12) of a file, as it ships with the package."""
    name = "run" if model is RunFile else "front"
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"hwsearch {name}.json",
        **{key: value for key, value in model.model_json_schema().items() if key != "title"},
    }
    return json.dumps(schema, indent=1) + "\n"


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Raises:
        RunError: the folder cannot be written.
    """
    try:
        # A report is to be shared.
        write_atomically(path, content, mode=0o644)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}); free or unlock it") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path.name == RUN_FILE:
            raise RunError(f"{path.parent} holds no run ({RUN_FILE} is missing)") from None
        raise RunError(
            f"{path.parent} has no {path.name}, so the run has not finished; "
            f"continue it with: hwsearch run --resume {path.parent}"
        ) from None
    except UnicodeDecodeError:
        raise RunError(f"{path} is not UTF-8 text; take it from a backup or run again") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); check its permissions") from None


def _read_trials(path: Path) -> tuple[TrialRow, ...]:
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""), strict=True)
    rows: list[TrialRow] = []
    try:
        header = tuple(reader.fieldnames or ())
        if set(header) != set(TRIAL_COLUMNS) or len(header) != len(TRIAL_COLUMNS):
            odd = sorted(set(header) ^ set(TRIAL_COLUMNS)) or ["one is given twice"]
            raise RunError(
                f"{path} has other columns than hwsearch writes ({', '.join(odd)}); "
                "use the version named in run.json"
            )
        for cells in reader:
            # A short line leaves None, a long one a list under the key None: both are refused.
            if None in cells or None in cells.values():
                raise RunError(f"{path}:{reader.line_num}: not {len(TRIAL_COLUMNS)} cells")
            filled = {key: None if cell == "" else cell for key, cell in cells.items()}
            rows.append(TrialRow.model_validate(filled))
    except csv.Error as error:
        raise RunError(f"{path}:{reader.line_num}: {error}") from None
    except ValidationError as error:
        raise RunError(_problem(f"{path}:{reader.line_num}", error)) from None
    return tuple(rows)


def _problem(where: str, error: ValidationError) -> str:
    """All that pydantic found, on one line: the first mistake and how many more there are."""
    first, *rest = error.errors(include_url=False)
    key = ".".join(str(part) for part in first["loc"]) or "the file"
    more = f" (and {len(rest)} more)" if rest else ""
    message = " ".join(first["msg"].removeprefix("Value error, ").split())
    return f"{where}: {key}: {message}{more}; take it from a backup or run again"
