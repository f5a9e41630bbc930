"""Fit the shipped profiles to published measurements.

::

    nice python benchmarks/predictor/fit_published.py ../shared/data [NAME ...] [--into DIR]

Writes ``hw_profiles/NAME.yaml`` again with its ``fit``, for each name or for all, and prints how
well networks were predicted that the fit had not seen. Nothing depends on what was fitted before.
"""

import argparse
import csv
import gzip
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Final, Literal

import tables
import yaml

from hwsearch.errors import BackboneError, TargetError
from hwsearch.files import nearest
from hwsearch.hardware.file_model import Provenance
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.learned.fit import fit_profile
from hwsearch.hardware.learned.model import FittedModel
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.profile_file import write_fit
from hwsearch.hardware.widen import widened

PROFILES: Final = Path(__file__).resolve().parents[2] / "hw_profiles"
COMMAND: Final = "python benchmarks/predictor/fit_published.py ../shared/data"
#: When the tables were read.
_READ: Final = date(2026, 11, 24)

#: Which profile of the MLPerf table each of ours is fitted to: the latest round with energies.
#: Not those of cTuning: with Arm NN its Raspberry Pi takes twice as long as in three rounds of
#: Krai, and on Orin its TensorFlow Lite takes five times as long, on one thread it seems.
MLPERF: Final = {
    "raspberry-pi-4": "v2.0/krai/rpi4-tflite-v2.7.1-ruy",
    "raspberry-pi-4-armnn": "v2.0/krai/rpi4-armnn-v21.11-neon",
    "odroid-n2": "v2.0/krai/odroid-tflite-v2.7.1-ruy",
    "khadas-vim4": "v3.0/krai/vim4-tflite-v2.11.0-ruy",
    "khadas-vim4-gpu": "v3.0/krai/vim4-armnn-v22.11-opencl",
    "jetson-agx-orin-cpu": "v2.1/krai/orin-tflite-v2.7.1-ruy",
    "rk3588s": "v3.0/krai/firefly-tflite-v2.11.0-ruy",
}
#: What is taken of timm's table: networks of the size that is searched.
_MOST_GMACS: Final = 12.0
_MOST_PX: Final = 300
#: MACs of the table are rounded, and count a few kernels otherwise; beyond it is another network.
_SAME_MACS: Final = 0.16

#: Runtimes differ by 9 to 24 % between versions, and rows of one source share theirs. The Nano's
#: synthetic networks need it too: the rule that torch2trt's fp16 networks follow there (4.0 ms/GMAC
#: + 0.17 ms/Mparam + 0.10 ms/layer) is 0.20 to 0.29 below the fit, in the logarithm.
_ONE_SOURCE: Final = 0.15
#: YOLO says little of classifiers: MLPerf v3.1 runs ResNet-50 in int8 on Orin NX in 1.42 ms (and in
#: MaxQ, a slower mode than ours), where the fit has 3.3 ms. That is 0.84 in the logarithm.
_DETECTORS_ONLY: Final = 0.5
#: And nobody stated the power mode, of which the fast one runs 1.6 times the clock.
_UNKNOWN_MODE: Final = 0.55

#: The Edge TPU holds so many bytes of weights. The rest comes at 0.38 GB/s for VGG-16 and 19, of
#: whose time it takes nearly all, at 0.34 for Inception v4, and would at 0.69 for Inception-ResNet.
_CORAL_CHIP_BYTES: Final = 8e6
_MOST_TRAVEL_GB_PER_S: Final = 0.5

Evidence = Literal["measured", "derived", "simulated"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a profile is fitted to.

    Attributes:
        read: the measurements, from the folder of the tables.
        reference: where they come from and what to distrust.
        evidence: of the profile; "derived" where few rows sharpen what is mostly a prior.
        more_sigma_log: how wrong the rows may be together, which their own scatter cannot show; in
            the logarithm.
        noise_floor: in percent, from the same folder; None where nobody measured twice.
    """

    read: Callable[[Path], Sequence[Measurement]]
    reference: str
    evidence: Evidence
    more_sigma_log: float = 0.0
    noise_floor: Callable[[Path], float] | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, help="the folder of published tables")
    parser.add_argument("names", nargs="*", metavar="NAME", help="profiles; all by default")
    parser.add_argument("--into", type=Path, default=PROFILES, help="folder to write to")
    parsed = parser.parse_args(arguments)
    sources = published_sources()
    for name in parsed.names:
        if name not in sources:
            known = ", ".join(sources)
            raise SystemExit(f"no table is for {name}.{nearest(name, sources)} There are {known}")
    print(f"{'profile':24s}{'nets':>6s} {_TITLES.format('latency')} {_TITLES.format('energy')}")
    for name in parsed.names or sources:
        started = time.perf_counter()
        path = parsed.into / f"{name}.yaml"
        profile = fit_published(name, sources[name], parsed.data)
        write_fit(PROFILES / f"{name}.yaml", profile, path)
        print(_line(profile), f"{path.stat().st_size / 1e3:6.0f} kB", end="")
        print(f"{time.perf_counter() - started:6.0f} s", flush=True)


def fit_published(name: str, source: Source, data: Path) -> HardwareProfile:
    """A shipped profile, fitted to what was published.

    Raises:
        TargetError: too few measurements.
    """
    profile = _without_fit(PROFILES / f"{name}.yaml")
    measurements = source.read(data)
    if not measurements:
        raise TargetError(f"{data} holds no measurements for {name}; is it the folder of tables?")
    provenance = Provenance(
        source="simulated" if source.evidence == "simulated" else "measured",
        reference=f"{source.reference} {_widened_by(source)}Fitted by `{COMMAND} {name}`.",
        date=_READ,
    )
    fitted = fit_profile(
        profile.model_copy(update={"evidence": source.evidence}),
        measurements,
        provenance=provenance,
        noise_floor_percent=source.noise_floor and source.noise_floor(data),
    )
    assert fitted.fit is not None
    changes = {
        "latency": widened(fitted.fit.latency, source.more_sigma_log),
        "energy": fitted.fit.energy and widened(fitted.fit.energy, source.more_sigma_log),
    }
    return fitted.model_copy(update={"fit": fitted.fit.model_copy(update=changes)})


def _widened_by(source: Source) -> str:
    if not source.more_sigma_log:
        return ""
    percent = 100 * (math.exp(source.more_sigma_log) - 1)
    return f"Intervals are widened by {percent:.0f} % (one sigma) for what these rows cannot show. "


def published_sources() -> dict[str, Source]:
    """Every profile that has published measurements, by name."""
    return {
        **{name: _mlperf_source(setup) for name, setup in MLPERF.items()},
        "jetson-nano": Source(
            read=tables.nano,
            reference="iCAS-Lab NAS-Performance-Modeling (COINS 2025): 10,028 synthetic convnets "
            "in fp32, TensorRT, MAXN, energy of the board. Far from real networks, and fp16 was "
            "not measured: see the interval.",
            evidence="measured",
            more_sigma_log=_ONE_SOURCE,
            noise_floor=nano_noise_floor,
        ),
        "jetson-agx-xavier": _jetson_source(
            "Jetson AGX Xavier",
            "TensorRT (torch2trt)",
            "torch2trt's table for Jetson Xavier: 23 torchvision networks in fp16 (2019, power "
            "mode not stated, Python calls included), without its 4 densenets (anomalous).",
        ),
        "jetson-orin-nano": _jetson_source(
            "Jetson Orin Nano 8GB",
            "TensorRT",
            "Six rows of a third party (the0807/YOLOv8-ONNX-TensorRT): YOLOv8 n, s, m at 640 px "
            "in fp16 and int8, power mode not stated.",
            more_sigma_log=_UNKNOWN_MODE,
        ),
        "jetson-orin-nano-super": _jetson_source(
            "Jetson Orin Nano Super 8GB", "TensorRT", _YOLO, more_sigma_log=_DETECTORS_ONLY
        ),
        "jetson-orin-nx": _jetson_source(
            "Jetson Orin NX 16GB", "TensorRT", _YOLO, more_sigma_log=_DETECTORS_ONLY
        ),
        "coral-edge-tpu": Source(
            read=_coral,
            reference="coral.ai/docs/edgetpu/benchmarks, Dev Board: 8 of the 9 networks that can "
            "be described, one run each, no spread given. Left out: Inception-ResNet v2 at 69 ms, "
            "whose weights past 8 MB would travel at 0.69 GB/s; those of both VGGs travel at 0.38.",
            evidence="derived",
        ),
        "desktop-x86": Source(
            read=desktop,
            reference="timm's results (benchmark-infer, i9-10940X, fp32, torch.compile, batch 1; "
            "Apache-2.0): models up to 12 GMACs and 300 px that can be traced.",
            evidence="measured",
        ),
        "bitfusion": Source(
            read=tables.bitfusion,
            reference="APQ's table of the BitFusion simulator: 5,295 layers, pointwise and "
            "depthwise, W4 to W8 with A4 to A8. SIMULATED.",
            evidence="simulated",
        ),
    }


_YOLO: Final = (
    "ultralytics docs/en/guides/nvidia-jetson.md: YOLO11 n to x at 640 px in fp32, fp16 and int8, "
    "15 rows. Detectors alone: MLPerf v3.1 has ResNet-50 in int8 on Orin NX more than twice as "
    "fast as a fit to them."
)


def _mlperf_source(setup: str) -> Source:
    mlperf_round, submitter, run = setup.split("/")
    return Source(
        read=lambda data: _mlperf(data)[setup],
        reference=f"MLPerf Inference {mlperf_round} edge, open division, single stream, "
        f"{submitter}: {run} (Apache-2.0): MobileNet v1, v2 and v3 in fp32 and int8, p90 latency; "
        "energy per inference at the wall, idle included.",
        evidence="measured",
    )


@cache
def _mlperf(data: Path) -> dict[str, list[Measurement]]:
    return {
        setup[-1]: [row.measurement for row in rows] for setup, rows in tables.mlperf(data).items()
    }


def _jetson_source(
    device: str, runtime: str, reference: str, more_sigma_log: float = _ONE_SOURCE
) -> Source:
    def read(data: Path) -> list[Measurement]:
        rows = tables.jetson_published(data).by_setup[device, runtime]
        return [row for row in rows if not row.group.startswith("densenet")]

    return Source(read=read, reference=reference, evidence="derived", more_sigma_log=more_sigma_log)


def _coral(data: Path) -> Sequence[Measurement]:
    """The rows of the Edge TPU, less what cannot be the network of that name.

    A network whose weights would have to travel faster than its link is known to be is another.
    """
    board = "Coral Dev Board (Edge TPU, i.MX8M host)"
    rows = tables.edge_published(data).by_setup[board, "TFLite + Edge TPU"]
    return [row for row in rows if _travel_gb_per_s(row) <= _MOST_TRAVEL_GB_PER_S]


def _travel_gb_per_s(row: Measurement) -> float:
    """At what rate the weights that the chip does not hold came, if nothing else took time."""
    return (row.network.size_bytes - _CORAL_CHIP_BYTES) / (row.latency_ms * 1e6)


def desktop(data: Path) -> list[Measurement]:
    """Models of timm on a desktop CPU; the group is what stands before the first "_"."""
    with (data / "timm_cpu_i9_10940x_fp32.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if _searchable(row)]
    found = []
    for row in rows:
        network = _timm(row["model"], int(row["input_px"]))
        giga = float(row["gmacs"])
        if network is None or abs(network.macs / 1e9 - giga) > _SAME_MACS * giga + 0.01:
            continue
        group = row["model"].partition("_")[0]
        latency_ms = float(row["latency_ms"])
        found.append(Measurement(network=network, latency_ms=latency_ms, group=group))
    return found


def _searchable(row: dict[str, str]) -> bool:
    small = bool(row["gmacs"]) and float(row["gmacs"]) <= _MOST_GMACS
    return small and int(row["input_px"]) <= _MOST_PX


def _timm(name: str, px: int) -> NetworkDesc | None:
    """A model of timm, or None if it is gone from there or cannot be traced."""
    import timm
    import torch

    from hwsearch.nets.trace import trace

    if not timm.is_model(name):
        return None
    with torch.device("meta"):
        model = timm.create_model(name)
    try:
        traced = trace(model.eval(), px)
    except BackboneError:
        return None
    return traced.describe(name, traced.out_channels())


def nano_noise_floor(data: Path) -> float:
    """Median difference in percent of the run that timed a network and the one of the GPU's rail.

    How long the latter took follows from its energy and power; the column ``repeat_latency_s`` is
    the first run again.
    """
    with gzip.open(data / "jetson_nano_tensorrt_fp32.csv.gz", "rt", encoding="utf-8") as file:
        differences = [
            abs(1e3 * float(row["gpu_energy_mj"]) / float(row["gpu_mw"]) / latency_ms - 1)
            for row in csv.DictReader(file)
            if (latency_ms := float(row["latency_ms"]))
        ]
    return float(f"{100 * statistics.median(differences):.2g}")


def _without_fit(path: Path) -> HardwareProfile:
    """A profile's rates; an earlier fit is not even looked at."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    content.pop("fit", None)
    return HardwareProfile.model_validate(content)


_TITLES: Final = "{0:>8s} MAPE   rho covers"


def _line(profile: HardwareProfile) -> str:
    assert profile.fit is not None
    models = (profile.fit.latency, profile.fit.energy)
    columns = " ".join(_errors(model) for model in models)
    return f"{profile.name:24s}{profile.fit.latency.networks:6d} {columns}"


def _errors(model: FittedModel | None) -> str:
    if model is None:
        return f"{'-':>13s} {'-':>5s} {'-':>6s}"
    checked = model.cross_validation
    return (
        f"{checked.mape_percent:11.1f} % {checked.spearman:5.3f} {checked.coverage_percent:4.0f} %"
    )


if __name__ == "__main__":
    main()
