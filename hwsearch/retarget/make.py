"""``hwsearch report RUN --target OTHER``: a folder inside the run, with a report of its own."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from hwsearch.errors import RunError, TargetError
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import load_profile, resolve
from hwsearch.report.make import make_report
from hwsearch.report.stored import (
    RUN_FILE,
    FrontFile,
    RunFile,
    RunProfileEntry,
    TrialRow,
    read_run,
    replace_file,
)
from hwsearch.retarget.front import Asked, Scored, repriced_front
from hwsearch.retarget.pricing import Priced, price
from hwsearch.study.asked.admission import admission, check_energy
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.candidates.backbones import Backbones
from hwsearch.study.finals.evidence import state_of
from hwsearch.study.run_folder import RunFolder, open_run
from hwsearch.study.trials.records import Record
from hwsearch.study.written.output import MODELS_FOLDER, write_front, write_rows
from hwsearch.study.written.storage import read_records
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
    stored, records, run = read_run(folder), read_records(folder), open_run(folder)
    if run.run.finished is None:
        raise RunError(
            f"the run in {folder} has not finished; "
            f"continue it with: hwsearch run --resume {folder}"
        )
    if not run.evidence.networks:
        raise RunError(
            f"no network of {folder} was trained fully, so it has no accuracy to keep; start a "
            "run for the other target"
        )
    asked = _asked(run, target, tuple(budgets))
    backbones = Backbones(space=run.settings.space, classes=run.classes)
    predictor = CostPredictor(asked.profile, run.settings.confidence)
    priced = {
        record.trial: price(record.candidate, record.cost.macs, backbones, predictor)
        for record in records
        if record.candidate is not None and record.cost is not None
    }
    scored = _scored(run, priced, backbones, predictor)
    if all(one.priced.cost is None for one in scored):
        reasons = sorted({one.priced.refusal for one in scored if one.priced.refusal})
        raise TargetError(
            f"none of the {len(scored)} networks that {folder} has trained fully can be priced: "
            f"{'; '.join(reasons)}. Start a run for {asked.profile.name}"
        )
    front = repriced_front(run.evidence, scored, asked, _search_notes(records, priced, asked))
    place = folder / TARGETS_FOLDER / _folder_name(asked)
    rows = {row.trial: row for row in stored.trials}
    again = [
        _row(rows[record.trial], record, priced.get(record.trial), asked)
        for record in records
        if record.trial in rows
    ]
    _write(place, run, asked, front, again)
    return front, place


def _asked(run: RunFolder, target: str, budgets: tuple[str, ...]) -> Asked:
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
        searched_for=run.evidence.profile.name,
        same=profile.profile_hash == run.evidence.profile.hash,
    )


def _objectives(settings: RunSettings, profile: HardwareProfile) -> tuple[Quantity, ...]:
    """Those of the run, but for an energy that the target does not know."""
    return tuple(q for q in settings.objectives if q != "energy" or profile.energy is not None)


def _scored(
    run: RunFolder,
    priced: Mapping[int, Priced],
    backbones: Backbones,
    predictor: CostPredictor,
) -> list[Scored]:
    """All that was trained to the end, with its cost on the target."""
    found: list[Scored] = []
    for network in run.evidence.networks:
        if network.trial is None:
            candidate = network.to_candidate()
            cost = price(candidate, network.cost.macs, backbones, predictor)
        elif network.trial in priced:
            cost = priced[network.trial]
        else:
            raise RunError(
                f"{run.folder} has a trial {network.trial} in its evidence and none in its study; "
                "take both from one backup"
            )
        file = state_of(run.folder / MODELS_FOLDER / network.folder, run.folder)
        found.append(Scored(network=network, file=file, priced=cost))
    return found


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
    place: Path, run: RunFolder, asked: Asked, front: FrontFile, rows: Sequence[TrialRow]
) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{place} cannot be made ({error.strerror}); free or unlock {run.folder}"
        ) from None
    write_rows(place, rows)
    profile = asked.profile
    about = run.run.model_copy(
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
