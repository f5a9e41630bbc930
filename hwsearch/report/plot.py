"""``pareto.svg`` and ``pareto.png``: accuracy against each cost that has a budget.

Equal stored results and an equal matplotlib give equal bytes.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hwsearch.report.labels import place_labels
from hwsearch.report.panel import (
    AXIS_FACTORS,
    GREY,
    INK,
    Look,
    Panel,
    baseline_markers,
    draw_panel,
    drawable_name,
    y_limits,
)
from hwsearch.report.stored import StoredRun, replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

SVG_FILE: Final = "pareto.svg"
PNG_FILE: Final = "pareto.png"
PNG_DPI: Final = 150
HEIGHT_INCHES: Final = 5.4
#: Width by the number of panels.
WIDTH_INCHES: Final = {1: 8.4, 2: 13.0, 3: 18.0}

#: Okabe and Ito's palette, told apart by people with any colour vision; the yellow is left out,
#: since it vanishes on white. Seven colours and five markers give 35 different pairs.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#6A5ACD")
_MARKERS: Final = ("o", "s", "^", "D", "v")

_STYLE: Final[Any] = {
    "svg.hashsalt": "hwsearch",
    "svg.fonttype": "path",
    # Names are not formulas, whatever dollar signs they hold.
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "errorbar.capsize": 0,
}


def write_plots(stored: StoredRun, folder: Path) -> list[Path]:
    """Write ``pareto.svg`` and ``pareto.png`` into a folder, one panel for each budget.

    Raises:
        RunError: the folder cannot be written.
    """
    paths = [folder / SVG_FILE, folder / PNG_FILE]
    for path, content in zip(paths, render_plots(stored), strict=True):
        replace_file(path, content)
    return paths


def render_plots(stored: StoredRun) -> tuple[bytes, bytes]:
    """The plot as SVG and as PNG (``png_size`` pixels)."""
    import matplotlib as mpl

    # The style must hold while drawing, too: ticks are made only then.
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = draw_figure(stored)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": "hwsearch"})
        figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": "hwsearch"})
    return svg.getvalue(), png.getvalue()


def png_size(panels: int) -> tuple[int, int]:
    """Width and height of the PNG in pixels for 1 to 3 panels."""
    return round(WIDTH_INCHES[panels] * PNG_DPI), round(HEIGHT_INCHES * PNG_DPI)


def draw_figure(stored: StoredRun) -> "Figure":
    """The drawn plot, in the settings of matplotlib that are in force."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    front = stored.front
    size = (WIDTH_INCHES[len(front.budgets)], HEIGHT_INCHES)
    figure = Figure(figsize=size, dpi=PNG_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    looks = backbone_looks(stored)
    panels = [
        Panel(
            front=front,
            trials=stored.trials,
            looks=looks,
            quantity=budget.quantity,
            limit=budget.limit * AXIS_FACTORS[budget.quantity],
        )
        for budget in front.budgets
    ]
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    # One scale for all panels, though a trial without energy is in some of them only.
    ends = [y_limits(panel) for panel in panels]
    bottom, top = min(low for low, _ in ends), max(high for _, high in ends)
    labels = [
        draw_panel(axis, panel, bottom=bottom, top=top)
        for axis, panel in zip(axes, panels, strict=True)
    ]
    axes[0].set_ylabel("held-out accuracy, % (bars: 95 % CI)")
    figure.suptitle(
        f"{drawable_name(front.target)}: accuracy against cost", x=0.01, ha="left", fontsize=12.5
    )
    handles = _legend_handles(stored, looks)
    columns = 4 * len(panels)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(columns, max(1, len(handles))),
        frameon=False,
        fontsize=8.5,
        handletextpad=0.4,
        columnspacing=1.4,
    )
    # The first drawing settles the layout; labels are placed in it and then stand still.
    figure.canvas.draw()
    figure.set_layout_engine("none")
    for axis, panel, annotations in zip(axes, panels, labels, strict=True):
        place_labels(axis, panel, annotations, dpi=PNG_DPI)
    return figure


def _legend_handles(stored: StoredRun, looks: dict[str, Look]) -> "list[Line2D]":
    front = stored.front
    shown = {entry.backbone for entry in front.scored}
    shown |= {
        trial.backbone
        for trial in stored.trials
        if trial.best_known_accuracy is not None and trial.backbone
    }
    handles = [
        _handle(drawable_name(backbone), look.marker, look.colour)
        for backbone, look in looks.items()
        if backbone in shown
    ]
    for name, marker in baseline_markers(front).items():
        handles.append(_handle(drawable_name(name), marker, "white", edge=INK))
    states = {trial.state for trial in stored.trials if trial.best_known_accuracy is not None}
    if states - {"stopped"}:
        handles.append(_handle("other trial (validation)", "o", GREY, alpha=0.45))
    if "stopped" in states:
        handles.append(_handle("stopped early", "o", GREY, alpha=0.2))
    return handles


def _handle(
    label: str, marker: str, colour: str, *, edge: str | None = None, alpha: float = 1.0
) -> "Line2D":
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], ls="", marker=marker, mfc=colour, mec=edge or colour, ms=7, alpha=alpha, label=label
    )


def backbone_looks(stored: StoredRun) -> dict[str, Look]:
    """A colour and a marker for each backbone, by name, so that two runs look alike."""
    front = stored.front
    names = {entry.backbone for entry in front.scored}
    names |= {trial.backbone for trial in stored.trials if trial.backbone is not None}
    return {
        name: Look(colour=_COLOURS[number % len(_COLOURS)], marker=_MARKERS[number % len(_MARKERS)])
        for number, name in enumerate(sorted(names))
    }
