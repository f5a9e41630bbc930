"""``report.md``: a run as a section of a design document.

Names come from data folders, profiles and search spaces of any origin, so that every text is
escaped: no value can add a table column, an image, a hidden address or HTML.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import JsonValue

from hwsearch.report.stored import BudgetEntry, FrontFile, ModelEntry, StoredRun
from hwsearch.report.tables import (
    NOTHING,
    Entry,
    accuracy_cell,
    bits_summary,
    by_cost,
    cost_cell,
    digits,
    entry_name,
    one_line,
    pruning_summary,
    speed_up_cell,
)
from hwsearch.units import Quantity, format_quantity

_SPECIAL: Final = re.compile(r"[\\`*\[\]<>|&~$#]|(?<![^\W_])_|_(?![^\W_])")
_LONGEST_VALUE: Final = 300


def escape(text: str) -> str:
    """Text as itself in Markdown, also within a table; underscores inside a word stay bare."""
    return _SPECIAL.sub(lambda match: "\\" + match[0], one_line(text)).replace("\\<", "&lt;")


def render_markdown(stored: StoredRun) -> str:
    """The report of a run; equal stored results give equal text."""
    front = stored.front
    sections = [
        [f"# Models for {escape(front.target)} under {_budgets_text(front.budgets)}"],
        _asked(stored),
        _pick(front) if front.front or front.picked_baseline else _nothing_fits(front),
        ["![Accuracy against cost of the front, the baselines and all trials](pareto.svg)"],
        _front_section(front),
        _baseline_section(front),
        _verified_section(front),
        _meaning(front),
        _notes(front),
        _search(stored),
        _reproduce(stored),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _asked(stored: StoredRun) -> list[str]:
    front = stored.front
    profile = front.profile
    target = escape(front.target)
    if front.alias is not None and front.alias != front.target:
        target += f" (asked for as {escape(front.alias)})"
    mode = "" if profile.power_mode is None else f", power mode {escape(profile.power_mode)}"
    rows = [
        ("Target", target),
        ("Runtime", escape(profile.runtime) + mode),
        ("Profile", f"{escape(profile.name)}, evidence: {escape(profile.evidence)}"),
        *((f"Budget, {budget.quantity}", _budget_text(budget)) for budget in front.budgets),
        *((f"Data, {escape(key)}", _value(value)) for key, value in front.data.items()),
        ("Seed", str(stored.run.seed)),
    ]
    return ["## What was asked", "", *table(("what", "value"), rows)]


def _pick(front: FrontFile) -> list[str]:
    picked = front.picked
    baseline = front.picked_baseline
    if baseline is not None:
        return [
            "## The pick",
            "",
            f"**The baseline {escape(baseline.name)} of {escape(baseline.backbone)} at "
            f"{baseline.input_px} px** with {accuracy_cell(baseline)} % held-out accuracy and "
            f"{_costs_text(baseline)}. {escape(front.pick_reason)}",
        ]
    if picked is None:
        return ["## The pick", "", f"None. {escape(front.pick_reason)}"]
    lines = [
        "## The pick",
        "",
        f"**Trial {picked.trial}: {escape(picked.backbone)} at {picked.input_px} px** "
        f"with {accuracy_cell(picked)} % held-out accuracy and {_costs_text(picked)}. "
        f"{escape(front.pick_reason)}",
    ]
    if front.dense_baseline(picked.backbone) is not None:
        lines += ["", f"It runs {_speed_up_text(front, picked)}."]
    return lines


def _speed_up_text(front: FrontFile, picked: ModelEntry) -> str:
    dense = front.dense_baseline(picked.backbone)
    name = "" if dense is None else f"{escape(dense.name)} baseline of {escape(dense.backbone)}"
    return f"at {speed_up_cell(front, picked)} the speed of the {name}"


def _costs_text(entry: Entry) -> str:
    parts = [f"{cost_cell(entry.latency_ms)} ms {entry.latency_ms.source}"]
    if entry.energy_mj is not None:
        parts.append(f"{cost_cell(entry.energy_mj)} mJ {entry.energy_mj.source}")
    parts.append(format_quantity("size", entry.size_bytes))
    return ", ".join(parts)


def _nothing_fits(front: FrontFile) -> list[str]:
    lines = [
        "## Nothing meets the budget",
        "",
        f"No candidate meets {_budgets_text(front.budgets)}. {escape(front.pick_reason)}".rstrip(),
    ]
    if front.closest is not None:
        closest = front.closest
        lines += [
            "",
            f"The closest point is {escape(closest.backbone)} at {closest.input_px} px "
            f"({entry_name(closest)}): {_costs_text(closest)}, "
            f"bits {bits_summary(closest)}.",
        ]
    if front.minimum_reachable:
        rows = [
            (quantity, format_quantity(quantity, least.value), _limit_text(front, quantity))
            for quantity, least in front.minimum_reachable.items()
        ]
        lines += ["", *table(("quantity", "minimum reachable", "budget"), rows)]
    return lines


def _limit_text(front: FrontFile, quantity: Quantity) -> str:
    limits = (
        format_quantity(quantity, budget.limit)
        for budget in front.budgets
        if budget.quantity == quantity
    )
    return next(limits, NOTHING)


def _front_section(front: FrontFile) -> list[str]:
    if not front.front:
        return []
    return ["## The front", "", *_entry_table(front, by_cost(front))]


def _baseline_section(front: FrontFile) -> list[str]:
    if not front.baselines:
        return []
    return [
        "## Baselines",
        "",
        "Trained on the same data and priced by the same profile, without any search.",
        "",
        *_entry_table(front, front.baselines),
    ]


def _entry_table(front: FrontFile, entries: Sequence[Entry]) -> list[str]:
    with_energy = any(entry.energy_mj is not None for entry in entries)
    header = [
        "model",
        "backbone",
        "input px",
        "accuracy % (95 % CI)",
        "latency ms (interval)",
        *(["energy mJ (interval)"] if with_energy else []),
        "cost source",
        "size",
        "MMACs",
        "speed-up over dense fp32",
        "pruned % per stage",
        "bits x layers",
        "probability of meeting the budget",
    ]
    rows = [
        [
            _marked_name(front, entry),
            escape(entry.backbone),
            str(entry.input_px),
            accuracy_cell(entry),
            cost_cell(entry.latency_ms),
            *([cost_cell(entry.energy_mj)] if with_energy else []),
            entry.latency_ms.source,
            format_quantity("size", entry.size_bytes),
            digits(entry.macs / 1e6),
            speed_up_cell(front, entry),
            pruning_summary(entry),
            bits_summary(entry),
            f"{entry.meets_budget_probability:.2f}",
        ]
        for entry in entries
    ]
    return table(header, rows)


def _marked_name(front: FrontFile, entry: Entry) -> str:
    name = escape(entry_name(entry))
    picked = entry.trial is not None and entry.trial == front.pick
    return f"**{name} (pick)**" if picked else name


def _verified_section(front: FrontFile) -> list[str]:
    entries: list[Entry] = [*by_cost(front), *front.baselines]
    rows = [
        (
            escape(entry_name(entry)),
            f"{100 * entry.verified.accuracy:.1f}",
            NOTHING if entry.verified.latency_ms is None else digits(entry.verified.latency_ms),
            escape(entry.verified.runtime),
            escape(entry.verified.host),
        )
        for entry in entries
        if entry.verified is not None
    ]
    if not rows:
        return []
    header = ("model", "accuracy % of the exported file", "latency ms there", "runtime", "host")
    return ["## Exported and scored again", "", *table(header, rows)]


def _meaning(front: FrontFile) -> list[str]:
    lines = ["## What the numbers mean", "", *_cost_meaning(front)]
    if front.front:
        lines.append(
            "- Accuracy was measured on held-out pictures that the search never saw; the 95 % "
            "interval covers the number of those pictures, not another training seed. Models "
            "whose intervals overlap cannot be told apart by accuracy."
        )
        lines.append("- Size is that of the weights at their bits; MACs are multiply-accumulates.")
    exported = sum(model.artefact is not None for model in front.front)
    if front.front and exported == 0:
        lines.append("- Nothing has been exported yet: no file was scored again.")
    elif exported < len(front.front):
        lines.append(f"- {exported} of {len(front.front)} models of the front have been exported.")
    if front.proxy_kendall_tau is not None:
        interval = front.proxy_kendall_tau_ci90
        ends = "" if interval is None else f"90 % interval {interval[0]:.2f} to {interval[1]:.2f}; "
        lines.append(
            "- The short training of the search ranked the front as the full training did with a "
            f"Kendall tau of {front.proxy_kendall_tau:.2f} ({ends}1 is the same order, 0 is "
            "chance)."
        )
    return lines


def _cost_meaning(front: FrontFile) -> list[str]:
    entries: list[Entry] = [*front.front, *front.baselines]
    if front.closest is not None:
        entries.append(front.closest)
    costs = [cost for entry in entries for cost in (entry.latency_ms, entry.energy_mj) if cost]
    sources = Counter(cost.source for cost in costs)
    confidences = sorted({cost.confidence for cost in costs})
    evidence = escape(front.profile.evidence)
    lines = []
    if sources["predicted"]:
        lines.append(
            "- A predicted cost comes from the profile "
            f"{escape(front.profile.name)} (evidence: {evidence}). It was not measured."
        )
    if sources["measured"]:
        lines.append("- A measured cost was timed on the target.")
    if confidences:
        levels = ", ".join(f"{100 * confidence:g} %" for confidence in confidences)
        lines.append(
            f"- The interval behind a cost holds the true one at a confidence of {levels}."
        )
    if all(entry.energy_mj is None for entry in entries):
        lines.append("- Energy is unknown: the profile has no power figures.")
    return lines


def _notes(front: FrontFile) -> list[str]:
    if not front.notes:
        return []
    return ["## Notes", "", *(f"- {escape(note)}" for note in front.notes)]


def _search(stored: StoredRun) -> list[str]:
    run = stored.run
    counts = run.counts
    states = Counter(trial.state for trial in stored.trials)
    by_state = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    rows = [
        ("Sampler", escape(run.sampler)),
        ("Candidates priced", str(counts.priced)),
        ("Over the budget, not trained", str(counts.over_budget)),
        ("Trained", str(counts.trained)),
        ("Stopped early", str(counts.stopped)),
        ("Completed", str(counts.completed)),
        ("Duplicates", str(counts.duplicates)),
        ("Failed", str(counts.failed)),
        ("Trials in trials.csv", f"{len(stored.trials)} ({by_state.replace('_', ' ') or 'none'})"),
        *((f"Time, {escape(phase)}", f"{seconds:.1f} s") for phase, seconds in run.wall_s.items()),
        ("Time, all", f"{sum(run.wall_s.values()):.1f} s"),
    ]
    return ["## How it was searched", "", *table(("what", "value"), rows)]


def _reproduce(stored: StoredRun) -> list[str]:
    run = stored.run
    finished = NOTHING if run.finished is None else run.finished.isoformat(timespec="seconds")
    rows = [
        ("Started", run.started.isoformat(timespec="seconds")),
        ("Finished", finished),
        ("Seed", str(run.seed)),
        ("Configuration fingerprint", escape(run.fingerprint)),
        ("Profile hash", escape(run.profile.hash)),
        ("Data hash", escape(run.data.content_hash)),
        ("Host", f"{escape(run.host.cpu)}, {run.host.cores} cores, {run.host.memory_gb:g} GB"),
        ("System", f"{escape(run.host.os)}, Python {escape(run.host.python)}"),
        *((f"Version, {escape(name)}", escape(text)) for name, text in run.versions.items()),
    ]
    command = one_line(run.command)
    longest = max((len(ticks) for ticks in re.findall("`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return [
        "## How to reproduce it",
        "",
        f"{fence}sh",
        command,
        fence,
        "",
        *table(("what", "value"), rows),
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table of cells that are already escaped; every row is as long as the header."""
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"a table with {len(header)} columns has a row of another length")
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _budgets_text(budgets: Sequence[BudgetEntry]) -> str:
    return " and ".join(format_quantity(budget.quantity, budget.limit) for budget in budgets)


def _budget_text(budget: BudgetEntry) -> str:
    limit = format_quantity(budget.quantity, budget.limit)
    return f"at most {limit}, at a confidence of {100 * budget.confidence:g} %"


def _value(value: JsonValue) -> str:
    """A value of ``DataSet.describe()`` in a cell."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, Mapping) and all(_is_scalar(part) for part in value.values()):
        text = ", ".join(f"{key}: {part}" for key, part in value.items())
    elif isinstance(value, list) and all(_is_scalar(part) for part in value):
        text = ", ".join(str(part) for part in value)
    else:
        text = json.dumps(value, ensure_ascii=False)
    shown = one_line(text)
    # A thousand class names are in front.json; here they would bury the report.
    return escape(shown if len(shown) <= _LONGEST_VALUE else f"{shown[:_LONGEST_VALUE]} ...")


def _is_scalar(value: JsonValue) -> bool:
    return not isinstance(value, dict | list)
