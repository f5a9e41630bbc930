"""The least that any candidate of a space costs, and what is said where no budget admits it."""

from collections.abc import Sequence
from dataclasses import dataclass

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.hardware.cost import Cost
from hwsearch.report.stored import ClosestEntry, ReachableEntry
from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import Knobs
from hwsearch.study.asked.admission import Admission, upper_of
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.candidates.pricing_context import PricingContext
from hwsearch.study.finals.evidence import EvidenceFile
from hwsearch.study.trials.records import Record
from hwsearch.study.written.output import entry, profile_entry
from hwsearch.units import CANONICAL_UNIT, Quantity, format_quantity


@dataclass(frozen=True, kw_only=True)
class Reachable:
    """The least that any candidate of the space can cost.

    Attributes:
        admitted: whether some backbone can meet all budgets.
        least: of each quantity with a budget, the smallest limit that could be met.
        closest: knobs and cost of the smallest network that misses the budgets by the least.
    """

    admitted: bool
    least: dict[Quantity, float]
    closest: tuple[Knobs, Cost, Admission]


def reachable(pricing: PricingContext) -> Reachable:
    """Price the smallest network of every backbone at every input size."""
    settings = pricing.settings
    points = []
    for backbone in settings.space.backbones:
        for px in settings.space.input_px:
            knobs = Knobs(backbone=backbone.name, input_px=px)
            cost, _ = pricing.cheapest(knobs)
            points.append((knobs, cost, pricing.admit(cost)))
    return Reachable(
        admitted=any(admitted.admitted for _, _, admitted in points),
        least={
            budget.quantity: min(
                upper_of(cost, budget.quantity, settings.confidence) for _, cost, _ in points
            )
            for budget in settings.budgets
        },
        closest=min(points, key=lambda point: point[2].worst),
    )


def reachable_text(least: Reachable, settings: RunSettings) -> str:
    """One line: what was asked, and the least that this space reaches on this target."""
    asked = " and ".join(budget.text for budget in settings.budgets)
    parts = [f"{format_quantity(q, value)} ({q})" for q, value in least.least.items()]
    return (
        f"no candidate of space '{settings.space.name}' meets {asked} on {settings.target} at "
        f"confidence {settings.confidence:g}; the least that is reachable is {' and '.join(parts)}"
    )


def no_evidence(
    pricing: PricingContext, data: DataSet, least: Reachable, records: Sequence[Record]
) -> EvidenceFile:
    """What is stored of a run in which nothing met the budget, with the closest point."""
    knobs, cost, admitted = least.closest
    _, network = pricing.cheapest(knobs)
    ratio = max(pricing.settings.space.pruning.ratios)
    candidate = Candidate.build(
        backbone=knobs.backbone,
        input_px=knobs.input_px,
        pruning=(ratio,) * 4,
        channels={},
        bits={kernel.name: kernel.bits for kernel in network.weighted},
    )
    return EvidenceFile(
        schema_version=1,
        target=pricing.profile.name,
        alias=pricing.settings.alias,
        profile=profile_entry(pricing.profile),
        data=data.describe(),
        notes=(f"{len(records)} candidates were priced",) if records else (),
        networks=(),
        closest=ClosestEntry(**entry(candidate, cost, admitted, None, trial=None, layers=None)),
        minimum_reachable={
            quantity: ReachableEntry(value=value, unit=CANONICAL_UNIT[quantity])
            for quantity, value in least.least.items()
        },
    )
