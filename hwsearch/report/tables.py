"""The front as rows: ``front.csv``, and the cells that every report shares."""

import csv
import io
import unicodedata
from pathlib import Path
from typing import Final

from hwsearch.report.stored import (
    BaselineEntry,
    ClosestEntry,
    CostEntry,
    FrontFile,
    ModelEntry,
    replace_file,
)
from hwsearch.units import Quantity, format_quantity

Entry = ModelEntry | BaselineEntry | ClosestEntry
Cell = str | int | float | None
Row = dict[str, Cell]

FRONT_CSV: Final = "front.csv"
#: What stands where a value does not exist.
NOTHING: Final = "-"


def one_line(text: str) -> str:
    """Text of unknown origin without line breaks, control and direction characters."""
    kept = (" " if unicodedata.category(char)[0] in "CZ" else char for char in text)
    return " ".join("".join(kept).split())


def entry_name(entry: Entry) -> str:
    """The trial of a searched model as "trial 17", the name of a baseline."""
    if isinstance(entry, BaselineEntry):
        return one_line(entry.name)
    return "not a trial" if entry.trial is None else f"trial {entry.trial}"


def bits_summary(entry: Entry) -> str:
    """How many layers have which bits, the most frequent first: "W8A8 x 21, W16A16 x 5"."""
    counts = sorted(entry.bits.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{bits} x {layers}" for bits, layers in counts) or NOTHING


def pruning_summary(entry: Entry) -> str:
    """The share of channels removed in each stage, in %: "0/25/50/50"."""
    if not any(entry.pruning.values()):
        return "none"
    return "/".join(f"{100 * entry.pruning[stage]:.0f}" for stage in sorted(entry.pruning))


def speed_up(front: FrontFile, entry: Entry) -> float | None:
    """Latency of the dense fp32 baseline over that of the entry.

    The baseline is that of the same backbone, or the first one when its backbone has none. None
    when the run has no dense baseline or the entry's latency is 0.
    """
    dense = front.dense_baseline(entry.backbone)
    if dense is None or entry.latency_ms.value == 0:
        return None
    return dense.latency_ms.value / entry.latency_ms.value


def accuracy_cell(entry: Entry) -> str:
    """Held-out accuracy in % with its 95 % interval: "97.2 (95.8 to 98.3)"."""
    if entry.accuracy is None or entry.accuracy_ci95 is None:
        return "not trained"
    low, high = entry.accuracy_ci95
    return f"{100 * entry.accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def cost_cell(cost: CostEntry | None) -> str:
    """A latency or an energy with its interval and without its unit: "8.21 (7.50 to 9.10)"."""
    if cost is None:
        return NOTHING
    return f"{digits(cost.value)} ({digits(cost.low)} to {digits(cost.high)})"


def digits(value: float) -> str:
    """Three significant digits, no unit."""
    return format_quantity("latency", value).split()[0]


def speed_up_cell(front: FrontFile, entry: Entry) -> str:
    """The speed-up over the dense fp32 baseline: "2.35 x"."""
    ratio = speed_up(front, entry)
    return NOTHING if ratio is None else f"{digits(ratio)} x"


def by_cost(front: FrontFile) -> list[ModelEntry]:
    """The models of the front, the fastest first; ties by trial."""
    return sorted(front.front, key=lambda model: (model.latency_ms.value, model.trial))


def front_rows(front: FrontFile) -> list[Row]:
    """One row for each model of the front, the fastest first; the keys are those of front.csv."""
    stages = sorted({stage for model in front.front for stage in model.pruning})
    return [_row(front, model, stages) for model in by_cost(front)]


def front_csv(front: FrontFile) -> str:
    """The text of ``front.csv``; without a front the header alone."""
    rows = front_rows(front)
    header = list(rows[0]) if rows else list(_FIXED_COLUMNS)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_front_csv(run_folder: Path, front: FrontFile) -> Path:
    """Write ``front.csv`` into a run folder.

    Raises:
        RunError: the folder cannot be written.
    """
    path = run_folder / FRONT_CSV
    replace_file(path, front_csv(front).encode())
    return path


def _row(front: FrontFile, model: ModelEntry, stages: list[str]) -> Row:
    low, high = model.accuracy_ci95
    ratio = speed_up(front, model)
    verified = model.verified
    return {
        "trial": model.trial,
        "pick": "yes" if model.trial == front.pick else "no",
        "backbone": one_line(model.backbone),
        "input_px": model.input_px,
        "accuracy_percent": _percent(model.accuracy),
        "accuracy_ci95_low_percent": _percent(low),
        "accuracy_ci95_high_percent": _percent(high),
        **_cost_columns("latency", model.latency_ms),
        **_cost_columns("energy", model.energy_mj),
        "size_bytes": model.size_bytes,
        "macs": model.macs,
        "speed_up_over_dense_fp32": None if ratio is None else round(ratio, 4),
        "meets_budget_probability": model.meets_budget_probability,
        "bits": bits_summary(model),
        "artefact": None if model.artefact is None else one_line(model.artefact),
        "verified_accuracy_percent": None if verified is None else _percent(verified.accuracy),
        "verified_latency_ms": None if verified is None else verified.latency_ms,
        **{_stage_column(stage): model.pruning.get(stage) for stage in stages},
    }


def _cost_columns(quantity: Quantity, cost: CostEntry | None) -> Row:
    name = {"latency": "latency_ms", "energy": "energy_mj"}[quantity]
    return {
        name: None if cost is None else cost.value,
        f"{name}_low": None if cost is None else cost.low,
        f"{name}_high": None if cost is None else cost.high,
        f"{quantity}_confidence": None if cost is None else cost.confidence,
        f"{quantity}_source": None if cost is None else cost.source,
    }


def _stage_column(stage: str) -> str:
    return f"prune_stage{one_line(stage).removeprefix('stage')}"


def _percent(fraction: float) -> float:
    # Six decimals keep one picture in a million and drop the noise of the multiplication.
    return round(100 * fraction, 6)


#: The header of an empty front: there is no model whose stages could be named.
_FIXED_COLUMNS: Final = (
    "trial",
    "pick",
    "backbone",
    "input_px",
    "accuracy_percent",
    "accuracy_ci95_low_percent",
    "accuracy_ci95_high_percent",
    *_cost_columns("latency", None),
    *_cost_columns("energy", None),
    "size_bytes",
    "macs",
    "speed_up_over_dense_fp32",
    "meets_budget_probability",
    "bits",
    "artefact",
    "verified_accuracy_percent",
    "verified_latency_ms",
)
