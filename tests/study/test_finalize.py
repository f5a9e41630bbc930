from dataclasses import replace
from pathlib import Path

import pytest
from study_fixtures import make_bench, make_candidate, make_cost, make_knobs, make_record
from torch import nn

from hwsearch.accuracy.training import Score
from hwsearch.bits import FP16, FP32, INT8
from hwsearch.nets.quantize import quantized_outputs
from hwsearch.study.candidates.workbench import Workbench
from hwsearch.study.finals.final_time import Expected, expected_times, finalization_s
from hwsearch.study.finals.finalists import Planned, baseline_candidates, finalists
from hwsearch.study.finals.finalize import FinalScore, finalize
from hwsearch.study.trials.records import Record


def test_final_when_written_and_read() -> None:
    score = Score(correct=1, total=3)
    final = FinalScore(candidate=make_candidate(), validation=score, held_out=score, train_s=1.5)
    assert FinalScore.from_json(final.to_json()) == final


def test_finalize_when_some_are_done_trains_the_others_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path))
    bench = make_bench()
    dense, int8 = (bench.baseline(make_knobs(), bits) for bits in (FP32, INT8))
    score = Score(correct=1, total=30)
    done = FinalScore(candidate=dense, validation=score, held_out=score, train_s=9.0)
    stored: list[tuple[str, bool]] = []
    rounds: list[bool] = []

    def keep(final: FinalScore, model: nn.Module) -> None:
        stored.append((final.candidate.id, model.training))
        rounds.append(bool(quantized_outputs(model)))

    finals = finalize(
        [Planned(candidate=one) for one in (dense, int8, int8)],
        {dense.id: done},
        bench,
        on_phase=lambda _: None,
        on_step=lambda _done, _total: None,
        on_final=keep,
    )
    assert stored == [(int8.id, False)]
    assert rounds == [True]
    assert finals[dense.id] is done
    assert finals[int8.id].held_out.total == 30


@pytest.mark.parametrize(
    ("left_s", "trained"), [(0.0, ["dense", "int8"]), (1e6, None), (None, None)]
)
def test_finalize_when_time_is_short_trains_what_is_needed(
    left_s: float | None,
    trained: list[str] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path))
    bench = make_bench()
    wanted = {
        name: bench.baseline(make_knobs(), bits)
        for name, bits in (("dense", FP32), ("half", FP16), ("int8", INT8))
    }
    finals = finalize(
        [Planned(candidate=one, needed=name == "int8") for name, one in wanted.items()],
        {}, bench,
        left_s=None if left_s is None else lambda: left_s,
        on_phase=lambda _: None,
        on_step=lambda _done, _total: None,
        on_final=lambda _final, _model: None,
    )  # fmt: skip
    # The first one tells how long a network takes.
    assert set(finals) == {wanted[name].id for name in trained or wanted}


def test_finalize_when_baselines_come_too_late_leaves_their_backbone_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path))
    bench = make_bench()
    first, base, later = (bench.baseline(make_knobs(), bits) for bits in (FP32, FP16, INT8))
    left = iter((0.0, 1e6))
    finals = finalize(
        [
            Planned(candidate=first),
            Planned(candidate=base, needed=False, baseline=True),
            Planned(candidate=later, needed=False),
        ],
        {},
        bench,
        left_s=lambda: next(left),
        on_phase=lambda _: None,
        on_step=lambda _done, _total: None,
        on_final=lambda _final, _model: None,
    )
    assert set(finals) == {first.id}


def test_finalize_when_time_is_short_still_trains_what_is_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each network is held against what is left by what it is expected to take itself."""
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path))
    bench = make_bench()
    first, slow, quick = (bench.baseline(make_knobs(), bits) for bits in (FP32, FP16, INT8))
    finals = finalize(
        [Planned(candidate=first), *(Planned(candidate=x, needed=False) for x in (slow, quick))],
        {},
        bench,
        expected=Expected(tuning_s={first.id: 1.0, slow.id: 1e6, quick.id: 1e-6}, scoring_s=0.1),
        left_s=lambda: 100.0,
        on_phase=lambda _: None,
        on_step=lambda _done, _total: None,
        on_final=lambda _final, _model: None,
    )
    assert set(finals) == {first.id, quick.id}


def test_time_of_tuning_is_that_of_the_networks_own_steps() -> None:
    bench = make_bench()
    dense = bench.baseline(make_knobs(), FP32)
    record = timed(0, bench, train_s=1.0, step_s=0.1, score_s=0.2, part=0.5)
    # 2 steps and 3 scorings of 1 s leave 0.2 s; held-out pictures are as many as validated ones.
    own = 0.1 * bench.final_steps + 0.2 + 0.2 + 0.2 * len(bench.data.test) / 30
    found = expected_times([record], [record], [dense], bench)
    assert record.candidate is not None
    assert found.tuning_s == {
        record.candidate.id: pytest.approx(own),
        dense.id: pytest.approx(2 * own, rel=1e-3),
    }
    assert found.scoring_s == pytest.approx(0.2 * len(bench.data.test) / 30)


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


def test_time_kept_back_when_nothing_was_trained_is_none() -> None:
    assert finalization_s([], make_bench()) == 0.0
    assert finalization_s([make_record(0, "over_budget")], make_bench()) == 0.0


def test_time_kept_back_counts_steps_as_steps_and_the_rest_once() -> None:
    # Two steps and three scorings in a trial, 15 steps in full fine-tuning.
    bench = make_bench()
    assert (bench.settings.space.training.rung_steps, bench.final_steps) == ((1, 2), 15)
    record = timed(0, bench, step_s=0.1, score_s=0.2, train_s=0.3 + 2 * 0.1 + 3 * 0.2)
    # Made, tuned, scored on both splits; exported and scored once more.
    network = 0.3 + 15 * 0.1 + 2 * 0.2 + 0.5 + 0.2
    # It, one more that the next trial may bring, and the two baselines.
    assert finalization_s([record], bench) == pytest.approx(4.0 + 1.15 * 4 * network)


def test_time_kept_back_for_scoring_goes_by_the_pictures() -> None:
    bench = make_bench()
    record = timed(0, bench, step_s=0.0, score_s=1.0, train_s=3.0)
    assert finalization_s([record], bench) == pytest.approx(4.0 + 1.15 * 4 * 3.5)
    bench.data = replace(bench.data, test=bench.data.train)  # 60 pictures in place of 30
    assert finalization_s([record], bench) == pytest.approx(4.0 + 1.15 * 4 * 5.5)


def test_time_kept_back_when_steps_were_not_timed_takes_all_as_steps() -> None:
    bench = make_bench()
    found = finalization_s([timed(0, bench, step_s=None, train_s=0.8)], bench)
    assert found == pytest.approx(4.0 + 1.15 * 4 * (0.8 * 15 / 2 + 0.5))


def test_time_kept_back_is_bounded_but_for_what_is_needed() -> None:
    bench = make_bench()
    records = [timed(n, bench, step_s=0.1, score_s=0.2, train_s=1.1) for n in range(3)]
    one = finalization_s(records[:1], bench) - 4.0  # it, two baselines and one more
    every, needed = 4.0 + one / 4 * 6, 4.0 + one / 4 * 3
    assert finalization_s(records, bench) == pytest.approx(every)
    for room_s, kept_s in ((0.0, needed), (needed + 0.5, needed + 0.5), (every + 1, every)):
        assert finalization_s(records, bench, room_s=room_s) == pytest.approx(kept_s)


def test_time_kept_back_for_baselines_grows_with_their_macs() -> None:
    bench = make_bench()
    records = [
        timed(0, bench, part=0.25, step_s=0.1, train_s=0.2),
        timed(1, bench, part=0.5, step_s=0.2, train_s=0.4),
    ]
    small, large = 0.1 * 15 + 0.5, 0.2 * 15 + 0.5
    expected = small + large + large + 2 * (large * 2)
    assert finalization_s(records, bench) == pytest.approx(4.0 + 1.15 * expected, rel=1e-3)


def test_time_kept_back_when_all_finalists_are_there_allows_for_no_more() -> None:
    bench = make_bench()
    records = [timed(n, bench, step_s=0.1, train_s=0.2) for n in range(30)]
    assert len(finalists(records, bench)) == 14
    assert finalization_s(records, bench) == pytest.approx(4.0 + 1.15 * 16 * 2.0)


def test_time_kept_back_counts_a_finalist_that_is_a_baseline_once() -> None:
    bench = make_bench()
    records = [timed(n, bench, step_s=0.1, train_s=0.2) for n in range(30)]
    int8 = next(c for label, c in baseline_candidates(records, bench) if label == "uniform-int8")
    shared = [replace(records[0], candidate=int8), *records[1:]]
    assert len(finalists(shared, bench)) == 14
    assert finalization_s(shared, bench) == pytest.approx(4.0 + 1.15 * 15 * 2.0)


def test_time_kept_back_does_not_count_trials_that_are_no_finalists() -> None:
    bench = make_bench()
    records = [timed(n, bench, step_s=0.1, train_s=0.2) for n in range(30)]
    stopped = timed(40, bench, step_s=9.0, score_s=1.0, train_s=90.0)
    more = [*records, replace(stopped, state="stopped")]
    assert finalization_s(more, bench) == finalization_s(records, bench)


def test_time_kept_back_for_networks_that_were_finalized_is_that_of_their_files() -> None:
    bench = make_bench()
    records = [
        replace(
            timed(n, bench, step_s=0.1, score_s=0.2, train_s=0.8),
            candidate=make_candidate(16 - 8 * n),
        )
        for n in range(2)
    ]
    first, second = (record.candidate.id for record in records if record.candidate is not None)
    assert first != second
    baselines = {candidate.id for _, candidate in baseline_candidates(records, bench)}
    network, file = 15 * 0.1 + 2 * 0.2 + 0.5 + 0.2, 0.5 + 0.2
    whole = finalization_s(records, bench)
    assert whole == pytest.approx(4.0 + 1.15 * 5 * network)
    # One more that the next trial may bring is a whole network all the same.
    assert finalization_s(records, bench, {first}) == pytest.approx(
        4.0 + 1.15 * (4 * network + file)
    )
    assert finalization_s(records, bench, {first, second, *baselines}) == pytest.approx(
        4.0 + 1.15 * (network + 4 * file)
    )


@pytest.mark.parametrize(("runtime", "more"), [("TensorRT 10", 3), ("OpenVINO 2026.4", 0)])
def test_time_kept_back_counts_an_export_more_where_outputs_are_rounded(
    runtime: str, more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench()
    bench.profile = bench.profile.model_copy(update={"runtime": runtime})
    record = timed(0, bench, step_s=0.1, train_s=0.2)
    before = finalization_s([record], bench)
    monkeypatch.setattr(Workbench, "export_s", 2.0)
    # Four files; three of the networks have integers, one baseline has none.
    expected = before + 1.15 * (4 + more) * 2.0
    assert finalization_s([record], bench) == pytest.approx(expected)


def test_time_kept_back_on_this_machine_includes_timing() -> None:
    bench = make_bench()
    record = timed(0, bench, step_s=0.1, train_s=0.2)
    elsewhere = finalization_s([record], bench)
    bench.profile = bench.profile.model_copy(update={"name": "host"})
    assert record.cost is not None
    runs_s = 240 * record.cost.latency_ms.value / 1e3
    assert finalization_s([record], bench) == pytest.approx(elsewhere + 1.15 * 4 * (2.0 + runs_s))
