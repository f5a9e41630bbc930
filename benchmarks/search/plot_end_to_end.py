"""Accuracy against latency of every file of an end-to-end comparison, as a picture.

::

    python benchmarks/search/plot_end_to_end.py ROWS.csv docs/images/end-to-end.svg

Reads the rows that ``end_to_end.py`` publishes. Lines join the files of an arm that no other file
of it beats, one line for each seed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from end_to_end_rows import OURS, Shipped, read_rows
from matplotlib import rc_context
from matplotlib.figure import Figure

_COLOURS: Final = {
    OURS: "#0072b2", "torch-pruning": "#d55e00", "modelopt": "#009e73", "nncf": "#cc79a7",
    "quantize-static": "#7f7f7f",
}  # fmt: skip
_NAMES: Final = {
    OURS: "hwsearch run", "torch-pruning": "Torch-Pruning", "modelopt": "ModelOpt FastNAS",
    "nncf": "plain training + NNCF", "quantize-static": "plain training + quantize_static",
}  # fmt: skip


def front(rows: Sequence[Shipped]) -> list[Shipped]:
    """The files that no other is as fast and as accurate as, from the fastest on."""
    kept: list[Shipped] = []
    for row in sorted(rows, key=lambda row: (row.latency_ms, -row.accuracy_percent)):
        if not kept or row.accuracy_percent > kept[-1].accuracy_percent:
            kept.append(row)
    return kept


def draw(rows: Sequence[Shipped], path: Path) -> None:
    """Write the picture."""
    with rc_context({"svg.hashsalt": "hwsearch", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axis = figure.subplots()
        for arm, colour in _COLOURS.items():
            own = [row for row in rows if row.arm == arm and row.file]
            axis.scatter(
                [row.latency_ms for row in own], [row.accuracy_percent for row in own],
                s=14, color=colour, alpha=0.5, label=_NAMES[arm],
            )  # fmt: skip
            for seed in sorted({row.seed for row in own}):
                best = front([row for row in own if row.seed == seed])
                axis.plot(
                    [row.latency_ms for row in best], [row.accuracy_percent for row in best],
                    color=colour, linewidth=1.2, drawstyle="steps-post",
                )  # fmt: skip
        axis.set_xscale("log")
        ticks = (0.03, 0.04, 0.05, 0.07, 0.1, 0.2, 0.3)
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        lowest = min(row.accuracy_percent for row in rows if row.arm == OURS)
        axis.set_ylim(bottom=lowest - 4)
        axis.set_xlabel("latency ms (measured, one thread, batch 1)")
        axis.set_ylabel("accuracy % on held-out pictures")
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right", fontsize=8)
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    draw(read_rows(given.rows), given.picture)


if __name__ == "__main__":
    main()
