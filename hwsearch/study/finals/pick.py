"""Which model to use: the pick, or a baseline in its place, and the reason in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hwsearch.report.stored import BaselineEntry, ModelEntry
from hwsearch.study.finals.dominance import beats, objectives
from hwsearch.units import Budget, Quantity, format_quantity


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to use.

    Attributes:
        picked: a model of the front; None where a baseline is better, or nothing is there.
        baseline: position of the baseline to use in its place.
        reason: one sentence for the report.
        notes: what else the user should know of it.
    """

    picked: ModelEntry | None
    baseline: int | None
    reason: str
    notes: tuple[str, ...] = ()


def choose(
    front: Sequence[ModelEntry],
    baselines: Sequence[BaselineEntry],
    admitted: Sequence[bool],
    budgets: Sequence[Budget],
    quantities: Sequence[Quantity],
) -> Choice:
    """The pick: the most accurate model of the front, unless a baseline is clearly more accurate.

    Args:
        front: of the models.
        baselines: against which it is held.
        admitted: which of these meet the budgets.
        budgets: for the reason.
        quantities: which the search brings down.
    """
    model, position = pick(front), best_baseline(baselines, admitted)
    best = None if position is None else baselines[position]
    if best is not None and model is None:
        return Choice(picked=None, baseline=position, reason=baseline_reason(best))
    if best is not None and model is not None and _clearly_better(best, model):
        reason = (
            f"{best.name} of {best.backbone} meets the budget and is more accurate than all "
            f"searched models, by more than is uncertain ({_against(best, model)})"
        )
        others = unbeaten_notes(front, baselines, admitted, quantities, position)
        return Choice(picked=None, baseline=position, reason=reason, notes=tuple(others))
    said = more_accurate_notes(model, baselines, admitted)
    told = position if said else None
    said += unbeaten_notes(front, baselines, admitted, quantities, told)
    reason = pick_reason(front, model, budgets)
    return Choice(picked=model, baseline=None, reason=reason, notes=tuple(said))


def pick(front: Sequence[ModelEntry]) -> ModelEntry | None:
    """The most accurate model; of equally accurate ones the fastest. None for an empty front."""
    if not front:
        return None
    return min(front, key=lambda m: (-m.accuracy, m.latency_ms.value, m.trial))


def best_baseline(baselines: Sequence[BaselineEntry], admitted: Sequence[bool]) -> int | None:
    """Position of the most accurate admitted baseline, the faster one on a tie; None of none."""
    fitting = [at for at, fits in enumerate(admitted) if fits]
    key = lambda at: (-baselines[at].accuracy, baselines[at].latency_ms.value, at)  # noqa: E731
    return min(fitting, key=key, default=None)


def baseline_reason(best: BaselineEntry) -> str:
    """One sentence for the report where a baseline is the pick."""
    return (
        f"no searched model is better than the baselines; use {best.name} of {best.backbone}, "
        "the most accurate baseline that meets the budget"
    )


def more_accurate_notes(
    picked: ModelEntry | None,
    baselines: Sequence[BaselineEntry],
    admitted: Sequence[bool],
) -> list[str]:
    """A note where a baseline that meets the budget is more accurate than the pick."""
    position = best_baseline(baselines, admitted)
    if picked is None or position is None:
        return []
    best = baselines[position]
    if best.accuracy <= picked.accuracy:
        return []
    return [
        f"more accurate than the pick and within the budget: the baseline {best.name} of "
        f"{best.backbone} ({_against(best, picked)})"
    ]


def unbeaten_notes(
    front: Sequence[ModelEntry],
    baselines: Sequence[BaselineEntry],
    admitted: Sequence[bool],
    quantities: Sequence[Quantity],
    told: int | None,
) -> list[str]:
    """A note on baselines that meet the budget and belong on the front, beside the models.

    Args:
        front: of the models; without one there is no note.
        baselines: of its backbones.
        admitted: which of these meet the budgets.
        quantities: which the search brings down.
        told: position of a baseline of which something else was said.
    """
    if not front:
        return []
    fitting = [at for at, fits in enumerate(admitted) if fits]
    rivals: list[ModelEntry | BaselineEntry] = [*front, *(baselines[at] for at in fitting)]
    offered = [objectives(model, quantities) for model in front]
    beside = [
        baselines[at]
        for at in fitting
        if at != told
        and objectives(baselines[at], quantities) not in offered
        and not any(beats(rival, baselines[at], quantities) for rival in rivals)
    ]
    if not beside:
        return []
    named = ", ".join(
        f"{one.name} of {one.backbone} ({100 * one.accuracy:.1f} % at "
        f"{format_quantity('latency', one.latency_ms.value)})"
        for one in beside
    )
    return [f"no model beats these baselines, which meet the budget: {named}"]


def pick_reason(
    front: Sequence[ModelEntry], picked: ModelEntry | None, budgets: Sequence[Budget]
) -> str:
    """One sentence for the report."""
    if picked is None:
        return "nothing met the budget"
    limits = " and ".join(budget.text for budget in budgets)
    rivals = [
        model
        for model in front
        if model.latency_ms.value < picked.latency_ms.value
        and model.accuracy_ci95[1] >= picked.accuracy
    ]
    text = f"trial {picked.trial} is the most accurate of {len(front)} that meet {limits}"
    if rivals:
        fastest = min(rivals, key=lambda m: m.latency_ms.value)
        latency = format_quantity("latency", fastest.latency_ms.value)
        text += (
            f"; trial {fastest.trial} is faster ({latency}) and within the uncertainty of its "
            "accuracy"
        )
    return text


def _clearly_better(baseline: BaselineEntry, model: ModelEntry) -> bool:
    """More accurate by more than the 95 % interval of the difference."""
    reach = math.hypot(
        baseline.accuracy - baseline.accuracy_ci95[0], model.accuracy_ci95[1] - model.accuracy
    )
    return baseline.accuracy - model.accuracy > reach


def _against(baseline: BaselineEntry, model: ModelEntry) -> str:
    return (
        f"{100 * baseline.accuracy:.1f} % against {100 * model.accuracy:.1f} %, at "
        f"{format_quantity('latency', baseline.latency_ms.value)}"
    )
