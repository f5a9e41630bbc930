# ruff: noqa: ANN401 - fakes take whatever the real function is given
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from study_fixtures import make_bench, make_cost, make_knobs, make_record, make_space
from tiny_network import OWN
from torch import nn

from hwsearch.accuracy.ladder import advance
from hwsearch.accuracy.training import Score
from hwsearch.errors import BackboneError
from hwsearch.space.knobs import Knobs
from hwsearch.study.candidates import workbench as workbench_module
from hwsearch.study.candidates.workbench import Workbench
from hwsearch.study.trials import trial as trial_module
from hwsearch.study.trials.records import Record
from hwsearch.study.trials.trial import Pace, Trial


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path))


def run(
    bench: Workbench, knobs: Knobs, *, number: int = 0, history: tuple[Record, ...] = ()
) -> Record:
    steps: list[tuple[int, int]] = []
    work = Trial(
        number=number,
        bench=bench,
        history=history,
        on_step=lambda done, total: steps.append((done, total)),
    )
    return work.run(knobs)


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("a network over the budget is never trained")


def test_run_when_all_is_well_climbs_the_ladder() -> None:
    record = run(make_bench(), make_knobs(prune=(0.0, 0.25, 0.5, 0.0), saving=0.5), number=4)
    assert (record.trial, record.state, record.reason) == (4, "completed", None)
    assert [score.total for score in record.scores] == [30, 30, 30]
    assert record.candidate is not None
    assert record.candidate.pruning == (0.0, 0.25, 0.5, 0.0)
    assert record.probability is not None
    assert record.probability > 0.9
    assert record.train_s > 0


def test_run_when_asked_twice_gives_the_same_scores() -> None:
    knobs = make_knobs(prune=(0.5,) * 4, saving=1.0)
    first, second = run(make_bench(), knobs), run(make_bench(), knobs, number=9)
    assert first.scores == second.scores
    assert first.candidate == second.candidate


def test_run_when_the_whole_backbone_is_over_budget_trains_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workbench_module, "base_network", refuse)
    record = run(make_bench(budget_texts=("1us",)), make_knobs())
    assert record.state == "over_budget"
    assert record.candidate is None
    assert record.scores == ()
    assert record.reason == "even the smallest of this backbone"
    assert record.probability is not None
    assert record.probability < 0.9


def test_run_when_only_this_candidate_is_over_budget_takes_no_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dense = make_bench()
    size = dense.price(dense.expand(make_knobs())).size_bytes
    monkeypatch.setattr(trial_module, "inherit", refuse)
    record = run(make_bench(budget_texts=(f"{size - 1}B",)), make_knobs())
    assert record.state == "over_budget"
    assert record.reason == "predicted over the budget"
    assert record.candidate is not None
    assert record.train_s == 0.0


def test_run_when_the_network_is_known_is_not_evaluated_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = make_bench()
    first = run(bench, make_knobs(), number=2)
    monkeypatch.setattr(trial_module, "inherit", refuse)
    again = run(bench, make_knobs(protect_edges=False), number=5, history=(first,))
    assert (again.trial, again.state, again.original) == (5, "duplicate", 2)
    assert again.scores == first.scores
    assert again.reason == "same network as trial 2"
    third = run(bench, make_knobs(), number=6, history=(again, first))
    assert third.original == 2


def test_run_when_the_same_network_failed_before_tries_again() -> None:
    bench = make_bench()
    failed = make_record(1, "failed", candidate=bench.expand(make_knobs()), scores=(), cost=None)
    assert run(bench, make_knobs(), number=2, history=(failed,)).state == "completed"


def rival(**changes: Any) -> Record:
    """Cheaper than anything and always right."""
    right = Score(correct=30, total=30)
    plain: dict[str, Any] = {"cost": make_cost(1e-6, size_bytes=1), "scores": (right,) * 3}
    return make_record(7, **(plain | changes))


def test_run_when_dominated_stops_at_rung_0(monkeypatch: pytest.MonkeyPatch) -> None:
    poor = Score(correct=10, total=30)
    monkeypatch.setattr(trial_module, "validation_score", lambda *_: poor)
    monkeypatch.setattr(trial_module, "advance", refuse)
    record = run(make_bench(), make_knobs(), number=8, history=(rival(),))
    assert record.state == "stopped"
    assert record.scores == (poor,)
    assert record.reason == "stopped at rung 0: trial 7 is cheaper and more accurate"


@pytest.mark.parametrize(
    "changes",
    [
        {"cost": make_cost(1e-6, size_bytes=10**9)},
        {"cost": make_cost(1e6, size_bytes=1)},
        {"cost": None},
        {"state": "duplicate"},
        {"scores": ()},
        {"scores": (Score(correct=0, total=30),) * 3},
    ],
    ids=["larger", "slower", "unpriced", "duplicate", "unscored", "worse"],
)
def test_run_when_the_other_is_no_rival_goes_on(changes: dict[str, Any]) -> None:
    assert run(make_bench(), make_knobs(), history=(rival(**changes),)).state == "completed"


def test_run_when_beaten_within_the_noise_goes_on() -> None:
    bench = make_bench()
    short = run(bench, make_knobs()).scores[0]
    near = Score(correct=min(30, short.correct + 2), total=30)
    record = run(bench, make_knobs(), history=(rival(scores=(near,)),))
    assert record.state == "completed"


@pytest.mark.parametrize(
    "error", [BackboneError("the loss\n is  not finite"), RuntimeError("x" * 999)]
)
def test_run_when_training_fails_records_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(trial_module, "advance", fail)
    record = run(make_bench(), make_knobs())
    assert record.state == "failed"
    assert record.scores == ()
    assert record.reason in {"the loss is not finite", "x" * 300}
    assert record.cost is not None


def test_run_when_interrupted_lets_the_interruption_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trial_module, "advance", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(make_bench(), make_knobs())


def test_run_when_climbing_trains_the_difference_of_the_rungs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipes = []
    plain = advance

    def listen(model: Any, data: Any, px: int, recipe: Any, **more: Any) -> None:
        recipes.append(recipe)
        plain(model, data, px, recipe, **more)

    monkeypatch.setattr(trial_module, "advance", listen)
    record = run(make_bench(), make_knobs())
    assert [recipe.steps for recipe in recipes] == [1, 1]  # rungs (1, 2)
    assert recipes[0].seed != recipes[1].seed
    assert record.knobs.backbone == OWN


def test_pace_is_the_time_between_steps_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 11.0, 12.5, 100.0, 100.5])
    monkeypatch.setattr(trial_module, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    pace, told = Pace(), list[tuple[int, int]]()
    assert (pace.step_s, pace.score_s) == (None, None)
    for total in (3, 2):  # what lies between two trainings is no step
        on_step = pace.timing(lambda done, total: told.append((done, total)))
        for done in range(1, total + 1):
            on_step(done, total)
    assert (pace.step_s, pace.score_s) == (1.0, None)
    assert told == [(1, 3), (2, 3), (3, 3), (1, 2), (2, 2)]


def test_pace_of_scoring_is_its_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 2.0, 5.0, 8.0])
    monkeypatch.setattr(trial_module, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    expected = Score(correct=1, total=3)
    monkeypatch.setattr(trial_module, "validation_score", lambda *_: expected)
    pace, bench = Pace(), make_bench()
    for _ in range(2):
        assert pace.timed_score(nn.Identity(), bench.data, 16) == expected
    assert (pace.step_s, pace.score_s) == (None, 2.0)


def test_run_when_trained_says_how_long_a_step_and_a_scoring_took() -> None:
    training = {"base_steps": 4, "rung_steps": [1, 3], "final_steps": 2, "batch_size": 16}
    bench = make_bench(space=make_space(training=training))
    record = Trial(number=0, bench=bench, history=[], on_step=lambda _done, _total: None).run(
        make_knobs()
    )
    assert record.step_s is not None
    assert record.score_s is not None
    assert 0 < record.step_s + 3 * record.score_s < record.train_s
    assert Record.from_json(record.to_json()) == record
