"""The table of the host, from a few measurements that are made up."""

import csv
from datetime import date
from pathlib import Path

import pytest
import table_host
from measure_host import write_table
from table_host import Nets, newest, prior, read_nets, table
from table_output import markdown

from hwsearch.bits import INT8
from hwsearch.calibrate.own_table import read_own_table
from hwsearch.calibrate.pool import STACK, Blueprints, Family, PoolNet, draw_pool
from hwsearch.hardware.measure.protocol import MeasuredNet, MeasureReport
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.predictor import CostPredictor

RESULTS = Path(__file__).resolve().parents[2] / "results" / "published"
SMALL = (
    Family(backbone="test_resnet", input_px=(32,)),
    Family(backbone=STACK, arguments='{"block": "separable", "width": 16}', input_px=(32,)),
)


@pytest.fixture(scope="module")
def drawn() -> list[PoolNet]:
    return draw_pool(
        40, widths=(INT8,), granularity=8, seed=0, blueprints=Blueprints(), families=SMALL
    )


@pytest.fixture(scope="module")
def nets(drawn: list[PoolNet]) -> Nets:
    """A machine that does what the prior says, twice as slowly."""
    costs = CostPredictor(prior()).predict_all([net.network for net in drawn])
    rows = [
        Measurement(network=net.network, latency_ms=2 * cost.latency_ms.value)
        for net, cost in zip(drawn, costs, strict=True)
    ]
    return Nets(
        pool=tuple(rows[:24]),
        held_out={"same families": tuple(rows[24:32]), "other families": tuple(rows[32:])},
        repeat_percent=(0.5, 1.0, 3.0, 1.5),
    )


def test_every_method_is_scored_on_every_part(nets: Nets) -> None:
    rows = table(nets, prior(), seeds=2, sizes=(10, 20, 100))
    assert {row["nets"] for row in rows} == {10, 20}, "100 are more than there are"
    assert {row["choice"] for row in rows} == {"chosen", "random"}
    assert {row["part"]: row["held_out"] for row in rows} == {
        "same families": 8, "other families": 8, "all held out": 16,
    }  # fmt: skip
    methods = {str(row["method"]) for row in rows}
    assert {"ours", "MACs line", "gradient boosting", "per-operator sum"} <= methods
    assert "| ours |" in markdown(rows)


def report(latencies_ms: dict[str, float]) -> MeasureReport:
    return MeasureReport(
        nets=tuple(
            MeasuredNet(name=name, latency_ms=ms, round_latencies_ms=(ms, ms), minimum_ms=ms)
            for name, ms in latencies_ms.items()
        ),
        refused=(), noise_floor_percent=0.0, drift_percent=None, place="host",
        runtime="onnxruntime", runtime_version="1.2.3", device="d", cpu="c", cpu_features=(),
        power_mode=None, energy_boundary=None, threads=1, rounds=20, runs=5,
        date=date(2026, 11, 27), kept_nets=0, warnings=(),
    )  # fmt: skip


def test_the_file_of_measurements_is_written_and_read_back(
    drawn: list[PoolNet], tmp_path: Path
) -> None:
    parts = {"pool": drawn[:6], "same families": drawn[6:8]}
    names = [net.recipe.name for net in drawn[:8]]
    passes = [
        report(dict.fromkeys(names, ms) | {names[0]: first})
        for ms, first in ((2.0, 1.0), (2.04, 5.0), (3.0, 9.0), (3.0, 1.1))
    ]
    path = write_table(parts, passes, tmp_path)
    assert newest(tmp_path) == path
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # The least of all passes, and the least of the two that do not hold it.
    assert (rows[0]["latency_ms"], rows[0]["repeat_ms"]) == ("1", "1.1")
    assert (rows[1]["latency_ms"], rows[1]["repeat_ms"]) == ("2", "2.04")
    read = read_nets(path)
    assert (len(read.pool), len(read.held_out["same families"])) == (6, 2)
    assert read.pool[0].network.kernels == drawn[0].network.kernels


@pytest.mark.slow
def test_the_published_measurements_are_read_by_the_command_of_users() -> None:
    own = read_own_table(newest(RESULTS), granularity=8)
    assert len(own.measurements) >= 350
    parts = [one.group for one in own.measurements]
    assert parts.count("pool") >= 250
    assert len(parts) - parts.count("pool") >= 100
    assert own.noise_floor_percent is not None
    assert own.noise_floor_percent <= 2.0
    assert table_host.SIZES == (25, 50, 100, 250)
