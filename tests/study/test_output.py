import csv
import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
from study_fixtures import make_bench, make_candidate, make_cost, make_knobs, make_record

from hwsearch.accuracy.training import Score
from hwsearch.bits import INT8
from hwsearch.report.stored import ModelEntry, TrialRow, TrialState, read_run_file
from hwsearch.study.asked.admission import admission
from hwsearch.study.written.output import add_wall_s, entry, write_layers, write_run, write_trials
from hwsearch.units import parse_budgets


def test_entry_when_scored_is_a_valid_model() -> None:
    cost, score = make_cost(size_bytes=77), Score(correct=9, total=10)
    held = admission(cost, parse_budgets(("1ms",)), 0.9)
    made = ModelEntry(**entry(make_candidate(), cost, held, score, trial=3, layers=None))
    assert (made.trial, made.accuracy, made.size_bytes) == (3, 0.9, 77)
    assert made.accuracy_ci95 == score.ci95
    assert made.pruning == {"stage1": 0.25, "stage2": 0.0, "stage3": 0.5, "stage4": 0.0}
    assert made.weight_bits == {"first": 8, "last": 32}
    assert made.meets_budget_probability == held.probability


def test_write_trials_when_read_again(tmp_path: Path) -> None:
    records = [make_record(0), make_record(1, "failed", scores=(), reason='a "b",\nc')]
    write_trials(tmp_path, records)
    with (tmp_path / "trials.csv").open(newline="", encoding="utf-8") as file:
        found = [{k: v or None for k, v in row.items()} for row in csv.DictReader(file)]
    assert [row["reason"] for row in found] == [None, 'a "b",\nc']
    assert found[0]["latency_ms"] == "0.5"
    assert tuple(found[0]) == tuple(TrialRow.model_fields)
    knobs = [json.loads(str(row["knobs"])) for row in found]
    assert knobs == [record.knobs.to_choices() for record in records]


@pytest.mark.parametrize("state", get_args(TrialState))
def test_write_trials_when_the_report_reads_every_state(tmp_path: Path, state: TrialState) -> None:
    whole = make_record(0, state)
    # A backbone whose smallest network is over the budget has no candidate and no scores.
    bare = dataclasses.replace(whole, trial=1, candidate=None, cost=None, scores=())
    write_trials(tmp_path, [whole, bare])
    with (tmp_path / "trials.csv").open(newline="", encoding="utf-8") as file:
        cells = [{k: v or None for k, v in row.items()} for row in csv.DictReader(file)]
    assert [TrialRow.model_validate(row) for row in cells] == [whole.row(), bare.row()]


def test_write_layers_when_they_are_added_up(tmp_path: Path) -> None:
    pricing = make_bench().pricing
    network = pricing.backbones.describe(pricing.backbones.uniform(make_knobs(), INT8))
    write_layers(tmp_path / "models" / "trial_0001", network, pricing.predictor)
    path = tmp_path / "models" / "trial_0001" / "layers.csv"
    with path.open(newline="", encoding="utf-8") as file:
        layers = list(csv.DictReader(file))
    cost = pricing.predictor.predict(network)
    assert sum(int(layer["macs"]) for layer in layers) == cost.macs
    # The rest is the overhead of the network, 1 us.
    total = sum(float(layer["predicted_latency_ms"]) for layer in layers)
    assert total == pytest.approx(cost.latency_ms.value - 0.001, rel=1e-4)


def test_wall_time_when_added_to_a_phase(tmp_path: Path) -> None:
    bench = make_bench()
    now = datetime.now(UTC)
    write_run(
        tmp_path, bench.settings, bench.profile, command="x", workers=2,
        fingerprint="0",
        data=bench.data.describe(), started=now, finished=now, wall_s={"rungs": 2.0}, records=[],
    )  # fmt: skip
    add_wall_s(tmp_path, "export", 1.25)
    add_wall_s(tmp_path, "export", 0.5)
    assert read_run_file(tmp_path).workers == 2
    assert read_run_file(tmp_path).wall_s == {"rungs": 2.0, "export": 1.75}
