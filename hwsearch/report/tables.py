"""The front as rows: ``front.csv``."""

import csv
import io
from typing import Final

from hwsearch.report.stored import CostEntry, FrontFile, ModelEntry
from hwsearch.report.view import bits_summary, by_cost, one_line, speed_up
from hwsearch.units import Quantity

Cell = str | int | float | None
Row = dict[str, Cell]

FRONT_CSV: Final = "front.csv"


def front_csv(front: FrontFile) -> str:
    """The text of ``front.csv``: a row for each model, the fastest first, below the header."""
    stages = sorted({stage for model in front.front for stage in model.pruning})
    text = io.StringIO(newline="")
    header = [*_FIXED_COLUMNS, *dict.fromkeys(map(_stage_column, stages))]
    writer = csv.DictWriter(text, fieldnames=header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(front, model, stages) for model in by_cost(front))
    return text.getvalue()


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


#: The columns of every front; those of its stages follow.
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
