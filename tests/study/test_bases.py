# ruff: noqa: ANN401 - fakes take whatever the real function is given
"""Backbones compete for the time of base training."""

import sys
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from safetensors.torch import save_file
from study_fixtures import make_bench, make_knobs, make_space
from tiny_network import OWN, PX

from hwsearch.accuracy.base_training import BaseTraining
from hwsearch.accuracy.training import Score
from hwsearch.files import cache_folder
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.study import bases
from hwsearch.study.bases import (
    Contender,
    Level,
    Outcome,
    base_names,
    cannot_join,
    prepare_bases,
)
from hwsearch.study.candidates.training_context import TrainingContext
from hwsearch.study.clock import Clock
from hwsearch.study.executor.inline import InlineExecutor
from hwsearch.study.jobs.report import Report

GUESSING = 0.1


def contender(
    name: str, percents: tuple[float, ...], costs: tuple[float, ...] = (1.0,)
) -> Contender:
    """A backbone with scores of 10,000 pictures after 1, 2, 4, ... units of training."""
    return Contender(
        ref=BackboneRef(name=name, classes=10),
        px=32,
        levels=tuple(Level(costs=(cost,), lost=0.0) for cost in costs),
        step_effort=1.0,
        job=0,  # is not trained here
        scores=[
            (2.0**at, Score(correct=round(100 * percent), total=10_000))
            for at, percent in enumerate(percents)
        ],
    )


def test_cannot_join_when_a_cheaper_one_is_far_ahead() -> None:
    slow = contender("slow", (30.0, 32.0), costs=(2.0, 3.0))
    fast = contender("fast", (60.0, 62.0), costs=(1.0,))
    why = cannot_join(slow, [fast], 8.0, GUESSING)
    assert why is not None
    assert why == (
        "32.0 % on validation pictures after equal training; at lower cost, fast will stay ahead "
        "whatever it may still gain"
    )
    assert cannot_join(fast, [slow], 8.0, GUESSING) is None


def test_cannot_join_when_one_of_its_forms_is_cheaper_than_all_others_stays() -> None:
    slow = contender("slow", (30.0, 32.0), costs=(0.5, 3.0))
    assert cannot_join(slow, [contender("fast", (60.0, 62.0))], 8.0, GUESSING) is None


def test_cannot_join_when_it_began_slowly_and_rises_stays() -> None:
    """16 points behind, but it gained 25 with the last doubling, and two more are left."""
    late = contender("late", (20.0, 45.0), costs=(2.0,))
    early = contender("early", (60.0, 61.0))
    assert cannot_join(late, [early], 8.0, GUESSING) is None
    assert cannot_join(late, [early], 2.0, GUESSING) is not None, "no time is left to rise"


def test_cannot_join_when_a_rival_would_rise_in_the_time_that_it_takes() -> None:
    costly = contender("costly", (57.0, 60.8), costs=(2.0,))
    rival = contender("rival", (55.0, 61.0))
    costly.spent = 2.0
    assert cannot_join(costly, [rival], 2.0, GUESSING) is None, "no time is left to be given"
    costly.spent = 0.0
    assert cannot_join(costly, [rival], 2.0, GUESSING) is not None


def test_cannot_join_when_rivals_lose_by_pruning_counts_what_is_left() -> None:
    costly = contender("costly", (50.0, 50.0), costs=(2.0,))
    rival = contender("rival", (56.0, 56.0))
    assert cannot_join(costly, [rival], 4.0, GUESSING) is not None
    rival.levels = (Level(costs=(1.0,), lost=0.2),)
    assert cannot_join(costly, [rival], 4.0, GUESSING) is None


def test_cannot_join_when_costs_are_several_needs_one_rival_cheaper_in_all() -> None:
    one = contender("one", (30.0, 30.0))
    one.levels = (Level(costs=(1.0, 5.0), lost=0.0),)
    other = contender("other", (60.0, 60.0))
    other.levels = (Level(costs=(0.5, 9.0), lost=0.0), Level(costs=(2.0, 1.0), lost=0.0))
    assert cannot_join(one, [other], 4.0, GUESSING) is None
    other.levels = (Level(costs=(1.0, 5.0), lost=0.0),)
    assert cannot_join(one, [other], 4.0, GUESSING) is not None


# -- whole competitions ---------------------------------------------------------------------------


SECOND = "second_network:tiny_backbone"


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench of two equal backbones."""
    source = Path(sys.modules["tiny_network"].__file__ or "").read_text(encoding="utf-8")
    (tmp_path / "second_network.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    return make_bench(space=make_space(backbones=[OWN, SECOND]))


def prepare(bench: Bench, seconds: float | None = None, **more: Any) -> Outcome:
    report = Report(phase=lambda _: None, step=lambda _done, _total: None)
    executor = InlineExecutor(bench.training, report)
    return prepare_bases(bench.pricing, bench.training, executor, Clock(), seconds, **more)


def scored(monkeypatch: pytest.MonkeyPatch, percents: dict[str, int]) -> list[str]:
    """Let backbones score what is said; returns who was scored, in order."""
    told: list[str] = []

    def score(self: BaseTraining) -> Score:
        name = self._blueprint.ref.name
        told.append(name)
        return Score(correct=percents[name], total=100)

    monkeypatch.setattr(BaseTraining, "score", score)
    return told


def test_prepare_when_one_is_beaten_trains_the_other_to_the_end(
    two: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = scored(monkeypatch, {OWN: 40, SECOND: 90})
    outcome = prepare(two)
    assert [ref.name for ref, _ in outcome.bases] == [SECOND]
    assert list(outcome.stopped) == [OWN]
    assert told == [OWN, SECOND] * 2, "two rounds tell how it rises"
    [base] = outcome.bases.values()
    assert two.training.network(base).importance is not None


def test_prepare_when_called_again_reads_what_was_trained(
    two: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = scored(monkeypatch, {OWN: 40, SECOND: 90})
    first, before = prepare(two), len(told)
    again = prepare(two)
    assert len(told) == before
    assert again.stopped == first.stopped
    assert again.bases == first.bases


def test_prepare_when_a_stored_outcome_is_corrupt_trains_again(
    two: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = scored(monkeypatch, {OWN: 90, SECOND: 90})
    prepare(two)
    before = len(told)
    [path] = (cache_folder() / "competition").glob("?" * 64)
    path.write_text("{")
    prepare(two)
    assert "is corrupt" in caplog.text
    assert len(told) == 2 * before


def test_prepare_when_a_run_goes_on_reads_the_networks_that_it_chose(
    two: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = scored(monkeypatch, {OWN: 40, SECOND: 90})
    chosen = base_names(prepare(two, 0.4))
    before = len(told)
    again = prepare(two, 0.01, chosen=chosen)
    assert base_names(again) == chosen
    assert again.stopped == {OWN: "it was left out before"}
    for path in (cache_folder() / "base").glob("?" * 64):
        path.unlink()
    lost = prepare(two, 0.01, chosen=chosen)
    assert [ref.name for ref, _ in lost.bases] == [SECOND], "what was chosen does not compete again"
    assert len(told) == before


def test_prepare_when_the_weights_file_changed_trains_again(
    two: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = scored(monkeypatch, {OWN: 90, SECOND: 90})
    prepare(two)
    before = len(told)
    state = {
        name: t.contiguous()
        for name, t in build(two.pricing.backbones.base_of(make_knobs())[0], PX)
        .state_dict()
        .items()
    }
    monkeypatch.setattr(
        TrainingContext, "weights_of", lambda _self, _ref: tmp_path / "start.safetensors"
    )
    for factor in (1.0, 2.0):
        save_file(
            {n: factor * t if t.is_floating_point() else t for n, t in state.items()},
            tmp_path / "start.safetensors",
        )
        prepare(two)
        assert len(told) > before
        before = len(told)


def test_prepare_when_the_clock_decides_serves_a_limit_that_is_no_longer(
    two: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = scored(monkeypatch, {OWN: 90, SECOND: 90})
    prepare(two, 0.4)
    before = len(told)
    for seconds, trained in ((0.3, False), (0.43, False), (0.6, True)):
        prepare(two, seconds)
        assert (len(told) > before) == trained
    [path] = (cache_folder() / "competition").glob("?" * 64)
    assert b'"total":0.6' in path.read_bytes()


def test_prepare_when_no_budget_admits_a_backbone_spends_nothing_on_it(
    two: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = bases._levels
    monkeypatch.setattr(
        bases, "_levels", lambda known, knobs: () if knobs.backbone == OWN else plain(known, knobs)
    )
    outcome = prepare(two)
    assert [ref.name for ref, _ in outcome.bases] == [SECOND]
    assert outcome.stopped == {OWN: "even its smallest network is predicted over the budget"}


def test_levels_are_the_forms_that_the_budget_admits() -> None:
    bench = make_bench()
    every = bases._levels(bench.pricing, make_knobs())
    assert {level.lost for level in every} == {0.0, 0.04, 0.08}, "of nothing, a quarter, half"
    assert len(every) == len(set(every))
    dense = max(level.costs[0] for level in every)
    cheap = min(level.costs[0] for level in every)
    tight = make_bench(budget_texts=(f"{0.5 * (dense + cheap):g}ms",))
    fewer = bases._levels(tight.pricing, make_knobs())
    assert 0 < len(fewer) < len(every)
    assert bases._levels(make_bench(budget_texts=("1us",)).pricing, make_knobs()) == ()
    assert bench.pricing.backbones.base_of(make_knobs())[1] == PX
