import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from named_nets import edge_network
from network_builder import NetworkBuilder

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.files import packaged_folder, read_model
from hwsearch.hardware.kernels import KernelKind, NetworkDesc
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import list_profiles, load_profile

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
FILES = sorted(packaged_folder("hw_profiles").glob("*.yaml"))
PROFILES = {path.stem: read_model(path, HardwareProfile) for path in FILES}
NAMES = [name for name, profile in PROFILES.items() if profile.family == "jetson"]
FITTED = [name for name, profile in PROFILES.items() if profile.fit is not None]
LARGEST_BYTES = 200_000
INT8_PAYS = [name for name in NAMES if name not in {"jetson-nano", "jetson-tx2"}]


def resnet(px: int, bits: LayerBits, width: int = 64) -> NetworkDesc:
    """ResNet-18 in all but its shortcuts: a stem, pooling, 16 convolutions, a classifier."""
    build = NetworkBuilder(bits)
    size = build.conv(3, width, px, 7, stride=2)
    size = build.pooling(width, size, size // 2)
    channels = width
    for layer in range(16):
        wider = width * 2 ** (layer // 4)
        size = build.conv(channels, wider, size, 3, stride=2 if wider > channels else 1)
        channels = wider
    build.pooling(channels, size)
    build.linear(channels, 1000)
    return build.network("resnet", px)


def mobilenet_like(px: int, bits: LayerBits) -> NetworkDesc:
    """Separable blocks, in any bits."""
    build = NetworkBuilder(bits)
    px, channels = build.conv(3, 32, px, window=3, stride=2), 32
    for wider, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        px = build.conv(channels, channels, px, window=3, stride=stride, groups=channels)
        build.conv(channels, wider, px)
        channels = wider
    build.pooling(channels, px)
    build.linear(channels, 1000)
    return build.network("separable", px)


def latency_ms(name: str, desc: NetworkDesc) -> float:
    return CostPredictor(PROFILES[name]).latency_ms(desc)


def test_profiles_when_listed_then_the_promised_boards_are_there() -> None:
    assert set(NAMES) == {
        "jetson-nano", "jetson-tx2", "jetson-xavier-nx", "jetson-agx-xavier", "jetson-orin-nano",
        "jetson-orin-nano-super", "jetson-orin-nx", "jetson-agx-orin",
    }  # fmt: skip
    assert set(PROFILES) - set(NAMES) >= {
        "raspberry-pi-4", "raspberry-pi-4-armnn", "odroid-n2", "khadas-vim4", "khadas-vim4-gpu",
        "jetson-agx-orin-cpu", "coral-edge-tpu", "desktop-x86", "bitfusion", "host",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_when_written_then_it_stays_small(path: Path) -> None:
    assert path.stat().st_size < LARGEST_BYTES


def test_aliases_when_listed_then_each_names_one_profile() -> None:
    aliases = [alias for profile in PROFILES.values() for alias in profile.aliases]
    assert len(set(aliases)) == len(aliases)
    assert {"jetson", "raspberry-pi", "odroid", "khadas", "coral"} <= set(aliases)
    assert not set(aliases) & set(PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_baselines_when_priced_then_every_target_has_a_price(name: str) -> None:
    for bits in (FP32, INT8):
        for desc in (resnet(224, bits), mobilenet_like(160, bits)):
            cost = CostPredictor(PROFILES[name]).predict(desc)
            assert 0.1 < cost.latency_ms.value < 1000
            assert cost.latency_ms.low < cost.latency_ms.value < cost.latency_ms.high


@pytest.mark.parametrize("name", PROFILES)
def test_kinds_when_listed_then_all_are_priced_in_the_bits_of_convolutions(name: str) -> None:
    by_kind = PROFILES[name].kernels.by_kind
    for kind in KernelKind:
        assert set(by_kind[kind]) == set(by_kind[KernelKind.CONV])


@pytest.mark.parametrize("name", [name for name in FITTED if name != "host"])
def test_fit_when_stored_then_it_says_how_well_it_does(name: str) -> None:
    fit = PROFILES[name].fit
    assert fit is not None
    for model in (fit.latency, fit.energy):
        if model is None:
            continue
        checked = model.cross_validation
        held_out = model.networks if model.networks < 2000 else math.ceil(model.networks / 5)
        assert checked.networks == held_out >= 5
        assert checked.mape_percent < (10 if checked.networks > 80 else 30) or name == "desktop-x86"
        assert checked.spearman > 0.95
        assert 80 <= checked.coverage_percent <= 100
        assert f"fit_published.py ../shared/data {name}`" in model.provenance.reference
    few = fit.latency.networks < 50
    assert (PROFILES[name].evidence == "derived") == few


def test_bitfusion_when_opened_then_it_says_that_it_is_simulated() -> None:
    profile = PROFILES["bitfusion"]
    assert profile.fit is not None
    assert profile.evidence == profile.fit.latency.provenance.source == "simulated"
    assert "SIMULATED" in profile.summary
    assert profile.energy is not None
    assert profile.energy.boundary == "simulated chip"
    assert len(profile.legal_bits(KernelKind.CONV)) == 16


@pytest.mark.parametrize("build", [resnet, mobilenet_like])
def test_bitfusion_when_bits_fall_gets_cheaper(build: Callable[..., NetworkDesc]) -> None:
    costs = [
        CostPredictor(PROFILES["bitfusion"]).predict(build(96, LayerBits(width, width)))
        for width in (8, 4)
    ]
    eight, four = costs
    assert 1.2 < eight.latency_ms.value / four.latency_ms.value < 4
    assert eight.energy_mj is not None
    assert four.energy_mj is not None
    assert 1.1 < eight.energy_mj.value / four.energy_mj.value < 4


def test_coral_when_weights_do_not_fit_falls_off_the_cliff() -> None:
    narrow, wide = resnet(224, INT8, 48), resnet(224, INT8, 80)
    assert narrow.size_bytes < 8e6 < wide.size_bytes
    per_mac = [latency_ms("coral-edge-tpu", desc) / desc.macs for desc in (narrow, wide)]
    assert per_mac[1] > 1.5 * per_mac[0]
    assert PROFILES["coral-edge-tpu"].legal_bits(KernelKind.CONV) == (INT8,)


@pytest.mark.parametrize("px", [96, 224])
def test_desktop_when_int8_runs_as_fp32_then_it_costs_as_much(px: int) -> None:
    priced = [latency_ms("desktop-x86", resnet(px, bits)) for bits in (INT8, FP32)]
    assert priced[0] == pytest.approx(priced[1], rel=1e-6)
    assert PROFILES["desktop-x86"].legal_bits(KernelKind.CONV) == (FP32,)


def test_host_when_measured_names_no_machine_and_says_what_to_do() -> None:
    host = PROFILES["host"]
    assert host.fit is not None
    assert host.fit.latency.networks >= 350
    assert host.evidence == "measured"
    assert host.runtime_version == "1.32.0"
    assert "one thread" in host.device
    checked = host.fit.latency.cross_validation
    assert checked.mape_percent < 9
    assert checked.rmspe_percent < 12
    assert checked.spearman > 0.99
    assert 88 <= checked.coverage_percent <= 95
    assert host.fit.noise_floor_percent is not None
    assert host.fit.noise_floor_percent <= 2
    assert "measure_host.py" in host.fit.latency.provenance.reference
    assert "hwsearch profile measure --on host" in host.summary
    # Depthwise int8 is slower there, and still pays between two layers in int8.
    assert host.kernels.fuses_clips_only
    assert host.legal_bits(KernelKind.DEPTHWISE) == (FP32, INT8)


def test_file_when_it_is_the_nano_of_real_networks_covers_the_published_rule() -> None:
    # 4.0 ms/GMAC + 0.17 ms/Mparam + 0.10 ms/layer, fitted to torch2trt's fp16 networks there.
    desc = resnet(224, FP16)
    rule_ms = 4.0 * desc.macs / 1e9 + 0.17 * desc.weight_elements / 1e6 + 0.1 * len(desc.weighted)
    latency = CostPredictor(PROFILES["jetson-nano"]).predict(desc).latency_ms
    assert latency.low < rule_ms < latency.high
    assert latency.extrapolated


def test_orin_when_it_runs_a_classifier_covers_mlperf() -> None:
    # 1.42 ms in MaxQ (MLPerf v3.1, single stream); a fit to detectors has it at twice that.
    desc = edge_network("resnet50", 224, INT8)
    latency = CostPredictor(PROFILES["jetson-orin-nx"]).predict(desc).latency_ms
    assert latency.low < 1.42 < latency.high


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
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


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("raspberry-pi-4", "TFLite v2.7.1 (ruy)"),
        ("raspberry-pi-4-armnn", "ArmNN v22.05 (Neon)"),
    ],
)
def test_board_when_it_runs_a_network_unlike_those_fitted(name: str, runtime: str) -> None:
    path = DATA / "edge_published.csv"
    if not path.exists():
        pytest.skip("the published measurements (../shared/data) are not here")
    with path.open(encoding="utf-8") as file:
        (row,) = (
            row
            for row in csv.DictReader(file)
            if row["runtime"] == runtime and row["model"] == "resnet50" and row["energy_mj"]
        )
    cost = CostPredictor(PROFILES[name]).predict(edge_network("resnet50", 224, FP32))
    assert cost.energy_mj is not None
    for prediction, measured in (
        (cost.latency_ms, float(row["latency_ms"])),
        (cost.energy_mj, float(row["energy_mj"])),
    ):
        assert prediction.extrapolated, "MobileNets alone were fitted"
        assert prediction.low < measured < prediction.high
        assert prediction.value == pytest.approx(measured, rel=0.25)
