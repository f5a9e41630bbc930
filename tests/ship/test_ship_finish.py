import json
import math
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from filelock import FileLock
from ship_fixtures import KEYS, FakeMeasure, Remembers, replace_measure
from test_ship_trtexec_log import call

import hwsearch
from hwsearch import api
from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.errors import (
    HostError,
    NothingFitsError,
    RunError,
    RunInterrupted,
    RunLockedError,
    UserError,
)
from hwsearch.files import cache_folder
from hwsearch.hardware.measure.machine_speed import REFERENCE
from hwsearch.hardware.measure.protocol import MeasureReport
from hwsearch.report import stored
from hwsearch.report.stored import CostEntry
from hwsearch.report.verified import VerifyFile, read_verified
from hwsearch.ship import finish
from hwsearch.ship.export import ExportOptions
from hwsearch.ship.finish import export_run, ship_run, verify_log, verify_run
from hwsearch.ship.measured import measured_latencies
from hwsearch.ship.verify import LEAST_SIGMA_LOG
from hwsearch.space.candidate import Candidate
from hwsearch.study.asked.admission import Admission
from hwsearch.study.run_folder import open_run
from hwsearch.study.trials.progress import Silent
from hwsearch.study.trials.stored_cost import StoredCost
from hwsearch.study.written.output import entry

SCHEMA = json.loads(Path(stored.__file__).with_name("front.schema.json").read_text("utf-8"))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> FakeMeasure:
    fake = FakeMeasure(dict(zip(KEYS, (1.0, 2.0, 4.0, 3.0), strict=True)))
    replace_measure(monkeypatch, fake)
    monkeypatch.setattr(finish, "reach", fake.reach)
    return fake


def front_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "front.json").read_text(encoding="utf-8"))
    jsonschema.validate(content, SCHEMA)
    return content


def offered_trial(folder: Path) -> int:
    """A trial of the front; which ones are there depends on how the profile was fitted."""
    trial: int = front_of(folder)["front"][0]["trial"]
    return trial


def found(folder: Path, key: str) -> VerifyFile:
    verified = read_verified(folder / "models" / key)
    assert verified is not None
    return verified


def test_run_for_this_machine_when_shipped_is_exported_scored_and_timed(
    host_run: Path, pictures: DataSet, measured: FakeMeasure
) -> None:
    watcher = Remembers()
    front = ship_run(host_run, pictures, watcher)
    written = front_of(host_run)
    assert [each["artefact"] for each in written["front"]] == [
        f"models/trial_{model.trial:04d}/model.onnx" for model in front.front
    ]
    assert {each["latency_ms"]["source"] for each in written["front"] + written["baselines"]} == {
        "measured"
    }
    assert measured.calls[0]["place"] == "host"
    assert measured.calls[0]["files"] == list(KEYS)
    assert watcher.notes[0] == "the times are noisy"
    assert "exporting 1 of 4: trial 0" in watcher.phases
    assert "scoring the file of trial 3" in watcher.phases
    assert (host_run / "report.md").is_file()
    assert "measured" in (host_run / "front.csv").read_text(encoding="utf-8")
    verified = found(host_run, "trial_0003")
    assert (verified.pictures, verified.layers) == (30, 4)
    assert verified.differences == {}
    assert verified.accuracy is not None
    latency = verified.latency_ms
    assert latency is not None
    assert (latency.value, latency.place, latency.device) == (2.0, "host", "a board")
    assert latency.runtime == "onnxruntime 1.32.0"
    assert latency.sigma_log == LEAST_SIGMA_LOG
    assert latency.high == pytest.approx(2.0 * math.exp(1.6449 * LEAST_SIGMA_LOG), rel=1e-3)


def test_run_when_shipped_again_makes_its_files_anew_and_adds_the_time(
    shipped_host: Path, pictures: DataSet, measured: FakeMeasure
) -> None:
    def shipping_s() -> float:
        run = json.loads((shipped_host / "run.json").read_text())
        return float(run["wall_s"]["export and verification"])

    first, watcher = shipping_s(), Remembers()
    ship_run(shipped_host, pictures, watcher)
    assert "exporting 4 of 4" in " ".join(watcher.phases)
    assert 0 < first < shipping_s()


def test_run_for_another_target_when_shipped_is_not_timed(shipped_jetson: Path) -> None:
    written = front_of(shipped_jetson)
    entries = written["front"] + written["baselines"]
    assert {each["latency_ms"]["source"] for each in entries} == {"predicted"}
    assert all(each["verified"]["latency_ms"] is None for each in entries)
    assert all(each["verified"]["runtime"].startswith("ONNX Runtime") for each in entries)


def test_run_when_the_machine_is_too_noisy_to_time_keeps_its_predictions(
    host_run: Path, pictures: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noisy(*_: object, **__: object) -> MeasureReport:
        raise HostError("host: the times repeat to 31 % only")

    replace_measure(monkeypatch, noisy)
    watcher = Remembers()
    front = ship_run(host_run, pictures, watcher)
    assert {entry.latency_ms.source for entry in front.scored} == {"predicted"}
    assert watcher.notes[0] == (
        f"not timed: host: the times repeat to 31 % only; later: hwsearch verify {host_run} "
        "--on host"
    )
    with pytest.raises(HostError, match="repeat to 31 % only"):
        verify_run(host_run, Remembers(), on="host")


def test_model_when_it_misses_the_budget_here_is_dropped_until_it_is_timed_again(
    shipped_host: Path, measured: FakeMeasure
) -> None:
    before = verify_run(shipped_host, Remembers(), on="host")
    measured.latencies_ms = dict(zip(KEYS, (1.0, 51.0, 53.0, 52.0), strict=True))
    watcher = Remembers()
    front = verify_run(shipped_host, watcher, on="host")
    assert [model.trial for model in front.front] == [0]
    assert any("trial 3 is not on the front: measured 51.0 ms" in note for note in watcher.notes)
    # A verification starts from what was searched, not from what the last one left.
    measured.latencies_ms = dict(zip(KEYS, (1.0, 2.0, 4.0, 3.0), strict=True))
    assert verify_run(shipped_host, Remembers(), on="host") == before


def test_run_when_nothing_fits_once_measured_says_so_and_reports(
    host_run: Path, pictures: DataSet, measured: FakeMeasure
) -> None:
    measured.latencies_ms = dict.fromkeys(KEYS, 90.0)
    with pytest.raises(NothingFitsError, match=r"none of the 2 models meets 50ms"):
        ship_run(host_run, pictures, Remembers())
    written = front_of(host_run)
    assert written["front"] == []
    assert written["closest"]["latency_ms"]["value"] == 90.0
    assert (host_run / "report.md").is_file()


def test_intervals_allow_for_noise_and_a_machine_whose_speed_varies(
    shipped_host: Path, measured: FakeMeasure
) -> None:
    def sigma() -> float:
        verify_run(shipped_host, watcher)
        latency = found(shipped_host, "trial_0003").latency_ms
        assert latency is not None
        assert math.log(latency.high / latency.low) == pytest.approx(
            2 * 1.6449 * latency.sigma_log, rel=1e-3
        )
        return latency.sigma_log

    watcher = Remembers()
    steady = sigma()
    measured.latencies_ms = {**measured.latencies_ms, REFERENCE: 1.2}
    assert sigma() == pytest.approx(math.hypot(steady, math.log(1.2)))
    assert any("differs by 18.2 % between any two of 2 timings" in note for note in watcher.notes)
    (cache_folder() / "machine_speed.jsonl").unlink()
    measured.noise = 9.5
    assert sigma() == pytest.approx(0.1)


def test_verify_when_a_file_is_missing_exports_it(
    shipped_host: Path, measured: FakeMeasure
) -> None:
    (shipped_host / "models" / "trial_0003" / "model.onnx").unlink()
    watcher = Remembers()
    verify_run(shipped_host, watcher)
    assert [text for text in watcher.phases if text.startswith("exporting")] == [
        "exporting 1 of 1: trial 3"
    ]


def test_verify_without_a_place_keeps_the_latency_of_the_same_file(shipped_jetson: Path) -> None:
    trial = offered_trial(shipped_jetson)
    name = f"trial_{trial:04d}"
    log = shipped_jetson / "models" / name / "trtexec.log"
    log.write_text(call(7.25), encoding="utf-8")
    verify_log(shipped_jetson, log, None, Remembers())
    verify_run(shipped_jetson, Remembers())
    latency = found(shipped_jetson, name).latency_ms
    assert latency is not None
    assert latency.value == 7.25
    other = shipped_jetson / "models" / "baseline_dense-fp32_tiny" / "model.onnx"
    shutil.copy(other, shipped_jetson / "models" / name)
    verify_run(shipped_jetson, Remembers())
    assert found(shipped_jetson, name).latency_ms is None


def test_times_when_the_runtime_reads_no_onnx_do_not_stand_for_the_target(
    host_run: Path, pictures: DataSet, measured: FakeMeasure
) -> None:
    path = host_run / "evidence.json"
    content = json.loads(path.read_text())
    content["profile"] |= {"name": "raspberry-pi-4", "runtime": "TFLite 2.7.1"}
    path.write_text(json.dumps(content))
    watcher = Remembers()
    front = verify_run(host_run, watcher, on="host")
    assert measured.calls[0]["runtime"] is None
    assert {each.latency_ms.source for each in front.scored} == {"predicted"}
    assert any("TFLite 2.7.1 reads no ONNX" in note for note in watcher.notes)
    assert measured_latencies(host_run) == {}, "they say nothing of the target"
    folder = host_run / "models" / "trial_0003"
    assert (folder / "CONVERT.md").is_file()
    assert (folder / "model_float.onnx").is_file()


def test_times_for_tensorrt_are_taken_by_trtexec(jetson_run: Path, measured: FakeMeasure) -> None:
    verify_run(jetson_run, Remembers(), on="ssh://me@board", threads=1)
    [asked] = measured.calls
    assert (asked["place"], asked["runtime"]) == ("ssh://me@board", "trtexec")
    assert measured.reached == [("ssh://me@board", "trtexec")]
    assert asked["precisions"] == ("int8", "fp16", "typed")


def test_verify_when_the_place_is_none_says_so_before_anything(host_run: Path) -> None:
    with pytest.raises(UserError, match="place 'ftp://board' is none that can be measured on"):
        verify_run(host_run, Remembers(), on="ftp://board")
    assert not (host_run / "models" / "trial_0003" / "model.onnx").exists()


def test_verify_when_the_place_fails_leaves_the_front_as_it_was(
    shipped_jetson: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> MeasureReport:
        raise HostError("ssh://me@board: it accepts none of the keys")

    replace_measure(monkeypatch, fails)
    monkeypatch.setattr(finish, "reach", lambda place, **_: None)
    before = front_of(shipped_jetson)
    with pytest.raises(HostError, match="accepts none of the keys"):
        verify_run(shipped_jetson, Remembers(), on="ssh://me@board")
    assert front_of(shipped_jetson) == before


def test_log_when_read_gives_its_model_a_measured_latency(
    shipped_jetson: Path, tmp_path: Path
) -> None:
    trial = offered_trial(shipped_jetson)
    log = shipped_jetson / "models" / f"trial_{trial:04d}" / "trtexec.log"
    log.write_text(call(7.5) + call(7.25), encoding="utf-8")
    watcher = Remembers()
    front = verify_log(shipped_jetson, log, None, watcher)
    assert watcher.notes == [f"trial {trial}: 7.25 ms in TensorRT 10.3.0, 2 rounds"]
    [entry] = [each for each in front.front if each.trial == trial]
    assert (entry.latency_ms.value, entry.latency_ms.source) == (7.25, "measured")
    latency = found(shipped_jetson, f"trial_{trial:04d}").latency_ms
    assert latency is not None
    assert (latency.place, latency.device) == ("trtexec log", "Orin")
    assert (latency.threads, latency.sigma_log) == (None, LEAST_SIGMA_LOG)
    # One that lies elsewhere does not say what it is of.
    elsewhere = log.rename(tmp_path / "some.log")
    with pytest.raises(RunError, match=r"lies in no model's folder of .*; say --trial N"):
        verify_log(shipped_jetson, elsewhere, None, Remembers())
    elsewhere.write_text(call(7.25) + call(10.0), encoding="utf-8")
    front = verify_log(shipped_jetson, elsewhere, "baseline_dense-fp32_tiny", Remembers())
    assert front.baselines[0].latency_ms.value == 7.25
    latency = found(shipped_jetson, "baseline_dense-fp32_tiny").latency_ms
    assert latency is not None
    assert latency.sigma_log == pytest.approx(math.log(10 / 7.25) / 2)


def test_log_when_the_target_runs_no_tensorrt_is_refused(
    shipped_host: Path, tmp_path: Path
) -> None:
    (tmp_path / "some.log").write_text(call(7.25), encoding="utf-8")
    with pytest.raises(RunError, match=r"host runs ONNX Runtime .* says nothing about it"):
        verify_log(shipped_host, tmp_path / "some.log", "3", Remembers())


def test_log_when_its_model_was_not_scored_is_refused(jetson_run: Path) -> None:
    log = jetson_run / "models" / "trial_0003" / "trtexec.log"
    log.write_text(call(7.25), encoding="utf-8")
    with pytest.raises(
        RunError, match="trial 3 has no file that was scored; first: hwsearch verify"
    ):
        verify_log(jetson_run, log, None, Remembers())


def test_export_when_of_one_model_writes_and_scores_that_only(
    host_run: Path, pictures: DataSet
) -> None:
    watcher = Remembers()
    files = export_run(host_run, "3", ExportOptions(), watcher)
    assert watcher.notes == [
        f"new files are not timed yet; next: hwsearch verify {host_run} --on host|ssh://..."
    ]
    assert files == [host_run / "models" / "trial_0003" / "model.onnx"]
    assert not (host_run / "models" / "trial_0000" / "model.onnx").exists()
    assert found(host_run, "trial_0003").pictures == len(pictures.test)
    assert [each["trial"] for each in front_of(host_run)["front"]] == [3]


def test_export_when_none_can_be_says_why(host_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hwsearch.errors import BackboneError
    from hwsearch.ship import export

    def fails(*_: object, **__: object) -> None:
        raise BackboneError("the layer 'a' runs twice")

    monkeypatch.setattr(export, "observe_output_ranges", fails)
    with pytest.raises(RunError, match="trial 3: it cannot be exported: the layer 'a' runs twice"):
        export_run(host_run, "3", ExportOptions(), Remembers())


def test_verify_when_nothing_met_the_budget_leaves_the_closest_point(
    host_run: Path, measured: FakeMeasure
) -> None:
    path = host_run / "evidence.json"
    content = json.loads(path.read_text())
    network = content["networks"][0]
    closest = entry(
        Candidate.from_json(network["candidate"]),
        StoredCost.model_validate(network["cost"]).cost(),
        Admission(probability=0.1, violations={"latency": 0.5}),
        None,
        trial=None,
        layers=None,
    )
    closest = {
        name: value.model_dump() if isinstance(value, CostEntry) else value
        for name, value in closest.items()
    }
    path.write_text(json.dumps(content | {"networks": [], "closest": closest}))
    found_front = verify_run(host_run, Remembers())
    assert found_front.closest is not None
    assert found_front.closest.macs == network["cost"]["macs"]
    assert found_front.front == ()


def test_verbs_when_the_folder_is_none_say_so(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for work in (
        lambda: export_run(missing, "all", ExportOptions(), Remembers()),
        lambda: verify_run(missing, Remembers()),
        lambda: verify_log(missing, tmp_path / "x", None, Remembers()),
    ):
        with pytest.raises(RunError, match="is not a folder; give a run folder"):
            work()
    assert not missing.exists()


def test_verbs_when_another_process_works_there_say_so(host_run: Path) -> None:
    with FileLock(host_run / ".lock"), pytest.raises(RunLockedError, match="another process"):
        verify_run(host_run, Remembers())


def test_ship_when_interrupted_says_how_to_go_on(
    host_run: Path, pictures: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(finish, "score_models", stop)
    with pytest.raises(RunInterrupted, match=r"go on with: hwsearch verify .*run"):
        ship_run(host_run, pictures, Remembers())


def test_python_interface_exports_verifies_and_loads(
    shipped_host: Path, measured: FakeMeasure
) -> None:
    files = hwsearch.export(shipped_host, 3)
    assert [file.name for file in files] == ["model.onnx"]
    result = hwsearch.verify(shipped_host, on="host")
    assert result.folder == shipped_host
    assert result.front.pick is not None
    network, picked = hwsearch.load(shipped_host, result.front.pick), hwsearch.load(shipped_host)
    assert not network.training
    assert any("input_quantizer" in name for name, _ in network.named_modules())
    assert picked.state_dict().keys() == network.state_dict().keys()
    with pytest.raises(RunError, match="one network is loaded at a time"):
        api.load(shipped_host, "all")


@pytest.mark.slow
def test_files_when_really_timed_here_have_latencies(host_run: Path) -> None:
    front = verify_run(host_run, Remembers(), on="host")
    assert {each.latency_ms.source for each in front.scored} == {"measured"}
    assert all(each.latency_ms.value > 0 for each in front.scored)


def test_measured_latencies_are_those_of_the_candidates_of_their_run(
    host_run: Path, pictures: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [
        (network.folder, network.cost.latency_ms.value)
        for network in open_run(host_run).evidence.networks
    ]
    assert {name for name, _ in models} == set(KEYS)
    replace_measure(monkeypatch, FakeMeasure({k: 1.3 * v for k, v in models}))
    assert measured_latencies(host_run) == {}, "nothing was timed yet"
    ship_run(host_run, pictures, Silent())
    found = measured_latencies(host_run)
    assert len(found) == len(KEYS)
    assert sorted(found.values()) == pytest.approx(sorted(1.3 * value for _, value in models))
