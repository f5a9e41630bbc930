import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure_fixtures import ScriptedPlace, write_nets

from hwsearch.errors import HostError, RunError, UserError
from hwsearch.hardware.measure.kept import FILE_NAME, KeptResults
from hwsearch.hardware.measure.places import LocalPlace, Place
from hwsearch.hardware.measure.protocol import (
    MeasuredNet,
    MeasureJob,
    MeasureProgress,
    drift_percent,
    measure,
    noise_floor_percent,
)

latencies = st.floats(0.01, 1e3)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return write_nets(tmp_path, 4)


def breaking_at(wanted: str, error: BaseException) -> Callable[[str], None]:
    def break_off(name: str) -> None:
        if name == wanted:
            raise error

    return break_off


# --- the figures


def test_noise_floor_is_the_median_difference_of_the_halves() -> None:
    # Halves: 1.0 and 1.1 (9.52 %); 2.0 and 2.0 (0 %); 1.0 and 3.0 (100 %).
    rounds = [[1.0, 1.2, 1.3, 1.1], [2.0, 2.0], [5.0, 3.0, 1.0]]
    assert noise_floor_percent(rounds) == pytest.approx(100 * 0.1 / 1.05)


@given(st.lists(st.lists(latencies, min_size=2, max_size=6), min_size=1, max_size=5))
def test_noise_floor_does_not_depend_on_the_unit_or_the_order_of_nets(
    rounds: list[list[float]],
) -> None:
    noise = noise_floor_percent(rounds)
    assert 0 <= noise <= 200
    scaled = [[1e3 * value for value in net] for net in reversed(rounds)]
    assert noise_floor_percent(scaled) == pytest.approx(noise)


@pytest.mark.parametrize("rounds", [[], [[1.0]], [[1.0, 2.0], [1.0]]])
def test_noise_floor_is_refused_for_single_rounds(rounds: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="two rounds at least"):
        noise_floor_percent(rounds)


def test_drift_is_the_spread_of_the_anchor() -> None:
    assert drift_percent([]) is None
    assert drift_percent([2.0]) is None
    assert drift_percent([2.0, 2.2, 2.1]) == pytest.approx(10)


# --- values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threads": 0}, "threads 0 is too few; give at least 1"),
        ({"rounds": 1}, "rounds 1 is too few; give at least 2"),
        ({"runs": 2}, "runs 2 is too few; give at least 3"),
        ({"warm_up": 0}, "warm_up 0 is too few"),
        ({"extra_rounds": -1}, "extra_rounds -1 is too few"),
        ({"seconds_per_round": 0.0}, "seconds_per_round 0.0 is not above zero"),
        ({"seconds_per_round": math.nan}, "is not above zero"),
        ({"runtime": "tflite"}, "pick from onnxruntime, onnxruntime-cuda, openvino, trtexec"),
        ({"precisions": ("int8",)}, "only trtexec takes them"),
        ({"runtime": "trtexec", "precisions": ("int4",)}, "precisions int4 with trtexec"),
    ],
)
def test_job_out_of_range_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MeasureJob(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_figure_that_is_not_positive_and_finite_is_refused(bad: float) -> None:
    good = {"name": "a", "latency_ms": 1.0, "round_latencies_ms": (1.0, 2.0), "minimum_ms": 0.9}
    assert MeasuredNet(**good).latency_ms == 1.0  # type: ignore[arg-type]
    for change in ({"minimum_ms": bad}, {"energy_mj": bad}, {"round_latencies_ms": (1.0, bad)}):
        with pytest.raises(ValueError, match=r"a: .* is not positive and finite"):
            MeasuredNet(**{**good, **change})  # type: ignore[arg-type]


def test_a_latency_that_is_not_the_least_round_is_refused() -> None:
    with pytest.raises(ValueError, match="not the least of two rounds or more"):
        MeasuredNet(name="a", latency_ms=2.0, round_latencies_ms=(1.0, 2.0), minimum_ms=0.9)


# --- measuring


def test_report_holds_the_nets_in_the_order_given(files: dict[str, Path]) -> None:
    seen: list[MeasureProgress] = []
    place: Place = ScriptedPlace()
    report = measure(dict(reversed(files.items())), place, rounds=2, on_progress=seen.append)
    assert [net.name for net in report.nets] == list(reversed(files))
    assert [net.latency_ms for net in report.nets] == [1.0, 2.0, 3.0, 4.0]
    assert report.nets[0].round_latencies_ms == (1.0, 1.01)
    assert report.nets[0].minimum_ms == pytest.approx(0.9)
    assert (report.place, report.device, report.cpu) == ("scripted", "board", "processor")
    assert (report.runtime, report.runtime_version) == ("onnxruntime", "1.2.3")
    assert (report.threads, report.rounds, report.runs) == (1, 2, 5)
    assert report.warnings == ()
    assert report.energy_boundary is None
    assert len(seen) == 8
    assert seen[0].text == "net3 round 1: 1 ms"
    assert (seen[-1].finished_nets, seen[-1].total_nets) == (3, 4)


def test_anchor_is_the_net_of_medium_size(files: dict[str, Path]) -> None:
    place = ScriptedPlace()
    measure(files, place)
    assert [job["mode"] for job in place.jobs] == ["probe", "measure"]
    assert [job["anchor"] for job in place.jobs] == [None, "net2"]
    assert place.jobs[0]["files"] == []


def test_trtexec_has_fewer_and_longer_rounds(files: dict[str, Path]) -> None:
    place = ScriptedPlace()
    measure(files, place)
    measure(files, place, runtime="trtexec", precisions=("fp16",))
    measure(files, place, rounds=7, runs=9)
    names = ("rounds", "extra_rounds", "runs", "precisions")
    jobs = [tuple(job[name] for name in names) for job in place.jobs if job["mode"] == "measure"]
    assert jobs == [(20, 40, 5, ()), (5, 5, 50, ("fp16",)), (7, 14, 9, ())]


def test_energy_says_what_it_is_drawn_by(files: dict[str, Path]) -> None:
    place = ScriptedPlace(energy=True, default_runtime="onnxruntime-cuda")
    report = measure(files, place)
    assert report.energy_boundary == "board"
    assert {net.energy_mj for net in report.nets} == {5.0}


def test_missing_energy_of_a_gpu_is_a_warning(files: dict[str, Path]) -> None:
    report = measure(files, ScriptedPlace(), runtime="onnxruntime-cuda")
    assert report.warnings == ("no energy was measured: no counter",)


def test_refused_nets_are_named_beside_the_others(files: dict[str, Path]) -> None:
    report = measure(files, ScriptedPlace(refused=frozenset({"net1", "net2"})))
    assert [net.name for net in report.nets] == ["net0", "net3"]
    assert [(net.name, net.reason) for net in report.refused] == [
        ("net1", "no kernel for it"),
        ("net2", "no kernel for it"),
    ]
    assert report.warnings == ("onnxruntime does not run 2 nets: net1, net2",)


def test_measuring_fails_when_every_net_is_refused(files: dict[str, Path]) -> None:
    with pytest.raises(HostError, match=r"runs none of the 4 nets \(no kernel for it\)"):
        measure(files, ScriptedPlace(refused=frozenset(files)))


def test_no_files_are_refused() -> None:
    with pytest.raises(UserError, match="no nets to measure; give ONNX files"):
        measure({}, ScriptedPlace())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone.onnx: cannot be read .*; give ONNX files"):
        measure({"a": tmp_path / "gone.onnx"}, ScriptedPlace())


def test_a_place_without_an_answer_is_refused(files: dict[str, Path]) -> None:
    with pytest.raises(HostError, match="nothing answered"):
        measure(files, ScriptedPlace(silent=True))


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"event": "dance"}, "reported 'dance', which this hwsearch does not know"),
        ({"event": "net", "id": "net0", "latency_ms": 1.0}, "a result of net0 makes no sense"),
        (
            {
                "event": "net",
                "id": "net0",
                "latency_ms": math.nan,
                "rounds_ms": [1.0, 1.0],
                "minimum_ms": 1.0,
                "energy_mj": None,
            },
            "a result of net0 makes no sense",
        ),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(
    files: dict[str, Path], event: dict[str, object], message: str
) -> None:
    with pytest.raises(HostError, match=message):
        measure(files, ScriptedPlace(extra=(event,)))


# --- noise


def test_a_noisy_machine_is_reported(files: dict[str, Path]) -> None:
    report = measure(files, ScriptedPlace(rounds_ms=lambda n: [1.0, 1.1]))
    assert report.noise_floor_percent == pytest.approx(9.52, abs=0.01)
    [warning] = report.warnings
    assert warning.startswith("the times repeat to 9.5 % only; close other programs")


def test_a_machine_that_is_too_noisy_is_refused_and_its_results_dropped(
    files: dict[str, Path], tmp_path: Path
) -> None:
    noisy, work = ScriptedPlace(rounds_ms=lambda n: [1.0, 1.3]), tmp_path / "work"
    with pytest.raises(HostError, match=r"repeat to 26 % only, more than 20 % is refused; close"):
        measure(files, noisy, work_folder=work)
    assert (work / FILE_NAME).read_text() == ""
    assert measure(files, ScriptedPlace(), work_folder=work).kept_nets == 0


def test_one_noisy_net_does_not_spoil_the_others(files: dict[str, Path]) -> None:
    place = ScriptedPlace(rounds_ms=lambda n: [1.0, 9.0] if n == 0 else [1.0, 1.0])
    assert measure(files, place).noise_floor_percent == 0


# --- going on


def test_a_broken_off_measurement_goes_on_with_what_is_missing(
    files: dict[str, Path], tmp_path: Path
) -> None:
    broken = ScriptedPlace(break_off=breaking_at("net3", HostError("it fell")))
    message = "it fell; 3 of 4 nets are kept, run it again to go on"
    with pytest.raises(HostError, match=message):
        measure(files, broken, work_folder=tmp_path / "work")

    place = ScriptedPlace(rounds_ms=lambda n: [7.0, 7.0])
    report = measure(files, place, work_folder=tmp_path / "work")
    assert [net.latency_ms for net in report.nets] == [1.0, 2.0, 3.0, 7.0]
    assert report.kept_nets == 3
    # The anchor is timed again, to see whether the machine is still what it was.
    assert place.jobs[1]["files"] == ["net3", "net2"]
    assert place.jobs[1]["only_anchor"] == ["net2"]
    assert report.drift_percent == pytest.approx(100 * (7 / 3 - 1))
    assert "the machine drifted by 133.3 % meanwhile" in report.warnings[0]


def test_an_interrupted_measurement_keeps_what_was_finished(
    files: dict[str, Path], tmp_path: Path
) -> None:
    broken = ScriptedPlace(break_off=breaking_at("net2", KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        measure(files, broken, work_folder=tmp_path)
    assert measure(files, ScriptedPlace(), work_folder=tmp_path).kept_nets == 2


def test_nothing_is_measured_again_when_all_is_kept(files: dict[str, Path], tmp_path: Path) -> None:
    first = measure(files, ScriptedPlace(), work_folder=tmp_path)
    place = ScriptedPlace()
    again = measure(files, place, work_folder=tmp_path)
    assert [job["mode"] for job in place.jobs] == ["probe"]
    assert again.nets == first.nets
    assert (first.kept_nets, again.kept_nets) == (0, 4)


def test_a_renamed_net_is_known_by_its_content(files: dict[str, Path], tmp_path: Path) -> None:
    measure(files, ScriptedPlace(), work_folder=tmp_path)
    renamed = {f"other-{name}": path for name, path in files.items()}
    report = measure(renamed, ScriptedPlace(), work_folder=tmp_path)
    assert report.kept_nets == 4
    assert report.nets[0].name == "other-net0"


def test_other_conditions_are_measured_anew(files: dict[str, Path], tmp_path: Path) -> None:
    measure(files, ScriptedPlace(), work_folder=tmp_path)

    def kept(place: Place, **options: int) -> int:
        return measure(files, place, work_folder=tmp_path, **options).kept_nets  # type: ignore[arg-type]

    assert kept(ScriptedPlace()) == 4
    assert kept(ScriptedPlace(runtime_version="1.2.4")) == 0
    assert kept(ScriptedPlace(name="elsewhere")) == 0
    assert kept(ScriptedPlace(), threads=2) == 0
    assert kept(ScriptedPlace(), rounds=7) == 0
    files["net0"].write_bytes(files["net1"].read_bytes() + b"\0")
    assert kept(ScriptedPlace()) == 3


def test_a_torn_last_line_is_left_out(files: dict[str, Path], tmp_path: Path) -> None:
    measure(files, ScriptedPlace(), work_folder=tmp_path)
    path = tmp_path / FILE_NAME
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:20])
    assert measure(files, ScriptedPlace(), work_folder=tmp_path).kept_nets == 3
    assert len(path.read_text().splitlines()) == len(lines) + 1  # the anchor once more


@pytest.mark.parametrize("line", ["{", "[]", '{"key": "a"}'])
def test_a_spoilt_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    good = '{"key": "a", "kind": "net"}'
    (tmp_path / FILE_NAME).write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(RunError, match=r"measured.jsonl:2: no kept result; delete the file"):
        KeptResults(tmp_path)


def test_a_work_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=r"file: cannot be used \(File exists\)"):
        KeptResults(tmp_path / "file")


# --- this machine


def test_this_machine_measures_nets(tmp_path: Path) -> None:
    files = write_nets(tmp_path, 2)
    try:
        report = measure(files, LocalPlace(), rounds=2, runs=3)
    except HostError as error:  # a machine under heavy load
        pytest.skip(str(error))
    assert [net.name for net in report.nets] == ["net0", "net1"]
    for net in report.nets:
        assert 0 < net.minimum_ms <= net.latency_ms == min(net.round_latencies_ms)
        assert 2 <= len(net.round_latencies_ms) <= 6
    assert report.place == "host"
    assert report.cpu
    assert report.drift_percent is None
