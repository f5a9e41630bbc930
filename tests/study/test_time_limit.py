# ruff: noqa: ANN401 - fakes take whatever the real function is given
"""A run ends within its time limit and makes use of it, by a clock that only work moves."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from study_fixtures import make_checked, make_space
from torch import nn

from hwsearch.accuracy import ladder
from hwsearch.accuracy.training import Recipe, Score
from hwsearch.report.stored import SEARCHED_FILE, FrontFile, read_front, read_run
from hwsearch.study import coordinator
from hwsearch.study.candidates import workbench
from hwsearch.study.coordinator import Run
from hwsearch.study.finals import final_time, finalize
from hwsearch.study.finals.final_time import finalization_s
from hwsearch.study.finals.finalists import finalists
from hwsearch.study.trials import trial
from hwsearch.study.trials.progress import Silent
from hwsearch.study.trials.records import Record

pytestmark = pytest.mark.usefixtures("quick")


class Work:
    """A clock, and training that moves it: by the weights of a network, and by what is fixed.

    Attributes:
        rest_s: of making, settling and scoring a network, each.
        us_per_weight: of an optimizer step.
    """

    def __init__(self, rest_s: float, us_per_weight: float) -> None:
        self.now_s = 0.0
        self.rest_s, self.us_per_weight = rest_s, us_per_weight
        self.scored = 0
        self.slowdown = 1.0

    def monotonic(self) -> float:
        return self.now_s

    def perf_counter(self) -> float:
        return self.now_s

    def made(self, plain: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        def inherit(*arguments: Any, **named: Any) -> nn.Module:
            self.now_s += self.slowdown * self.rest_s
            return plain(*arguments, **named)

        return inherit

    def advance(
        self, model: nn.Module, _data: Any, _px: int, recipe: Recipe, *, on_step: Any
    ) -> None:
        weights = sum(parameter.numel() for parameter in model.parameters())
        for step in range(recipe.steps):
            self.now_s += self.slowdown * self.us_per_weight * weights * 1e-6
            on_step(step + 1, recipe.steps)
        self.now_s += self.slowdown * self.rest_s

    def score(self, *_: Any) -> Score:
        self.now_s += self.slowdown * self.rest_s
        self.scored += 1
        return Score(correct=15 + self.scored % 15, total=30)


@pytest.fixture
def moved_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], Work]:
    """Lets a run take the time that some work says, and no other."""

    def patch(rest_s: float, us_per_weight: float) -> Work:
        work = Work(rest_s, us_per_weight)
        for module in (coordinator, trial, workbench):
            monkeypatch.setattr(module, "time", work)
        for place in (trial, ladder):
            monkeypatch.setattr(place, "inherit", work.made(place.inherit))
            monkeypatch.setattr(place, "advance", work.advance)
        for place in (trial, finalize):
            monkeypatch.setattr(place, "validation_score", work.score)
        monkeypatch.setattr(finalize, "held_out_score", work.score)
        return work

    return patch


def run_there(folder: Path, limit_s: float, trials: int | None = None) -> FrontFile:
    training = {"base_steps": 4, "rung_steps": [10, 40], "final_steps": 120, "batch_size": 16}
    space = make_space(training=training)
    checked = make_checked(space=space, time_limit_s=limit_s, trials=trials)
    folder.mkdir(exist_ok=True)
    return Run(checked=checked, folder=folder, command="c", watcher=Silent()).execute()


@pytest.mark.parametrize(
    ("rest_s", "us_per_weight", "limit_s"),
    [
        pytest.param(1.0, 2.0, 150.0, id="scoring is slow"),
        pytest.param(0.1, 30.0, 500.0, id="steps are slow", marks=pytest.mark.slow),
    ],
)
def test_a_run_ends_within_its_limit_and_uses_it(
    rest_s: float,
    us_per_weight: float,
    limit_s: float,
    moved_by: Callable[[float, float], Work],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = moved_by(rest_s, us_per_weight)
    kept_back: list[tuple[float, float]] = []

    def remember(*arguments: Any, **more: Any) -> float:
        seconds = finalization_s(*arguments, **more)
        kept_back.append((work.now_s, seconds))
        return seconds

    monkeypatch.setattr(coordinator, "finalization_s", remember)
    run_there(tmp_path / "run", limit_s)

    searched_s, kept_s = kept_back[-1]
    # Export and verification are not part of this run; a scoring for each file is what they take.
    files = len(list((tmp_path / "run" / "models").iterdir()))
    ship_s = final_time.SHIP_START_S + files * (final_time._SHIP_S + rest_s)
    assert work.now_s - searched_s + ship_s <= kept_s
    assert 0.75 * limit_s <= work.now_s + ship_s <= limit_s


@pytest.mark.slow
def test_a_machine_that_becomes_slower_tunes_fewer_networks(
    moved_by: Callable[[float, float], Work], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, limit_s = moved_by(1.0, 2.0), 150.0

    def slow_from_now_on(*arguments: Any) -> list[Record]:
        work.slowdown = 2.5
        return finalists(*arguments)

    monkeypatch.setattr(coordinator, "finalists", slow_from_now_on)
    front = run_there(tmp_path / "run", limit_s)
    rows = read_run(tmp_path / "run").trials
    tuned = {row.trial for row in rows if row.state == "finalized"}
    searched = read_front(tmp_path / "run", SEARCHED_FILE)
    assert {model.trial for model in searched.front} == tuned
    assert {baseline.name for baseline in front.baselines} == {"dense-fp32", "uniform-int8"}
    assert front.notes[0] == searched.notes[0]
    told = re.match(r"the time limit left no time to train trial ([\d, ]+) fully", front.notes[0])
    assert told is not None
    late = {int(trial) for trial in told[1].split(", ")}
    best = max((row for row in rows if row.accuracy_rung2), key=lambda row: row.accuracy_rung2 or 0)
    assert best.trial in tuned
    ship_s = final_time.SHIP_START_S + (len(tuned) + 2) * (final_time._SHIP_S + 2.5)
    assert work.now_s + ship_s <= limit_s

    # With more time the others are trained, too, and none of the first again.
    monkeypatch.setattr(coordinator, "finalists", finalists)
    work.slowdown, before = 1.0, work.scored
    again = run_there(tmp_path / "run", 3 * limit_s, trials=len(rows))
    assert not any("left no time" in note for note in again.notes)
    more = read_front(tmp_path / "run", SEARCHED_FILE).front
    assert {model.trial for model in more} == tuned | late
    assert work.scored - before == 2 * len(late)
