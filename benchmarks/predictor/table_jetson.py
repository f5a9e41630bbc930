"""Published Jetson rows: each table predicted from the others, ratios of widths, power modes.

::

    python benchmarks/predictor/table_jetson.py ../shared/data [--quick]

Four tables: torchvision's networks in fp16 on AGX Xavier, YOLO11 on Orin Nano Super and Orin NX in
fp32, fp16 and int8, YOLOv8 on Orin Nano in fp16 and int8. None of a table's rows is seen when it is
predicted: "ours, rates alone" knows the spec sheet, "ours, factors of ..." what was learned on
another board. Peers are fitted to the rows of all other tables. Then what wider and narrower bits
cost against what was published, and how latencies follow clocks.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from named_nets import edge_network, jetson_network
from peers import FittedProfile, Ours, measured, peers
from scores import Forecast, score, spread_columns
from table_output import Options, Row, options, show
from tables import jetson_published

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.hardware.kernel_table import Floats
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.power_modes import in_power_mode
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import load_profile

#: Profile of each published (device, runtime).
TABLES: Final = {
    ("Jetson AGX Xavier", "TensorRT (torch2trt)"): "jetson-agx-xavier",
    ("Jetson Orin Nano Super 8GB", "TensorRT"): "jetson-orin-nano-super",
    ("Jetson Orin NX 16GB", "TensorRT"): "jetson-orin-nx",
    ("Jetson Orin Nano 8GB", "TensorRT"): "jetson-orin-nano",
}
ORINS: Final = ("jetson-orin-nano", "jetson-orin-nano-super", "jetson-orin-nx", "jetson-agx-orin")
#: Published gains on Orin: from the narrower width over the wider one.
GAINS: Final[Mapping[tuple[LayerBits, LayerBits], tuple[float, float]]] = {
    (FP16, INT8): (1.26, 1.59),
    (FP32, FP16): (1.55, 2.04),
}
#: On boards where int8 has no kernels it may not be cheaper than fp16.
NO_INT8: Final = ("jetson-nano", "jetson-tx2")
_NETWORKS: Final = ("resnet50", "mobilenet_v2", "efficientnet-lite0")
#: The gains were published of these; small classifiers gain less, being bound by their floors.
_DETECTORS: Final = ("yolo11n", "yolo11s", "yolo11x")


def main() -> None:
    given = options(__doc__, seeds=1)
    found = published(given)
    show(left_out(found), given, "jetson-tables", given.size)
    networks = [edge_network(name, 224, FP16) for name in _NETWORKS[: 1 if given.quick else None]]
    detectors = [jetson_network(name, 640, FP16) for name in _DETECTORS]
    show(gains([*detectors, *networks]), given, "jetson-gains", given.size)
    show(modes(networks), given, "jetson-modes", given.size)


def published(given: Options) -> dict[str, list[Measurement]]:
    """The rows of every table by profile, without the anomalous densenets."""
    by_setup = jetson_published(given.data).by_setup
    return {
        name: [row for row in by_setup[setup] if not row.group.startswith("densenet")]
        for setup, name in TABLES.items()
    }


def left_out(found: Mapping[str, Sequence[Measurement]]) -> list[Row]:
    """Errors of every method on each table, fitted to nothing of it."""
    fitted = {
        name: Ours(profile=load_profile(name)).fit(rows, "latency") for name, rows in found.items()
    }
    rows: list[Row] = []
    for name, table in found.items():
        others = [row for other, some in found.items() if other != name for row in some]
        networks, truth = [row.network for row in table], measured(table, "latency")
        forecasts: dict[str, Forecast] = {
            f"{peer.name} of the other tables": peer.fit(others, "latency").predict(networks)
            for peer in peers(0)
        }
        bare = without_fit(load_profile(name))
        forecasts["ours, rates alone"] = _predicted(bare, networks)
        for other, theirs in fitted.items():
            if other != name:
                moved = bare.model_copy(update={"fit": theirs.profile.fit})
                forecasts[f"ours, factors of {other}"] = _predicted(moved, networks)
        for method, forecast in forecasts.items():
            scores = spread_columns([score(truth, forecast)])
            rows.append({"table": name, "rows": len(table), "method": method, **scores})
    return rows


def gains(networks: Sequence[NetworkDesc]) -> list[Row]:
    """How much faster narrower bits are predicted to be, beside the published range."""
    rows: list[Row] = []
    for name in (*ORINS, *NO_INT8):
        for (wider, narrower), (low, high) in GAINS.items():
            if name in NO_INT8 and narrower != INT8:
                continue
            for network in networks:
                gain = _latency_ms(name, network, wider) / _latency_ms(name, network, narrower)
                least, most = (0.0, 1.0) if name in NO_INT8 else (low, high)
                rows.append(
                    {
                        "target": name,
                        "network": network.name,
                        "from": str(wider),
                        "to": str(narrower),
                        "gain": gain,
                        "published_low": least,
                        "published_high": most,
                        "inside": "yes" if least <= gain <= most else "no",
                    }
                )
    return rows


def modes(networks: Sequence[NetworkDesc]) -> list[Row]:
    """Mean latency and energy of every power mode, and whether a slower one is ever faster."""
    rows: list[Row] = []
    for name in ORINS:
        profile = load_profile(name)
        if profile.power_modes is None:
            continue
        known = {mode: in_power_mode(profile, mode) for mode in profile.power_modes.by_name}
        latencies_ms = {mode: _latencies_ms(one, networks) for mode, one in known.items()}
        for mode, one in known.items():
            costs = CostPredictor(one).predict_all(networks)
            slower = _slower_modes(profile, mode)
            wrong = [
                other for other in slower if (latencies_ms[other] < latencies_ms[mode] - 1e-9).any()
            ]
            energies_mj = [cost.energy_mj.value for cost in costs if cost.energy_mj is not None]
            rows.append(
                {
                    "target": one.name,
                    "latency_ms": _geometric_mean([cost.latency_ms.value for cost in costs]),
                    "energy_mj": _geometric_mean(energies_mj),
                    "sigma_log": statistics.mean(cost.latency_ms.sigma_log for cost in costs),
                    "slower_modes": len(slower),
                    "slower_but_faster": ", ".join(wrong) or "none",
                }
            )
    return rows


def without_fit(profile: HardwareProfile) -> HardwareProfile:
    """The rates of a profile alone."""
    return profile.model_copy(update={"fit": None})


def _slower_modes(profile: HardwareProfile, mode: str) -> list[str]:
    """Modes with no share above this one's and one below."""
    assert profile.power_modes is not None
    shares = {
        name: np.array([one.clock_share, one.unit_share, one.memory_share])
        for name, one in profile.power_modes.by_name.items()
    }
    return [
        name
        for name, one in shares.items()
        if (one <= shares[mode]).all() and (one < shares[mode]).any()
    ]


def _predicted(profile: HardwareProfile, networks: Sequence[NetworkDesc]) -> Forecast:
    return FittedProfile(profile=profile, quantity="latency").predict(networks)


def _latency_ms(name: str, network: NetworkDesc, bits: LayerBits) -> float:
    in_bits = network.with_bits({kernel.name: bits for kernel in network.weighted})
    return CostPredictor(load_profile(name)).latency_ms(in_bits)


def _latencies_ms(profile: HardwareProfile, networks: Sequence[NetworkDesc]) -> Floats:
    predictor = CostPredictor(profile)
    return np.array([predictor.latency_ms(network) for network in networks])


def _geometric_mean(values: Sequence[float]) -> float | None:
    if not values:
        return None
    return math.exp(statistics.mean(math.log(value) for value in values))


if __name__ == "__main__":
    main()
