# ruff: noqa: ANN401 - fakes take whatever the real function is given
"""Trials from asking to telling, with the jobs that they start."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from bench import Bench
from study_fixtures import make_bench, make_cost, make_knobs, make_record, make_space

from hwsearch.accuracy.ladder import advance
from hwsearch.accuracy.training import Score
from hwsearch.errors import BackboneError, HostError, TrialsFailedError
from hwsearch.space.knobs import Knobs
from hwsearch.study import trial_loop
from hwsearch.study.clock import Clock
from hwsearch.study.executor.base import Done, Event, Executor, Failed, Paused, WorkerLostError
from hwsearch.study.executor.inline import InlineExecutor
from hwsearch.study.jobs import trial as trial_work
from hwsearch.study.jobs.layers import Examined, ExamineLayers
from hwsearch.study.jobs.report import Report
from hwsearch.study.jobs.run import Job
from hwsearch.study.jobs.trial import Evaluate, Pace
from hwsearch.study.trial_loop import TrialLoop
from hwsearch.study.trials.progress import Silent
from hwsearch.study.trials.records import Record
from hwsearch.study.written.storage import StudyStore

SILENT = Report(phase=lambda _: None, step=lambda _done, _total: None)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path))


class Proposals:
    """A study that proposes what it is given, and remembers what it is told."""

    def __init__(self, knobs: Iterable[Knobs], first: int = 0) -> None:
        self._left, self._number = list(knobs), first
        self.told: list[tuple[int, Record, Sequence[float] | None]] = []

    def ask(self) -> tuple[Any, Knobs]:
        number, self._number = self._number, self._number + 1
        return SimpleNamespace(number=number), self._left.pop(0)

    def tell(self, trial: Any, record: Record, values: Any, violations: Any) -> None:
        assert set(violations) == {"latency", "size"}
        self.told.append((trial.number, record, values))


def make_loop(
    bench: Bench, proposals: Proposals, history: Sequence[Record], executor: Executor | None = None
) -> TrialLoop:
    return TrialLoop(
        pricing=bench.pricing,
        executor=executor or InlineExecutor(bench.training, SILENT),
        store=cast(StudyStore, proposals),
        clock=Clock(None),
        watcher=Silent(),
        base_of=bench.base_of,
        records=list(history),
        left_s=lambda _: None,
        facts={},
    )


def run(
    knobs: Knobs,
    *,
    number: int = 0,
    history: tuple[Record, ...] = (),
    **changes: Any,
) -> Record:
    """The record of one trial after those of the history."""
    bench = make_bench(trials=len(history) + 1, **changes)
    proposals = Proposals([knobs], number)
    loop = make_loop(bench, proposals, history)
    loop.run(None)
    [(told, record, _)] = proposals.told
    assert told == number == record.trial
    assert loop.records == [*history, record]
    return record


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("this network is never trained")


def test_trial_when_all_is_well_reaches_the_top() -> None:
    record = run(make_knobs(prune=(0.0, 0.25, 0.5, 0.0), saving=0.5), number=4)
    assert (record.state, record.reason) == ("completed", None)
    assert [score.total for score in record.scores] == [30, 30, 30]
    assert record.candidate is not None
    assert record.candidate.pruning == (0.0, 0.25, 0.5, 0.0)
    assert record.probability is not None
    assert record.probability > 0.9
    assert record.train_s > 0
    assert Record.from_json(record.to_json()) == record


def test_trial_when_asked_twice_has_the_same_scores() -> None:
    knobs = make_knobs(prune=(0.5,) * 4, saving=1.0)
    first, second = run(knobs), run(knobs, number=9)
    assert first.scores == second.scores
    assert first.candidate == second.candidate


def test_trial_when_the_whole_backbone_is_over_budget_needs_no_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Bench, "base_of", refuse)
    record = run(make_knobs(), budget_texts=("1us", "1MB"))
    assert record.state == "over_budget"
    assert record.candidate is None
    assert record.reason == "even the smallest of this backbone"
    assert record.probability is not None
    assert record.probability < 0.9


def test_trial_when_only_this_candidate_is_over_budget_takes_no_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dense = make_bench()
    size = dense.pricing.price(dense.expand(make_knobs())).size_bytes
    monkeypatch.setattr(trial_work, "inherit", refuse)
    record = run(make_knobs(), budget_texts=("1ms", f"{size - 1}B"))
    assert (record.state, record.reason) == ("over_budget", "predicted over the budget")
    assert record.candidate is not None
    assert record.train_s == 0.0


def test_trial_when_the_network_is_known_is_not_evaluated_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = run(make_knobs(), number=2)
    monkeypatch.setattr(trial_work, "inherit", refuse)
    again = run(make_knobs(protect_edges=False), number=5, history=(first,))
    assert (again.state, again.original) == ("duplicate", 2)
    assert again.scores == first.scores
    assert again.reason == "same network as trial 2"
    assert run(make_knobs(), number=6, history=(again, first)).original == 2


def test_trial_when_the_same_network_failed_before_tries_again() -> None:
    candidate = make_bench().expand(make_knobs())
    failed = make_record(1, "failed", candidate=candidate, scores=(), cost=None)
    assert run(make_knobs(), number=2, history=(failed,)).state == "completed"


def rival(**changes: Any) -> Record:
    """Cheaper than anything and always right."""
    right = Score(correct=30, total=30)
    plain: dict[str, Any] = {"cost": make_cost(1e-6, size_bytes=1), "scores": (right,) * 3}
    return make_record(7, **(plain | changes))


def test_trial_when_dominated_stops_at_the_lowest_level(monkeypatch: pytest.MonkeyPatch) -> None:
    poor = Score(correct=10, total=30)
    monkeypatch.setattr(trial_work, "validation_score", lambda *_: poor)
    monkeypatch.setattr(trial_work, "advance", refuse)
    record = run(make_knobs(), number=8, history=(rival(),))
    assert (record.state, record.scores) == ("stopped", (poor,))
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
def test_trial_when_the_other_is_no_rival_goes_on(changes: dict[str, Any]) -> None:
    assert run(make_knobs(), number=8, history=(rival(**changes),)).state == "completed"


@pytest.mark.parametrize(
    "error", [BackboneError("the loss\n is  not finite"), RuntimeError("x" * 999)]
)
def test_trial_when_training_fails_is_recorded(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(trial_work, "advance", fail)
    record = run(make_knobs())
    assert (record.state, record.scores) == ("failed", ())
    assert record.reason in {"the loss is not finite", "x" * 300}
    assert record.cost is not None


@pytest.mark.parametrize("error", [KeyboardInterrupt, HostError])
def test_trial_when_interrupted_or_the_disk_is_full_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(trial_work, "advance", stop)
    with pytest.raises(error):
        run(make_knobs())


def test_trial_trains_the_difference_of_the_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    recipes, plain = [], advance

    def listen(model: Any, data: Any, px: int, recipe: Any, **more: Any) -> None:
        recipes.append(recipe)
        plain(model, data, px, recipe, **more)

    monkeypatch.setattr(trial_work, "advance", listen)
    training = {"base_steps": 4, "rung_steps": [1, 4], "final_steps": 2, "batch_size": 16}
    record = run(make_knobs(), space=make_space(training=training))
    assert [recipe.steps for recipe in recipes] == [1, 3]
    assert recipes[0].seed != recipes[1].seed
    assert record.step_s is not None
    assert record.score_s is not None
    assert 0 < 2 * record.step_s + 3 * record.score_s < record.train_s


def test_step_timer_is_told_the_time_between_steps_in_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([10.0, 11.0, 12.5, 100.0, 100.5])
    monkeypatch.setattr(trial_work, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    told: list[tuple[int, int]] = []
    timer = trial_work.StepTimer(lambda done, total: told.append((done, total)))
    before = timer.mean_s
    for total in (3, 2):  # what lies between two trainings is no step
        on_step = timer.of_one_training()
        for done in range(1, total + 1):
            on_step(done, total)
    assert (before, timer.mean_s) == (None, 1.0)
    assert told == [(1, 3), (2, 3), (3, 3), (1, 2), (2, 2)]


# -- several side by side -------------------------------------------------------------------------


class TwoSlots:
    """Two jobs side by side that end in the order that is given, each with these scores.

    Attributes:
        most: jobs that were ever run at once.
        answers: of the loop to each score.
    """

    slots = 2

    def __init__(self, bench: Bench, order: Sequence[int], rights: Sequence[int]) -> None:
        self._bench, self._order, self._rights = bench, list(order), rights
        self._evaluated: dict[int, int] = {}
        self._facts: int | None = None
        self.most, self.answers, self.lost = 0, list[object](), set[int]()
        self._count = self._trials = 0

    def start(self, job: Job) -> int:
        number, self._count = self._count, self._count + 1
        if isinstance(job, ExamineLayers):
            self._facts = number
        else:
            assert isinstance(job, Evaluate)
            self._evaluated[number], self._trials = self._trials, self._trials + 1
            self.most = max(self.most, len(self._evaluated))
        return number

    def wait(self) -> Event:
        if self._facts is not None:
            job, self._facts = self._facts, None
            examined = Examined(facts=self._bench.facts_of(make_knobs()), export_s=0.5)
            return Done(job=job, value=examined)
        trial = next(one for one in self._order if one in self._evaluated.values())
        [job] = [job for job, number in self._evaluated.items() if number == trial]
        if trial in self.lost:
            del self._evaluated[job]
            return Failed(job=job, error=WorkerLostError("its process was ended by SIGKILL"))
        if self.answers and self.answers[-1] is False:
            self.answers.clear()
            del self._evaluated[job]
            return Done(job=job, value=Pace(train_s=1.0, step_s=0.1, score_s=0.1))
        return Paused(job=job, value=Score(correct=self._rights[trial], total=30))

    def answer(self, job: int, value: object, *, beside: int | None = None) -> None:
        self.answers.append(value)

    def end(self, job: int) -> None:
        raise AssertionError("trials are not given up")

    def close(self) -> None:
        """Nothing to free."""


def side_by_side(
    order: Sequence[int], knobs: Sequence[Knobs], lost: Iterable[int] = ()
) -> tuple[Proposals, TwoSlots]:
    bench = make_bench(trials=len(knobs))
    proposals, executor = Proposals(knobs), TwoSlots(bench, order, [20] * len(knobs))
    executor.lost.update(lost)
    make_loop(bench, proposals, (), executor).run(None)
    return proposals, executor


SEVERAL = [make_knobs(saving=saving, protect_edges=False) for saving in (0.0, 0.5, 1.0)]


def test_two_slots_run_two_trials_and_tell_them_as_they_end() -> None:
    proposals, executor = side_by_side((1, 2, 0), SEVERAL)
    assert executor.most == 2
    assert [number for number, _, _ in proposals.told] == [1, 2, 0]
    assert all(record.trial == number for number, record, _ in proposals.told)
    assert all(values is not None for _, _, values in proposals.told)


def test_network_that_is_being_evaluated_is_not_evaluated_beside_it() -> None:
    proposals, _ = side_by_side((0, 1), [SEVERAL[0], SEVERAL[0], SEVERAL[2]])
    first, *_ = proposals.told
    assert (first[0], first[1].state, first[1].original) == (1, "duplicate", 0)
    assert first[2] is None, "it has no score yet"
    assert [number for number, _, _ in proposals.told] == [1, 0, 2]


def test_process_that_is_lost_costs_one_trial() -> None:
    proposals, _ = side_by_side((0, 1, 2), SEVERAL, lost={1})
    by_number = {number: record for number, record, _ in proposals.told}
    assert by_number[1].state == "failed"
    assert by_number[1].reason == "its process was ended by SIGKILL"
    assert by_number[0].state == by_number[2].state == "completed"


def test_loop_when_too_many_fail_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    knobs = [make_knobs(saving=saving, protect_edges=False) for saving in (0, 0.25, 0.5, 0.75, 1)]
    with pytest.raises(TrialsFailedError, match=r"4 of 4 trials failed, the last one with: its"):
        side_by_side(range(5), knobs, lost=range(5))


def test_loop_when_proposals_are_known_networks_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_loop, "_EXHAUSTED", 2)
    bench, notes = make_bench(trials=9), list[str]()
    proposals = Proposals([make_knobs()] * 9)
    loop = make_loop(bench, proposals, ())
    loop.watcher = cast(Any, SimpleNamespace(
        phase=lambda _: None, note=notes.append, trial=lambda *_, **__: None,
    ))  # fmt: skip
    loop.run(None)
    assert [record.state for record in loop.records] == ["completed", "duplicate", "duplicate"]
    assert notes == ["the last 2 proposals were known networks; search ended"]
