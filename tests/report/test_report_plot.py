import io
import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from stored_results import Json, baseline, empty_front, front, stored_run, trial

from hwsearch.report.panel import drawable_name, staircase
from hwsearch.report.plot import draw_figure, png_size, render_plots
from hwsearch.report.stored import BaselineEntry
from hwsearch.report.view import digits

ENERGY: Final = {"quantity": "energy", "limit": 30.0, "unit": "mJ", "confidence": 0.9}
SIZE: Final = {"quantity": "size", "limit": 400_000.0, "unit": "B", "confidence": 1.0}


def without_energy() -> Json:
    content = front()
    for entry in (*content["front"], *content["baselines"]):
        entry["energy_mj"] = None
    return content | {"budgets": [*content["budgets"], ENERGY]}


CASES: Final[dict[str, tuple[Json, int]]] = {
    "six": (front(), 1),
    "one": (front(1), 1),
    "thirty": (front(30), 1),
    "no baselines": (front() | {"baselines": []}, 1),
    "no pick": (front() | {"pick": None}, 1),
    "size only": (front() | {"budgets": [SIZE]}, 1),
    "energy and size": (front() | {"budgets": [ENERGY, SIZE]}, 2),
    "all": (front() | {"budgets": [*front()["budgets"], ENERGY, SIZE]}, 3),
    "energy unknown": (without_energy(), 2),
    "empty": (empty_front(), 1),
    "empty, closest trained": (empty_front(trained=True), 1),
    "empty, nothing known": (empty_front() | {"closest": None, "baselines": []}, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_png_opens_with_the_stated_size(tmp_path: Path, case: str) -> None:
    content, panels = CASES[case]
    svg, png = render_plots(stored_run(tmp_path, content))
    with Image.open(io.BytesIO(png)) as image:
        assert image.size == png_size(panels)
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 20
    assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"


def test_svg_bytes_are_equal_for_equal_results(tmp_path: Path) -> None:
    import matplotlib as mpl

    first = render_plots(stored_run(tmp_path / "a"))
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "savefig.dpi": 20}):
        assert render_plots(stored_run(tmp_path / "b")) == first
        assert mpl.rcParams["font.size"] == 30, "the settings of the caller are left alone"
    assert not re.search(rb"<dc:date>|20\d\d-\d\d-\d\d", first[0])


@pytest.mark.parametrize(
    "name", ["a$b$", "_hidden", "模型 🚀", "x" * 200, "a\nb", "<b>&", "", "\\frac", "Zähler"]
)
def test_plot_takes_hostile_names(tmp_path: Path, name: str) -> None:
    content = front(3) | {"target": name}
    content["front"][0]["backbone"] = name
    content["baselines"][0]["name"] = name
    figure = draw_figure(stored_run(tmp_path, content))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts.count(drawable_name(name)) == 2, "the backbone and the baseline"


@given(st.text())
def test_drawable_name_is_short_latin_and_not_private(name: str) -> None:
    drawable = drawable_name(name)
    assert 0 < len(drawable) <= 31
    assert all(ord(char) < 0x250 and char.isprintable() for char in drawable)
    assert not drawable.startswith("_")


@pytest.mark.parametrize("case", ["six", "one", "thirty", "size only", "all", "empty"])
def test_labels_cover_neither_each_other_nor_the_edge(tmp_path: Path, case: str) -> None:
    from matplotlib.text import Annotation, Text

    figure = draw_figure(stored_run(tmp_path, CASES[case][0]))
    for axis in figure.axes:
        labels = [text for text in axis.texts if isinstance(text, Annotation)]
        placed = [label for label in labels if not label.get_text().startswith("budget")]
        boxes = [Text.get_window_extent(label) for label in placed]
        assert len(boxes) == len(placed) >= 2
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
        for box in boxes:
            assert axis.bbox.x0 <= box.x0
            assert box.x1 <= axis.bbox.x1
            assert axis.bbox.y0 <= box.y0
            assert box.y1 <= axis.bbox.y1


def test_panels_are_the_budgeted_quantities(tmp_path: Path) -> None:
    figure = draw_figure(stored_run(tmp_path, CASES["energy and size"][0]))
    assert [axis.get_xlabel() for axis in figure.axes] == [
        "energy for one picture, mJ (predicted; bars: 90 % interval)",
        "size of the weights, MB",
    ]
    labels = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert "budget 30.0 mJ" in labels
    assert "budget 400 kB" in labels
    assert "pick: trial 14\n95.5 %, 319 kB" in labels


@pytest.mark.parametrize(
    "change",
    [{}, {"pick": None}, *({"pick": None, "baseline_pick": position} for position in (0, 1))],
)
def test_ring_and_label_are_at_the_pick(tmp_path: Path, change: Json) -> None:
    stored = stored_run(tmp_path, front(2) | change)
    (axis,) = draw_figure(stored).axes
    rings = [line for line in axis.lines if line.get_markerfacecolor() == "none"]
    drawn = [np.asarray(line.get_xydata()).tolist() for line in rings]
    labels = [text.get_text() for text in axis.texts]
    picked = stored.front.to_use
    if picked is None:
        assert drawn == []
        return
    accuracy, latency_ms = 100 * picked.accuracy, picked.latency_ms.value
    assert drawn == [[[latency_ms, accuracy]]]
    name = picked.name if isinstance(picked, BaselineEntry) else f"trial {picked.trial}"
    assert labels.count(f"pick: {name}\n{accuracy:.1f} %, {digits(latency_ms)} ms") == 1
    assert name not in labels, "labelled once"
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    for entry in stored.front.scored:
        assert left <= entry.latency_ms.low <= entry.latency_ms.high <= right
        assert bottom <= 100 * entry.accuracy_ci95[0] <= 100 * entry.accuracy_ci95[1] <= top


@pytest.mark.parametrize(
    ("trial_rows", "source"),
    [(None, "measured; other trials predicted"), ([], "measured")],
)
def test_axis_of_measured_models_says_that_other_trials_were_not(
    tmp_path: Path, trial_rows: list[Json] | None, source: str
) -> None:
    content = front(2)
    for entry in (*content["front"], *content["baselines"]):
        entry["latency_ms"]["source"] = "measured"
    (axis,) = draw_figure(stored_run(tmp_path, content, trial_rows=trial_rows)).axes
    assert axis.get_xlabel() == f"latency, ms ({source}; bars: 90 % interval)"


@pytest.mark.parametrize(("limit_ms", "scale"), [(9.0, "linear"), (50.0, "log")])
def test_axis_is_logarithmic_over_a_wide_range(tmp_path: Path, limit_ms: float, scale: str) -> None:
    content = front(2) | {"baselines": [], "pick": 10}
    content["front"][0]["latency_ms"] |= {"value": 1.1, "low": 1.0, "high": 1.2}
    content["budgets"][0]["limit"] = limit_ms
    figure = draw_figure(stored_run(tmp_path, content, trial_rows=[]))
    (axis,) = figure.axes
    assert axis.get_xscale() == scale
    low, high = axis.get_xlim()
    assert low <= 0.918
    assert limit_ms <= high


def test_far_trials_do_not_squeeze_the_front_and_are_counted(tmp_path: Path) -> None:
    rows = [trial(n, "stopped", latency_ms=2.0, accuracy=0.1) for n in range(3)]
    (axis,) = draw_figure(stored_run(tmp_path, trial_rows=rows)).axes
    assert axis.get_ylim()[0] > 60
    bottom = axis.get_ylim()[0]
    assert f"3 trials below {bottom:.0f} % not shown" in [text.get_text() for text in axis.texts]


def test_many_backbones_and_baselines_look_different(tmp_path: Path) -> None:
    from hwsearch.report.plot import backbone_looks

    content = front(30)
    for number, entry in enumerate(content["front"]):
        entry["backbone"] = f"net{number:02d}"
    content["baselines"].append(baseline("fp16", latency_ms=6.0, accuracy=0.98, backbone="net00"))
    looks = backbone_looks(stored_run(tmp_path, content))
    assert len({(look.colour, look.marker) for look in looks.values()}) == len(looks) >= 30


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_staircase_is_the_brute_force_front(points: list[tuple[int, int]]) -> None:
    expected = {
        (x, y)
        for x, y in points
        if not any((a <= x and b > y) or (a < x and b >= y) for a, b in points)
    }
    assert staircase(points) == sorted(expected)


def test_report_modules_import_nothing_heavy() -> None:
    code = (
        "import sys, hwsearch.report.make, hwsearch.report.terminal\n"
        "heavy = {'torch', 'optuna', 'matplotlib', 'rich', 'timm', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(' '.join(sorted(heavy)) or 0)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
