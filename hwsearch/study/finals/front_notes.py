"""What a user should know about a front: a sentence for each thing that evidence shows."""

from collections.abc import Iterable, Sequence
from typing import Final

from hwsearch.bits import LayerBits
from hwsearch.deploy.realised import difference_text
from hwsearch.hardware.cost import Cost
from hwsearch.hardware.runtimes import runtime_facts
from hwsearch.report.stored import BaselineEntry, ModelEntry
from hwsearch.study.asked.admission import Admission, admission, prediction_of, upper_of
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.finals.evidence import Evidence
from hwsearch.units import format_quantity

#: More networks than this are counted, not listed.
_MOST_LISTED: Final = 6


def loose_budgets(picked: Cost | None, settings: RunSettings) -> list[str]:
    """Budgets that do not bind, each with the tightest that the pick would still meet."""
    if picked is None:
        return []
    admitted = admission(picked, settings.budgets, settings.confidence)
    texts = []
    for budget in settings.budgets:
        # A pick that uses less than half of a budget was not limited by it.
        if admitted.violations[budget.quantity] < -0.5:
            tightest = upper_of(picked, budget.quantity, settings.confidence)
            texts.append(
                f"the budget {budget.text} does not bind: the pick would still meet "
                f"{format_quantity(budget.quantity, tightest)} at confidence "
                f"{settings.confidence:g}"
            )
    return texts


def missed_budgets(cost: Cost, admitted: Admission, settings: RunSettings) -> str:
    """Why a network is refused that may cost more than is allowed."""
    texts = []
    for budget in settings.budgets:
        if admitted.violations[budget.quantity] <= 0:
            continue
        if budget.quantity == "size":
            found = format_quantity("size", cost.size_bytes)
        else:
            about = prediction_of(cost, budget.quantity)
            value, low, high = (
                format_quantity(budget.quantity, end)
                for end in (about.value, about.low, about.high)
            )
            found = f"{about.source} {value} ({low} to {high})"
        texts.append(f"{found} misses {budget.text} at confidence {settings.confidence:g}")
    return "; ".join(texts)


def pruned_but_slower(
    models: Sequence[ModelEntry], baselines: Sequence[BaselineEntry]
) -> list[str]:
    """Models that were pruned and are no faster than a baseline of their backbone."""
    found = []
    for model in models:
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


def unusable_baselines(evidence: Iterable[Evidence]) -> list[str]:
    """Baselines that are left out, since their files cannot be used."""
    return [
        f"{one.network.label} is left out: {one.refusal}"
        for one in evidence
        if one.network.trial is None and one.refusal is not None
    ]


def other_precision(evidence: Iterable[Evidence], runtime: str) -> list[str]:
    """Layers that ONNX Runtime runs in other bits than was asked, where it is the target's."""
    if not runtime_facts(runtime).runs_here:
        return []
    found = []
    for one in evidence:
        verified = one.file.verified
        if verified is not None and verified.differences and one.file.artefact is not None:
            pairs = {
                layer: (LayerBits.parse(pair.asked), LayerBits.parse(pair.realised))
                for layer, pair in verified.differences.items()
            }
            found.append(f"in {one.network.label}, {difference_text(pairs)}")
    return found


def mixed_sources(mixed: bool) -> list[str]:
    """That some latencies are measured and some are not."""
    if not mixed:
        return []
    return [
        "some latencies are measured and some predicted, so models were held against the "
        "baselines by what was predicted; verify all of them in one place"
    ]


def extrapolated(evidence: Iterable[Evidence], profile: str) -> list[str]:
    """Trials that the profile was not fitted to the like of, where they were not timed."""
    trials = sorted(
        one.network.trial for one in evidence
        if one.network.trial is not None and one.cost.latency_ms.extrapolated
    )  # fmt: skip
    if not trials:
        return []
    return [
        f"the latency of trial {', '.join(map(str, trials))} is extrapolated: it is unlike the "
        f"networks that {profile} was fitted to, so its interval is wider"
    ]


def not_on_the_front(rejected: Sequence[tuple[int, str]]) -> list[str]:
    """Trials that were trained to the end and are not on the front, by reason."""
    trials: dict[str, list[int]] = {}
    for trial, reason in rejected:
        trials.setdefault(reason, []).append(trial)
    return [f"{_trials_are(some)} not on the front: {reason}" for reason, some in trials.items()]


def _trials_are(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, sorted(numbers)[:_MOST_LISTED]))
    if len(numbers) == 1:
        return f"trial {listed} is"
    more = len(numbers) - _MOST_LISTED
    return f"trials {listed}{f' and {more} more' if more > 0 else ''} are"
