"""``hwsearch report RUN --target OTHER``: a folder inside the run, with a report of its own."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from hwsearch.bits import LayerBits
from hwsearch.errors import RunError, TargetError
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import load_profile, resolve
from hwsearch.report.make import make_report
from hwsearch.report.stored import (
    RUN_FILE,
    BaselineEntry,
    FrontFile,
    RunFile,
    RunProfileEntry,
    TrialRow,
    replace_file,
)
from hwsearch.retarget.front import Asked, Scored, repriced_front
from hwsearch.retarget.pricing import Priced, price
from hwsearch.retarget.trials import FinishedRun, open_finished
from hwsearch.space.candidate import Candidate, canonical_json
from hwsearch.study.asked.admission import admission, check_energy
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.candidates.backbones import Backbones
from hwsearch.study.trials.records import Record
from hwsearch.study.written.output import write_front, write_rows
from hwsearch.units import Quantity, parse_budgets

#: Folder inside a run folder that holds what was made for other targets.
TARGETS_FOLDER: Final = "targets"

#: Columns of ``trials.csv`` that depend on the target.
_COST_COLUMNS: Final = (
    "latency_ms", "latency_ms_low", "latency_ms_high", "energy_mj", "energy_mj_low",
    "energy_mj_high", "size_bytes", "macs", "meets_budget_probability",
)  # fmt: skip
_NEVER_EXPANDED: Final = "no channels or bits are stored: the search refused its backbone"


def reprice_run(folder: Path, target: str, budgets: Sequence[str] = ()) -> tuple[FrontFile, Path]:
    """Price the stored trials of a run for a target, and report them.

    What is written goes to ``targets/<target>_<budgets>/`` inside the run folder, in the form of a
    run's results, and replaces only what this function wrote there before.

    Args:
        folder: of a finished run.
        target: name, alias or file of a hardware profile.
        budgets: such as "10ms"; those of the run if there are none.

    Returns:
        The front and the folder that it was written to. A front may be empty.

    Raises:
        RunError: the run is none, has not finished or cannot be read, or nothing can be written.
        TargetError: the target is unknown, runs none of the networks, or has no energy for an
            energy budget.
        BackboneError: a backbone of the run cannot be traced here, or has changed since.
    """
    run = open_finished(folder)
    asked = _asked(run, target, tuple(budgets))
    backbones = Backbones(space=run.settings.space, classes=run.classes)
    predictor = CostPredictor(asked.profile, run.settings.confidence)
    priced = {
        record.trial: price(record.candidate, record.cost.macs, backbones, predictor)
        for record in run.records
        if record.candidate is not None and record.cost is not None
    }
    scored = _scored(run, priced, backbones, predictor)
    if all(one.priced.cost is None for one in scored):
        reasons = sorted({one.priced.refusal for one in scored if one.priced.refusal})
        raise TargetError(
            f"none of the {len(scored)} networks that {folder} has trained fully can be priced: "
            f"{'; '.join(reasons)}. Start a run for {asked.profile.name}"
        )
    front = repriced_front(run.searched, scored, asked, _search_notes(run.records, priced, asked))
    place = folder / TARGETS_FOLDER / _folder_name(asked)
    rows = {row.trial: row for row in run.stored.trials}
    again = [
        _row(rows[record.trial], record, priced.get(record.trial), asked)
        for record in run.records
        if record.trial in rows
    ]
    _write(place, run, asked, front, again)
    return front, place


def _asked(run: FinishedRun, target: str, budgets: tuple[str, ...]) -> Asked:
    profile = load_profile(target)
    name, by_alias = resolve(target)
    texts = budgets or run.settings.budget_texts
    check_energy(profile, parse_budgets(texts))
    settings = run.settings.model_copy(
        update={
            "target": name,
            "alias": target if by_alias else None,
            "budget_texts": texts,
            "objectives": _objectives(run.settings, profile),
        }
    )
    return Asked(
        settings=settings,
        profile=profile,
        quantities=settings.quantities,
        searched_for=run.searched.profile.name,
        same=profile.profile_hash == run.searched.profile.hash,
    )


def _objectives(settings: RunSettings, profile: HardwareProfile) -> tuple[Quantity, ...]:
    """Those of the run, but for an energy that the target does not know."""
    return tuple(q for q in settings.objectives if q != "energy" or profile.energy is not None)


def _scored(
    run: FinishedRun,
    priced: Mapping[int, Priced],
    backbones: Backbones,
    predictor: CostPredictor,
) -> list[Scored]:
    """All that was trained fully, with its cost on the target."""
    found: list[Scored] = []
    for model in run.searched.front:
        if model.trial not in run.candidates:
            raise RunError(
                f"{run.folder} has a trial {model.trial} in its front and none in its study; "
                "take both from one backup"
            )
        found.append(Scored(entry=model, priced=priced[model.trial]))
    for baseline in run.searched.baselines:
        candidate = _dense(baseline, backbones)
        found.append(
            Scored(entry=baseline, priced=price(candidate, baseline.macs, backbones, predictor))
        )
    return found


def _dense(entry: BaselineEntry, backbones: Backbones) -> Candidate:
    """The candidate of a baseline, which is not pruned."""
    return Candidate.build(
        backbone=entry.backbone,
        input_px=entry.input_px,
        depth=_text(entry.depth),
        width=_text(entry.width),
        channels={},
        bits={
            layer: LayerBits(bits, entry.activation_bits[layer])
            for layer, bits in entry.weight_bits.items()
        },
    )


def _text(value: JsonValue) -> str | None:
    return None if value is None else canonical_json(value)


def _search_notes(
    records: Sequence[Record], priced: Mapping[int, Priced], asked: Asked
) -> list[str]:
    """What the trials that are not in the front could not tell."""
    texts = []
    short = [r for r in records if r.scores and r.state in {"completed", "stopped"}]
    if short:
        texts.append(
            f"accuracies are held-out ones, of the networks that the run for {asked.searched_for} "
            "trained fully; other trials have short scores, and are in trials.csv and the plot only"
        )
    settings = asked.settings
    untrained = [r for r in records if r.state == "over_budget" and r.trial in priced]
    costs = [priced[record.trial].cost for record in untrained]
    fitting = sum(
        admission(cost, settings.budgets, settings.confidence).admitted
        for cost in costs
        if cost is not None
    )
    if fitting and not asked.same:
        texts.append(
            f"{fitting} trials would meet the budget here, but were never trained: on "
            f"{asked.searched_for} they were over it"
        )
    refused = Counter(one.refusal for one in priced.values() if one.refusal)
    texts += [
        f"of all {len(records)} trials, {count} have no cost: {refusal}"
        for refusal, count in sorted(refused.items())
    ]
    return texts


def _folder_name(asked: Asked) -> str:
    name = f"{asked.profile.name}_{'_'.join(asked.settings.budget_texts)}"
    return re.sub(r"[^A-Za-z0-9._@-]+", "-", name)


def _write(
    place: Path, run: FinishedRun, asked: Asked, front: FrontFile, rows: Sequence[TrialRow]
) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{place} cannot be made ({error.strerror}); free or unlock {run.folder}"
        ) from None
    write_rows(place, rows)
    profile = asked.profile
    about = run.stored.run.model_copy(
        update={
            "command": f"hwsearch report {run.folder.name} --target {profile.name} "
            + " ".join(f"--budget {text}" for text in asked.settings.budget_texts),
            "profile": RunProfileEntry(
                name=profile.name, hash=profile.profile_hash, evidence=profile.evidence
            ),
        }
    )
    replace_file(place / RUN_FILE, _json(about))
    write_front(place, front)
    make_report(place)


def _json(run: RunFile) -> bytes:
    return (run.model_dump_json(indent=1) + "\n").encode()


def _row(row: TrialRow, record: Record, priced: Priced | None, asked: Asked) -> TrialRow:
    """A line of ``trials.csv`` at the new cost; state and scores are those of the search."""
    cost, probability = None if priced is None else priced.cost, None
    if cost is not None:
        settings = asked.settings
        probability = admission(cost, settings.budgets, settings.confidence).probability
    again = replace(record, cost=cost, probability=probability).row()
    changes = {name: getattr(again, name) for name in _COST_COLUMNS}
    if cost is None:
        changes["reason"] = _NEVER_EXPANDED if priced is None else priced.refusal
    return row.model_copy(update=changes)
