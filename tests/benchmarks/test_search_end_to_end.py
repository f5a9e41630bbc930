import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import end_to_end
import outsiders
import pytest
from end_to_end import ARMS, Job
from end_to_end_rows import (
    ALL_PEERS,
    Measured,
    Shipped,
    area_table,
    best_within,
    hypervolume,
    read_rows,
)


def row(
    latency_ms: float = 0.25,
    accuracy_percent: float = 50.0,
    *,
    arm: str = "nncf",
    seed: int = 0,
    file: str = "a.onnx",
) -> Shipped:
    return Shipped(
        seed=seed, arm=arm, minutes=8.0, cpu_minutes=8.1, file=file, input_px=32,
        accuracy_percent=accuracy_percent, latency_ms=latency_ms, median_latency_ms=latency_ms,
        chance_percent=10.0,
    )  # fmt: skip


NONE = replace(row(math.inf, 0.0), file="")


def test_hypervolume_counts_a_halving_alike_wherever_it_starts() -> None:
    assert hypervolume([row(0.25, 50.0)], 0.5) == pytest.approx(1 * 40)
    assert hypervolume([row(0.0625, 50.0)], 0.5) == pytest.approx(3 * 40)
    both = [row(0.125, 30.0), row(0.25, 50.0)]
    assert hypervolume(both, 0.5) == pytest.approx(1 * 20 + 1 * 40)


def test_hypervolume_takes_nothing_from_beyond_the_reference() -> None:
    beyond = [row(0.5, 99.0), row(0.7, 99.0), row(0.25, 9.0)]
    assert hypervolume(beyond, 0.5) == hypervolume([], 0.5) == hypervolume([NONE], 0.5) == 0
    assert hypervolume([row(0.25, 50.0), *beyond, NONE], 0.5) == pytest.approx(40)


def test_best_within_is_guessing_where_no_network_is_fast_enough() -> None:
    rows = [row(0.05, 60.0), row(0.09, 70.0), NONE]
    assert [best_within(rows, limit_ms) for limit_ms in (0.04, 0.05, 0.3)] == [10.0, 60.0, 70.0]


def test_area_table_holds_arms_against_all_files_of_the_peers_seed_by_seed() -> None:
    rows = [
        row(0.25, 50.0, arm="nncf"),
        row(0.125, 30.0, arm="modelopt"),
        row(0.125, 50.0, arm="hwsearch"),
        row(0.25, 90.0, arm="nncf", seed=1),
        row(0.25, 50.0, arm="hwsearch", seed=1),
        row(math.nan, math.nan, arm="hwsearch", seed=2),
    ]
    table = {str(one["arm"]): one for one in area_table(rows, 0.5)}
    assert list(table) == ["nncf", "modelopt", "hwsearch", ALL_PEERS]
    # The peers have 20 + 40 together, then 80; hwsearch 80, then 40.
    assert str(table[ALL_PEERS]["hypervolume_octave_points"]) == "70.0 (65.0-75.0)"
    ours = table["hwsearch"]
    assert (ours["seeds"], str(ours["files"])) == (2, "1.0")
    assert str(ours["over_all_peers_percent"]) == "91.7 (70.8-112.5)"
    assert (str(ours["cpu_minutes"]), ours["longest_cpu_minutes"]) == ("8.1", 8.1)


def test_second_start_runs_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[int, tuple[str, ...]]] = []
    measured: list[list[str]] = []

    def run_job(one: Job, core: int) -> float:
        ran.append((one.seed, one.arms))
        one.folder.mkdir(parents=True, exist_ok=True)
        if one.arms[0] in outsiders.PACKAGES:
            outcome = {arm: {"files": [f"{arm}.onnx"], "others_s": 6.0} for arm in one.arms}
            (one.folder / outsiders.OUTCOME_FILE).write_text(json.dumps(outcome))
        else:
            run = one.folder / "run"
            run.mkdir()
            front = {"front": [{"artefact": "models/model.onnx"}], "baselines": []}
            (run / "front.json").write_text(json.dumps(front))
        return 60.0

    def measure_files(files: list[str], *_: object) -> dict[str, Measured]:
        measured.append(files)
        one = Measured(input_px=32, accuracy_percent=60.0, latency_ms=0.1, median_latency_ms=0.1)
        return dict.fromkeys(files, one)

    monkeypatch.setattr(end_to_end, "run_job", run_job)
    monkeypatch.setattr(end_to_end, "measure_files", measure_files)
    monkeypatch.setattr(end_to_end, "why_absent", lambda arm, _: "no" if arm == "modelopt" else "")
    work, out = tmp_path / "work", tmp_path / "out"
    for arms in ("nncf,quantize-static,modelopt", ",".join(ARMS)):
        given = ["end_to_end.py", "digits", "--seeds", "1", "--arms", arms, "--minutes", "0.01"]
        monkeypatch.setattr("sys.argv", [*given, "--work", str(work), "--out", str(out)])
        end_to_end.main()
        assert "modelopt is absent: no" in capsys.readouterr().out
    assert ran == [
        (0, ("quantize-static", "nncf")),
        (0, ("torch-pruning",)),
        (0, ("hwsearch",)),
        (0, ("hwsearch-tpe",)),
    ]
    assert [len(files) for files in measured] == [2, 5]
    [table] = out.glob("search_end-to-end_digits-host-0.01min-seeds1_*.csv")
    rows = {one.arm: one for one in read_rows(table)}
    assert set(rows) == set(ARMS) - {"modelopt"}
    assert (rows["nncf"].cpu_minutes, rows["hwsearch"].cpu_minutes) == (0.9, 1.0)
    assert rows["hwsearch"].file == "seed0/hwsearch/run/models/model.onnx"
    assert "| hwsearch | 1 |" in table.with_suffix(".md").read_text()
    monkeypatch.setattr("sys.argv", ["end_to_end.py", "digits", "--work", str(work)])
    with pytest.raises(
        ValueError, match=r"rows\.csv is of 0\.01 minutes, not 8; give another --work"
    ):
        end_to_end.main()


def test_clock_of_a_run_stands_still_while_it_sleeps() -> None:
    code = (
        "import subprocess, sys, time, cpu_clock\n"
        "time.perf_counter = time.monotonic = cpu_clock.cpu_seconds\n"
        "begin = time.monotonic(); time.sleep(0.5); slept = time.monotonic() - begin\n"
        "end = 'import time\\nwhile time.process_time() < 0.3: pass'\n"
        "subprocess.run([sys.executable, '-c', end], check=True, timeout=60)\n"
        "print(slept < 0.25, time.monotonic() - begin >= 0.25)\n"
    )
    folder = Path(end_to_end.__file__).parent
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["True", "True"]
