import io
import time

import pytest
from rich.console import Console

from hwsearch.cli import measure_view
from hwsearch.cli.measure_view import BarView, LineView, open_measure_view


def test_lines_say_phases_and_notes_and_now_and_then_the_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    view = LineView()
    view.phase("measure 30 nets")
    now[0] += 10
    view.progress(0.2, "round 1")
    now[0] += 10
    view.progress(0.5, "round 2")
    view.progress(0.6, "round 3")
    view.note("the machine is restless")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "[     0s] measure 30 nets",
        "[    20s]   50 %, about 20s left: round 2",
        "[    20s] the machine is restless",
    ]


@pytest.mark.parametrize(("terminal", "kind"), [(True, BarView), (False, LineView)])
def test_the_view_goes_by_the_terminal(
    terminal: bool, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def console(stderr: bool) -> Console:
        assert stderr
        return Console(file=io.StringIO(), force_terminal=terminal)

    monkeypatch.setattr(measure_view, "Console", console)
    with open_measure_view() as view:
        assert isinstance(view, kind)
