"""A measurement that has to end in time."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from measure_fixtures import JOB, Recorder, ScriptedPlace, ScriptedRuntime, write_nets

from hwsearch.hardware.measure import runner
from hwsearch.hardware.measure.protocol import MeasureProgress, measure


def rounds_within(
    limit_s: float | None, nets: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> list[int]:
    """How many rounds each net has where each round takes a second."""
    now = 0.0

    def rounds_ms(file: str) -> Iterator[float]:
        nonlocal now
        while True:
            now += 1.0
            yield 1.0

    recorder = Recorder()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(runner, "MOST_NETS", 2)
    files = write_nets(tmp_path, nets)
    entries = [{"id": name, "file": str(path)} for name, path in files.items()]
    job = {**JOB, "rounds": 20, "time_limit_s": limit_s, "nets": entries}
    runner.measure(ScriptedRuntime(rounds_ms), job, recorder)
    return list(recorder.rounds().values())


def test_without_a_limit_all_rounds_are_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert rounds_within(None, 3, monkeypatch, tmp_path) == [20, 20, 20]


def test_every_group_has_an_equal_part_of_the_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Four nets in two groups, 40 s: ten rounds of each, and one to notice that time is over.
    rounds = rounds_within(40.0, 4, monkeypatch, tmp_path)
    assert len(rounds) == 4
    assert all(9 <= count <= 11 for count in rounds)


def test_the_first_rounds_are_never_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert rounds_within(0.0, 3, monkeypatch, tmp_path) == [runner.FEWEST_ROUNDS] * 3


def test_the_limit_is_handed_on_and_is_no_condition_of_a_result(tmp_path: Path) -> None:
    files, place = write_nets(tmp_path, 2), ScriptedPlace()
    measure(files, place, work_folder=tmp_path / "work", time_limit_s=60.0)
    assert place.jobs[-1]["time_limit_s"] == 60.0
    again = measure(files, place, work_folder=tmp_path / "work", time_limit_s=None)
    assert again.kept_nets == 2


def test_the_share_of_the_work_rises_to_the_end(tmp_path: Path) -> None:
    seen: list[MeasureProgress] = []
    measure(write_nets(tmp_path, 3), ScriptedPlace(), rounds=2, on_progress=seen.append)
    shares = [progress.share for progress in seen]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1


def test_nets_that_were_kept_are_part_of_the_share(tmp_path: Path) -> None:
    files, work = write_nets(tmp_path, 4), tmp_path / "work"
    first = dict(list(files.items())[:2])
    measure(first, ScriptedPlace(), work_folder=work)
    seen: list[MeasureProgress] = []
    measure(files, ScriptedPlace(), work_folder=work, on_progress=seen.append)
    assert seen[0].share > 0.5


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("flags\t\t: fpu avx2 avx512f sse avx512_vnni\n", ["avx2", "avx512f", "avx512_vnni"]),
        ("Features\t: fp asimd evtstrm asimddp\n", ["asimd", "asimddp"]),
        ("nothing of that sort\n", []),
    ],
)
def test_the_instruction_sets_that_matter_are_read(
    text: str, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "read_text", lambda path: text)
    assert runner.cpu_features() == found


def test_a_report_says_the_instruction_sets(tmp_path: Path) -> None:
    report = measure(write_nets(tmp_path, 1), ScriptedPlace())
    assert report.cpu_features == ("avx2",)
    assert math.isfinite(report.noise_floor_percent)
