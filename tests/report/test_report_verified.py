import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError
from stored_results import shipped_schema

from hwsearch.errors import RunError
from hwsearch.report.verified import (
    VerifyFile,
    read_verified,
    write_verified,
)

Json = dict[str, Any]


def latency(**changes: object) -> Json:
    return {
        "value": 2.0, "low": 1.9, "high": 2.1, "confidence": 0.9, "sigma_log": 0.03,
        "place": "host", "runtime": "onnxruntime 1.32.0", "device": "a processor",
        "of_target": True, "threads": 1, "noise_floor_percent": 0.7,
    } | changes  # fmt: skip


def content(**changes: object) -> Json:
    return {
        "schema_version": 1, "file": "model.onnx", "file_hash": "ab" * 32, "pictures": 360,
        "correct": 342, "searched_accuracy": 0.95, "runtime": "ONNX Runtime 1.32.0",
        "host": "a processor", "layers": 12,
        "differences": {"head": {"asked": "W4A8", "realised": "W8A8"}},
        "latency_ms": latency(), "refused": None,
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"latency_ms": None},
        {"latency_ms": latency(threads=None, noise_floor_percent=None, of_target=False)},
        {"correct": None, "refused": "it does not run", "differences": {}},
    ],
)
def test_verified_when_written_and_read(changes: Json, tmp_path: Path) -> None:
    verified = VerifyFile.model_validate(content(**changes))
    write_verified(tmp_path, verified)
    written = json.loads((tmp_path / "verify.json").read_text(encoding="utf-8"))
    assert written == content(**changes)
    jsonschema.validate(written, shipped_schema("verify"))
    assert read_verified(tmp_path) == verified
    assert verified.accuracy == (None if verified.correct is None else 342 / 360)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"correct": 361}, "361 right of 360 pictures is no score"),
        ({"refused": "no"}, "either scored or refused"),
        ({"correct": None}, "either scored or refused"),
        ({"pictures": 0}, "greater than 0"),
        ({"latency_ms": latency(low=2.05)}, "low 2.05 <= value 2.0 <= high 2.1 must hold"),
        ({"latency_ms": latency(value=0.0, low=0.0)}, "greater than 0"),
        ({"differences": {"a": {"asked": "int8", "realised": "W8A8"}}}, "pattern"),
        ({"colour": "red"}, "Extra inputs"),
        ({"schema_version": 2}, "Input should be 1"),
    ],
)
def test_verified_when_it_makes_no_sense_is_refused(changes: Json, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VerifyFile.model_validate(content(**changes))


def test_verified_when_changed_by_hand_is_one_line(tmp_path: Path) -> None:
    assert read_verified(tmp_path) is None
    path = tmp_path / "verify.json"
    for text in (json.dumps(content(correct=999)), "{"):
        path.write_text(text)
        with pytest.raises(RunError, match=r"verify\.json: .*; remove it and verify again") as e:
            read_verified(tmp_path)
        assert "\n" not in str(e.value)
    path.unlink()
    path.mkdir()
    with pytest.raises(RunError, match=r"cannot be read .* check its permissions"):
        read_verified(tmp_path)
