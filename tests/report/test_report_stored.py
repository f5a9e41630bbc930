import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError
from stored_results import (
    Json,
    baseline,
    cost,
    empty_front,
    front,
    model,
    run,
    shipped_schema,
    stored_run,
    trial,
    write_run,
)

from hwsearch.errors import RunError
from hwsearch.report.prediction import prediction_schema_text
from hwsearch.report.stored import (
    TRIAL_COLUMNS,
    FrontFile,
    ModelEntry,
    RunFile,
    read_front,
    read_run,
    replace_file,
    schema_text,
)
from hwsearch.report.verified import verify_schema_text

#: Keys of a front that is empty, and one that older runs lack.
OPTIONAL = {"closest", "minimum_reachable", "baseline_pick", "proxy_kendall_tau_ci90"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("front", schema_text(FrontFile)),
        ("run", schema_text(RunFile)),
        ("predict", prediction_schema_text()),
        ("verify", verify_schema_text()),
    ],
)
def test_shipped_schema_equals_the_model(name: str, text: str) -> None:
    assert shipped_schema(name) == json.loads(text), f"write it to report/{name}.schema.json"


def schema_accepts(name: str, content: Json) -> bool:
    validator = jsonschema.Draft202012Validator(shipped_schema(name))
    return bool(validator.is_valid(content))


@pytest.mark.parametrize("content", [front(), front(0), front(1), front(30), empty_front()])
def test_written_front_keeps_to_the_schema(content: Json) -> None:
    written = json.loads(FrontFile.model_validate(content).model_dump_json(indent=1))
    assert schema_accepts("front", written)
    assert written == content
    older = {key: value for key, value in content.items() if key not in OPTIONAL}
    assert schema_accepts("front", older)
    assert FrontFile.model_validate(older).closest is None


def test_run_schema_takes_more_in_nested_parts_only() -> None:
    written = json.loads(RunFile.model_validate(run()).model_dump_json(indent=1))
    assert schema_accepts("run", written)
    assert schema_accepts("run", run() | {"host": run()["host"] | {"gpu": "none"}})
    assert not schema_accepts("run", run() | {"mood": "good"})
    assert not schema_accepts("run", run() | {"host": {"cpu": "x"}})


@pytest.mark.parametrize("key", sorted(set(front()) - OPTIONAL))
def test_front_schema_and_model_refuse_a_missing_key(key: str) -> None:
    content = front()
    del content[key]
    assert not schema_accepts("front", content)
    with pytest.raises(ValidationError, match=key):
        FrontFile.model_validate(content)


@pytest.mark.parametrize(
    "change",
    [
        {"colour": "red"},
        {"budgets": []},
        {"schema_version": 2},
        {"front": [{**model(1), "name": "x"}]},
        {"baselines": [{**baseline("a", latency_ms=1, accuracy=0.9, backbone="b"), "trial": 3}]},
        {"front": [{**model(1), "latency_ms": cost(1.0, source="guessed")}], "pick": 1},
    ],
)
def test_front_schema_and_model_refuse(change: Json) -> None:
    assert not schema_accepts("front", front() | change)
    with pytest.raises(ValidationError):
        FrontFile.model_validate(front() | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline_pick": 1}, "a model or a baseline, not both"),
        ({"pick": None, "baseline_pick": 2}, "baseline_pick 2 is no baseline's position"),
        ({"pick": 99}, "pick 99 is not a trial of the front"),
        ({"front": [model(1), model(1)], "pick": 1}, "a trial is in the front twice"),
        ({"budgets": front()["budgets"] * 2}, "a quantity has two budgets"),
        (
            {"budgets": [{"quantity": "latency", "limit": 1, "unit": "mJ", "confidence": 0.9}]},
            "a latency budget is in ms, not mJ",
        ),
    ],
)
def test_front_that_contradicts_itself_is_refused(change: Json, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FrontFile.model_validate(front() | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": 0.2}, "outside its interval"),
        ({"accuracy": 95.0}, "less than or equal to 1"),
        ({"weight_bits": {"stem": 8}}, "must name the same layers"),
        ({"weight_bits": {"a": 16}, "activation_bits": {"a": 8}}, "layer a: W16A8"),
        ({"latency_ms": cost(1.0) | {"low": 2.0}}, "low 2.0 <= value 1.0"),
        ({"latency_ms": cost(float("nan"))}, "finite"),
        ({"trial": None}, "valid integer"),
    ],
)
def test_model_that_cannot_be_is_refused(change: Json, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelEntry.model_validate(model(1) | change)


def test_replace_file_when_the_folder_is_gone_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a\.txt cannot be written \(No such file or directory\)"):
        replace_file(tmp_path / "gone" / "a.txt", b"new")


def test_read_run_reads_what_was_written(tmp_path: Path) -> None:
    stored = stored_run(tmp_path / "run")
    assert stored.front == FrontFile.model_validate(front())
    assert stored.run.counts.completed == 24
    assert len(stored.trials) == 40
    assert read_front(tmp_path / "run") == stored.front


def test_best_known_accuracy_is_of_the_last_rung(tmp_path: Path) -> None:
    rows = [
        trial(0, "stopped", latency_ms=1.0, accuracy=0.4) | {"accuracy_rung1": 0.6},
        trial(1, "completed", latency_ms=1.0, accuracy=0.4) | {"validation_accuracy": 0.9},
        trial(2, "over_budget", latency_ms=14.0, accuracy=None),
    ]
    trials = stored_run(tmp_path / "run", trial_rows=rows).trials
    assert [row.best_known_accuracy for row in trials] == [0.6, 0.9, None]
    assert (trials[2].energy_mj, trials[2].reason, trials[2].rung) == (91.0, None, None)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (".", "is not a folder; give a run folder"),
        ("front.json", r"has no front\.json, .* hwsearch run --resume "),
        ("trials.csv", r"has no trials\.csv, .* hwsearch run --resume "),
        ("run.json", r"holds no run \(run\.json is missing\)"),
    ],
)
def test_read_run_names_what_is_missing(tmp_path: Path, lost: str, message: str) -> None:
    folder = write_run(tmp_path / "run")
    if lost == ".":
        shutil.rmtree(folder)
    else:
        (folder / lost).unlink()
    with pytest.raises(RunError, match=message):
        read_run(folder)


@pytest.mark.parametrize("name", ["run.json", "front.json"])
def test_read_run_refuses_a_newer_version(tmp_path: Path, name: str) -> None:
    folder = write_run(tmp_path / "run")
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    (folder / name).write_text(json.dumps(content | {"schema_version": 2, "new": 1}))
    with pytest.raises(RunError, match=r"schema_version 2 .* reads 1; install a newer hwsearch"):
        read_run(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("front.json", b"{", "is not JSON"),
        ("front.json", b"\xff\xfe", "is not UTF-8"),
        ("front.json", b"[]", "the file: "),
        ("front.json", json.dumps(front() | {"pick": "14"}).encode(), "pick: "),
        ("front.json", json.dumps(front() | {"x": 1, "y": 2}).encode(), r"x: .* \(and 1 more\)"),
        ("run.json", json.dumps(run() | {"seed": None}).encode(), "seed: "),
        ("trials.csv", b"", "other columns"),
        ("trials.csv", b"trial,mood\n", r"other columns .*mood"),
        ("trials.csv", (",".join(TRIAL_COLUMNS) + "\n1,completed\n").encode(), r"csv:2: not 28"),
        (
            "trials.csv",
            (",".join(TRIAL_COLUMNS) + "\n1,asleep,c" + "," * 25 + "\n").encode(),
            "csv:2: state: ",
        ),
    ],
)
def test_read_run_refuses_a_damaged_file_on_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    folder = write_run(tmp_path / "run")
    (folder / name).write_bytes(content)
    with pytest.raises(RunError, match=message) as raised:
        read_run(folder)
    assert "\n" not in str(raised.value)
    assert name in str(raised.value)
