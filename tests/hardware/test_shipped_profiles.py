import csv
import gzip
import importlib.util
import math
import re
import statistics
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.files import packaged_folder
from hwsearch.hardware.kernels import WEIGHTED_KINDS, KernelDesc, KernelKind, NetworkDesc
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import list_profiles, load_profile

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
FILES = sorted(packaged_folder("hw_profiles").glob("jetson-*.yaml"))
NAMES = [path.stem for path in FILES]
INT8_PAYS = [name for name in NAMES if name not in {"jetson-nano", "jetson-tx2"}]


def resnet(px: int, bits: LayerBits, width: int = 64) -> NetworkDesc:
    """ResNet-18 in all but its shortcuts: a stem, pooling, 16 convolutions, a classifier."""
    kernels: list[KernelDesc] = []

    def add(kind: KernelKind, cin: int, cout: int, size: int, window: int, stride: int = 1) -> int:
        after = size // stride
        weights = cin * cout * window**2 if kind in WEIGHTED_KINDS else 0
        kernels.append(
            KernelDesc(
                name=f"{len(kernels)}",
                kind=kind,
                in_channels=cin,
                out_channels=cout,
                kernel_size=(window, window),
                stride=(stride, stride),
                in_size=(size, size),
                out_size=(after, after),
                macs=weights * after**2,
                input_elements=cin * size**2,
                output_elements=cout * after**2,
                weight_elements=weights,
            )
        )
        return after

    size = add(KernelKind.CONV, 3, width, px, 7, 2)
    size = add(KernelKind.POOLING, width, width, size, 3, 2)
    cin = width
    for stage in range(4):
        cout = width * 2**stage
        for layer in range(4):
            stride = 2 if stage and not layer else 1
            size = add(KernelKind.CONV, cin, cout, size, 3, stride)
            cin = cout
    add(KernelKind.POOLING, cin, cin, size, size, size)
    add(KernelKind.LINEAR, cin, 1000, 1, 1)
    desc = NetworkDesc(name="resnet", input_px=px, kernels=tuple(kernels))
    return desc.with_bits({kernel.name: bits for kernel in desc.weighted})


def latency_ms(name: str, desc: NetworkDesc) -> float:
    return CostPredictor(load_profile(name)).latency_ms(desc)


def test_profiles_when_listed_then_the_promised_boards_are_there() -> None:
    assert set(NAMES) >= {
        "jetson-nano",
        "jetson-tx2",
        "jetson-xavier-nx",
        "jetson-agx-xavier",
        "jetson-orin-nano",
        "jetson-orin-nano-super",
        "jetson-orin-nx",
        "jetson-agx-orin",
    }


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_file_when_opened_then_it_says_how_to_use_it(path: Path) -> None:
    head = path.read_text(encoding="utf-8").splitlines()[:4]
    assert all(line.startswith("# ") for line in head)
    assert f"hwsearch run --target {path.stem} --budget" in head[1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", [FP32, FP16, INT8], ids=str)
def test_profile_when_it_prices_a_network(name: str, bits: LayerBits) -> None:
    cost = CostPredictor(load_profile(name)).predict(resnet(224, bits))
    assert 0.3 < cost.latency_ms.value < 100
    assert cost.latency_ms.low < cost.latency_ms.value < cost.latency_ms.high
    assert cost.energy_mj is not None
    watts = cost.energy_mj.value / cost.latency_ms.value
    assert 3 < watts < 70, "no Jetson draws less or more"


@pytest.mark.parametrize("name", NAMES)
def test_profile_when_every_kind_is_priced_in_each_width(name: str) -> None:
    profile = load_profile(name)
    for kind in KernelKind:
        assert {FP32, FP16, INT8} <= set(profile.kernels.by_kind[kind])


@pytest.mark.parametrize("profile", list_profiles(), ids=lambda profile: profile.name)
def test_profile_when_it_is_a_prior(profile: HardwareProfile) -> None:
    if profile.family != "jetson" or profile.evidence != "spec sheet":
        pytest.skip("not a prior of the Jetson family")
    assert profile.interval.latency_sigma_log >= 0.35
    assert profile.interval.energy_sigma_log >= profile.interval.latency_sigma_log
    assert profile.activation_quantization == "symmetric"
    if "orin" in profile.name:
        assert profile.interval.latency_sigma_log >= 0.45


@pytest.mark.parametrize("name", ["jetson-nano", "jetson-tx2"])
@pytest.mark.parametrize("px", [32, 96, 224])
def test_int8_when_it_does_not_pay(name: str, px: int) -> None:
    assert latency_ms(name, resnet(px, INT8)) >= latency_ms(name, resnet(px, FP16))
    assert INT8 not in load_profile(name).legal_bits(KernelKind.CONV)


@pytest.mark.parametrize("name", INT8_PAYS)
@pytest.mark.parametrize(("px", "width"), [(224, 64), (448, 64), (224, 128)])
def test_int8_over_fp16_when_it_pays(name: str, px: int, width: int) -> None:
    gain = latency_ms(name, resnet(px, FP16, width)) / latency_ms(name, resnet(px, INT8, width))
    assert 1.1 <= gain <= 1.7


@pytest.mark.parametrize("name", [name for name in NAMES if "orin" in name])
@pytest.mark.parametrize(("px", "width"), [(224, 64), (448, 64), (224, 128)])
def test_fp16_over_tf32_when_on_orin(name: str, px: int, width: int) -> None:
    gain = latency_ms(name, resnet(px, FP32, width)) / latency_ms(name, resnet(px, FP16, width))
    assert 1.4 <= gain <= 2.2


@pytest.mark.parametrize("bits", [FP32, FP16, INT8], ids=str)
@pytest.mark.parametrize("px", [32, 224, 640])
def test_latency_when_the_device_is_faster(bits: LayerBits, px: int) -> None:
    desc = resnet(px, bits)
    for slower, faster in (
        ("jetson-nano", "jetson-orin-nano"),
        ("jetson-orin-nano", "jetson-orin-nano-super"),
        ("jetson-orin-nano", "jetson-orin-nx"),
        ("jetson-orin-nx", "jetson-agx-orin"),
        ("jetson-nano", "jetson-tx2"),
        ("jetson-xavier-nx", "jetson-agx-xavier"),
    ):
        assert latency_ms(faster, desc) <= latency_ms(slower, desc)


def published_nets(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = ROOT / "benchmarks" / "predictor" / "published_nets.py"
    spec = importlib.util.spec_from_file_location("published_nets", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "published_nets", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "giga_macs", "million_params"),
    [
        # ultralytics documents GFLOPs = 2 x MACs at 640 px, and params.
        ("yolov8n", 8.7 / 2, 3.2),
        ("yolov8m", 78.9 / 2, 25.9),
        ("yolo11n", 6.5 / 2, 2.6),
        ("yolo11m", 68.0 / 2, 20.1),
        ("yolo11x", 194.9 / 2, 56.9),
    ],
)
def test_yolo_when_written_out(
    name: str, giga_macs: float, million_params: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    desc = published_nets(monkeypatch).yolo(name, 640, FP16)
    assert desc.macs / 1e9 == pytest.approx(giga_macs, rel=0.015)
    assert desc.weight_elements / 1e6 == pytest.approx(million_params, rel=0.02)


def test_nano_when_compared_with_published_convnets(monkeypatch: pytest.MonkeyPatch) -> None:
    path = DATA / "jetson_nano_tensorrt_fp32.csv.gz"
    if not path.exists():
        pytest.skip("the published measurements (../shared/data) are not here")
    convnet = published_nets(monkeypatch).jetson_nano_convnet
    profile = load_profile("jetson-nano")
    predictor = CostPredictor(profile)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::20]
    logs = []
    for row in rows:
        desc = convnet(row["name"], FP32)
        # The published MACs count each bias as one.
        outputs = sum(kernel.output_elements for kernel in desc.kernels)
        assert (desc.macs + outputs, desc.weight_elements) == (
            int(row["macs"]),
            int(row["params"]),
        )
        logs.append(math.log(predictor.latency_ms(desc) / float(row["latency_ms"])))
    assert len(logs) > 400
    assert abs(statistics.median(logs)) < 0.1
    assert statistics.stdev(logs) < profile.interval.latency_sigma_log


def test_yolo_when_compared_with_published_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    path = DATA / "jetson_published.csv"
    if not path.exists():
        pytest.skip("the published measurements (../shared/data) are not here")
    yolo = published_nets(monkeypatch).yolo
    widths = {"fp32": FP32, "fp16": FP16, "int8": INT8}
    with path.open(encoding="utf-8") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["device"] == "Jetson Orin Nano Super 8GB" and row["runtime"] == "TensorRT"
        ]
    profile = load_profile("jetson-orin-nano-super")
    predictor = CostPredictor(profile)
    logs = []
    for row in rows:
        bits = widths[re.split(r"\W", row["precision"])[0]]
        predicted_ms = predictor.latency_ms(yolo(row["model"], 640, bits))
        logs.append(math.log(predicted_ms / float(row["latency_ms"])))
    assert len(logs) == 15
    assert abs(statistics.median(logs)) < 0.2
    assert statistics.stdev(logs) < profile.interval.latency_sigma_log
