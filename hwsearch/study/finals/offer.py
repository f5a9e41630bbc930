"""From fully trained networks to what is offered: ``front.json``, also when nothing fits."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hwsearch.accuracy.agreement import Agreement, agreement
from hwsearch.hardware.cost import Cost
from hwsearch.report.stored import (
    BaselineEntry,
    ClosestEntry,
    FrontFile,
    ModelEntry,
    ReachableEntry,
)
from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import Knobs
from hwsearch.study.asked.admission import Admission, admission, upper_of
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.candidates.workbench import Workbench
from hwsearch.study.finals.finalize import FinalScore
from hwsearch.study.finals.front import (
    Choice,
    choose,
    extrapolation_notes,
    never_worse,
    notes,
)
from hwsearch.study.trials.records import Record
from hwsearch.study.written.output import budget_entries, entry, profile_entry
from hwsearch.units import CANONICAL_UNIT, Quantity, format_quantity

#: Fewer pairs say nothing about a rank correlation.
_LEAST_PAIRS = 4


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


def reachable(bench: Workbench) -> Reachable:
    """Price the smallest network of every backbone at every input size."""
    settings = bench.settings
    points = []
    for backbone in settings.space.backbones:
        for px in settings.space.input_px:
            knobs = Knobs(backbone=backbone.name, input_px=px)
            cost, _ = bench.cheapest(knobs)
            points.append((knobs, cost, admission(cost, settings.budgets, settings.confidence)))
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


def make_front(
    bench: Workbench,
    chosen: Sequence[Record],
    baselines: Sequence[tuple[str, Candidate]],
    finals: Mapping[str, FinalScore],
    folders: Mapping[str, str],
) -> tuple[FrontFile, FrontFile, list[str]]:
    """Score, guard and pick.

    Returns:
        The file, the same with all models that were scored (``searched.json``), and notes about
        models that were dropped.
    """
    settings = bench.settings
    models = []
    for record in chosen:
        assert record.candidate is not None
        models.append(
            ModelEntry(**_scored(bench, record.candidate, finals, folders, trial=record.trial))
        )
    base = [
        BaselineEntry(name=label, **_scored(bench, candidate, finals, folders, trial=None))
        for label, candidate in baselines
    ]
    offered, refused = never_worse(models, base, settings.quantities)
    fitting = [_admission(bench, bench.price(one)).admitted for _, one in baselines]
    choice = choose(offered, base, fitting, settings.budgets, settings.quantities)
    picked = choice.picked
    dropped = [f"trial {model.trial} is not offered: {reason}" for model, reason in refused]
    said: list[str] = []
    if picked is not None:
        by_trial = {record.trial: record for record in chosen}
        cost = by_trial[picked.trial].cost
        assert cost is not None
        admitted = _admission(bench, cost)
        said = notes(picked, cost, admitted, settings.budgets, settings.confidence)
    elif base and not offered:
        said = ["no model beats the baselines; use the best baseline that meets the budget"]
    said = [*said, *choice.notes, *_extrapolated(chosen, {model.trial for model in offered}, bench)]
    front = _file(bench, offered, base, choice, said, _agreement(chosen, finals), None, None)
    searched = front.model_copy(update={"front": tuple(models)})
    return front.model_copy(update={"notes": (*said, *dropped)}), searched, dropped


def _extrapolated(
    chosen: Sequence[Record], offered: Collection[int], bench: Workbench
) -> list[str]:
    """A note on models that the profile was not fitted to the like of, if there are any."""
    trials = [
        record.trial
        for record in chosen
        if record.trial in offered
        and record.cost is not None
        and record.cost.latency_ms.extrapolated
    ]
    return extrapolation_notes(trials, bench.profile.name)


def empty_front(bench: Workbench, least: Reachable, records: Sequence[Record]) -> FrontFile:
    """The file for a run in which nothing met the budget, with the closest point."""
    knobs, cost, admitted = least.closest
    _, network = bench.cheapest(knobs)
    ratio = max(bench.settings.space.pruning.ratios)
    candidate = Candidate.build(
        backbone=knobs.backbone,
        input_px=knobs.input_px,
        pruning=(ratio,) * 4,
        channels={},
        bits={kernel.name: kernel.bits for kernel in network.weighted},
    )
    closest = ClosestEntry(**entry(candidate, cost, admitted, None, trial=None, layers=None))
    minimum = {
        quantity: ReachableEntry(value=value, unit=CANONICAL_UNIT[quantity])
        for quantity, value in least.least.items()
    }
    said = [f"{len(records)} candidates were priced"] if records else []
    return _file(bench, [], [], choose([], [], [], (), ()), said, None, closest, minimum)


def _scored(
    bench: Workbench,
    candidate: Candidate,
    finals: Mapping[str, FinalScore],
    folders: Mapping[str, str],
    *,
    trial: int | None,
) -> dict[str, object]:
    cost, held_out = bench.price(candidate), finals[candidate.id].held_out
    layers = f"models/{folders[candidate.id]}/layers.csv"
    return entry(candidate, cost, _admission(bench, cost), held_out, trial=trial, layers=layers)


def _admission(bench: Workbench, cost: Cost) -> Admission:
    return admission(cost, bench.settings.budgets, bench.settings.confidence)


def _agreement(chosen: Sequence[Record], finals: Mapping[str, FinalScore]) -> Agreement | None:
    """Between the last short score and the final validation score."""
    pairs = [
        (record.accuracy, finals[record.candidate.id].validation.accuracy)
        for record in chosen
        if record.candidate is not None and record.accuracy is not None
    ]
    if len(pairs) < _LEAST_PAIRS:
        return None
    return agreement([short for short, _ in pairs], [full for _, full in pairs])


def _file(
    bench: Workbench,
    offered: Sequence[ModelEntry],
    base: Sequence[BaselineEntry],
    choice: Choice,
    said: Sequence[str],
    agreed: Agreement | None,
    closest: ClosestEntry | None,
    minimum: dict[Quantity, ReachableEntry] | None,
) -> FrontFile:
    settings, profile = bench.settings, bench.profile
    return FrontFile(
        schema_version=1,
        target=profile.name,
        alias=settings.alias,
        profile=profile_entry(profile),
        budgets=budget_entries(settings),
        data=bench.data.describe(),
        baselines=tuple(base),
        pick=None if choice.picked is None else choice.picked.trial,
        pick_reason=choice.reason,
        proxy_kendall_tau=None if agreed is None else agreed.tau,
        proxy_kendall_tau_ci90=None if agreed is None else (agreed.low, agreed.high),
        notes=tuple(said),
        front=tuple(offered),
        closest=closest,
        minimum_reachable=minimum,
        baseline_pick=choice.baseline,
    )
