# ruff: noqa: ANN401 - fakes take whatever the real function is given
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import onnx
import pytest

from hwsearch.errors import HostError
from hwsearch.hardware.measure import machine_speed
from hwsearch.hardware.measure.machine_speed import (
    REFERENCE,
    MachineSpeed,
    measure_with_reference,
    remember,
    write_reference,
)
from hwsearch.hardware.measure.places import LocalPlace
from hwsearch.hardware.measure.protocol import MeasuredNet, MeasureReport, RefusedNet

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def report(*names: str, **changes: Any) -> MeasureReport:
    nets = tuple(
        MeasuredNet(
            name=name, latency_ms=1.5, minimum_ms=1.4, round_latencies_ms=(1.5, 1.6), energy_mj=None
        )
        for name in names
    )
    plain: dict[str, Any] = {
        "nets": nets, "refused": (), "noise_floor_percent": 0.5, "drift_percent": None,
        "place": "host", "runtime": "onnxruntime", "runtime_version": "1", "device": "a board",
        "cpu": "a processor", "cpu_features": (), "power_mode": None, "energy_boundary": None,
        "threads": 1, "rounds": 20, "runs": 5, "date": date(2026, 11, 27), "kept_nets": 0,
        "warnings": (),
    }  # fmt: skip
    return MeasureReport(**(plain | changes))


@pytest.fixture(autouse=True)
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "machine_speed.jsonl"


def test_one_timing_says_nothing_and_two_say_how_they_differ() -> None:
    first = remember(report(), 1.0, NOW)
    assert first == MachineSpeed(timings=1, since=NOW, sigma_log=0.0)
    second = remember(report(), 1.2, NOW + timedelta(hours=1))
    assert (second.timings, second.since) == (2, NOW)
    assert second.sigma_log == pytest.approx(math.log(1.2))


def test_sigma_is_that_of_the_ratio_of_any_two_timings() -> None:
    values = (1.0, 1.1, 1.3, 0.9)
    for hours, value in enumerate(values):
        found = remember(report(), value, NOW + timedelta(hours=hours))
    logs = [math.log(a / b) for a in values for b in values if a != b]
    assert found.sigma_log == pytest.approx(math.sqrt(sum(x * x for x in logs) / len(logs)))
    assert found.told("host").startswith("the speed of host differs by 22.1 % between any two of 4")


@pytest.mark.parametrize(
    "changes",
    [{"place": "ssh://board"}, {"device": "other"}, {"runtime_version": "2"}, {"threads": 2}],
)
def test_timings_of_another_machine_or_runtime_do_not_count(changes: dict[str, Any]) -> None:
    remember(report(**changes), 9.0, NOW)
    assert remember(report(), 1.0, NOW).timings == 1


def test_timings_of_more_than_a_month_ago_do_not_count() -> None:
    remember(report(), 9.0, NOW - timedelta(days=31))
    assert remember(report(), 1.0, NOW).sigma_log == 0.0


@pytest.mark.parametrize("broken", ["{", '{"at": "2026-11-27"}', "[1]"])
def test_a_broken_history_says_what_to_do(broken: str, history: Path) -> None:
    history.parent.mkdir()
    history.write_text(broken + "\n", encoding="utf-8")
    with pytest.raises(HostError, match=r"machine_speed.jsonl cannot be used .*; remove it, or"):
        remember(report(), 1.0, NOW)


def test_the_reference_is_timed_along_and_kept_apart(
    tmp_path: Path, history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def fake(files: Mapping[str, Path], place: LocalPlace, **options: Any) -> MeasureReport:
        asked.update(files=list(files), place=place, **options)
        onnx.checker.check_model(onnx.load(files[REFERENCE]), full_check=True)
        return report(*files)

    monkeypatch.setattr(machine_speed, "measure", fake)
    place = LocalPlace()
    found, speed = measure_with_reference({"a": tmp_path / "a.onnx"}, place, threads=2)
    assert asked == {"files": ["a", REFERENCE], "place": place, "threads": 2}
    assert found == report("a")
    assert speed.timings == 1
    assert json.loads(history.read_text(encoding="utf-8"))["latency_ms"] == 1.5


def test_where_only_the_reference_runs_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = (RefusedNet(name="a", reason="no such operator"),)

    def fake(*_: object, **__: object) -> MeasureReport:
        return replace(report(REFERENCE), refused=refused)

    monkeypatch.setattr(machine_speed, "measure", fake)
    with pytest.raises(HostError, match="runs none of them; the first: no such operator"):
        measure_with_reference({"a": Path("a.onnx")}, LocalPlace())


def test_the_reference_runs_in_onnx_runtime(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    write_reference(path)
    found, speed = measure_with_reference({"net": path}, LocalPlace(), rounds=2, runs=3)
    assert [net.name for net in found.nets] == ["net"]
    assert found.nets[0].latency_ms > 0
    assert speed.timings == 1
