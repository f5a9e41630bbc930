import csv
import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tables
from published import DATA, NEEDS_DATA
from scipy.optimize import nnls

from hwsearch.bits import FP32, INT8

#: Rows with made-up figures that agree with each other; counts are those of the networks.
NANO = {
    "name": "convnet_L2_F8_K3x3_W10",
    "type": "ConvNet",
    "params": "8818",
    "macs": "88810",
    "latency_ms": "2.0",
    "repeat_latency_s": "0.0021",
    "board_energy_mj": "8.0",
    "board_mw": "4000",
    "gpu_energy_mj": "3.0",
    "gpu_mw": "1500",
}
MLPERF = {
    "profile": "v1/someone/board",
    "device": "board",
    "runtime": "tflite",
    "backend": "ruy",
    "family": "mobilenet_v2",
    "variant": "",
    "width": "0.35",
    "input_px": "96",
    "precision": "int8",
    "top1_percent": "45.5",
    "latency_p90_ms": "4.0",
    "energy_mj": "12.0",
    "power_w": "3.0",
}


def write(path: Path, *rows: Mapping[str, str]) -> None:
    opened = gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w")  # noqa: SIM115
    with opened as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_nano(folder: Path, **changed: str) -> None:
    write(folder / "jetson_nano_tensorrt_fp32.csv.gz", {**NANO, **changed})


def test_nano_when_units_agree(tmp_path: Path) -> None:
    write_nano(tmp_path)
    (board,) = tables.nano(tmp_path)
    (rail,) = tables.nano(tmp_path, energy="gpu")
    assert (board.latency_ms, board.energy_mj, rail.energy_mj) == (2.0, 8.0, 3.0)
    assert (board.group, board.network.name) == ("dense", NANO["name"])
    # 3 x 3 windows over 3 then 8 channels on 10 px, and a linear layer of 800 features.
    assert board.network.macs == 9 * (3 + 8) * 8 * 100 + 8000


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"repeat_latency_s": "2.1"}, "latency_ms is 2, other columns say 2100; check the units"),
        ({"board_energy_mj": "0.008"}, "board_energy_mj is 0.008, other columns say 8"),
        ({"board_mw": "4"}, "board_energy_mj is 8, other columns say 0.008"),
        ({"gpu_energy_mj": "3000"}, "gpu_energy_mj is 3000"),
        ({"params": "8819"}, "params is 8819, described as 8818; the network was misread"),
        ({"macs": "1"}, "macs is 1, described as 88810"),
        ({"latency_ms": "0", "repeat_latency_s": "1"}, "latency_ms is 0"),
    ],
)
def test_nano_when_a_row_contradicts_itself(
    changed: dict[str, str], message: str, tmp_path: Path
) -> None:
    write_nano(tmp_path, **changed)
    with pytest.raises(ValueError, match=message):
        tables.nano(tmp_path)


def write_mlperf(folder: Path, *changes: dict[str, str]) -> None:
    rows = [{**MLPERF, **changed} for changed in changes]
    write(folder / "mlperf_edge_cpu_gpu.csv.gz", *rows)


def test_mlperf_when_profiles_differ(tmp_path: Path) -> None:
    write_mlperf(
        tmp_path,
        {},
        {"precision": "fp32", "energy_mj": "", "power_w": ""},
        {"profile": "v2/someone/board"},
    )
    setups = tables.mlperf(tmp_path)
    assert {key: len(rows) for key, rows in setups.items()} == {
        ("board", "tflite", "ruy", "v1/someone/board"): 2,
        ("board", "tflite", "ruy", "v2/someone/board"): 1,
    }
    first, second = setups["board", "tflite", "ruy", "v1/someone/board"]
    assert (first.family, first.width, first.input_px) == ("mobilenet_v2", 0.35, 96)
    assert (first.precision, first.top1_percent) == ("int8", 45.5)
    assert (first.measurement.group, first.measurement.energy_mj) == ("mobilenet_v2 int8", 12.0)
    assert {kernel.bits for kernel in first.measurement.network.kernels} == {INT8}
    assert second.measurement.energy_mj is None
    assert {kernel.bits for kernel in second.measurement.network.kernels} == {FP32}


@NEEDS_DATA
def test_bitfusion_when_input_and_output_are_told_apart() -> None:
    # Inputs are read in the activation bits, outputs are written in a width of their own. Taking
    # cin for cout would turn this round.
    per_input, per_output = [], []
    for bits in ("W4A4", "W4A6", "W4A8"):
        chosen = [m for m in tables.bitfusion(DATA) if m.group == f"conv {bits}"]
        kernels = [m.network.kernels[0] for m in chosen]
        features = np.array(
            [[k.input_elements, k.output_elements, k.weight_elements, k.macs] for k in kernels]
        )
        latency_ms = np.array([m.latency_ms for m in chosen])
        cost, _ = nnls(features / latency_ms[:, None], np.ones(len(chosen)))
        per_input.append(cost[0])
        per_output.append(cost[1])
        assert np.median(abs(features @ cost / latency_ms - 1)) < 0.1
    assert per_input[1] > 1.3 * per_input[0]
    assert per_input[2] > 1.1 * per_input[1]
    assert per_output == pytest.approx([per_output[0]] * 3, rel=0.06)


@NEEDS_DATA
@pytest.mark.slow  # every network is described and compared with its published counts
def test_tables_when_read_whole_have_every_row() -> None:
    assert len({m.network.name for m in tables.nano(DATA)}) == 10_028
    setups = tables.mlperf(DATA)
    rows = [row for found in setups.values() for row in found]
    assert (len(setups), len(rows)) == (46, 3522)
    assert sum(row.measurement.energy_mj is not None for row in rows) == 2067
    cells = tables.nasbench201(DATA)
    assert {len(measurements) for measurements in cells.values()} == {15_625}
    degenerate = [m.group for m in cells["raspi4"] if m.latency_ms < 0.5]
    assert degenerate == ["constant"] * 235
    assert len(tables.bitfusion(DATA)) == 5295
    for published, total, used in (
        (tables.jetson_published(DATA), 168, 64),
        (tables.edge_published(DATA), 460, 318),
    ):
        found = sum(len(measurements) for measurements in published.by_setup.values())
        assert (found + sum(published.skipped.values()), found) == (total, used)
