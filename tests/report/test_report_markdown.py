import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_results import Json, cost, empty_front, front, run, stored_run

from hwsearch.report.markdown import escape, render_markdown

HOSTILE = [
    "a|b",
    "a\nb",
    "<script>alert(1)</script>",
    "![x](http://example.org/x.png)",
    "`code` *bold* _thin_ ~~gone~~ $x$",
    "\x1b[31mred\x00",
    "\u202eabc",
    "模型-Ünï-🚀",
    "a\\|b",
    "# title",
    "```",
    "{{ 7 * 7 }}{% raw %}",
    "",
]


def tables_of(text: str) -> list[list[str]]:
    """The tables of a Markdown text, each as its lines."""
    found: list[list[str]] = []
    for before, line in zip(["", *text.splitlines()], text.splitlines(), strict=False):
        if line.startswith("|"):
            if not before.startswith("|"):
                found.append([])
            found[-1].append(line)
    return found


def columns(line: str) -> int:
    """Cells of a table line, as GFM counts them: a bar after a backslash is text."""
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) - 1


def assert_tables_are_sound(text: str) -> None:
    found = tables_of(text)
    assert found
    for lines in found:
        assert len({columns(line) for line in lines}) == 1, lines
        assert set(lines[1]) <= set("|- ")


@pytest.mark.parametrize("models", [1, 6, 30])
def test_tables_have_equal_columns(tmp_path: Path, models: int) -> None:
    text = render_markdown(stored_run(tmp_path, front(models)))
    assert_tables_are_sound(text)
    assert sum(line.startswith("| trial ") or "(pick)" in line for line in text.splitlines()) == (
        models
    )


def test_report_says_what_was_asked_and_picked(tmp_path: Path) -> None:
    text = render_markdown(stored_run(tmp_path))
    for part in (
        "# Models for jetson-orin-nano-super under 10.0 ms",
        "jetson-orin-nano-super (asked for as jetson)",
        "at most 10.0 ms, at a confidence of 90 %",
        "train: 1077, val: 360, test: 360",
        "**Trial 14: resnet10t at 32 px** with 95.5 (92.8 to 97.2) %",
        "2.66 (2.26 to 3.06) ms predicted",
        "2.78 x the speed of the dense-fp32 baseline of resnet10t",
        "Kendall tau of 0.84 (90 % interval 0.55 to 0.97",
        "The 10 ms budget does not bind",
        "| Time, search | 180.2 s |",
        "| Time, all | 249.8 s |",
        "| Trials in trials.csv | 40 (",
        " over budget, ",
        "hwsearch run --target jetson --budget 10ms --trials 40",
        "| Version, torch | 2.15.0 |",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("change", "start"),
    [
        ({"pick": None, "pick_reason": "No model is better."}, "None. No model is better."),
        ({"pick": None, "baseline_pick": 1}, "**The baseline uniform-int8 of resnet10t at 32 px**"),
        ({"pick": None, "baseline_pick": 1, "front": []}, "**The baseline uniform-int8 of resnet"),
    ],
)
def test_report_without_a_picked_model_says_so(tmp_path: Path, change: Json, start: str) -> None:
    text = render_markdown(stored_run(tmp_path, front() | change))
    assert text.partition("## The pick\n\n")[2].startswith(start)


@pytest.mark.parametrize("without", [1, 8])
def test_energy_column_is_left_out_when_no_entry_has_it(tmp_path: Path, without: int) -> None:
    content = front()
    for entry in [*content["front"], *content["baselines"]][:without]:
        entry["energy_mj"] = None
    text = render_markdown(stored_run(tmp_path, content))
    assert ("energy mJ (interval)" in text) == (without == 1)
    assert ("Energy is unknown" in text) == (without == 8)
    assert_tables_are_sound(text)


def test_empty_front_says_the_closest_and_the_least_reachable(tmp_path: Path) -> None:
    text = render_markdown(stored_run(tmp_path, empty_front()))
    assert "## Nothing meets the budget" in text
    assert "The closest point is mobilenetv3_small_050 at 32 px (trial 3): 1.10 (" in text
    assert "| latency | 0.610 ms | 0.200 ms |" in text
    assert "## The front" not in text
    assert_tables_are_sound(text)


def test_measured_costs_are_called_measured(tmp_path: Path) -> None:
    content = front(1) | {"baselines": []}
    content["front"][0] |= {"latency_ms": cost(1.0, source="measured"), "energy_mj": None}
    text = render_markdown(stored_run(tmp_path, content))
    assert "A measured cost was timed on the target." in text
    assert "A predicted cost" not in text


def test_verified_models_have_a_table(tmp_path: Path) -> None:
    content = front(2)
    content["front"][0] |= {
        "artefact": "models/trial_0010/model.onnx",
        "verified": {"accuracy": 0.881, "latency_ms": 0.92, "runtime": "ORT 1.20", "host": "h|1"},
    }
    text = render_markdown(stored_run(tmp_path, content))
    assert "| trial 10 | 88.1 | 0.920 | ORT 1.20 | h\\|1 |" in text
    assert "1 of 2 models of the front have been exported" in text
    assert_tables_are_sound(text)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_change_neither_tables_nor_sections(tmp_path: Path, name: str) -> None:
    content = hostile_front(name)
    told = run() | {"sampler": name, "versions": {name: name}, "command": f"hwsearch {name}"}
    text = render_markdown(stored_run(tmp_path, content, run_content=told))
    assert_tables_are_sound(text)
    outside = re.sub(r"(?ms)^(`{3,})sh\n.*?^\1$", "", text)
    assert [line for line in outside.splitlines() if line.startswith("#")] == [
        line for line in outside.splitlines() if re.match(r"#{1,2} [A-Z]", line)
    ]
    assert "<script" not in outside
    assert len(re.findall(r"(?<!\\)!\[", outside)) == 1, "the plot is the only image"
    assert all(char.isprintable() or char == "\n" for char in text)


def hostile_front(name: str) -> Json:
    content = front(3)
    for entry in (*content["front"], *content["baselines"]):
        entry["backbone"] = name
    content["baselines"][1]["name"] = name
    profile = dict.fromkeys(content["profile"], name)
    return content | {
        "target": name,
        "alias": f"{name}2",
        "profile": profile,
        "data": {name: name, "classes": [name, {"deep": name}]},
        "notes": [name],
        "pick_reason": name,
    }


@given(st.text())
def test_escaped_text_stays_one_cell(text: str) -> None:
    line = f"| {escape(text)} |"
    assert line.splitlines() == [line]
    assert columns(line) == 1


@given(st.text(alphabet="ab_", max_size=12))
def test_escape_leaves_underscores_bare_inside_words_only(text: str) -> None:
    escaped = escape(text)
    assert escaped.replace("\\_", "_") == text
    assert not re.search(r"(?<!\\)_$|^_", escaped)


def test_command_with_backticks_stays_in_its_fence(tmp_path: Path) -> None:
    told = run() | {"command": "hwsearch run ```` x"}
    text = render_markdown(stored_run(tmp_path, run_content=told))
    assert "`````sh\nhwsearch run ```` x\n`````\n" in text


def test_long_data_values_are_cut(tmp_path: Path) -> None:
    content = front() | {"data": {"classes": [f"class {n}" for n in range(1000)]}}
    lines = render_markdown(stored_run(tmp_path, content)).splitlines()
    (line,) = (line for line in lines if line.startswith("| Data, classes"))
    assert len(line) < 400
    assert line.endswith(" ... |")
