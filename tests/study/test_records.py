import dataclasses
import json
from typing import Any

import pytest
from study_fixtures import make_cost, make_knobs, make_record
from tiny_network import OWN

from hwsearch.accuracy.training import Score
from hwsearch.errors import RunError
from hwsearch.report.stored import TRIAL_COLUMNS, CostEntry
from hwsearch.space.knobs import Knobs
from hwsearch.study.trials.records import Record


@pytest.mark.parametrize(
    "record",
    [
        make_record(3),
        make_record(4, "duplicate", original=3, reason="same network as trial 3"),
        make_record(5, "over_budget", candidate=None, scores=(), probability=0.0),
        make_record(6, "failed", scores=(), reason='it said "no"\nand left'),
        make_record(7, cost=make_cost(2.0, energy_mj=3.0)),
        make_record(8, knobs=make_knobs(depth="[1,2]", width="0.5", protect_edges=False)),
    ],
    ids=lambda record: record.state + str(record.trial),
)
def test_record_when_written_and_read(record: Record) -> None:
    text = record.to_json()
    again = Record.from_json(text)
    assert again == record
    assert again.to_json() == text


@pytest.mark.parametrize(
    "change",
    [{"scores": [[5, 3]]}, {"candidate": "{}"}, {"knobs": {}}, {"cost": {"latency_ms": 1}}],
    ids=lambda change: next(iter(change)),
)
def test_record_when_a_stored_part_is_damaged(change: dict[str, Any]) -> None:
    data = json.loads(make_record().to_json()) | change
    with pytest.raises(RunError, match="a stored trial cannot be read"):
        Record.from_json(json.dumps(data))


def test_record_when_a_key_is_missing() -> None:
    data = json.loads(make_record().to_json())
    del data["state"]
    with pytest.raises(RunError, match="cannot be read"):
        Record.from_json(json.dumps(data))


def test_row_when_the_whole_ladder_was_climbed() -> None:
    record = make_record(2, cost=make_cost(0.5, energy_mj=3.0, size_bytes=4321))
    row = record.row()
    assert tuple(row.model_dump()) == TRIAL_COLUMNS
    assert (row.trial, row.state, row.rung, row.backbone) == (2, "completed", 2, OWN)
    assert (row.accuracy_rung0, row.accuracy_rung1, row.accuracy_rung2) == (0.4, 0.6, 0.8)
    assert row.validation_accuracy == 0.8
    assert row.mean_weight_bits == (8 + 32) / 2
    assert (row.size_bytes, row.latency_ms, row.energy_mj) == (4321, 0.5, 3.0)
    assert row.latency_ms_low is not None
    assert row.latency_ms_high is not None
    assert row.latency_ms_low * row.latency_ms_high == pytest.approx(0.25)  # symmetric in logs
    assert row.knobs is not None
    assert Knobs.from_choices(json.loads(row.knobs)) == record.knobs


def test_row_when_the_trial_was_stopped_has_no_validation_accuracy() -> None:
    row = make_record(state="stopped", scores=(Score(correct=3, total=30),)).row()
    assert row.rung == 0
    assert row.accuracy_rung0 == row.best_known_accuracy == 0.1
    assert row.accuracy_rung1 is row.accuracy_rung2 is row.validation_accuracy is None


def test_row_when_nothing_was_expanded() -> None:
    row = make_record(state="over_budget", candidate=None, cost=None, scores=()).row()
    assert row.candidate is None
    assert row.rung is row.mean_weight_bits is row.latency_ms is row.energy_mj is None


def test_row_when_pruned_gives_the_ratios_of_the_knobs() -> None:
    row = make_record(knobs=make_knobs(prune=(0.0, 0.25, 0.5, 0.75))).row()
    assert (row.prune_stage1, row.prune_stage2) == (0.0, 0.25)
    assert (row.prune_stage3, row.prune_stage4) == (0.5, 0.75)


def test_finalized_when_called_changes_only_the_state() -> None:
    record = make_record(1)
    assert record.finalized() == dataclasses.replace(record, state="finalized")
    assert record.finalized().row().validation_accuracy == record.accuracy == 0.8


def test_cost_entry_when_made_copies_the_interval() -> None:
    latency = make_cost(2.0).latency_ms
    entry = CostEntry.of(latency)
    assert (entry.low, entry.value, entry.high) == (latency.low, 2.0, latency.high)
    assert (entry.confidence, entry.source) == (0.9, "predicted")
