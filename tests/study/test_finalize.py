from pathlib import Path

import pytest
from study_fixtures import make_bench, make_candidate, make_cost, make_knobs, make_record
from tiny_network import OWN
from torch import nn

from hwsearch.accuracy.training import Score
from hwsearch.bits import FP32, INT8
from hwsearch.study.finalize import FinalScore, baseline_candidates, finalists, finalize
from hwsearch.study.records import Record


def point(trial: int, right: int, latency_ms: float, *, state: str = "completed") -> Record:
    scores = (Score(correct=right, total=100),)
    cost = make_cost(latency_ms)
    return make_record(trial, state, scores=scores, cost=cost)  # type: ignore[arg-type]


def test_final_when_written_and_read() -> None:
    score = Score(correct=1, total=3)
    final = FinalScore(candidate=make_candidate(), validation=score, held_out=score, train_s=1.5)
    assert FinalScore.from_json(final.to_json()) == final


def test_finalists_when_the_front_is_small_adds_the_next_layers() -> None:
    front = [point(n, 50 + n, 1.0 + n) for n in range(3)]
    behind = [point(10 + n, 40 + n, 1.0 + n) for n in range(3)]
    far = [point(20 + n, 10 + n, 1.0 + n) for n in range(3)]
    last = [point(30 + n, 1 + n, 1.0 + n) for n in range(3)]
    chosen = finalists([*last, *far, *behind, *front], make_bench())
    assert [record.trial for record in chosen] == [0, 1, 2, 10, 11, 12, 20, 21, 22]


def test_finalists_when_the_front_is_long_keeps_both_ends() -> None:
    chosen = finalists([point(n, 10 + n, 1.0 + n) for n in range(30)], make_bench())
    assert len(chosen) == 10
    assert (chosen[0].trial, chosen[-1].trial) == (0, 29)


def test_finalists_when_trials_did_not_complete() -> None:
    states = ("stopped", "duplicate", "over_budget", "failed")
    records = [point(n, 90, 0.1, state=state) for n, state in enumerate(states)]
    assert finalists(records, make_bench()) == []
    assert [r.trial for r in finalists([*records, point(9, 1, 9.0)], make_bench())] == [9]


def test_baselines_when_sizes_tie_take_the_smaller() -> None:
    records = [make_record(n, knobs=make_knobs(input_px=px)) for n, px in enumerate((24, 16))]
    found = baseline_candidates(records, make_bench())
    assert [(label, c.backbone, c.input_px) for label, c in found] == [
        ("dense-fp32", OWN, 16),
        ("uniform-int8", OWN, 16),
    ]


def test_finalize_when_some_are_done_trains_the_others_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path))
    bench = make_bench()
    dense, int8 = (bench.baseline(make_knobs(), bits) for bits in (FP32, INT8))
    score = Score(correct=1, total=30)
    done = FinalScore(candidate=dense, validation=score, held_out=score, train_s=9.0)
    stored: list[tuple[str, bool]] = []

    def keep(final: FinalScore, model: nn.Module) -> None:
        stored.append((final.candidate.id, model.training))

    finals = finalize(
        [dense, int8, int8],
        {dense.id: done},
        bench,
        on_phase=lambda _: None,
        on_step=lambda _done, _total: None,
        on_final=keep,
    )
    assert stored == [(int8.id, False)]
    assert finals[dense.id] is done
    assert finals[int8.id].held_out.total == 30
