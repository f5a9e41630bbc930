"""The published measurements of ``../shared/data`` as measurements of described networks.

Each reader checks what it can: networks against published MACs and parameters, units against a
second column that says the same. A row that is left out is counted and named.
"""

import csv
import gzip
import io
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from bitfusion_ops import bitfusion_op
from mobilenets import mobilenet
from named_nets import edge_network, jetson_network
from nasbench201_nets import Removal, live_operations, parse_cell, unfolded_params
from nasbench201_nets import nasbench201 as nasbench201_network
from published_nets import jetson_nano_convnet

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.errors import BackboneError
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.measurements import Measurement

#: (device, runtime, backend, profile); a profile is one round with one set-up.
Setup = tuple[str, str, str, str]

_BITS: Final = {"fp32": FP32, "fp16": FP16, "int8": INT8}
_SIZE = re.compile(r"(\d+)(?:x\1)?")

#: The one row of the BitFusion table that is no layer: what every network of its search ends in.
BITFUSION_TAIL: Final = "tail"

#: The one MLPerf profile whose rows are not of one mode of the board: 28 of its 32 rows of
#: MobileNet v1 are 1.4 to 20 x slower than in the next round, and a parabola in log MACs leaves a
#: log-std of 0.77 where every other profile has at most 0.23. It is read, not dropped.
ANOMALOUS_PROFILE: Final = "v2.1/krai/firefly-tflite-v2.7.1-ruy"

#: What runs for a cell of NAS-Bench-201 differs by how the latencies were taken. Seven of the nine
#: columns are those of eager frameworks. A line over kernel counts, fitted where nothing can be
#: removed, is off by (median, on cells with a removable part that still reach the output):
#: 2-10 % with nothing removed against 21-29 % with "dead" on the seven; on raspi4 and pixel3
#: 9 and 6 % with "unread" against 21 and 20 % ("dead"), 12 and 9 % ("nothing").
_COMPILED: Final[dict[str, Removal]] = {"raspi4": "unread", "pixel3": "unread"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A measurement of a MobileNet with what splits are made by.

    Attributes:
        measurement: its ``group`` is family and precision.
        variant: "" where the family has none.
        precision: "fp32" or "int8".
        top1_percent: on ImageNet, measured on the device.
    """

    measurement: Measurement
    family: str
    variant: str
    width: float
    input_px: int
    precision: str
    top1_percent: float


@dataclass(frozen=True, kw_only=True)
class Published:
    """A table of many sources.

    Attributes:
        by_setup: measurements of each (device, runtime), both as published.
        skipped: how many rows were left out for each reason.
    """

    by_setup: Mapping[tuple[str, str], tuple[Measurement, ...]]
    skipped: Mapping[str, int]


def nano(data: Path, energy: Literal["board", "gpu"] = "board") -> list[Measurement]:
    """Synthetic convnets on the Jetson Nano in fp32.

    Groups are "dense" and "separable", with " mixed" behind where two windows alternate.

    Args:
        data: the folder of the tables.
        energy: of the whole board, or of the rail of the GPU.

    Raises:
        ValueError: a network that is not the one that was measured, or columns that contradict
            each other.
    """
    measurements = []
    for row in _rows(data / "jetson_nano_tensorrt_fp32.csv.gz"):
        name, latency_ms = row["name"], float(row["latency_ms"])
        network = jetson_nano_convnet(name, FP32)
        # The published MACs count each bias as one.
        biases = sum(kernel.output_elements for kernel in network.kernels)
        _same(name, "macs", network.macs + biases, int(row["macs"]))
        _same(name, "params", network.weight_elements, int(row["params"]))
        _agree(name, "latency_ms", latency_ms, 1e3 * float(row["repeat_latency_s"]), factor=2)
        board_mj = float(row["board_energy_mj"])
        _agree(name, "board_energy_mj", board_mj, float(row["board_mw"]) * latency_ms / 1e3, 1.01)
        gpu_mj = float(row["gpu_energy_mj"])
        # From a run of its own: its energy over power differs from the latency by up to 2 x.
        _agree(name, "gpu_energy_mj", gpu_mj, float(row["gpu_mw"]) * latency_ms / 1e3, 2.5)
        group = "separable" if row["type"] == "dws" else "dense"
        measurements.append(
            Measurement(
                network=network,
                latency_ms=latency_ms,
                energy_mj=board_mj if energy == "board" else gpu_mj,
                group=f"{group} mixed" if name.count("_K") > 1 else group,
            )
        )
    return measurements


def mlperf(data: Path) -> dict[Setup, list[Row]]:
    """MobileNets on the CPUs and GPUs of boards: p90 latency, energy of the board or wall.

    Energy is None where it was not measured. int8 is W8A8 throughout. Distrust
    ``ANOMALOUS_PROFILE``.

    Raises:
        ValueError: an unknown family or precision, or columns that contradict each other.
    """
    setups: dict[Setup, list[Row]] = defaultdict(list)
    for row in _rows(data / "mlperf_edge_cpu_gpu.csv.gz"):
        width, input_px = float(row["width"]), int(row["input_px"])
        family, variant, precision = row["family"], row["variant"], row["precision"]
        network = mobilenet(family, variant, width, input_px, _bits(precision))
        measurement = Measurement(
            network=network,
            latency_ms=float(row["latency_p90_ms"]),
            energy_mj=_energy_mj(network.name, row, row["latency_p90_ms"], factor=1.01),
            group=f"{family} {precision}",
        )
        setups[row["device"], row["runtime"], row["backend"], row["profile"]].append(
            Row(
                measurement=measurement,
                family=family,
                variant=variant,
                width=width,
                input_px=input_px,
                precision=precision,
                top1_percent=float(row["top1_percent"]),
            )
        )
    return dict(setups)


def nasbench201(
    data: Path, *, sample: int | None = None, seed: int = 0, removed: Removal | None = None
) -> dict[str, list[Measurement]]:
    """Every cell on nine device settings, or a random sample of the cells, the same on each.

    Groups say the heaviest operation between input and output: "nor_conv_3x3", "nor_conv_1x1",
    "other", or "constant" where nothing lies between (341 cells, 235 of which take less than
    0.5 ms on raspi4: leave them out of errors in percent).

    Args:
        data: the folder of the tables.
        sample: number of cells; all by default.
        seed: of the sample.
        removed: what does not run; by default what fits each device's figures.

    Returns:
        Measurements by setting, such as "raspi4" or "2080ti_256". The latter is of a batch of
        256, as published, beside kernels of one picture.

    Raises:
        ValueError: a network that is not the one that was measured, or a sample past the table.
    """
    rows = list(_rows(data / "nasbench201.csv.gz"))
    if sample is not None:
        if not 0 < sample <= len(rows):
            raise ValueError(f"a sample of {sample} cells; there are {len(rows)}, take 1 or more")
        chosen = np.random.default_rng(seed).choice(len(rows), size=sample, replace=False)
        rows = [rows[at] for at in sorted(chosen)]
    columns = [column for column in rows[0] if column.endswith("_latency_ms")]
    table: dict[str, list[Measurement]] = {c.removesuffix("_latency_ms"): [] for c in columns}
    for row in rows:
        arch = row["arch_str"]
        networks = _networks_of_cell(row, removed)
        group = _heaviest(live_operations(parse_cell(arch)))
        for setting, measurements in table.items():
            kept = removed or _COMPILED.get(setting, "nothing")
            latency_ms = float(row[f"{setting}_latency_ms"])
            measurements.append(
                Measurement(network=networks[kept], latency_ms=latency_ms, group=group)
            )
    return table


def bitfusion(data: Path) -> list[Measurement]:
    """Simulated layers on BitFusion, one kernel each; ``BITFUSION_TAIL`` is left out.

    Groups are kind and bits, such as "depthwise W4A8".

    Raises:
        ValueError: a key of another form.
    """
    measurements = []
    for row in _rows(data / "bitfusion_simulated_ops.csv.gz"):
        if row["key"] == BITFUSION_TAIL:
            continue
        network = bitfusion_op(row["key"])
        kernel = network.kernels[0]
        measurements.append(
            Measurement(
                network=network,
                latency_ms=float(row["latency"]),
                energy_mj=float(row["energy"]),
                group=f"{kernel.kind} {kernel.bits}",
            )
        )
    return measurements


def jetson_published(data: Path) -> Published:
    """Single pictures through TensorRT: torchvision's networks on AGX Xavier, YOLO on Orin.

    Groups are source and precision: "torchvision fp16", "densenet fp16" (anomalous there: copies
    of the concatenations), "yolo11 int8", "yolov8 fp16".
    """
    return _published(data / "jetson_published.csv", jetson_network, _jetson_group)


def edge_published(data: Path) -> Published:
    """Raspberry Pi, Coral, Pixel and STM32, as far as the networks can be described.

    Groups are model and precision.
    """
    return _published(data / "edge_published.csv", edge_network, _edge_group)


_Describe = Callable[[str, int, LayerBits], NetworkDesc]


def _published(path: Path, describe: _Describe, group: Callable[[str, str], str]) -> Published:
    by_setup: dict[tuple[str, str], list[Measurement]] = defaultdict(list)
    skipped: Counter[str] = Counter()
    for row in _rows(path):
        reason = _unusable(row)
        if reason:
            skipped[reason] += 1
            continue
        precision = row["precision"].split()[0]
        try:
            network = describe(row["model"], _input_px(row), _bits(precision))
        except BackboneError:
            skipped[f"no kernels for {row['model']}"] += 1
            continue
        measurement = Measurement(
            network=network,
            latency_ms=float(row["latency_ms"]),
            # Energy is measured in a run of its own, under the same name.
            energy_mj=_energy_mj(row["model"], row, row["latency_ms"], factor=2),
            group=group(row["model"], precision),
        )
        by_setup[row["device"], row["runtime"]].append(measurement)
    return Published(
        by_setup={setup: tuple(found) for setup, found in by_setup.items()},
        skipped=dict(sorted(skipped.items())),
    )


def _unusable(row: dict[str, str]) -> str:
    """Why a row is left out before its network is looked at; "" if it is not."""
    if row["batch"] != "1":
        return f"batch {row['batch']}"
    if row["runtime"].startswith("PyTorch"):
        return f"runtime {row['runtime']}"
    if row["precision"].split()[0] not in _BITS:
        return f"precision {row['precision']}"
    if not _input_px(row):
        return f"input size '{row['input_size']}'"
    return ""


def _input_px(row: dict[str, str]) -> int:
    """Px of a square picture, features of a vector; 0 for another shape or none."""
    match = _SIZE.fullmatch(row["input_size"])
    return int(match[1]) if match else 0


def _jetson_group(model: str, precision: str) -> str:
    families = ("yolo11", "yolov8", "densenet")
    family = next((name for name in families if model.startswith(name)), "torchvision")
    return f"{family} {precision}"


def _edge_group(model: str, precision: str) -> str:
    return f"{model} {precision}"


def _networks_of_cell(row: dict[str, str], removed: Removal | None) -> dict[Removal, NetworkDesc]:
    arch = row["arch_str"]
    whole = nasbench201_network(arch, FP32, removed="nothing")
    _same(arch, "macs", whole.macs, int(row["macs"]))
    _same(arch, "params", unfolded_params(whole), int(row["params"]))
    networks: dict[Removal, NetworkDesc] = {"nothing": whole}
    for needed in {removed} if removed else set(_COMPILED.values()):
        if needed != "nothing":
            networks[needed] = nasbench201_network(arch, FP32, removed=needed)
    return networks


def _heaviest(operations: tuple[str, ...]) -> str:
    if not operations:
        return "constant"
    convolutions = ("nor_conv_3x3", "nor_conv_1x1")
    return next((name for name in convolutions if name in operations), "other")


def _rows(path: Path) -> Iterator[dict[str, str]]:
    packed = path.read_bytes()
    text = gzip.decompress(packed) if path.suffix == ".gz" else packed
    yield from csv.DictReader(io.StringIO(text.decode("utf-8")))


def _bits(precision: str) -> LayerBits:
    if precision not in _BITS:
        raise ValueError(f"precision '{precision}' is unknown; the tables have {', '.join(_BITS)}")
    return _BITS[precision]


def _energy_mj(name: str, row: dict[str, str], latency_ms: str, factor: float) -> float | None:
    if not row["energy_mj"]:
        return None
    energy_mj = float(row["energy_mj"])
    if row["power_w"]:
        derived = float(row["power_w"]) * float(latency_ms)
        _agree(name, "energy_mj", energy_mj, derived, factor)
    return energy_mj


def _same(name: str, column: str, described: int, published: int) -> None:
    if described != published:
        raise ValueError(
            f"{name}: {column} is {published}, described as {described}; the network was misread"
        )


def _agree(name: str, column: str, given: float, derived: float, factor: float) -> None:
    """Two columns that say the same thing: a unit that was misread is off by 1000."""
    if not 1 / factor <= given / derived <= factor:
        raise ValueError(
            f"{name}: {column} is {given:g}, other columns say {derived:g}; check the units"
        )
