"""What is offered once files were scored and timed: ``front.json`` from what is known of each.

A front is made anew each time from the searched one and what lies in the folders of its models,
so that verifying again, elsewhere or after another export, leaves nothing of the time before.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final, TypeVar

from hwsearch.bits import LayerBits
from hwsearch.deploy.realised import difference_text
from hwsearch.hardware.cost import Cost, Prediction
from hwsearch.hardware.runtime_family import family_of
from hwsearch.report.stored import (
    BaselineEntry,
    ClosestEntry,
    CostEntry,
    FrontFile,
    ModelEntry,
    VerifiedEntry,
)
from hwsearch.report.verified import VerifyFile
from hwsearch.study.asked.admission import Admission, admission
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.finals.front import (
    MORE_ACCURATE,
    UNBEATEN,
    Choice,
    choose,
    never_worse,
    notes,
)
from hwsearch.units import format_quantity

EntryT = TypeVar("EntryT", ModelEntry, BaselineEntry)

#: What export may cost without a word, in points: more than one picture in 500.
TOLERATED_POINTS: Final = 0.2
#: Beginnings of notes that were true before anything was verified only.
_STALE: Final = ("the budget ", "no model beats the baselines", MORE_ACCURATE, UNBEATEN)
#: The same of a note about predictions.
_EXTRAPOLATED: Final = "the latency of trial "


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """What lies in the folder of a model.

    Attributes:
        artefact: path of the file within the run folder; None where there is none.
        verified: of that very file; None where it was not verified.
        refused: why it could not be exported.
    """

    artefact: str | None = None
    verified: VerifyFile | None = None
    refused: str | None = None


def offered_front(
    searched: FrontFile, states: Mapping[str, ModelState], settings: RunSettings
) -> FrontFile:
    """The front that is offered.

    Args:
        searched: as the search ended.
        states: by the path of ``layers.csv`` of each model and baseline.
        settings: of the run.
    """
    models = [_with_state(model, states, settings) for model in searched.front]
    baselines = [_with_state(baseline, states, settings) for baseline in searched.baselines]
    left, dropped = [], []
    for model in models:
        reason = _refusal(model, states, settings)
        if reason is None:
            left.append(model)
        else:
            dropped.append((model, reason))
    offered, beaten = _guarded(left, baselines, searched, settings)
    dropped += beaten
    choice = choose(
        [_as_shipped(model) for model in offered],
        [_as_shipped(baseline) for baseline in baselines],
        [_admission(baseline, settings).admitted for baseline in baselines],
        settings.budgets,
        settings.quantities,
    )
    best = choice.picked
    picked = next((m for m in offered if best is not None and m.trial == best.trial), None)
    closest = None
    if searched.front and picked is None and choice.baseline is None:
        closest = _closest(models, settings)
    return searched.model_copy(
        update={
            "front": tuple(offered),
            "baselines": tuple(baselines),
            "pick": None if picked is None else picked.trial,
            "baseline_pick": choice.baseline,
            "closest": closest or searched.closest,
            "pick_reason": choice.reason,
            "notes": tuple(
                _notes(searched, offered, picked, choice, dropped, baselines, states, settings)
            ),
        }
    )


def cost_of(entry: ModelEntry | BaselineEntry) -> Cost:
    """The cost that an entry holds, with the distribution behind its intervals."""
    return Cost(
        latency_ms=_prediction(entry.latency_ms),
        energy_mj=None if entry.energy_mj is None else _prediction(entry.energy_mj),
        size_bytes=entry.size_bytes,
        macs=entry.macs,
    )


def _prediction(cost: CostEntry) -> Prediction:
    z = NormalDist().inv_cdf((1 + cost.confidence) / 2)
    return Prediction(
        value=cost.value,
        low=cost.low,
        high=cost.high,
        confidence=cost.confidence,
        source=cost.source,
        sigma_log=math.log(cost.high / cost.low) / (2 * z),
    )


def _admission(entry: ModelEntry | BaselineEntry, settings: RunSettings) -> Admission:
    return admission(cost_of(entry), settings.budgets, settings.confidence)


def _with_state(entry: EntryT, states: Mapping[str, ModelState], settings: RunSettings) -> EntryT:
    """An entry with its file, and what was measured in place of what was predicted."""
    state = states.get(entry.layers or "", ModelState())
    changes: dict[str, Any] = {"artefact": state.artefact}
    verified = state.verified
    if verified is None or verified.accuracy is None:
        return entry.model_copy(update=changes)
    measured = verified.latency_ms
    changes["verified"] = VerifiedEntry(
        accuracy=verified.accuracy,
        latency_ms=None if measured is None else measured.value,
        runtime=verified.runtime,
        host=verified.host if measured is None else measured.device,
    )
    if measured is not None and measured.of_target:
        changes["latency_ms"] = CostEntry(
            value=measured.value,
            low=measured.low,
            high=measured.high,
            confidence=measured.confidence,
            source="measured",
        )
    changed = entry.model_copy(update=changes)
    probability = _admission(changed, settings).probability
    return changed.model_copy(update={"meets_budget_probability": probability})


def _refusal(
    model: ModelEntry, states: Mapping[str, ModelState], settings: RunSettings
) -> str | None:
    state = states.get(model.layers or "", ModelState())
    if state.refused is not None:
        return state.refused
    if state.verified is not None and state.verified.refused is not None:
        return state.verified.refused
    latency = model.latency_ms
    if latency.source == "measured" and not _admission(model, settings).admitted:
        limits = " and ".join(budget.text for budget in settings.budgets)
        return (
            f"measured {format_quantity('latency', latency.value)} "
            f"({format_quantity('latency', latency.low)} to "
            f"{format_quantity('latency', latency.high)}) misses {limits} at confidence "
            f"{settings.confidence:g}"
        )
    return None


def _guarded(
    models: Sequence[ModelEntry],
    baselines: Sequence[BaselineEntry],
    searched: FrontFile,
    settings: RunSettings,
) -> tuple[list[ModelEntry], list[tuple[ModelEntry, str]]]:
    """The models that no baseline and no other model beats, and the others with the reason.

    Measured latencies are held against measured ones only: unless everything was measured, the
    predicted ones decide.
    """
    by_trial = {model.trial: model for model in models}
    ranked, rivals = list(models), list(baselines)
    if _mixed([*models, *baselines]):
        predicted = {entry.layers: {"latency_ms": entry.latency_ms} for entry in searched.scored}
        ranked = [model.model_copy(update=predicted[model.layers]) for model in models]
        rivals = [baseline.model_copy(update=predicted[baseline.layers]) for baseline in baselines]
    kept, refused = never_worse(
        [_as_shipped(model) for model in ranked],
        [_as_shipped(baseline) for baseline in rivals],
        settings.quantities,
    )
    offered = [by_trial[model.trial] for model in kept]
    return (
        sorted(offered, key=lambda model: (model.latency_ms.value, model.trial)),
        [(by_trial[model.trial], reason) for model, reason in refused],
    )


def _mixed(entries: Sequence[ModelEntry | BaselineEntry]) -> bool:
    """Whether some latencies are measured and some predicted."""
    return len({entry.latency_ms.source for entry in entries}) > 1


def _as_shipped(entry: EntryT) -> EntryT:
    """The entry with the accuracy of its file in place of the searched one, where it is known."""
    if entry.verified is None:
        return entry
    accuracy = entry.verified.accuracy
    low, high = entry.accuracy_ci95
    shift = accuracy - entry.accuracy
    interval = (max(0.0, min(low + shift, accuracy)), min(1.0, max(high + shift, accuracy)))
    return entry.model_copy(update={"accuracy": accuracy, "accuracy_ci95": interval})


def _closest(models: Sequence[ModelEntry], settings: RunSettings) -> ClosestEntry:
    nearest = min(models, key=lambda model: _admission(model, settings).worst)
    return ClosestEntry(**{name: getattr(nearest, name) for name in ClosestEntry.model_fields})


def _notes(
    searched: FrontFile,
    offered: Sequence[ModelEntry],
    picked: ModelEntry | None,
    choice: Choice,
    dropped: Sequence[tuple[ModelEntry, str]],
    baselines: Sequence[BaselineEntry],
    states: Mapping[str, ModelState],
    settings: RunSettings,
) -> list[str]:
    found: list[str] = []
    if picked is not None:
        cost = cost_of(picked)
        admitted = admission(cost, settings.budgets, settings.confidence)
        found += notes(picked, cost, admitted, settings.budgets, settings.confidence)
    found += choice.notes
    found += _slower_notes(offered, baselines)
    found += _file_notes([*offered, *baselines], states)
    if family_of(searched.profile.runtime) == "onnxruntime":
        found += _precision_notes([*offered, *baselines], states)
    if _mixed([*offered, *(model for model, _ in dropped), *baselines]):
        found.append(
            "some latencies are measured and some predicted, so models were held against the "
            "baselines by what was predicted; verify all of them in one place"
        )
    measured = all(model.latency_ms.source == "measured" for model in offered)
    stale = (*_STALE, _EXTRAPOLATED) if measured else _STALE
    found += [note for note in searched.notes if not note.startswith(stale)]
    return [*found, *(f"trial {model.trial} is not offered: {why}" for model, why in dropped)]


def _slower_notes(offered: Sequence[ModelEntry], baselines: Sequence[BaselineEntry]) -> list[str]:
    """A note on every model that was pruned and is slower all the same."""
    found = []
    for model in offered:
        rival = next((b for b in baselines if _pruned_but_slower(model, b)), None)
        if rival is not None:
            found.append(
                f"trial {model.trial} is pruned and yet no faster than {rival.name} of "
                f"{rival.backbone} ({format_quantity('latency', model.latency_ms.value)} against "
                f"{format_quantity('latency', rival.latency_ms.value)})"
            )
    return found


def _pruned_but_slower(model: ModelEntry, baseline: BaselineEntry) -> bool:
    same = (model.backbone, model.input_px, model.depth, model.width) == (
        baseline.backbone, baseline.input_px, baseline.depth, baseline.width,
    )  # fmt: skip
    comparable = model.latency_ms.source == baseline.latency_ms.source
    slower = model.latency_ms.value >= baseline.latency_ms.value
    return same and comparable and slower and any(model.pruning.values())


def _file_notes(
    entries: Sequence[ModelEntry | BaselineEntry], states: Mapping[str, ModelState]
) -> list[str]:
    """What the files do not do as they were searched."""
    found = []
    for entry in entries:
        state = states.get(entry.layers or "", ModelState())
        name = _name(entry)
        if isinstance(entry, BaselineEntry):
            reason = state.refused or (state.verified and state.verified.refused)
            if reason:
                found.append(f"{name} has no file that could be verified: {reason}")
        if state.verified is None or state.verified.lost_points is None:
            continue
        lost, one = state.verified.lost_points, 100 / state.verified.pictures
        if abs(lost) > max(TOLERATED_POINTS, one) + 1e-9:
            found.append(
                f"the file of {name} is {abs(lost):.1f} points "
                f"{'less' if lost > 0 else 'more'} accurate than what was searched"
            )
    return found


def _precision_notes(
    entries: Sequence[ModelEntry | BaselineEntry], states: Mapping[str, ModelState]
) -> list[str]:
    """What the target's runtime runs in other bits than was asked."""
    found = []
    for entry in entries:
        verified = states.get(entry.layers or "", ModelState()).verified
        if verified is not None and verified.differences:
            pairs = {
                layer: (LayerBits.parse(pair.asked), LayerBits.parse(pair.realised))
                for layer, pair in verified.differences.items()
            }
            found.append(f"in {_name(entry)}, {difference_text(pairs)}")
    return found


def _name(entry: ModelEntry | BaselineEntry) -> str:
    if isinstance(entry, BaselineEntry):
        return f"{entry.name} of {entry.backbone}"
    return f"trial {entry.trial}"
