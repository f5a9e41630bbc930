# ruff: noqa: ANN401 - fakes take whatever the real function is given
"""A run ends within its time limit and makes use of it, by a clock that only work moves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from study_fixtures import make_checked, make_space
from tiny_network import make_data
from torch import nn

from hwsearch.accuracy.training import Recipe, Score
from hwsearch.study import coordinator, finalize, pictures, trial, workbench
from hwsearch.study.coordinator import Run
from hwsearch.study.finalize import finalization_s
from hwsearch.study.progress import Silent


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

    def monotonic(self) -> float:
        return self.now_s

    def perf_counter(self) -> float:
        return self.now_s

    def made(self, plain: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        def inherit(*arguments: Any, **named: Any) -> nn.Module:
            self.now_s += self.rest_s
            return plain(*arguments, **named)

        return inherit

    def advance(
        self, model: nn.Module, _data: Any, _px: int, recipe: Recipe, *, on_step: Any
    ) -> None:
        weights = sum(parameter.numel() for parameter in model.parameters())
        for step in range(recipe.steps):
            self.now_s += self.us_per_weight * weights * 1e-6
            on_step(step + 1, recipe.steps)
        self.now_s += self.rest_s

    def score(self, *_: Any) -> Score:
        self.now_s += self.rest_s
        self.scored += 1
        return Score(correct=15 + self.scored % 15, total=30)


@pytest.fixture
def moved_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], Work]:
    """Lets a run take the time that some work says, and no other."""

    def patch(rest_s: float, us_per_weight: float) -> Work:
        work = Work(rest_s, us_per_weight)
        for module in (coordinator, trial, workbench):
            monkeypatch.setattr(module, "time", work)
        for place in (trial, finalize):
            monkeypatch.setattr(place, "inherit", work.made(place.inherit))
            monkeypatch.setattr(place, "advance", work.advance)
            monkeypatch.setattr(place, "validation_score", work.score)
        monkeypatch.setattr(finalize, "held_out_score", work.score)
        return work

    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pictures, "load_data", lambda *_, seed, **__: make_data(seed))
    return patch


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

    def remember(*arguments: Any) -> float:
        seconds = finalization_s(*arguments)
        kept_back.append((work.now_s, seconds))
        return seconds

    monkeypatch.setattr(coordinator, "finalization_s", remember)
    training = {"base_steps": 4, "rung_steps": [10, 40], "final_steps": 120, "batch_size": 16}
    checked = make_checked(space=make_space(training=training), time_limit_s=limit_s)
    (tmp_path / "run").mkdir()
    Run(checked=checked, folder=tmp_path / "run", command="c", watcher=Silent()).execute()

    searched_s, kept_s = kept_back[-1]
    # Export and verification are not part of this run; a scoring for each of 12 is what they take.
    ship_s = finalize._SHIP_START_S + 12 * (finalize._SHIP_S + rest_s)
    assert work.now_s - searched_s + ship_s <= kept_s
    assert 0.75 * limit_s <= work.now_s + ship_s <= limit_s
