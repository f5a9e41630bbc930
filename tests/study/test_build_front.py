"""From evidence to ``front.json``: what is on the front, what is the pick, and what is said."""

from typing import Any

import pytest
from evidence_fixtures import PICTURES, about, baseline, evidence, trial, trials, verified
from study_fixtures import make_settings

from hwsearch.report.stored import FrontFile
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.finals.evidence import Evidence
from hwsearch.study.finals.front import build_front

TWO = [trial(1, 0.9, 2.0), trial(2, 0.95, 4.0)]
BASE = [baseline("dense-fp32", 0.96, 8.0), baseline("uniform-int8", 0.95, 5.0)]


def settings(*texts: str) -> RunSettings:
    return make_settings(
        target="host", budget_texts=texts or ("10ms",), objectives=("latency",), confidence=0.9
    )


def built(networks: list[Evidence], *budgets: str, **more: Any) -> FrontFile:  # noqa: ANN401
    return build_front(networks, about(**more), settings(*budgets)).file


def timed(one: Evidence, latency_ms: float, accuracy: float | None = None) -> Evidence:
    """The same network after its file was timed on the target."""
    assert one.score is not None
    reached = one.score.accuracy if accuracy is None else accuracy
    return evidence(one.network, verified(reached, latency_ms))


def all_timed(*latencies: float) -> list[Evidence]:
    return [timed(one, ms) for one, ms in zip([*TWO, *BASE], latencies, strict=True)]


def test_accuracy_is_that_of_the_file_with_its_interval() -> None:
    front = built([*TWO, *BASE])
    assert trials(front) == [1, 2]
    first = front.front[0]
    assert first.accuracy == 0.9
    low, high = first.accuracy_ci95
    # Wilson's interval of 900 of 1,000.
    assert low == pytest.approx(0.8798, abs=1e-3)
    assert high == pytest.approx(0.9171, abs=1e-3)
    assert first.artefact == "models/trial_0001/model.onnx"
    assert first.layers == "models/trial_0001/layers.csv"
    assert first.verified is not None
    assert (first.verified.runtime, first.verified.host) == ("ONNX Runtime 1.32.0", "a processor")
    assert PICTURES == 1000


def test_latency_is_the_measured_one_where_it_was_timed_on_the_target() -> None:
    first = built([timed(TWO[0], 1.5)]).front[0]
    assert (first.latency_ms.value, first.latency_ms.source) == (1.5, "measured")
    assert first.verified is not None
    assert (first.verified.latency_ms, first.verified.host) == (1.5, "a board")


def test_latency_of_another_runtime_stays_predicted() -> None:
    other = evidence(TWO[0].network, verified(0.9, 1.5, of_target=False))
    first = built([other]).front[0]
    assert (first.latency_ms.value, first.latency_ms.source) == (2.0, "predicted")
    assert first.verified is not None
    assert first.verified.latency_ms == 1.5


def test_trial_that_misses_the_budget_as_measured_is_rejected_with_the_reason() -> None:
    front = build_front([TWO[0], timed(TWO[1], 10.1), *BASE], about(), settings())
    assert trials(front.file) == [1]
    [(number, reason)] = front.rejected
    assert number == 2
    assert reason.startswith("measured 10.1 ms (")
    assert reason.endswith("misses 10ms at confidence 0.9")
    assert f"trial 2 is not on the front: {reason}" in front.file.notes


@pytest.mark.parametrize(("latency_ms", "kept"), [(9.6, True), (9.9, False)])
def test_budget_must_hold_at_the_confidence_when_measured(latency_ms: float, kept: bool) -> None:
    # One-sided at 0.9: a factor of exp(1.2816 x 0.02) = 1.026.
    front = built([*all_timed(1.0, latency_ms, 20.0, 20.0)])
    assert (2 in trials(front)) is kept


def test_budget_must_hold_at_the_confidence_when_predicted() -> None:
    # exp(1.2816 x 0.1) = 1.137: 8.7 ms stays below 10 with that probability, 8.9 does not.
    front = built([trial(1, 0.8, 8.7), trial(2, 0.9, 8.9)])
    assert trials(front) == [1]
    assert 0.9 < front.front[0].meets_budget_probability < 1.0


def test_size_budget_is_exact() -> None:
    networks = [trial(1, 0.9, 2.0, size_bytes=900), trial(2, 0.95, 4.0, size_bytes=1100)]
    front = build_front(networks, about(), settings("10ms", "1kB"))
    assert trials(front.file) == [1]
    assert front.rejected == ((2, "1.10 kB misses 1kB at confidence 0.9"),)


def test_trial_that_a_baseline_beats_is_rejected() -> None:
    front = built(all_timed(5.0, 3.0, 8.0, 4.0))
    assert trials(front) == [2]
    assert "trial 1 is not on the front: the baseline uniform-int8 of net is better" in front.notes


def test_trials_rejected_for_one_reason_are_named_together() -> None:
    worse = [trial(number, 0.5, 3.0 + number / 10) for number in range(3, 12)]
    notes = built([*TWO, *worse]).notes
    assert (
        "trials 3, 4, 5, 6, 7, 8 and 3 more are not on the front: another model of the front is "
        "better" in notes
    )


def test_more_accurate_baseline_within_the_budget_is_told() -> None:
    def told(front: FrontFile) -> list[str]:
        return [note for note in front.notes if note.startswith("more accurate than the pick")]

    assert told(built(all_timed(1.0, 3.0, 9.0, 7.0))) == [
        "more accurate than the pick and within the budget: the baseline dense-fp32 of net "
        "(96.0 % against 95.0 %, at 9.00 ms)"
    ]
    assert told(built(all_timed(1.0, 3.0, 11.0, 7.0))) == []


def test_baseline_that_is_clearly_more_accurate_is_the_pick() -> None:
    few = [trial(1, 0.4, 2.0), trial(2, 0.5, 4.0)]
    front = built([*few, *BASE])
    assert trials(front) == [1, 2]
    assert (front.pick, front.baseline_pick) == (None, 0)
    assert front.pick_reason.startswith("dense-fp32 of net meets the budget and is more accurate")
    # Where its file is slower than the budget it is not.
    slow = [timed(one, ms) for one, ms in zip([*few, *BASE], (2.0, 4.0, 12.0, 11.0), strict=True)]
    assert built(slow).pick == 2


def test_baseline_that_nothing_beats_is_the_pick() -> None:
    front = built(all_timed(5.0, 4.5, 3.0, 4.0))
    assert trials(front) == []
    assert (front.pick, front.baseline_pick, front.closest) == (None, 0, None)
    assert front.pick_reason.startswith(
        "no searched model is better than the baselines; use dense-fp32 of net"
    )


def test_nothing_is_picked_where_nothing_meets_the_budget() -> None:
    front = built(all_timed(20.0, 21.0, 12.0, 11.0))
    assert (front.pick, front.baseline_pick) == (None, None)
    assert front.pick_reason == "nothing met the budget"
    assert front.closest is not None
    assert (front.closest.trial, front.closest.latency_ms.value) == (1, 20.0)


def test_most_accurate_baseline_within_the_budget_is_the_fallback() -> None:
    front = built(all_timed(20.0, 20.0, 12.0, 6.0))
    assert front.picked_baseline is not None
    assert front.picked_baseline.name == "uniform-int8"


def test_networks_are_ranked_by_predictions_where_only_some_were_timed() -> None:
    # Measured faster than every prediction, uniform int8 would beat all models.
    front = built([*TWO, BASE[0], timed(BASE[1], 0.1)])
    assert trials(front) == [1, 2]
    assert any(
        note.startswith("some latencies are measured and some predicted") for note in front.notes
    )


@pytest.mark.parametrize(
    ("runtime", "told"), [("ONNX Runtime 1.x", True), ("TensorRT 10.3", False)]
)
def test_other_precision_is_told_for_the_runtime_of_the_target(runtime: str, told: bool) -> None:
    odd = {"a": {"asked": "W8A8", "realised": "W32A32"}}
    network = evidence(TWO[1].network, verified(0.95, differences=odd))
    text = "in trial 2, 1 layer asked for W8A8 runs as W32A32 (a)"
    assert (text in built([network], runtime=runtime).notes) is told


def test_file_that_cannot_be_exported_run_or_scored_is_rejected() -> None:
    refused = verified(0.9, correct=None, refused="ONNX Runtime does not run its file: no")
    networks = [
        evidence(TWO[0].network, refused),
        evidence(TWO[1].network, None, "it cannot be exported: no"),
        evidence(trial(3, 0.9, 1.0).network, None),
    ]
    front = build_front([*networks, *BASE], about(), settings())
    assert front.rejected == (
        (1, "ONNX Runtime does not run its file: no"),
        (2, "it cannot be exported: no"),
        (3, "its file was not scored"),
    )
    assert front.file.baseline_pick == 0


def test_baseline_without_a_usable_file_is_left_out_with_a_note() -> None:
    broken = evidence(BASE[1].network, None, "it cannot be exported: no")
    front = built([*TWO, BASE[0], broken])
    assert [each.name for each in front.baselines] == ["dense-fp32"]
    assert "uniform-int8 of net is left out: it cannot be exported: no" in front.notes


HALF = {"pruning": (0.5, 0.0, 0.0, 0.0)}


@pytest.mark.parametrize(
    ("changes", "latency_ms", "told"),
    [
        (HALF, 8.5, True),
        (HALF, 7.5, False),
        ({}, 8.5, False),
        ({**HALF, "input_px": 48}, 8.5, False),
        ({**HALF, "backbone": "other"}, 8.5, False),
    ],
)
def test_pruned_but_slower_is_told(changes: dict[str, Any], latency_ms: float, told: bool) -> None:
    front = built([trial(1, 0.99, latency_ms, **changes), baseline("dense-fp32", 0.96, 8.0)])
    text = "trial 1 is pruned and yet no faster than dense-fp32 of net (8.50 ms against 8.00 ms)"
    assert (text in front.notes) is told


def test_notes_of_the_search_come_first_and_stay() -> None:
    front = built([*TWO, *BASE], notes=("first", "second"))
    assert front.notes[:2] == ("first", "second")
    assert any(note.startswith("the budget 10ms does not bind") for note in front.notes[2:])


def test_extrapolation_is_told_until_the_network_is_timed() -> None:
    odd = trial(1, 0.9, 2.0, extrapolated=True)
    text = "the latency of trial 1 is extrapolated"
    assert any(note.startswith(text) for note in built([odd, TWO[1]]).notes)
    assert not any(note.startswith(text) for note in built([timed(odd, 2.0)]).notes)


def test_front_when_made_again_is_the_same() -> None:
    networks = all_timed(5.0, 3.0, 8.0, 4.0)
    first = built(networks)
    assert built(networks) == first
    assert FrontFile.model_validate_json(first.model_dump_json()) == first
