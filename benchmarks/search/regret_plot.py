"""Regret over trials, one line for each method with its quartiles."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from hwsearch.sampler.priced import Floats

#: Of the axis, in percent.
_LEAST: Final = 0.01


def plot_regret(curves: Mapping[str, Floats], path: Path) -> Path:
    """Write a PNG.

    Args:
        curves: by method (points, 4): trials, then lower quartile, median and upper quartile of
            the regret in percent.
        path: of the picture; its folder is made.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, curve in curves.items():
        trials, low, middle, high = curve.T
        # A finished search has no regret, which a logarithmic axis cannot show.
        low, middle, high = (np.maximum(values, _LEAST) for values in (low, middle, high))
        (line,) = axes.plot(trials, middle, label=name, linewidth=2.5 if name == "ours" else 1.2)
        axes.fill_between(trials, low, high, alpha=0.12, color=line.get_color())
    axes.set(xscale="log", yscale="log", xlabel="trials", ylabel="hypervolume regret (%)")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
