"""One panel of the plot: accuracy against one quantity."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hwsearch.report.stored import FrontFile, TrialRow
from hwsearch.report.view import Entry, entry_name, one_line
from hwsearch.units import Quantity, format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

INK: Final = "#222222"
GREY: Final = "#777777"
_BASELINE_MARKERS: Final = ("X", "P", "*", "h")

_LIMIT_COLOUR: Final = "#A00000"

_AXIS_LABELS: Final[dict[Quantity, str]] = {
    "latency": "latency, ms",
    "energy": "energy for one picture, mJ",
    "size": "size of the weights, MB",
}

#: From the canonical unit to that of the axis.
AXIS_FACTORS: Final[dict[Quantity, float]] = {"latency": 1.0, "energy": 1.0, "size": 1e-6}

#: A wider range than this is drawn on a logarithmic axis.
_LOG_RATIO: Final = 10.0

_LONGEST_NAME: Final = 30
#: DejaVu Sans has all of Latin up to here; a missing glyph would be a warning and a box.
_LAST_DRAWABLE: Final = "\u024f"


@dataclass(frozen=True, kw_only=True)
class Look:
    """How the models of one backbone are drawn."""

    colour: str
    marker: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One quantity of a run.

    Attributes:
        looks: by backbone; all that occur in ``front`` and ``trials``.
        limit: of the budget, in the unit of the axis (``AXIS_FACTORS``).
    """

    front: FrontFile
    trials: tuple[TrialRow, ...]
    looks: dict[str, Look]
    quantity: Quantity
    limit: float

    def x(self, entry: Entry) -> float | None:
        """The cost of a model in the unit of the axis; None when it is unknown."""
        cost = entry.cost(self.quantity)
        return None if cost is None else cost.value * AXIS_FACTORS[self.quantity]

    def x_range(self, entry: Entry) -> tuple[float, float] | None:
        """The interval of that cost."""
        cost = entry.cost(self.quantity)
        factor = AXIS_FACTORS[self.quantity]
        return None if cost is None else (cost.low * factor, cost.high * factor)

    @property
    def other_points(self) -> list[tuple[float, float, TrialRow]]:
        """Cost and validation accuracy in % of the trained trials that are not in the front."""
        shown = {model.trial for model in self.front.front}
        return [
            (*point, trial)
            for trial in self.trials
            if trial.trial not in shown and (point := self.trial_point(trial)) is not None
        ]

    def trial_point(self, trial: TrialRow) -> tuple[float, float] | None:
        """Cost and validation accuracy in % of a trial; None when either is unknown."""
        cost, accuracy = trial.cost(self.quantity), trial.best_known_accuracy
        if cost is None or accuracy is None:
            return None
        return cost * AXIS_FACTORS[self.quantity], 100 * accuracy


def draw_panel(axis: "Axes", panel: Panel, *, bottom: float, top: float) -> "list[Annotation]":
    """Draw everything but the legend, from ``bottom`` to ``top`` %.

    The labels that are handed back are still to be placed.
    """
    low, high, logarithmic = _x_limits(panel)
    if logarithmic:
        axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.set_ylim(bottom, top)
    _format_axes(axis, panel, logarithmic=logarithmic)
    _draw_limit(axis, panel, high)
    _draw_trials(axis, panel, bottom)
    _draw_front(axis, panel)
    _draw_baselines(axis, panel)
    picked = panel.front.to_use
    x = None if picked is None else panel.x(picked)
    if picked is not None and x is not None:
        axis.plot(x, 100 * picked.accuracy, "o", ms=17, mfc="none", mec=INK, mew=1.6, zorder=6)
    _draw_closest(axis, panel)
    return _labels(axis, panel)


def _draw_limit(axis: "Axes", panel: Panel, high: float) -> None:
    axis.axvspan(panel.limit, high, color=_LIMIT_COLOUR, alpha=0.05, lw=0, zorder=0)
    axis.axvline(panel.limit, color=_LIMIT_COLOUR, lw=1.2, ls=(0, (5, 3)), zorder=1)
    limit = format_quantity(panel.quantity, panel.limit / AXIS_FACTORS[panel.quantity])
    left, right = axis.get_xlim()
    position = axis.transAxes.inverted().transform(axis.transData.transform((panel.limit, 0)))[0]
    axis.annotate(
        f"budget {limit}",
        (panel.limit, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="left" if position < 0.12 else "right" if position > 0.88 else "center",
        va="bottom",
        fontsize=9,
        color=_LIMIT_COLOUR,
        annotation_clip=left <= panel.limit <= right,
    )


def _draw_trials(axis: "Axes", panel: Panel, bottom: float) -> None:
    hidden = 0
    for x, y, trial in panel.other_points:
        if trial.backbone is None:
            continue
        hidden += y < bottom
        look = panel.looks[trial.backbone]
        alpha = 0.16 if trial.state == "stopped" else 0.38
        axis.plot(x, y, look.marker, color=look.colour, ms=4.5, mew=0, alpha=alpha, zorder=2)
    if hidden:
        text = f"{hidden} trial{'s' if hidden > 1 else ''} below {bottom:.0f} % not shown"
        axis.text(0.01, 0.012, text, transform=axis.transAxes, fontsize=8, color=GREY, va="bottom")


def _draw_front(axis: "Axes", panel: Panel) -> None:
    steps = staircase(
        [(x, 100 * model.accuracy) for model in panel.front.front if (x := panel.x(model))]
    )
    if len(steps) > 1:
        axis.plot(*zip(*steps, strict=True), color=GREY, lw=1.1, drawstyle="steps-post", zorder=3)
    for model in panel.front.front:
        look = panel.looks[model.backbone]
        _draw_interval(axis, panel, model, look.colour)
        x = panel.x(model)
        if x is None:
            continue
        axis.plot(
            x,
            100 * model.accuracy,
            look.marker,
            color=look.colour,
            ms=8,
            mec="white",
            mew=0.8,
            zorder=7 if model is panel.front.to_use else 5,
        )


def _draw_baselines(axis: "Axes", panel: Panel) -> None:
    markers = baseline_markers(panel.front)
    for baseline in panel.front.baselines:
        x = panel.x(baseline)
        if x is None:
            continue
        colour = panel.looks[baseline.backbone].colour
        _draw_interval(axis, panel, baseline, colour)
        axis.plot(
            x,
            100 * baseline.accuracy,
            markers[baseline.name],
            ms=10,
            mfc=colour,
            mec=INK,
            mew=1.1,
            zorder=7 if baseline is panel.front.to_use else 5,
        )


def _draw_closest(axis: "Axes", panel: Panel) -> None:
    closest = panel.front.closest
    x = None if closest is None else panel.x(closest)
    if closest is None or x is None:
        if not panel.front.scored:
            axis.text(0.5, 0.5, "nothing met the budget", transform=axis.transAxes, ha="center")
        return
    axis.axvline(x, color=INK, lw=1.1, ls=":", zorder=1)
    if closest.accuracy is not None:
        axis.plot(x, 100 * closest.accuracy, "o", ms=9, mfc="none", mec=INK, mew=1.4, zorder=5)


def _draw_interval(axis: "Axes", panel: Panel, entry: Entry, colour: str) -> None:
    x, ends = panel.x(entry), panel.x_range(entry)
    if x is None or ends is None or entry.accuracy is None or entry.accuracy_ci95 is None:
        return
    y = 100 * entry.accuracy
    low, high = (100 * end for end in entry.accuracy_ci95)
    # Opaque: with transparency the line of the front below would shine through a part of the bar.
    pale = _paler(colour)
    if ends[0] < ends[1]:
        axis.plot(ends, (y, y), color=pale, lw=1.2, zorder=4)
    axis.plot((x, x), (low, high), color=pale, lw=1.2, zorder=4)


def _paler(colour: str) -> tuple[float, float, float]:
    """The colour, 45 % of the way to white."""
    from matplotlib.colors import to_rgb

    red, green, blue = (part + 0.45 * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def _labels(axis: "Axes", panel: Panel) -> "list[Annotation]":
    """The pick first: it gets the best place."""
    front = panel.front
    wanted: list[tuple[float | None, float, str, str]] = []
    picked = front.to_use
    if picked is not None:
        cost = picked.cost(panel.quantity)
        reach = "" if cost is None else f", {format_quantity(panel.quantity, cost.value)}"
        text = f"pick: {drawable_name(entry_name(picked))}\n{100 * picked.accuracy:.1f} %{reach}"
        wanted.append((panel.x(picked), 100 * picked.accuracy, text, "bold"))
    for baseline in front.baselines:
        if baseline is picked:
            continue
        x, y = panel.x(baseline), 100 * baseline.accuracy
        wanted.append((x, y, drawable_name(baseline.name), "normal"))
    if front.closest is not None:
        bottom, top = axis.get_ylim()
        at = front.closest.accuracy
        y = bottom + 0.5 * (top - bottom) if at is None else 100 * at
        cost = front.closest.cost(panel.quantity)
        reach = "" if cost is None else f" {format_quantity(panel.quantity, cost.value)}"
        wanted.append((panel.x(front.closest), y, f"closest:{reach}", "normal"))
    return [
        axis.annotate(
            text,
            (x, y),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=9,
            fontweight=weight,
            ha="center",
            va="center",
            linespacing=1.3,
            zorder=9,
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.6, "shrinkA": 0, "shrinkB": 5},
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.85},
        )
        for x, y, text, weight in wanted
        if x is not None
    ]


def baseline_markers(front: FrontFile) -> dict[str, str]:
    """A marker for each kind of baseline."""
    names = sorted({baseline.name for baseline in front.baselines})
    return {
        name: _BASELINE_MARKERS[number % len(_BASELINE_MARKERS)]
        for number, name in enumerate(names)
    }


def staircase(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no cheaper one equals or beats, by rising cost."""
    steps: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not steps or y > steps[-1][1]:
            steps.append((x, y))
    return steps


def _x_limits(panel: Panel) -> tuple[float, float, bool]:
    """Low, high, logarithmic: everything drawn and the limit fit between."""
    entries: list[Entry] = [*panel.front.scored]
    if panel.front.closest is not None:
        entries.append(panel.front.closest)
    values = [panel.limit]
    for entry in entries:
        values += panel.x_range(entry) or ()
    values += [x for x, _, _ in panel.other_points]
    positive = [value for value in values if value > 0]
    low, high = min(positive), max(positive)
    if high / low > _LOG_RATIO:
        margin = (high / low) ** 0.06
        return low / margin, high * margin, True
    margin = 0.08 * (high - low) or 0.1 * high
    return max(0.0, low - margin), high + margin, False


def y_limits(panel: Panel) -> tuple[float, float]:
    """In %: all models with their intervals, and as many of the trials as do not squeeze them."""
    entries: list[Entry] = [*panel.front.scored]
    if panel.front.closest is not None:
        entries.append(panel.front.closest)
    ends = [100 * end for entry in entries if entry.accuracy_ci95 for end in entry.accuracy_ci95]
    trials = [y for _, y, _ in panel.other_points]
    if not ends:
        ends = trials or [0.0, 100.0]
    low, high = min(ends), max([*ends, *trials])
    # Untrained trials guess at 10 %; on their scale all good models would be one point.
    low = min([low, *(value for value in trials if value >= low - max(8.0, 0.8 * (high - low)))])
    margin = max(0.5, 0.07 * (high - low))
    return max(-1.0, low - margin), min(101.0, high + margin)


def _format_axes(axis: "Axes", panel: Panel, *, logarithmic: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if logarithmic:
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=15))
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(nbins=7))
    axis.yaxis.set_major_locator(MaxNLocator(nbins=8))
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_major_formatter(plain)
    axis.yaxis.set_major_formatter(plain)
    axis.grid(visible=True, color="#E6E6E6", lw=0.7)
    axis.set_axisbelow(True)
    axis.set_xlabel(_x_label(panel))
    axis.tick_params(length=3)


def _x_label(panel: Panel) -> str:
    """The quantity, its unit, and where the numbers come from."""
    label = _AXIS_LABELS[panel.quantity]
    costs = [cost for entry in panel.front.scored if (cost := entry.cost(panel.quantity))]
    if panel.quantity == "size" or not costs:
        return label
    sources = " and ".join(sorted({cost.source for cost in costs}))
    if panel.other_points and "predicted" not in sources:
        # Only what was trained to the end becomes a file that is timed.
        sources += "; other trials predicted"
    levels = ", ".join(f"{level:g} %" for level in sorted({100 * c.confidence for c in costs}))
    return f"{label} ({sources}; bars: {levels} interval)"


def drawable_name(text: str) -> str:
    """A name that the font can draw, that the legend keeps, and that leaves room for others."""
    drawable = "".join(char if char <= _LAST_DRAWABLE else "?" for char in one_line(text))
    short = drawable if len(drawable) <= _LONGEST_NAME else f"{drawable[: _LONGEST_NAME - 3]}..."
    # matplotlib leaves labels with a leading underscore out of the legend.
    return f" {short}" if short.startswith("_") else short or "(no name)"
