import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import end_to_end
import pytest
from end_to_end import ARMS
from end_to_end_rows import (
    Shipped,
    add_rows,
    corner,
    counted,
    hypervolume,
    int8_above,
    read_rows,
    summary,
    timed_together,
    timing_spread_percent,
    unfinished,
    untimed_files,
)

from hwsearch.hardware.measure.places import LocalPlace


def row(
    latency_ms: float = 1.0,
    accuracy_percent: float = 50.0,
    *,
    arm: str = "tpe",
    seed: int = 0,
    kind: str = "trial",
) -> Shipped:
    return Shipped(
        seed=seed, arm=arm, minutes=5.0, step=1, kind=kind, backbone="some", file="",
        run_ms=latency_ms, latency_ms=latency_ms, accuracy_percent=accuracy_percent,
        reference_ms=2.0, chance_percent=10.0, trials=9, trained=7, wall_s=200.0,
        final_s=80.0, ship_s=20.0, overhead_s=4.0,
    )  # fmt: skip


def test_hypervolume_is_the_area_below_the_front() -> None:
    assert hypervolume([row(1.0, 50.0)]) == pytest.approx(1.0 * 40)
    both = [row(1.5, 70.0), row(1.0, 50.0)]
    assert hypervolume(both) == pytest.approx(1.0 * 40 + 0.5 * 20)


def test_hypervolume_equals_a_count_of_cells() -> None:
    rows = [row(0.3, 20.0), row(0.3, 25.0), row(0.9, 60.0), row(1.2, 55.0), row(1.7, 80.0)]
    cells = sum(
        any(one.latency_ms <= at / 100 and one.accuracy_percent >= points + 1 for one in rows)
        for at in range(200)
        for points in range(10, 100)
    )
    assert hypervolume(rows) == pytest.approx(cells / 100)


def test_hypervolume_takes_nothing_from_beyond_the_reference() -> None:
    assert hypervolume([row(2.0, 99.0), row(1.0, 9.0), row(3.0, 99.0)]) == 0
    assert hypervolume([row(1.0, 50.0), row(2.5, 99.0), row(1.2, 40.0)]) == pytest.approx(40)
    assert hypervolume([]) == hypervolume([row(math.inf, 0.0, kind="none")]) == 0


def test_octaves_count_a_halving_alike_wherever_it_starts() -> None:
    assert hypervolume([row(1.0, 50.0)], octaves=True) == pytest.approx(1 * 40)
    assert hypervolume([row(0.25, 50.0)], octaves=True) == pytest.approx(3 * 40)
    none = [row(math.inf, 0.0, kind="none")]
    assert hypervolume(none, octaves=True) == hypervolume([row(2.5, 99.0)], octaves=True) == 0


def test_files_of_a_seed_are_timed_together_until_all_are() -> None:
    timed = replace(row(3.0), file="a/model.onnx")
    fresh = replace(row(math.nan), file="b/model.onnx", run_ms=1.1)
    other = replace(row(math.nan, seed=1), file="c/model.onnx")
    nothing = row(math.inf, 0.0, kind="none")
    rows = [timed, fresh, other, nothing]
    assert untimed_files(rows, 0) == ["a/model.onnx", "b/model.onnx"]
    found = timed_together(rows, 0, {"a/model.onnx": 3.1, "b/model.onnx": 1.0})
    assert [one.latency_ms for one in found[:2]] == [3.1, 1.0]
    assert found[1].run_ms == 1.1
    assert found[2:] == [other, nothing]
    assert untimed_files(found, 0) == []
    with pytest.raises(KeyError, match="c/model"):
        timed_together(rows, 1, {})


def test_reference_is_the_slowest_dense_backbone_as_timed_together() -> None:
    copies = [
        replace(row(math.nan, kind="dense-fp32", arm=arm), file=arm) for arm in ("tpe", "a", "b")
    ]
    small = replace(row(math.nan, kind="dense-fp32"), backbone="small", file="small")
    rows = [*copies, small, row(seed=1)]
    found = timed_together(rows, 0, {"tpe": 1.0, "a": 1.2, "b": 9.0, "small": 0.5})
    assert [one.reference_ms for one in found] == [1.2] * 4 + [2.0]


def test_summary_leaves_out_seeds_that_are_still_to_be_timed() -> None:
    waiting = replace(row(math.nan, seed=1), file="a/model.onnx")
    [only] = summary([row(1.0, 54.0), waiting])
    assert only["seeds"] == 1


@pytest.mark.parametrize(("arm", "kept"), [("prune-only", 1), ("backbone-only", 1), ("tpe", 2)])
def test_int8_baseline_counts_for_arms_that_choose_bits_only(arm: str, kept: int) -> None:
    rows = [row(kind="dense-fp32", arm=arm), row(kind="uniform-int8", arm=arm)]
    assert len(counted(rows)) == kept


def test_int8_above_is_held_against_finalists_that_are_no_slower() -> None:
    int8 = row(1.0, 60.0, kind="uniform-int8")
    assert int8_above([int8, row(0.9, 61.0), row(1.1, 90.0)]) == pytest.approx(-1)
    assert int8_above([int8, row(1.1, 90.0)]) == pytest.approx(50)
    assert int8_above([row()]) is None


def test_rows_are_read_as_they_were_added(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    assert read_rows(path) == []
    add_rows(path, [row(1.25, 50.5)])
    add_rows(path, [row(math.inf, 0.0, arm="sequential", kind="none")])
    assert read_rows(path) == [
        row(1.25, 50.5),
        row(math.inf, 0.0, arm="sequential", kind="none"),
    ]
    assert [file.name for file in path.parent.iterdir()] == ["rows.csv"]


def test_rows_of_another_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("seed,arm\n0,tpe\n")
    with pytest.raises(ValueError, match="has other columns than seed, arm, minutes"):
        read_rows(path)


def test_finished_arms_are_skipped() -> None:
    rows = [row(arm="tpe", seed=0), row(arm="sequential", seed=1)]
    assert unfinished(rows, 0, ("known-cost", "tpe", "sequential")) == ["known-cost", "sequential"]
    assert unfinished(rows, 1, ("sequential",)) == []


def test_second_start_runs_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, ran = tmp_path / "rows.csv", []

    def run_arm(arm: str, setting: int) -> list[Shipped]:
        ran.append((setting, arm))
        return [replace(row(math.nan, arm=arm, seed=setting), file=f"{arm}{setting}")]

    monkeypatch.setattr(end_to_end, "prepare", lambda *given, known_ms: given[4])
    monkeypatch.setattr(end_to_end, "run_arm", run_arm)
    files = []

    def measure(given: dict[str, Path], place: LocalPlace) -> object:
        files.append(sorted(str(path) for path in given.values()))
        nets = [SimpleNamespace(name=name, latency_ms=1.5) for name in given]
        return SimpleNamespace(nets=nets)

    monkeypatch.setattr(end_to_end, "measure", measure)
    for seeds, arms in (("1", "tpe"), ("2", "tpe,sequential")):
        given = ["end_to_end.py", "digits", "--seeds", seeds, "--arms", arms]
        given += ["--out", str(out), "--work", "runs"]
        monkeypatch.setattr("sys.argv", given)
        end_to_end.main()
    assert ran == [(0, "tpe"), (0, "sequential"), (1, "tpe"), (1, "sequential")]
    assert files == [
        ["runs/tpe0"],
        ["runs/sequential0", "runs/tpe0"],
        ["runs/sequential1", "runs/tpe1"],
    ]
    assert {one.latency_ms for one in read_rows(out)} == {1.5}
    assert "| sequential | 2 |" in capsys.readouterr().out


def test_unknown_arm_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["end_to_end.py", "digits", "--arms", "tpe,best"])
    with pytest.raises(SystemExit):
        end_to_end.main()
    assert f"no arm best; pick from {', '.join(ARMS)}" in capsys.readouterr().err


def test_summary_holds_arms_against_the_others_seed_by_seed() -> None:
    rows = [
        row(1.0, 54.0, arm="known-cost", seed=0),
        row(1.0, 50.0, arm="tpe", seed=0),
        row(1.0, 30.0, arm="sequential", seed=0),
        row(1.0, 90.0, arm="known-cost", seed=1),
        row(1.0, 60.0, arm="tpe", seed=1),
    ]
    table = {str(one["arm"]): one for one in summary(rows)}
    ours = table["known-cost"]
    assert ours["seeds"] == 2
    assert str(ours["hypervolume"]) == "62.0 (53.0-71.0)"
    assert str(ours["over_sequential_percent"]) == "220.0"
    assert str(ours["over_tpe_percent"]) == "135.0 (122.5-147.5)"
    assert str(ours["final_and_ship_percent"]) == "50.0"
    assert str(ours["overhead_percent"]) == "2.0"
    assert ours["int8_above"] == "0 of 0"
    assert ours["int8_above_points"] is None


def test_corner_is_as_fast_and_as_accurate_as_any_network_that_was_shipped() -> None:
    [best] = corner([row(0.5, 40.0), row(1.5, 80.0), row(1.0, 30.0)])
    assert (best.latency_ms, best.accuracy_percent) == (0.5, 80.0)
    assert corner([row(math.inf, 0.0, kind="none")]) == corner([]) == []


def test_summary_tells_what_was_left_to_be_won() -> None:
    fast, accurate = row(0.5, 40.0, arm="sequential"), row(1.0, 60.0, arm="tpe")
    not_its_own = row(0.5, 90.0, arm="prune-only", kind="uniform-int8")
    table = {str(one["arm"]): one for one in summary([fast, accurate, not_its_own])}
    # Their areas are 45 and 50, together 1.0 x 50 + 0.5 x 30, and 1.5 x 50 in the corner.
    assert str(table["sequential"]["all_arms_over_percent"]) == "144.4"
    assert str(table["sequential"]["corner_over_percent"]) == "166.7"
    assert str(table["tpe"]["all_arms_over_percent"]) == "130.0"
    # In octaves to the reference: 2 x 30 and 1 x 50, together 50 + 30, the corner 2 x 50.
    assert str(table["tpe"]["octaves_all_arms_over_percent"]) == "160.0"
    assert str(table["tpe"]["octaves_corner_over_percent"]) == "200.0"
    assert table["prune-only"]["corner_over_percent"] is None


def test_summary_counts_the_seeds_in_which_int8_lies_above() -> None:
    first = [row(0.5, 60.0, kind="uniform-int8"), row(0.6, 90.0)]
    second = [replace(one, seed=1, latency_ms=0.5) for one in first]
    [only] = summary([*first, *second])
    assert only["int8_above"] == "1 of 2"


def test_timing_spread_compares_the_same_baseline_of_a_seed() -> None:
    rows = [
        row(1.0, arm="tpe", kind="dense-fp32"),
        row(1.1, arm="sequential", kind="dense-fp32"),
        row(5.0, arm="tpe", kind="dense-fp32", seed=1),
        row(7.0, arm="tpe", kind="uniform-int8"),
        row(9.0, arm="sequential"),
    ]
    assert timing_spread_percent(rows) == [pytest.approx(10)]
    apart = [replace(one, run_ms=one.seed + index) for index, one in enumerate(rows, start=1)]
    assert timing_spread_percent(apart, "run_ms") == [pytest.approx(100)]
    assert timing_spread_percent([]) == []


@pytest.mark.benchmark
def test_arms_ship_networks_with_real_training(tmp_path: Path) -> None:
    setting = end_to_end.prepare(
        "digits", "tiny", ("test_resnet",), 1.0, 0, tmp_path, known_ms=None
    )
    for arm in ("sequential", "prune-only"):
        rows = end_to_end.run_arm(arm, setting)
        assert {one.arm for one in rows} == {arm}
        assert all((tmp_path / one.file).is_file() and one.run_ms > 0 for one in rows)
        timed = timed_together(rows, 0, {one.file: one.run_ms for one in rows})
        assert hypervolume(counted(timed)) > 0
        assert all(0 <= one.overhead_s < one.wall_s for one in rows)
