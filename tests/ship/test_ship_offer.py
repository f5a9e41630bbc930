import math
from typing import Any

import pytest
from ship_fixtures import make_settings

from hwsearch.accuracy.training import Score
from hwsearch.report.stored import BaselineEntry, FrontFile, ModelEntry
from hwsearch.report.verified import VerifyFile
from hwsearch.ship.offer import ModelState, cost_of, offered_front
from hwsearch.study.asked.settings import RunSettings

Json = dict[str, Any]
PICTURES = 1000


def entry(key: str, accuracy: float, latency_ms: float, **changes: Any) -> Json:  # noqa: ANN401
    score = Score(correct=round(accuracy * PICTURES), total=PICTURES)
    near = {"value": latency_ms, "low": latency_ms / 1.2, "high": latency_ms * 1.2}
    return {
        "backbone": "net", "input_px": 32, "depth": None, "width": None, "pruning": {},
        "weight_bits": {"a": 8, "b": 32}, "activation_bits": {"a": 8, "b": 32},
        "accuracy": score.accuracy, "accuracy_ci95": score.ci95,
        "latency_ms": {**near, "confidence": 0.9, "source": "predicted"}, "energy_mj": None,
        "size_bytes": 1000, "macs": 1, "meets_budget_probability": 1.0, "artefact": None,
        "verified": None, "layers": f"models/{key}/layers.csv",
    } | changes  # fmt: skip


def model(trial: int, accuracy: float, latency_ms: float, **changes: Any) -> ModelEntry:  # noqa: ANN401
    return ModelEntry.model_validate(
        {"trial": trial, **entry(f"trial_{trial:04d}", accuracy, latency_ms, **changes)}
    )


def baseline(name: str, accuracy: float, latency_ms: float, **changes: Any) -> BaselineEntry:  # noqa: ANN401
    content = entry(name, accuracy, latency_ms, **changes)
    return BaselineEntry.model_validate({"name": name, "trial": None, **content})


def searched(
    models: list[ModelEntry],
    baselines: list[BaselineEntry],
    *,
    runtime: str = "ONNX Runtime 1.x",
    notes: tuple[str, ...] = (),
) -> FrontFile:
    return FrontFile.model_validate(
        {
            "schema_version": 1, "target": "host", "alias": None,
            "profile": {"name": "host", "hash": "0", "evidence": "declared", "runtime": runtime,
                        "power_mode": None},
            "budgets": [{"quantity": "latency", "limit": 10.0, "unit": "ms", "confidence": 0.9}],
            "data": {}, "baselines": baselines, "pick": models[0].trial if models else None,
            "pick_reason": "", "proxy_kendall_tau": None, "notes": notes, "front": models,
        }
    )  # fmt: skip


def verified(
    accuracy: float,
    latency_ms: float | None = None,
    *,
    sigma_log: float = 0.02,
    searched_accuracy: float | None = None,
    **changes: Any,  # noqa: ANN401
) -> VerifyFile:
    latency = None
    if latency_ms is not None:
        reach = math.exp(1.6449 * sigma_log)
        latency = {
            "value": latency_ms, "low": latency_ms / reach, "high": latency_ms * reach,
            "confidence": 0.9, "sigma_log": sigma_log, "place": "host", "runtime": "onnxruntime 1",
            "device": "a board", "of_target": True, "threads": 1, "noise_floor_percent": 1.0,
        }  # fmt: skip
    return VerifyFile.model_validate(
        {
            "schema_version": 1, "file": "model.onnx", "file_hash": "0", "pictures": PICTURES,
            "correct": round(accuracy * PICTURES),
            "searched_accuracy": accuracy if searched_accuracy is None else searched_accuracy,
            "runtime": "ONNX Runtime 1.32.0", "host": "a processor", "layers": 2,
            "differences": {}, "latency_ms": latency, "refused": None,
        }
        | changes
    )  # fmt: skip


def state(key: str, found: VerifyFile | None, refused: str | None = None) -> dict[str, ModelState]:
    artefact = None if refused else f"models/{key}/model.onnx"
    return {
        f"models/{key}/layers.csv": ModelState(artefact=artefact, verified=found, refused=refused)
    }


def settings(*texts: str, objectives: tuple[str, ...] = ("latency",)) -> RunSettings:
    return make_settings(budget_texts=texts or ("10ms",), objectives=objectives)


TWO = [model(1, 0.9, 2.0), model(2, 0.95, 4.0)]
BASE = [baseline("dense-fp32", 0.96, 8.0), baseline("uniform-int8", 0.95, 5.0)]


def trials(front: FrontFile) -> list[int]:
    return [each.trial for each in front.front]


def test_front_when_nothing_was_verified_is_the_searched_one() -> None:
    front = offered_front(searched(TWO, BASE), {}, settings())
    assert trials(front) == [1, 2]
    assert front.pick == 2
    assert all(each.verified is None and each.artefact is None for each in front.scored)
    assert front.baseline_pick is None
    assert front.closest is None


def test_entries_when_verified_hold_what_was_measured() -> None:
    states = (
        state("trial_0001", verified(0.9, 1.5)) | state("trial_0002", verified(0.95, 3.0))
        | state("dense-fp32", verified(0.96, 7.0)) | state("uniform-int8", verified(0.95, 4.0))
    )  # fmt: skip
    front = offered_front(searched(TWO, BASE), states, settings())
    first = front.front[0]
    assert (first.latency_ms.value, first.latency_ms.source) == (1.5, "measured")
    assert first.artefact == "models/trial_0001/model.onnx"
    assert first.verified is not None
    assert (first.verified.accuracy, first.verified.latency_ms) == (0.9, 1.5)
    assert (first.verified.runtime, first.verified.host) == ("ONNX Runtime 1.32.0", "a board")
    assert [each.latency_ms.source for each in front.baselines] == ["measured"] * 2
    assert not any("some latencies" in note for note in front.notes)


def test_latency_when_of_another_runtime_stays_predicted() -> None:
    found = verified(0.9, 1.5)
    assert found.latency_ms is not None
    other = found.latency_ms.model_copy(update={"of_target": False})
    states = state("trial_0001", found.model_copy(update={"latency_ms": other}))
    first = offered_front(searched(TWO, BASE), states, settings()).front[0]
    assert first.latency_ms.source == "predicted"
    assert first.verified is not None
    assert first.verified.latency_ms == 1.5


def test_model_when_it_misses_the_budget_measured_is_dropped_with_the_reason() -> None:
    states = state("trial_0002", verified(0.95, 10.1))
    front = offered_front(searched(TWO, BASE), states, settings())
    assert trials(front) == [1]
    # What is left is 6 points behind dense-fp32, which is predicted to meet the budget.
    assert (front.pick, front.baseline_pick) == (None, 0)
    assert any(
        note.startswith("trial 2 is not offered: measured 10.1 ms (")
        and note.endswith("misses 10ms at confidence 0.9")
        for note in front.notes
    )


@pytest.mark.parametrize(("latency_ms", "offered"), [(9.6, True), (9.9, False)])
def test_budget_must_hold_at_the_confidence_when_measured(latency_ms: float, offered: bool) -> None:
    # One-sided at 0.9: a factor of exp(1.2816 x 0.02) = 1.026.
    states = state("trial_0002", verified(0.95, latency_ms))
    front = offered_front(searched(TWO, BASE), states, settings())
    assert (2 in trials(front)) is offered


def test_probability_of_the_budget_follows_the_measurement() -> None:
    states = state("trial_0002", verified(0.95, 9.6))
    front = offered_front(searched(TWO, BASE), states, settings())
    found = next(each for each in front.front if each.trial == 2)
    assert 0.9 < found.meets_budget_probability < 1.0


def all_measured(*latencies: float) -> dict[str, ModelState]:
    keys = ("trial_0001", "trial_0002", "dense-fp32", "uniform-int8")
    accuracies = (0.9, 0.95, 0.96, 0.95)
    found: dict[str, ModelState] = {}
    for key, accuracy, latency in zip(keys, accuracies, latencies, strict=True):
        found |= state(key, verified(accuracy, latency))
    return found


def test_model_when_slower_and_less_accurate_than_a_measured_baseline_is_dropped() -> None:
    front = offered_front(searched(TWO, BASE), all_measured(5.0, 3.0, 8.0, 4.0), settings())
    assert trials(front) == [2]
    assert "trial 1 is not offered: the baseline uniform-int8 of net is better" in front.notes


def test_more_accurate_baseline_within_the_budget_is_told_as_measured() -> None:
    stale = "more accurate than the pick and within the budget: the baseline of before"
    front = offered_front(
        searched(TWO, BASE, notes=(stale,)), all_measured(1.0, 3.0, 9.0, 7.0), settings()
    )
    told = [note for note in front.notes if note.startswith("more accurate than the pick")]
    assert told == [
        "more accurate than the pick and within the budget: the baseline dense-fp32 of net "
        "(96.0 % against 95.0 %, at 9.00 ms)"
    ]
    slow = offered_front(searched(TWO, BASE), all_measured(1.0, 3.0, 11.0, 7.0), settings())
    assert not any(note.startswith("more accurate than the pick") for note in slow.notes)


def test_baseline_when_it_is_clearly_more_accurate_as_measured_is_the_pick() -> None:
    few = [model(1, 0.4, 2.0), model(2, 0.5, 4.0)]
    front = offered_front(searched(few, BASE), {}, settings())
    assert trials(front) == [1, 2]
    assert (front.pick, front.baseline_pick) == (None, 0)
    assert front.pick_reason.startswith("dense-fp32 of net meets the budget and is more accurate")
    assert not any(note.startswith("more accurate than the pick") for note in front.notes)
    # Where its file is slower than the budget it is not.
    slow = {f"models/{key}/layers.csv": ModelState(verified=found, artefact="x") for key, found in (
        ("trial_0001", verified(0.4, 2.0)), ("trial_0002", verified(0.5, 4.0)),
        ("dense-fp32", verified(0.96, 12.0)), ("uniform-int8", verified(0.95, 11.0)),
    )}  # fmt: skip
    assert offered_front(searched(few, BASE), slow, settings()).pick == 2


def test_baseline_when_nothing_beats_it_is_offered() -> None:
    front = offered_front(searched(TWO, BASE), all_measured(5.0, 4.5, 3.0, 4.0), settings())
    assert trials(front) == []
    assert front.pick is None
    assert front.baseline_pick == 0
    assert front.picked_baseline is not None
    assert front.pick_reason.startswith(
        "no searched model is better than the baselines; use dense-fp32 of net"
    )
    assert front.closest is None


def test_baseline_when_it_misses_the_budget_is_not_offered() -> None:
    measured = all_measured(20.0, 20.0, 12.0, 11.0)
    front = offered_front(searched(TWO, BASE), measured, settings())
    assert front.baseline_pick is None
    assert front.pick_reason == "nothing met the budget"
    assert front.closest is not None
    assert front.closest.latency_ms.value == 20.0


def test_most_accurate_fitting_baseline_is_the_fallback() -> None:
    measured = all_measured(20.0, 20.0, 12.0, 6.0)
    front = offered_front(searched(TWO, BASE), measured, settings())
    assert front.picked_baseline is not None
    assert front.picked_baseline.name == "uniform-int8"


def test_guard_goes_by_the_accuracy_of_the_file() -> None:
    worse = all_measured(2.0, 4.5, 8.0, 4.0)
    # Searched at 0.955, more than uniform int8's 0.95; its file has 0.94.
    models = [model(1, 0.9, 2.0), model(2, 0.955, 4.0)]
    worse |= state("trial_0002", verified(0.94, 4.5, searched_accuracy=0.955))
    front = offered_front(searched(models, BASE), worse, settings())
    assert trials(front) == [1]
    assert "trial 2 is not offered: the baseline uniform-int8 of net is better" in front.notes


def test_pick_goes_by_the_accuracy_of_the_file() -> None:
    measured = all_measured(2.0, 3.0, 8.0, 7.0)
    measured |= state("trial_0001", verified(0.97, 2.0, searched_accuracy=0.9))
    front = offered_front(searched(TWO, BASE), measured, settings())
    assert front.pick == 1
    # The searched accuracy stays beside it.
    assert front.front[0].accuracy == 0.9


def test_guard_when_only_some_were_measured_goes_by_predictions() -> None:
    # Measured faster than every prediction, uniform int8 would beat all models.
    states = state("uniform-int8", verified(0.95, 0.1))
    front = offered_front(searched(TWO, BASE), states, settings())
    assert trials(front) == [1, 2]
    assert any(
        note.startswith("some latencies are measured and some predicted") for note in front.notes
    )


@pytest.mark.parametrize(
    ("lost", "told"), [(0.0, False), (0.001, False), (0.002, False), (0.003, True), (-0.01, True)]
)
def test_accuracy_when_export_changes_it_is_told(lost: float, told: bool) -> None:
    states = state("trial_0002", verified(0.95 - lost, searched_accuracy=0.95))
    front = offered_front(searched(TWO, BASE), states, settings())
    found = [note for note in front.notes if note.startswith("the file of trial 2 is")]
    assert bool(found) is told
    if lost == 0.003:
        assert found == ["the file of trial 2 is 0.3 points less accurate than what was searched"]


def test_accuracy_when_it_differs_by_one_picture_of_few_is_not_told() -> None:
    found = verified(0.95, pictures=100, correct=94, searched_accuracy=0.95)
    front = offered_front(searched(TWO, BASE), state("trial_0002", found), settings())
    assert not any("less accurate" in note for note in front.notes)


@pytest.mark.parametrize(
    ("runtime", "told"), [("ONNX Runtime 1.x", True), ("TensorRT 10.3", False)]
)
def test_precision_when_it_differs_is_told_for_the_runtime_of_the_target(
    runtime: str, told: bool
) -> None:
    odd = {"a": {"asked": "W8A8", "realised": "W32A32"}}
    states = state("trial_0002", verified(0.95, differences=odd))
    front = offered_front(searched(TWO, BASE, runtime=runtime), states, settings())
    text = "in trial 2, 1 layer asked for W8A8 runs as W32A32 (a)"
    assert (text in front.notes) is told


def test_file_when_it_cannot_be_exported_or_run_is_not_offered() -> None:
    refused = verified(0.9, correct=None, refused="ONNX Runtime does not run its file: no")
    states = state("trial_0001", refused) | state("trial_0002", None, "it cannot be exported: no")
    front = offered_front(searched(TWO, BASE), states, settings())
    assert trials(front) == []
    assert "trial 1 is not offered: ONNX Runtime does not run its file: no" in front.notes
    assert "trial 2 is not offered: it cannot be exported: no" in front.notes
    assert front.baseline_pick == 0


def test_baseline_when_it_cannot_be_exported_stays_with_a_note() -> None:
    states = state("uniform-int8", None, "it cannot be exported: no")
    front = offered_front(searched(TWO, BASE), states, settings())
    assert [each.name for each in front.baselines] == ["dense-fp32", "uniform-int8"]
    assert (
        "uniform-int8 of net has no file that could be verified: it cannot be exported: no"
        in front.notes
    )


PRUNED = {"pruning": {"stage1": 0.5}}


@pytest.mark.parametrize(
    ("changes", "latency_ms", "told"),
    [
        (PRUNED, 8.5, True),
        (PRUNED, 7.5, False),
        ({}, 8.5, False),
        ({**PRUNED, "input_px": 48}, 8.5, False),
        ({**PRUNED, "backbone": "other"}, 8.5, False),
    ],
)
def test_pruned_but_slower_is_flagged(changes: Json, latency_ms: float, told: bool) -> None:
    models = [model(1, 0.99, latency_ms, **changes)]
    base = [baseline("dense-fp32", 0.96, 8.0)]
    front = offered_front(searched(models, base), {}, settings())
    text = "trial 1 is pruned and yet no faster than dense-fp32 of net (8.50 ms against 8.00 ms)"
    assert (text in front.notes) is told


def test_notes_of_the_search_stay_but_for_those_about_its_pick() -> None:
    before = (
        "the budget 10ms does not bind: the pick would still meet 2 ms at confidence 0.9",
        "no model beats the baselines; use the best baseline that meets the budget",
        "the latency of trial 1 is extrapolated: it is unlike",
        "something else",
    )
    predicted = offered_front(searched(TWO, BASE, notes=before), {}, settings())
    assert set(before[2:]) <= set(predicted.notes)
    assert before[0] not in predicted.notes
    measured = all_measured(1.0, 3.0, 8.0, 7.0)
    front = offered_front(searched(TWO, BASE, notes=before), measured, settings())
    assert before[2] not in front.notes
    assert "something else" in front.notes
    assert any(note.startswith("the budget 10ms does not bind") for note in front.notes)


def test_front_when_made_again_is_the_same() -> None:
    measured = all_measured(5.0, 3.0, 8.0, 4.0)
    first = offered_front(searched(TWO, BASE), measured, settings())
    assert offered_front(searched(TWO, BASE), measured, settings()) == first
    assert FrontFile.model_validate_json(first.model_dump_json()) == first


def test_size_budget_holds_beside_a_measured_latency() -> None:
    models = [model(1, 0.9, 2.0, size_bytes=900), model(2, 0.95, 4.0, size_bytes=1100)]
    states = state("trial_0001", verified(0.9, 2.0)) | state("trial_0002", verified(0.95, 4.0))
    front = offered_front(searched(models, BASE), states, settings("10ms", "1kB"))
    assert trials(front) == [1]


def test_cost_of_an_entry_has_the_spread_behind_its_interval() -> None:
    cost = cost_of(TWO[0])
    assert cost.latency_ms.sigma_log == pytest.approx(math.log(1.2) / 1.6449, rel=1e-3)
    assert cost.energy_mj is None
    assert (cost.size_bytes, cost.macs) == (1000, 1)
