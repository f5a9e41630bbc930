import io
from typing import Any

import pytest
from rich.console import Console

from hwsearch.accuracy.training import Score
from hwsearch.cli.view import LiveView, PlainView, open_view, print_table
from hwsearch.hardware.cost import Cost, Prediction
from hwsearch.space.knobs import Knobs
from hwsearch.study.trials.records import Record


def made(trial: int, correct: int | None = None, **changes: object) -> Record:
    latency = Prediction.lognormal(median=2.345, sigma_log=0.3, confidence=0.9)
    fields: dict[str, Any] = {
        "trial": trial,
        "state": "completed",
        "knobs": Knobs(backbone="resnet10t", input_px=32),
        "candidate": None,
        "cost": Cost(latency_ms=latency, energy_mj=None, size_bytes=1000, macs=1000),
        "probability": 0.95,
        "scores": () if correct is None else (Score(correct=correct, total=200),),
    }
    fields.update(changes)
    return Record(**fields)


def drawn(*records: Record, left_s: float | None = 130.0) -> str:
    """What stands on a terminal after these trials, in plain text, the last redraw only."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=160, color_system=None)
    view = LiveView(console)
    with view.live:
        view.phase("trial 3: lcnet_050 at 48 px")
        for record in records:
            view.trial(record, done=record.trial + 1, planned=48, left_s=left_s)
        view.step(5, 12)
    return file.getvalue()[file.getvalue().rindex("trials") :]


def test_plain_view_when_told_of_a_run_writes_lines_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = PlainView()
    view.phase("reading digits")
    view.phase("trial 3: resnet10t at 32 px")
    view.trial(made(3, 187), done=4, planned=48, left_s=130.0)
    view.trial(made(4, 20), done=5, planned=None, left_s=None)
    view.note("[bold]'jetson' means jetson-orin-nano")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "[     0s] reading digits",
        "[     0s] trial 3 (4 of 48): resnet10t 32 px, completed, accuracy 93.5 %, "
        "2.35 ms predicted, 2m10s left",
        "[     0s] trial 4: resnet10t 32 px, completed, accuracy 10.0 %, 2.35 ms predicted",
        "[     0s] [bold]'jetson' means jetson-orin-nano",
    ]


def test_plain_view_when_a_phase_is_long_says_so_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("hwsearch.cli.view.time.monotonic", lambda: now[0])
    view = PlainView()
    view.phase("training resnet10t")
    for step in range(1, 41):
        now[0] += 1.0
        view.step(step, 40)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "[     0s] training resnet10t",
        "[    16s]   training resnet10t: step 16 of 40",
        "[    32s]   training resnet10t: step 32 of 40",
    ]


def test_live_view_when_trials_end_shows_counts_best_and_time_left() -> None:
    refused = made(2, state="over_budget", cost=None)
    text = drawn(made(0, 187), made(1, 150), refused)
    assert "3 of 48" in text
    assert "about 2m10s left" in text
    assert "2 completed, 1 over budget" in text
    assert "accuracy 93.5 %" in text
    assert "75.0" not in text
    assert "trial 3: lcnet_050 at 48 px" in text


def test_live_view_when_a_run_is_resumed_counts_the_earlier_trials() -> None:
    assert "31 of 48" in drawn(made(30, 100))


def test_live_view_when_a_stopped_trial_is_ahead_keeps_the_completed_best() -> None:
    text = drawn(made(0, 100), made(1, 199, state="stopped"), made(2))
    assert "accuracy 50.0 %" in text
    assert "99.5" not in text


def test_live_view_when_a_reason_has_brackets_shows_them() -> None:
    assert "shape [/3, 4] is wrong" in drawn(made(0, 100, reason="shape [/3, 4] is wrong"))


def test_view_when_stderr_is_no_terminal_is_plain() -> None:
    with open_view() as view:
        assert isinstance(view, PlainView)


def test_view_when_stderr_is_a_terminal_is_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with open_view() as view:
        assert isinstance(view, LiveView)
        assert view.live.is_started
    assert not view.live.is_started


def test_table_when_piped_cuts_no_cell_and_leaves_no_blanks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long, words = "n" * 70, "word " * 60
    print_table("title", ("name", "other", "text"), [(long, "o" * 40, words), ("[b]", "", "")])
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if "nnn" in line)
    assert row.split()[:2] == [long, "o" * 40]
    assert sum(line.count("word") for line in lines) == 60
    assert all(len(line) <= 160 and line == line.rstrip() for line in lines)
    assert any("[b]" in line for line in lines)
