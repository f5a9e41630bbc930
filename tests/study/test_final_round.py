"""Networks that are trained to the end: once each, in folders of their own, in the time left."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from bench import Bench
from safetensors.torch import load_file
from study_fixtures import (
    make_bench,
    make_candidate,
    make_cost,
    make_knobs,
    make_profile,
    make_record,
    make_settings,
    make_space,
)
from tiny_network import OWN
from torch import nn

from hwsearch.accuracy.ladder import fine_tune
from hwsearch.accuracy.training import Recipe, Score
from hwsearch.bits import FP16, FP32, INT8
from hwsearch.space.candidate import Candidate
from hwsearch.study.candidates.pricing_context import FIXED_MACS, PricingContext
from hwsearch.study.clock import SHIP, Clock
from hwsearch.study.executor.inline import InlineExecutor
from hwsearch.study.finals.evidence import EvidenceFile
from hwsearch.study.finals.final_round import FinalRound
from hwsearch.study.finals.final_time import (
    SHIP_START_S,
    FinalTime,
    TuningTimes,
    expected_s,
    ship_s,
)
from hwsearch.study.jobs import final as final_work
from hwsearch.study.jobs.final import FinalScore
from hwsearch.study.jobs.report import Report
from hwsearch.study.trials.progress import Silent
from hwsearch.study.trials.records import Record
from hwsearch.study.written.storage import StudyStore

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def bench() -> Bench:
    return make_bench()


def stopped_clock(limit_s: float | None = None) -> Clock:
    """A clock that never goes on."""
    return Clock(limit_s, now=lambda: 0.0)


def make_round(folder: Path, bench: Bench, clock: Clock | None = None) -> FinalRound:
    folder.mkdir(exist_ok=True)
    store = StudyStore(
        folder, space=make_space(), quantities=("latency", "size"), seed=0, fingerprint="0"
    )
    report = Report(phase=lambda _: None, step=lambda _done, _total: None)
    return FinalRound(
        pricing=bench.pricing,
        training=bench.training,
        executor=InlineExecutor(bench.training, report),
        clock=clock or stopped_clock(),
        base_of=bench.base_of,
        store=store,
        folder=folder,
        watcher=Silent(),
    )


def record_of(candidate: Candidate, bench: Bench, trial: int = 0, correct: int = 24) -> Record:
    """A trial that went to the top with this network."""
    return make_record(
        trial,
        knobs=make_knobs(),
        candidate=candidate,
        cost=bench.pricing.price(candidate),
        scores=(Score(correct=correct, total=30),) * 3,
        step_s=0.01,
        score_s=0.01,
        train_s=0.1,
    )


def trials(bench: Bench) -> tuple[Record, Record]:
    """A pruned network, and one that is the uniform int8 baseline."""
    pruned = bench.expand(make_knobs(prune=(0.5,) * 4))
    int8 = bench.pricing.backbones.uniform(make_knobs(), INT8)
    return record_of(pruned, bench), record_of(int8, bench, 1)


def folders(evidence: EvidenceFile, run: Path) -> list[str]:
    """The folder of each trial and baseline, all of which have weights."""
    found = [network.folder for network in evidence.networks]
    assert all((run / "models" / name / "model.safetensors").is_file() for name in found)
    return found


DENSE, UNIFORM = (
    f"baseline_{name}_{OWN.replace(':', '.')}" for name in ("dense-fp32", "uniform-int8")
)


def test_trial_that_is_a_baseline_shares_its_folder(tmp_path: Path, bench: Bench) -> None:
    both = trials(bench)
    evidence = make_round(tmp_path / "run", bench).run(both, ())
    models = ["trial_0000", "trial_0001"]
    assert folders(evidence, tmp_path / "run") == [*models, DENSE, "trial_0001"]
    by_name = {network.name: network for network in evidence.networks}
    assert by_name["uniform-int8"].candidate == evidence.networks[1].candidate


def test_baseline_that_becomes_a_trial_stays_in_its_folder(tmp_path: Path, bench: Bench) -> None:
    pruned, int8 = trials(bench)
    work = make_round(tmp_path / "run", bench)
    first = work.run([pruned], ())
    assert folders(first, tmp_path / "run") == ["trial_0000", DENSE, UNIFORM]
    before = work.store.finals()
    second = work.run([pruned, int8], ())
    assert folders(second, tmp_path / "run") == ["trial_0000", UNIFORM, DENSE, UNIFORM]
    assert work.store.finals() == before


def test_thin_limit_is_said_first_and_trains_three_finalists(tmp_path: Path, bench: Bench) -> None:
    pruned, _ = trials(bench)
    assert pruned.candidate is not None
    several = [
        replace(
            pruned.candidate,
            channels=tuple((name, kept - at) for name, kept in pruned.candidate.channels),
        )
        for at in range(5)
    ]
    chosen = [record_of(one, bench, at) for at, one in enumerate(several)]
    work = make_round(tmp_path / "run", bench, stopped_clock(6.0))
    evidence = work.run(chosen, ("before",))
    assert len(evidence.trials) == 3
    assert evidence.notes[0] == "before"
    assert "the time limit leaves each finalist" in evidence.notes[1]
    assert "the time limit left no time to train trial" in evidence.notes[2]


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """How networks were trained."""
    seen: list[Recipe] = []
    plain = fine_tune

    def remember(plan: object, data: object, recipe: Recipe, **more: object) -> nn.Module:
        seen.append(recipe)
        short = replace(recipe, steps=min(recipe.steps, 1), seconds=None)
        return plain(plan, data, short, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(final_work, "fine_tune", remember)
    return seen


def uniform(bench: Bench) -> tuple[Candidate, Candidate, Candidate]:
    """The dense network in fp32, fp16 and int8."""
    dense, half, int8 = (
        bench.pricing.backbones.uniform(make_knobs(), bits) for bits in (FP32, FP16, INT8)
    )
    return dense, half, int8


def test_networks_that_are_done_are_not_trained_again(
    tmp_path: Path, bench: Bench, recipes: list[Recipe]
) -> None:
    dense, _, int8 = uniform(bench)
    work = make_round(tmp_path / "run", bench)
    done = FinalScore(candidate=dense, validation=Score(correct=1, total=30), train_s=9.0)
    work.store.set_final(dense.id, done.to_json())
    evidence = work.run([record_of(int8, bench)], ())
    assert [recipe.steps for recipe in recipes] == [bench.training.final_steps]
    assert FinalScore.from_json(work.store.finals()[dense.id]) == done
    assert len(evidence.networks) == 3


def test_dense_baseline_is_the_base_network_itself(tmp_path: Path, bench: Bench) -> None:
    pruned, _ = trials(bench)
    work = make_round(tmp_path / "run", bench)
    work.run([pruned], ())
    dense = uniform(bench)[0]
    ours = load_file(tmp_path / "run" / "models" / DENSE / "model.safetensors")
    base = bench.base_of(dense)
    theirs = dict(bench.training.network(base).model.named_parameters())
    assert all((ours[name] == tensor).all() for name, tensor in theirs.items())
    stored = FinalScore.from_json(work.store.finals()[dense.id])
    assert stored.validation == base.validation


def test_baseline_that_is_a_finalist_is_trained_as_one(
    tmp_path: Path, bench: Bench, recipes: list[Recipe]
) -> None:
    _, half, int8 = uniform(bench)
    make_round(tmp_path / "run", bench).run([record_of(int8, bench), record_of(half, bench, 1)], ())
    full = bench.training.final_steps
    assert [recipe.steps for recipe in recipes] == [0, full, full]


def test_uniform_int8_is_tuned_as_long_as_a_trial(
    tmp_path: Path, bench: Bench, recipes: list[Recipe]
) -> None:
    pruned, _ = trials(bench)
    make_round(tmp_path / "run", bench).run([pruned], ())
    steps = bench.settings.space.training.rung_steps[-1]
    assert [recipe.steps for recipe in recipes] == [0, steps, bench.training.final_steps]


# -- time -----------------------------------------------------------------------------------------


def even_pace(*candidates: Candidate, step_s: float = 0.1) -> TuningTimes:
    return TuningTimes(
        step_s={one.id: step_s for one in candidates},
        settle_s={one.id: 0.0 for one in candidates},
        validation_s={one.id: 0.0 for one in candidates},
        file_score_s={one.id: 0.0 for one in candidates},
    )


def final_time(
    left_s: float,
    times: TuningTimes,
    bench: Bench,
    files: Sequence[Candidate] = (),
    slots: int = 1,
) -> FinalTime:
    clock = stopped_clock(left_s)
    return FinalTime(clock, times, bench.pricing, bench.training, files, slots)


def timed(
    trial: int,
    bench: Bench,
    *,
    train_s: float,
    step_s: float | None,
    score_s: float | None = 0.0,
    part: float = 1.0,
) -> Record:
    """A completed trial whose network has this part of the dense one's MACs."""
    dense = bench.pricing.backbones.describe(uniform(bench)[0])
    cost = replace(make_cost(1.0 + trial), macs=round(part * dense.macs))
    scores = (Score(correct=10 + trial, total=100),)
    return make_record(
        trial, scores=scores, cost=cost, train_s=train_s, step_s=step_s, score_s=score_s
    )


def test_time_is_shared_so_that_all_take_as_many_steps(bench: Bench) -> None:
    dense, half, int8 = uniform(bench)
    pace = TuningTimes(
        step_s={dense.id: 0.3, half.id: 0.1, int8.id: 0.1},
        settle_s={dense.id: 1.0, half.id: 2.0, int8.id: 3.0},
        validation_s={dense.id: 1.0, half.id: 1.0, int8.id: 1.0},
        file_score_s={dense.id: 2.0, half.id: 2.0, int8.id: 2.0},
    )
    work = final_time(100.0, pace, bench)
    free_s = 100.0 - SHIP_START_S - 9.0
    assert work.seconds_for([dense, half, int8]) == pytest.approx(0.6 * free_s)
    assert work.seconds_for([half, int8]) == pytest.approx(0.5 * (100.0 - SHIP_START_S - 7.0))
    assert final_time(0.0, pace, bench).seconds_for([dense]) == 0.0


def test_lanes_take_about_as_long_and_keep_the_order(bench: Bench) -> None:
    dense, half, int8 = uniform(bench)
    pace = replace(even_pace(half, int8), step_s={dense.id: 0.3, half.id: 0.1, int8.id: 0.1})
    assert final_time(100.0, pace, bench).lanes([half, dense, int8]) == [[half, dense, int8]]
    assert final_time(100.0, pace, bench, slots=2).lanes([half, dense, int8]) == [
        [dense],
        [half, int8],
    ]
    assert final_time(100.0, pace, bench, slots=9).lanes([half]) == [[half]]
    assert final_time(100.0, pace, bench, slots=2).lanes([]) == []


def test_time_is_kept_for_the_files(bench: Bench) -> None:
    dense, _, int8 = uniform(bench)
    pace, clock = even_pace(dense, int8), stopped_clock()
    alone = final_time(100.0, pace, bench).seconds_for([dense])
    with_files = final_time(100.0, pace, bench, [dense, int8]).seconds_for([dense])
    expected = sum(
        ship_s(bench.pricing.price(one).latency_ms.value, bench.pricing, clock)
        for one in (dense, int8)
    )
    assert alone - with_files == pytest.approx(expected)


def test_time_that_files_take_is_learned_from_those_that_were_made() -> None:
    clock = stopped_clock()
    host = PricingContext(make_settings(), make_profile(name="host"), 3)
    before = ship_s(1.0, host, clock)
    clock.took(SHIP, 100.0)
    assert ship_s(1.0, host, clock) == 100.0 != before


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize(
    ("free_s", "kept", "least"), [(1e4, 7, 30.0), (55.0, 5, 12.0), (6.0, 3, 0.0)]
)
def test_finalists_are_fewer_where_time_is_short(
    free_s: float, kept: int, least: float, slots: int, bench: Bench
) -> None:
    dense, half, int8 = uniform(bench)
    more = [replace(make_candidate(), backbone=f"net{at}") for at in range(4)]
    ordered = [dense, half, int8, *more]
    left_s = SHIP_START_S + free_s / slots
    found, passes = final_time(left_s, even_pace(*ordered), bench, slots=slots).affordable(ordered)
    assert found == ordered[:kept], "those that add the most stay"
    steps_s = 0.1 * kept * len(bench.data.train) / bench.settings.space.training.batch_size
    assert passes == pytest.approx(free_s / steps_s)
    assert passes >= least


def test_pace_when_steps_were_not_timed_goes_by_macs(bench: Bench) -> None:
    first = timed(0, bench, step_s=0.2, train_s=1.0, part=1.0)
    other = timed(1, bench, step_s=None, train_s=0.5, part=0.5)
    other = replace(other, candidate=make_candidate(8))
    assert first.candidate is not None
    assert other.candidate is not None
    assert first.cost is not None
    assert other.cost is not None
    pace = TuningTimes.of([first, other], bench.training, stopped_clock())
    effort = (other.cost.macs + FIXED_MACS) / (first.cost.macs + FIXED_MACS)
    assert pace.step_s[other.candidate.id] == pytest.approx(0.2 * effort)


def test_expected_time_counts_steps_as_steps_and_the_rest_once(bench: Bench) -> None:
    record = timed(0, bench, step_s=0.1, score_s=0.2, train_s=0.3 + 2 * 0.1 + 3 * 0.2)
    record = replace(record, scores=record.scores * 3)
    file_score_s = 0.2 * len(bench.data.test) / len(bench.data.validation)
    training_s = 0.1 * bench.training.final_steps + 0.3 + 0.2

    def expected(chosen: Sequence[Record], slots: int) -> float:
        return expected_s(chosen, bench.pricing, bench.training, stopped_clock(), slots)

    assert expected([record], 1) == pytest.approx(SHIP_START_S + training_s + file_score_s + 0.5)
    other = replace(record, trial=1, candidate=make_candidate(8))
    files_s = 2 * (file_score_s + 0.5)
    assert expected([record, other], 2) == pytest.approx(SHIP_START_S + training_s + files_s)
    assert expected([], 2) == SHIP_START_S
