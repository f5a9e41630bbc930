from dataclasses import replace
from pathlib import Path

import pytest
from study_fixtures import make_bench, make_candidate, make_cost, make_knobs, make_record
from torch import nn

from hwsearch.accuracy.ladder import fine_tune
from hwsearch.accuracy.training import Recipe, Score
from hwsearch.bits import FP16, FP32, INT8
from hwsearch.space.candidate import Candidate
from hwsearch.study.candidates.workbench import FIXED_MACS, Workbench
from hwsearch.study.finals import finalize as finalize_module
from hwsearch.study.finals.final_time import (
    SHIP_START_S,
    FinalTime,
    TuningTimes,
    expected_s,
    ship_s,
)
from hwsearch.study.finals.finalize import FinalScore, baseline_recipe, finalize, full_recipe
from hwsearch.study.trials.records import Record


def test_final_when_written_and_read() -> None:
    score = Score(correct=1, total=3)
    final = FinalScore(candidate=make_candidate(), validation=score, train_s=1.5)
    assert FinalScore.from_json(final.to_json()) == final


def finish(
    bench: Workbench,
    finalists: list[Candidate],
    baselines: list[Candidate],
    done: dict[str, FinalScore],
    final_time: FinalTime | None = None,
) -> tuple[dict[str, FinalScore], list[tuple[str, nn.Module]]]:
    kept: list[tuple[str, nn.Module]] = []
    finals = finalize(
        finalists,
        baselines,
        done,
        bench,
        final_time=final_time,
        on_phase=lambda _: None,
        on_step=lambda _done, _total: None,
        on_final=lambda final, model: kept.append((final.candidate.id, model)),
    )
    return finals, kept


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path))
    return make_bench()


def uniform(bench: Workbench) -> tuple[Candidate, Candidate, Candidate]:
    """The dense network in fp32, fp16 and int8."""
    dense, half, int8 = (bench.baseline(make_knobs(), bits) for bits in (FP32, FP16, INT8))
    return dense, half, int8


def test_finalize_when_some_are_done_trains_the_others_once(bench: Workbench) -> None:
    dense, _, int8 = uniform(bench)
    score = Score(correct=1, total=30)
    done = FinalScore(candidate=dense, validation=score, train_s=9.0)
    finals, kept = finish(bench, [int8], [dense, int8], {dense.id: done})
    assert [key for key, _ in kept] == [int8.id]
    [(_, model)] = kept
    assert not model.training
    assert finals[dense.id] is done
    assert finals[int8.id].validation.total == 30


def test_dense_baseline_is_the_base_network_itself(bench: Workbench) -> None:
    dense, _, int8 = uniform(bench)
    assert baseline_recipe(dense, bench).steps == 0
    assert baseline_recipe(int8, bench).steps == bench.settings.space.training.rung_steps[-1]
    base = bench.prepared(dense).base
    finals, [(_, model)] = finish(bench, [], [dense], {})
    ours, theirs = dict(model.named_parameters()), dict(base.model.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)
    assert finals[dense.id].validation == base.validation


def test_finalize_when_a_baseline_is_a_finalist_trains_it_as_one(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense, half, int8 = uniform(bench)
    recipes: list[Recipe] = []
    plain = fine_tune

    def remember(plan: object, data: object, recipe: Recipe, **more: object) -> nn.Module:
        recipes.append(recipe)
        return plain(plan, data, recipe, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(finalize_module, "fine_tune", remember)
    finish(bench, [int8, half], [dense, int8], {})
    assert [recipe.steps for recipe in recipes] == [0, bench.final_steps, bench.final_steps]
    assert recipes[1] == full_recipe(int8, bench)


def test_finalize_under_a_time_limit_trains_by_the_clock(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense, half, int8 = uniform(bench)
    recipes: list[Recipe] = []

    def remember(plan: object, data: object, recipe: Recipe, **more: object) -> nn.Module:
        recipes.append(recipe)
        return bench.prepared(dense).base.model

    monkeypatch.setattr(finalize_module, "fine_tune", remember)
    left = iter((100.0, 60.0))
    share = FinalTime(lambda: next(left), even_pace(half, int8), bench, [])
    finish(bench, [half, int8], [dense], {}, share)
    free_s = (100.0 - SHIP_START_S, 60.0 - SHIP_START_S)
    assert [recipe.seconds for recipe in recipes] == [None, free_s[0] / 2, free_s[1]]


def even_pace(*candidates: Candidate, step_s: float = 0.1) -> TuningTimes:
    return TuningTimes(
        step_s={one.id: step_s for one in candidates},
        settle_s={one.id: 0.0 for one in candidates},
        validation_s={one.id: 0.0 for one in candidates},
        file_score_s={one.id: 0.0 for one in candidates},
    )


def timed(
    trial: int,
    bench: Workbench,
    *,
    train_s: float,
    step_s: float | None,
    score_s: float | None = 0.0,
    part: float = 1.0,
) -> Record:
    """A completed trial whose network has this part of the dense one's MACs."""
    dense = bench.describe(bench.baseline(make_knobs(), FP32))
    cost = replace(make_cost(1.0 + trial), macs=round(part * dense.macs))
    scores = (Score(correct=10 + trial, total=100),)
    return make_record(
        trial, scores=scores, cost=cost, train_s=train_s, step_s=step_s, score_s=score_s
    )


def test_time_is_shared_so_that_all_take_as_many_steps(bench: Workbench) -> None:
    dense, half, int8 = uniform(bench)
    pace = TuningTimes(
        step_s={dense.id: 0.3, half.id: 0.1, int8.id: 0.1},
        settle_s={dense.id: 1.0, half.id: 2.0, int8.id: 3.0},
        validation_s={dense.id: 1.0, half.id: 1.0, int8.id: 1.0},
        file_score_s={dense.id: 2.0, half.id: 2.0, int8.id: 2.0},
    )
    work = FinalTime(lambda: 100.0, pace, bench, [])
    free_s = 100.0 - SHIP_START_S - 9.0
    assert work.seconds_for([dense, half, int8]) == pytest.approx(0.6 * free_s)
    assert work.seconds_for([half, int8]) == pytest.approx(0.5 * (100.0 - SHIP_START_S - 7.0))
    assert FinalTime(lambda: 0.0, pace, bench, []).seconds_for([dense]) == 0.0


def test_time_is_kept_for_the_files(bench: Workbench) -> None:
    dense, _, int8 = uniform(bench)
    pace = even_pace(dense, int8)
    alone = FinalTime(lambda: 100.0, pace, bench, []).seconds_for([dense])
    with_files = FinalTime(lambda: 100.0, pace, bench, [dense, int8]).seconds_for([dense])
    expected = sum(ship_s(bench.price(one).latency_ms.value, bench) for one in (dense, int8))
    assert alone - with_files == pytest.approx(expected)


@pytest.mark.parametrize(("left_s", "kept", "least"), [(1e4, 5, 12.0), (10.0, 3, 0.0)])
def test_finalists_are_fewer_where_time_is_short(
    left_s: float, kept: int, least: float, bench: Workbench
) -> None:
    dense, half, int8 = uniform(bench)
    more = [replace(make_candidate(), backbone=f"net{at}") for at in range(2)]
    ordered = [dense, half, int8, *more]
    work = FinalTime(lambda: left_s, even_pace(*ordered), bench, [])
    found, passes = work.affordable(ordered)
    assert found == ordered[:kept], "those that add the most stay"
    steps_s = 0.1 * kept * len(bench.data.train) / bench.settings.space.training.batch_size
    assert passes == pytest.approx((left_s - SHIP_START_S) / steps_s)
    assert passes >= least


def test_pace_when_steps_were_not_timed_goes_by_macs(bench: Workbench) -> None:
    first = timed(0, bench, step_s=0.2, train_s=1.0, part=1.0)
    other = timed(1, bench, step_s=None, train_s=0.5, part=0.5)
    other = replace(other, candidate=make_candidate(8))
    assert first.candidate is not None
    assert other.candidate is not None
    assert first.cost is not None
    assert other.cost is not None
    pace = TuningTimes.of([first, other], bench)
    effort = (other.cost.macs + FIXED_MACS) / (first.cost.macs + FIXED_MACS)
    assert pace.step_s[other.candidate.id] == pytest.approx(0.2 * effort)


def test_expected_time_counts_steps_as_steps_and_the_rest_once(bench: Workbench) -> None:
    record = timed(0, bench, step_s=0.1, score_s=0.2, train_s=0.3 + 2 * 0.1 + 3 * 0.2)
    record = replace(record, scores=record.scores * 3)
    scored = 0.2 * (1 + len(bench.data.test) / len(bench.data.validation))
    network = 0.1 * bench.final_steps + 0.3 + scored + 0.5
    assert expected_s([record], bench) == pytest.approx(SHIP_START_S + network)
    assert expected_s([], bench) == SHIP_START_S
