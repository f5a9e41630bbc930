import json
from importlib import resources
from pathlib import Path
from typing import Any

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
    stored_run,
    trial,
    write_run,
)

from hwsearch.errors import RunError
from hwsearch.report.stored import (
    TRIAL_COLUMNS,
    CostEntry,
    FrontFile,
    ModelEntry,
    RunFile,
    read_front,
    read_run,
    replace_file,
    schema_text,
)

#: Keys of a front that is empty, and one that older runs lack.
OPTIONAL = {"closest", "minimum_reachable", "baseline_pick", "proxy_kendall_tau_ci90"}


def shipped_schema(name: str) -> Json:
    text = (resources.files("hwsearch.report") / f"{name}.schema.json").read_text(encoding="utf-8")
    schema: Json = json.loads(text)
    return schema


def schema_accepts(name: str, content: Json) -> bool:
    validator = jsonschema.Draft202012Validator(shipped_schema(name))
    return bool(validator.is_valid(content))


@pytest.mark.parametrize(("name", "file"), [("front", FrontFile), ("run", RunFile)])
def test_shipped_schema_equals_the_model(name: str, file: type[FrontFile] | type[RunFile]) -> None:
    assert shipped_schema(name) == json.loads(schema_text(file)), (
        f"write schema_text({file.__name__}) to hwsearch/report/{name}.schema.json"
    )


@pytest.mark.parametrize("name", ["front", "run"])
def test_shipped_schema_is_draft_2020_12(name: str) -> None:
    schema = shipped_schema(name)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("content", [front(), front(0), front(1), front(30), empty_front()])
def test_written_front_keeps_to_the_schema(content: Json) -> None:
    written = json.loads(FrontFile.model_validate(content).model_dump_json(indent=1))
    assert schema_accepts("front", written)
    assert written == content


def test_written_run_keeps_to_the_schema() -> None:
    written = json.loads(RunFile.model_validate(run()).model_dump_json(indent=1))
    assert schema_accepts("run", written)
    assert RunFile.model_validate(written) == RunFile.model_validate(run())


def test_run_schema_takes_more_in_nested_parts_only() -> None:
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


def test_front_schema_takes_a_file_without_the_optional_keys() -> None:
    content = front()
    for key in OPTIONAL:
        del content[key]
    assert schema_accepts("front", content)
    assert FrontFile.model_validate(content).closest is None


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


def test_bits_are_counted_over_layers() -> None:
    bits = ModelEntry.model_validate(model(1)).bits
    assert {str(width): layers for width, layers in bits.items()} == {"W8A8": 4, "W16A16": 2}


def test_cost_of_a_size_is_exact() -> None:
    entry = ModelEntry.model_validate(model(1) | {"size_bytes": 1234, "energy_mj": None})
    assert entry.cost("size") == CostEntry(
        value=1234, low=1234, high=1234, confidence=1, source="predicted"
    )
    assert entry.cost("energy") is None
    assert entry.cost("latency") == entry.latency_ms


def test_dense_baseline_is_that_of_the_backbone_or_the_first() -> None:
    content = front()
    content["baselines"].append(
        baseline("dense-fp32", latency_ms=3.0, accuracy=0.97, backbone="other")
    )
    file = FrontFile.model_validate(content)
    found = [file.dense_baseline(name) for name in ("other", "resnet10t", "unknown")]
    assert [entry.latency_ms.value for entry in found if entry] == [3.0, 7.4, 7.4]
    bare = FrontFile.model_validate(content | {"baselines": []})
    assert bare.dense_baseline("other") is None


def test_read_run_reads_what_was_written(tmp_path: Path) -> None:
    stored = stored_run(tmp_path / "run")
    assert stored.front == FrontFile.model_validate(front())
    assert stored.run.counts.completed == 24
    assert len(stored.trials) == 40
    assert read_front(tmp_path / "run") == stored.front


def test_read_run_reads_empty_cells_as_none(tmp_path: Path) -> None:
    rows = [trial(0, "over_budget", latency_ms=14.0, accuracy=None)]
    (row,) = stored_run(tmp_path / "run", trial_rows=rows).trials
    assert (row.energy_mj, row.reason, row.rung) == (91.0, None, None)
    assert row.best_known_accuracy is None


def test_best_known_accuracy_is_of_the_last_rung(tmp_path: Path) -> None:
    rows = [
        trial(0, "stopped", latency_ms=1.0, accuracy=0.4) | {"accuracy_rung1": 0.6},
        trial(1, "completed", latency_ms=1.0, accuracy=0.4) | {"validation_accuracy": 0.9},
    ]
    stored = stored_run(tmp_path / "run", trial_rows=rows)
    assert [row.best_known_accuracy for row in stored.trials] == [0.6, 0.9]


def test_read_run_refuses_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a folder; give a run folder"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["front.json", "trials.csv"])
def test_read_run_names_a_missing_file(tmp_path: Path, name: str) -> None:
    folder = write_run(tmp_path / "run")
    (folder / name).unlink()
    with pytest.raises(RunError, match=rf"has no {name}, .* hwsearch run --resume "):
        read_run(folder)


def test_read_run_when_the_folder_holds_no_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "run.json").unlink()
    with pytest.raises(RunError, match=r"holds no run \(run\.json is missing\)"):
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


def test_trial_columns_carry_their_units() -> None:
    assert TRIAL_COLUMNS[:4] == ("trial", "state", "candidate", "backbone")
    assert {"latency_ms", "energy_mj_low", "size_bytes", "train_s", "knobs"} <= set(TRIAL_COLUMNS)
    assert len(TRIAL_COLUMNS) == 28


def test_replace_file_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    replace_file(path, b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_replace_file_keeps_the_old_content_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    replace_file(path, b"old")

    def full_disk(_: Any) -> None:  # noqa: ANN401
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hwsearch.files.os.fsync", full_disk)
    with pytest.raises(RunError, match=r"a\.txt cannot be written \(No space left on device\)"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_pick_is_a_model_or_a_baseline() -> None:
    with pytest.raises(ValidationError, match="a model or a baseline, not both"):
        FrontFile.model_validate(front(2) | {"baseline_pick": 1})


def test_baseline_pick_names_one_of_the_baselines() -> None:
    content = front(0) | {"baseline_pick": 1}
    read = FrontFile.model_validate(content)
    assert read.picked_baseline is read.baselines[1]
    assert FrontFile.model_validate(front()).picked_baseline is None
    with pytest.raises(ValidationError, match="baseline_pick 2 is no baseline's position"):
        FrontFile.model_validate(content | {"baseline_pick": 2})
