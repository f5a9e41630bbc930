"""What people see of a front: every value as the text that a report and a terminal show."""

import unicodedata
from dataclasses import dataclass
from typing import Final, NamedTuple

from hwsearch.report.stored import (
    BaselineEntry,
    ClosestEntry,
    CostEntry,
    FrontFile,
    ModelEntry,
)
from hwsearch.units import Quantity, format_quantity

Entry = ModelEntry | BaselineEntry | ClosestEntry

#: What stands where a value does not exist.
NOTHING: Final = "-"


class Interval(NamedTuple):
    """A value and the ends of its interval, without a unit; as text "8.21 (7.50 to 9.10)"."""

    value: str
    low: str
    high: str

    def __str__(self) -> str:
        return f"{self.value} ({self.low} to {self.high})"


@dataclass(frozen=True, kw_only=True)
class EntryView:
    """A model of the front, a baseline or the closest point.

    Attributes:
        name: "trial 17", or the name of a baseline.
        picked: whether it is the one to use.
        accuracy: on held-out data in %, with its 95 % interval; None for what was not trained.
        latency_ms: with the interval of the prediction or of the timing.
        costs: all costs with their units, in one phrase.
        speed_up: over the dense fp32 baseline, as "2.35 x".
        pruning: channels removed in each stage in %, as "0/25/50/50", or "none".
        bits: how many layers have which, the most frequent first, as "W8A8 x 21, W16A16 x 5".
        verified: accuracy of the exported file in %, latency there in ms, runtime and host; None
            where it was not scored again.
    """

    name: str
    picked: bool
    is_baseline: bool
    backbone: str
    input_px: int
    accuracy: Interval | None
    latency_ms: Interval
    energy_mj: Interval | None
    source: str
    costs: str
    size: str
    mmacs: str
    speed_up: str
    pruning: str
    bits: str
    probability: str
    verified: tuple[str, str, str, str] | None


@dataclass(frozen=True, kw_only=True)
class FrontView:
    """A front with its baselines.

    Attributes:
        models: of the front, the fastest first.
        pick: the one to use, a model or a baseline; None if there is none.
        closest: what misses the budget by the least, where nothing meets it.
        limits: of the budgets, by quantity.
        reachable: the least that any candidate reaches, by quantity.
    """

    models: tuple[EntryView, ...]
    baselines: tuple[EntryView, ...]
    pick: EntryView | None
    closest: EntryView | None
    limits: dict[Quantity, str]
    reachable: dict[Quantity, str]


def view_front(front: FrontFile) -> FrontView:
    """All that is shown of a front."""
    return FrontView(
        models=tuple(view_entry(front, entry) for entry in by_cost(front)),
        baselines=tuple(view_entry(front, entry) for entry in front.baselines),
        pick=None if front.to_use is None else view_entry(front, front.to_use),
        closest=None if front.closest is None else view_entry(front, front.closest),
        limits={b.quantity: format_quantity(b.quantity, b.limit) for b in front.budgets},
        reachable={
            quantity: format_quantity(quantity, least.value)
            for quantity, least in (front.minimum_reachable or {}).items()
        },
    )


def view_entry(front: FrontFile, entry: Entry) -> EntryView:
    """All that is shown of an entry of a front."""
    accuracy = None
    if entry.accuracy is not None and entry.accuracy_ci95 is not None:
        shares = (entry.accuracy, *entry.accuracy_ci95)
        accuracy = Interval(*(f"{100 * share:.1f}" for share in shares))
    latency, energy = entry.latency_ms, entry.energy_mj
    size = format_quantity("size", entry.size_bytes)
    costs = [f"{_interval(latency)} ms {latency.source}"]
    if energy is not None:
        costs.append(f"{_interval(energy)} mJ {energy.source}")
    verified = None
    if entry.verified is not None:
        there_ms = entry.verified.latency_ms
        verified = (
            f"{100 * entry.verified.accuracy:.1f}",
            NOTHING if there_ms is None else digits(there_ms),
            entry.verified.runtime,
            entry.verified.host,
        )
    ratio = speed_up(front, entry)
    stages = [f"{100 * entry.pruning[stage]:.0f}" for stage in sorted(entry.pruning)]
    return EntryView(
        name=entry_name(entry),
        picked=entry is front.to_use,
        is_baseline=isinstance(entry, BaselineEntry),
        backbone=one_line(entry.backbone),
        input_px=entry.input_px,
        accuracy=accuracy,
        latency_ms=_interval(latency),
        energy_mj=None if energy is None else _interval(energy),
        source=latency.source,
        costs=", ".join([*costs, size]),
        size=size,
        mmacs=digits(entry.macs / 1e6),
        speed_up=NOTHING if ratio is None else f"{digits(ratio)} x",
        pruning="/".join(stages) if any(entry.pruning.values()) else "none",
        bits=bits_summary(entry),
        probability=f"{entry.meets_budget_probability:.2f}",
        verified=verified,
    )


def _interval(cost: CostEntry) -> Interval:
    return Interval(digits(cost.value), digits(cost.low), digits(cost.high))


def one_line(text: str) -> str:
    """Text of unknown origin without line breaks, control and direction characters."""
    kept = (" " if unicodedata.category(char)[0] in "CZ" else char for char in text)
    return " ".join("".join(kept).split())


def digits(value: float) -> str:
    """Three significant digits, no unit."""
    return format_quantity("latency", value).split()[0]


def entry_name(entry: Entry) -> str:
    """The trial of a searched model as "trial 17", the name of a baseline."""
    if isinstance(entry, BaselineEntry):
        return one_line(entry.name)
    return "not a trial" if entry.trial is None else f"trial {entry.trial}"


def bits_summary(entry: Entry) -> str:
    """How many layers have which bits, the most frequent first: "W8A8 x 21, W16A16 x 5"."""
    counts = sorted(entry.bits.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{bits} x {layers}" for bits, layers in counts) or NOTHING


def speed_up(front: FrontFile, entry: Entry) -> float | None:
    """Latency of the dense fp32 baseline over that of the entry.

    The baseline is that of the same backbone, or the first one when its backbone has none. None
    when the run has no dense baseline or the entry's latency is 0.
    """
    dense = front.dense_baseline(entry.backbone)
    if dense is None or entry.latency_ms.value == 0:
        return None
    return dense.latency_ms.value / entry.latency_ms.value


def by_cost(front: FrontFile) -> list[ModelEntry]:
    """The models of the front, the fastest first; ties by trial."""
    return sorted(front.front, key=lambda model: (model.latency_ms.value, model.trial))
