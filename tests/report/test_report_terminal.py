import io
from pathlib import Path

import pytest
from rich.console import Console
from stored_results import Json, empty_front, front

from hwsearch.report.stored import FrontFile
from hwsearch.report.terminal import closing_lines, print_final


def printed(content: Json, folder: Path | None = None, **console: object) -> str:
    text = io.StringIO()
    print_final(
        FrontFile.model_validate(content),
        Console(file=text, **console),  # type: ignore[arg-type]
        folder,
    )
    return text.getvalue()


def test_plain_output_shows_every_number_within_100_columns() -> None:
    folder = Path("/".join(["folder"] * 40))
    text = printed(front(), folder)
    *lines, last = text.splitlines()
    assert last == f"Report: {folder}/report.md", "a wrapped path cannot be copied"
    assert max(map(len, lines)) <= 100
    assert [line[:18] for line in lines if line.startswith("> ")] == ["> trial 14, 32 px "]
    assert "Pick: trial 14, resnet10t. It is the most accurate model" in " ".join(lines)
    assert not any(line != line.rstrip() for line in lines)
    for part in ("95.5", "92.8-97.2", "2.26-3.06", "2.78 x", "319 kB", "17.3 mJ", "0/25/50/50"):
        assert part in text
    assert "\x1b" not in text
    assert "…" not in text


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_cuts_no_number(width: int) -> None:
    text = printed(front(), force_terminal=True, width=width, color_system=None)
    assert max(map(len, text.splitlines())) <= width
    for part in ("95.5", "92.8-97.2", "0.680-0.920", "2.78 x", "17.3 mJ", "W8A8 x 4"):
        assert part in text


def test_empty_front_says_what_is_reachable() -> None:
    assert printed(empty_front() | {"baselines": []}).startswith("Nothing meets the budget")
    lines = closing_lines(FrontFile.model_validate(empty_front()))
    assert lines[:3] == [
        "Nothing meets the budget of 0.200 ms on jetson-orin-nano-super.",
        "Closest: mobilenetv3_small_050 at 32 px, 1.10 ms.",
        "Least reachable latency: 0.610 ms.",
    ]


def test_many_notes_are_left_to_the_report() -> None:
    content = front() | {"notes": [f"note {n}" for n in range(5)], "pick": None}
    lines = closing_lines(FrontFile.model_validate(content))
    assert lines[0] == f"No pick: {content['pick_reason']}"
    assert lines[-2:] == ["Note: note 2", "2 more notes are in the report."]


def test_hostile_names_are_text_not_markup() -> None:
    content = front(2)
    content["front"][0]["backbone"] = "[red]x[/red]\x1b[2J"
    content["pick_reason"] = "[/nothing] to close"
    text = printed(content)
    assert "[red]x[/red] [2J" in text
    assert "[/nothing] to close" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("models", [0, 3])
def test_baseline_when_it_is_the_pick_is_marked_and_named(models: int) -> None:
    content = front(models) | {
        "pick": None,
        "baseline_pick": 1,
        "pick_reason": "no searched model is better than the baselines",
    }
    text = printed(content)
    marked = [line for line in text.splitlines() if line.startswith("> ")]
    assert len(marked) == 1
    assert marked[0].startswith("> uniform-int8, 32 px")
    lines = closing_lines(FrontFile.model_validate(content))
    assert lines[0] == (
        "Pick: the baseline uniform-int8, resnet10t. no searched model is better than the baselines"
    )
