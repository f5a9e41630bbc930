"""``report.md``: a run as a section of a design document.

The text is in ``report.md.j2``. Names come from data folders, profiles and search spaces of any
origin, so that every value is escaped unless the template says ``safe``: none can add a table
column, an image, a hidden address or HTML.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from hwsearch.report.stored import StoredRun
from hwsearch.report.view import one_line, view_front

_SPECIAL: Final = re.compile(r"[\\`*\[\]<>|&~$#]|(?<![^\W_])_|_(?![^\W_])")
_LONGEST_VALUE: Final = 300


def escape(value: object) -> str:
    """Text as itself in Markdown, also within a table; underscores inside a word stay bare."""
    if hasattr(value, "__html__"):  # the template said "safe"
        return str(value)
    text = _SPECIAL.sub(lambda match: "\\" + match[0], one_line(str(value)))
    return text.replace("\\<", "&lt;")


def render_markdown(stored: StoredRun) -> str:
    """The report of a run; equal stored results give equal text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        finalize=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    front, run = stored.front, stored.run
    view = view_front(front)
    priced = [*front.scored, *([front.closest] if front.closest else [])]
    costs = [cost for entry in priced for cost in (entry.latency_ms, entry.energy_mj) if cost]
    states = Counter(trial.state for trial in stored.trials)
    command = one_line(run.command)
    longest = max((len(ticks) for ticks in re.findall("`+", command)), default=0)
    return environment.get_template("report.md.j2").render(
        front=front,
        run=run,
        view=view,
        budgets=" and ".join(view.limits.values()),
        data={key: _value(value) for key, value in front.data.items()},
        dense=front.picked and front.dense_baseline(front.picked.backbone),
        sources={cost.source for cost in costs},
        confidences=", ".join(f"{100 * c:g} %" for c in sorted({c.confidence for c in costs})),
        energy_known=any(entry.energy_mj for entry in priced),
        trials=len(stored.trials),
        states=", ".join(f"{n} {state}" for state, n in sorted(states.items())).replace("_", " "),
        fence="`" * max(3, longest + 1),
        command=command,
    )


def _value(value: JsonValue) -> str:
    """A value of ``DataSet.describe()`` in a cell."""

    def plain(parts: Iterable[JsonValue]) -> bool:
        return not any(isinstance(part, dict | list) for part in parts)

    if isinstance(value, str):
        text = value
    elif isinstance(value, Mapping) and plain(value.values()):
        text = ", ".join(f"{key}: {part}" for key, part in value.items())
    elif isinstance(value, list) and plain(value):
        text = ", ".join(str(part) for part in value)
    else:
        text = json.dumps(value, ensure_ascii=False)
    shown = one_line(text)
    # A thousand class names are in front.json; here they would bury the report.
    return shown if len(shown) <= _LONGEST_VALUE else f"{shown[:_LONGEST_VALUE]} ..."
