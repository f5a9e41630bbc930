"""``front.json`` of a run at the costs of another target: the same networks and accuracies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from hwsearch.hardware.cost import Cost
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.report.stored import (
    BaselineEntry,
    ClosestEntry,
    CostEntry,
    FrontFile,
    ModelEntry,
)
from hwsearch.retarget.pricing import Priced
from hwsearch.study.asked.admission import Admission, admission
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.finals.front import (
    choose,
    extrapolation_notes,
    never_worse,
    notes,
)
from hwsearch.study.written.output import budget_entries, profile_entry
from hwsearch.units import Quantity

EntryT = TypeVar("EntryT", ModelEntry, BaselineEntry)

#: More trials than this are counted in a note, not listed.
_MOST_LISTED: Final = 6


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A network that was trained fully, and what it costs on the target."""

    entry: ModelEntry | BaselineEntry
    priced: Priced


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a run is priced again for.

    Attributes:
        settings: of the run, with the other target and its budgets.
        quantities: what is brought down; without energy where the target has no energy model.
        searched_for: name of the profile that the run was made for.
        same: whether that is the very profile.
    """

    settings: RunSettings
    profile: HardwareProfile
    quantities: tuple[Quantity, ...]
    searched_for: str
    same: bool


def repriced_front(
    searched: FrontFile, scored: Sequence[Scored], asked: Asked, more_notes: Sequence[str]
) -> FrontFile:
    """Front, baselines and pick under the budgets; accuracies are those of the run.

    Args:
        searched: of the run.
        scored: models and baselines, in its order.
        asked: target and budgets.
        more_notes: what else the user should know.
    """
    settings = asked.settings
    models: list[tuple[ModelEntry, Scored]] = []
    baselines: list[tuple[BaselineEntry, Admission]] = []
    for one in scored:
        cost = one.priced.cost
        if cost is None:
            continue
        if isinstance(one.entry, ModelEntry):
            models.append((_with_cost(one.entry, cost, settings), one))
        else:
            entry = _with_cost(one.entry, cost, settings)
            baselines.append((entry, _admission(cost, settings)))
    costs = {model.trial: _cost(one) for model, one in models}
    admitted = {trial: _admission(cost, settings) for trial, cost in costs.items()}
    rivals = [entry for entry, _ in baselines]
    fitting = [model for model, _ in models if admitted[model.trial].admitted]
    offered, beaten = never_worse(fitting, rivals, asked.quantities)
    rivals_fit = [fits.admitted for _, fits in baselines]
    choice = choose(offered, rivals, rivals_fit, settings.budgets, asked.quantities)
    picked = choice.picked
    said = [*_origin_notes(asked), *_left_out(scored), *more_notes]
    if picked is not None:
        said += notes(
            picked, costs[picked.trial], admitted[picked.trial], settings.budgets,
            settings.confidence,
        )  # fmt: skip
    said += choice.notes
    said += _fit_notes([one for model, one in models if model in offered], asked)
    far = [m.trial for m in offered if costs[m.trial].latency_ms.extrapolated]
    said += extrapolation_notes(sorted(far), asked.profile.name)
    said += [f"trial {model.trial} is not offered: {why}" for model, why in beaten]
    nothing = picked is None and choice.baseline is None
    return searched.model_copy(
        update={
            "target": settings.target,
            "alias": settings.alias,
            "profile": profile_entry(asked.profile),
            "budgets": budget_entries(settings),
            "baselines": tuple(rivals),
            "pick": None if picked is None else picked.trial,
            "pick_reason": choice.reason,
            "notes": tuple(said),
            "front": tuple(offered),
            "closest": _closest(models, admitted) if nothing else None,
            "minimum_reachable": None,
            "baseline_pick": choice.baseline,
        }
    )


def _with_cost(entry: EntryT, cost: Cost, settings: RunSettings) -> EntryT:
    """The entry at another cost; files that were made of it are those of the run, not these."""
    changes: dict[str, Any] = {
        "latency_ms": CostEntry.of(cost.latency_ms),
        "energy_mj": None if cost.energy_mj is None else CostEntry.of(cost.energy_mj),
        "size_bytes": cost.size_bytes,
        "macs": cost.macs,
        "meets_budget_probability": _admission(cost, settings).probability,
        "artefact": None,
        "verified": None,
        "layers": None,
    }
    return entry.model_copy(update=changes)


def _cost(one: Scored) -> Cost:
    assert one.priced.cost is not None
    return one.priced.cost


def _admission(cost: Cost, settings: RunSettings) -> Admission:
    return admission(cost, settings.budgets, settings.confidence)


def _closest(
    models: Sequence[tuple[ModelEntry, Scored]], admitted: dict[int, Admission]
) -> ClosestEntry | None:
    if not models:
        return None
    nearest = min((model for model, _ in models), key=lambda model: admitted[model.trial].worst)
    return ClosestEntry(**{name: getattr(nearest, name) for name in ClosestEntry.model_fields})


# -- what the user should know -------------------------------------------------------------------


def _origin_notes(asked: Asked) -> list[str]:
    name = asked.profile.name
    if asked.same:
        return [f"these are the predicted costs of the run, made for {name}"]
    budgets = " ".join(f"--budget {text}" for text in asked.settings.budget_texts)
    return [
        f"nothing was searched for {name}: networks and accuracies are those of a run for "
        f"{asked.searched_for}, and only their costs are predicted anew; better ones may be found "
        f"with: hwsearch run --target {name} {budgets}"
    ]


def _left_out(scored: Sequence[Scored]) -> list[str]:
    """Why fully trained networks have no cost on the target, and how many of them."""
    names: dict[tuple[str, str], list[str]] = {}
    for one in scored:
        if one.priced.refusal is not None:
            kind = "trial" if isinstance(one.entry, ModelEntry) else "baseline"
            key = (kind, one.priced.refusal)
            names.setdefault(key, []).append(_short_name(one.entry))
    texts = []
    for (kind, refusal), listed in names.items():
        others = " and others" if len(listed) > _MOST_LISTED else ""
        which = ", ".join(listed[:_MOST_LISTED]) + others
        plural = "" if len(listed) == 1 else "s"
        texts.append(f"{len(listed)} {kind}{plural} left out ({which}): {refusal}")
    return texts


def _short_name(entry: ModelEntry | BaselineEntry) -> str:
    if isinstance(entry, BaselineEntry):
        return f"{entry.name} of {entry.backbone}"
    return str(entry.trial)


def _fit_notes(offered: Sequence[Scored], asked: Asked) -> list[str]:
    """Where channels or bits suit the device of the run, not this one."""
    name, block = asked.profile.name, asked.profile.channel_granularity
    bits = [one for one in offered if one.priced.odd_layers]
    channels = [one for one in offered if one.priced.odd_groups]
    texts = []
    if bits:
        listed = ", ".join(
            f"{_short_name(one.entry)} ({one.priced.odd_layers} layers)" for one in bits
        )
        texts.append(
            f"bits were chosen by what they save on {asked.searched_for}; {name} gains nothing "
            f"from those of trial {listed}"
        )
    if channels:
        listed = ", ".join(
            f"{_short_name(one.entry)} ({one.priced.odd_groups} of {one.priced.groups})"
            for one in channels
        )
        texts.append(
            f"pruned channels were rounded for {asked.searched_for}; {name} computes in blocks of "
            f"{block}, which these groups of trial {listed} do not fill"
        )
    return texts
