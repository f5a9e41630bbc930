"""What a prediction says, as JSON and as rows, judged by its own sums and by the schema."""

import json
import math
from collections.abc import Callable

import jsonschema
import pytest
from stored_results import shipped_schema

from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.errors import TargetError, UserError
from hwsearch.hardware.kernels import KernelDesc, KernelKind, NetworkDesc
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import load_profile
from hwsearch.report.prediction import (
    COMPARISON_COLUMNS,
    KERNEL_COLUMNS,
    SUMMARY_COLUMNS,
    ModelPrediction,
    Priced,
    bound_rows,
    comparison_headline,
    comparison_rows,
    headline,
    kernel_rows,
    kind_rows,
    macs_text,
    predictions_json,
    price,
)

KEYS = {
    "schema_version", "target", "model", "input_px", "bits", "latency_ms", "energy_mj", "macs",
    "size_bytes", "frames_per_second", "cameras_at_30fps", "kernels",
}  # fmt: skip


def conv(number: int, *, size: int, channels: int, bits: LayerBits = FP32) -> KernelDesc:
    return KernelDesc(
        name=f"layer{number}",
        kind=KernelKind.CONV,
        in_channels=channels,
        out_channels=channels,
        kernel_size=(3, 3),
        in_size=(size, size),
        out_size=(size, size),
        macs=size * size * channels * channels * 9,
        input_elements=channels * size * size,
        output_elements=channels * size * size,
        weight_elements=9 * channels * channels,
        bits=bits,
    )


def network(*, layers: int = 14, bits: LayerBits = FP32) -> NetworkDesc:
    """Layers from large pictures and few channels to the opposite, and a pooling."""
    kernels = [
        conv(at, size=max(1, 112 >> at // 2), channels=16 << at // 3, bits=bits)
        for at in range(layers)
    ]
    pooling = KernelDesc(
        name="pool",
        kind=KernelKind.POOLING,
        in_channels=16,
        out_channels=16,
        input_elements=16 * 49,
        output_elements=16,
        bits=LayerBits(bits.activation_bits, bits.activation_bits),
    )
    return NetworkDesc(name="net", input_px=112, kernels=(*kernels, pooling))


@pytest.fixture
def orin() -> HardwareProfile:
    return load_profile("jetson-orin-nano")


@pytest.fixture
def nano() -> HardwareProfile:
    return load_profile("jetson-nano")


@pytest.fixture
def priced(orin: HardwareProfile) -> Priced:
    return price(orin, network())


def accepts(content: object) -> bool:
    return bool(jsonschema.Draft202012Validator(shipped_schema("predict")).is_valid(content))


def percent(cell: str) -> float:
    assert cell.endswith(" %")
    return float(cell.removesuffix(" %"))


# -- for programs ----------------------------------------------------------------------------------


def test_json_when_of_one_target_is_an_object(priced: Priced, orin: HardwareProfile) -> None:
    content = json.loads(predictions_json([priced.prediction]))
    assert accepts(content)
    assert set(content) == KEYS
    cost = CostPredictor(orin, 0.9).predict(network())
    assert content["latency_ms"] == {
        "value": cost.latency_ms.value,
        "low": cost.latency_ms.low,
        "high": cost.latency_ms.high,
        "confidence": 0.9,
        "source": "predicted",
    }
    assert (content["target"], content["model"], content["bits"]) == (orin.name, "net", "W32A32")
    assert (content["macs"], content["size_bytes"]) == (network().macs, network().size_bytes)
    first = content["kernels"][0]
    assert set(first) == {"name", "kind", "macs", "bytes", "bits", "latency_ms", "bound"}
    assert (first["name"], first["kind"], first["bits"]) == ("layer0", "conv", "W32A32")
    assert [k["name"] for k in content["kernels"]] == [k.name for k in network().kernels]


def test_json_when_of_several_targets_is_a_list_with_all_keys(
    orin: HardwareProfile, nano: HardwareProfile
) -> None:
    several = [price(profile, network()).prediction for profile in (orin, nano)]
    content = json.loads(predictions_json(several))
    assert accepts(content)
    assert [entry["target"] for entry in content] == ["jetson-orin-nano", "jetson-nano"]
    assert not any(accepts({k: v for k, v in content[0].items() if k != key}) for key in KEYS)
    for change in ({"mood": "good"}, {"schema_version": 2}, {"bits": "int8"}, {"macs": -1}):
        assert not accepts(content[0] | change)


def test_rate_when_counted_is_that_of_the_latency(priced: Priced) -> None:
    found = priced.prediction
    assert found.frames_per_second * found.latency_ms.value == pytest.approx(1000)
    assert found.cameras_at_30fps == found.frames_per_second // 30
    assert found.cameras_at_30fps * 30 <= found.frames_per_second


def test_energy_when_the_profile_has_none_is_null(orin: HardwareProfile) -> None:
    without = orin.model_copy(update={"energy": None, "fit": None})
    found = price(without, network())
    content = json.loads(predictions_json([found.prediction]))
    assert content["energy_mj"] is None
    assert accepts(content)
    assert "energy   not known: jetson-orin-nano has no energy model" in headline(found)
    energy = COMPARISON_COLUMNS.index("energy mJ")
    assert comparison_rows([found])[0][energy : energy + 3] == ("-", "-", "-")


def test_bits_when_layers_differ_are_mixed(orin: HardwareProfile) -> None:
    asked = {kernel.name: INT8 for kernel in network().weighted} | {"layer0": FP32}
    found = price(orin, network().with_bits(asked))
    assert found.prediction.bits == "mixed"
    assert accepts(json.loads(predictions_json([found.prediction])))
    assert "in int8 x 13, fp32 x 1 on jetson-orin-nano" in headline(found)[0]


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 90, math.nan])
def test_confidence_when_no_probability_is_refused(
    confidence: float, orin: HardwareProfile
) -> None:
    with pytest.raises(UserError, match=r"is not between 0 and 1; give one such as 0\.9"):
        price(orin, network(), confidence=confidence)


def test_bits_when_the_target_cannot_run_them_say_which_it_can(orin: HardwareProfile) -> None:
    asked = network().with_bits({k.name: LayerBits(3, 8) for k in network().weighted})
    with pytest.raises(TargetError, match=r"layer0 .* W3A8.* it runs conv in fp32, fp16, int8"):
        price(orin, asked)


# -- for people ------------------------------------------------------------------------------------


def test_headline_when_printed_has_the_numbers(priced: Priced, orin: HardwareProfile) -> None:
    text = " ".join(headline(priced))
    value = priced.prediction.latency_ms
    assert f"{value.value:.3g} ms, {value.low:.3g} to {value.high:.3g} at 90 %" in text
    assert f"sustains {priced.prediction.cameras_at_30fps} cameras of 30 fps" in text
    assert f"cameras of 30 fps, {math.floor(1e3 / value.high / 30)} to " in text
    assert f"{macs_text(network().macs)}MACs" in text
    assert orin.energy is not None
    assert orin.energy.boundary in text


def test_note_when_bits_do_not_pay_says_so(nano: HardwareProfile, orin: HardwareProfile) -> None:
    asked = network(bits=INT8)
    note = "Note: 14 of 14 layers are in bits that jetson-nano does not gain from"
    assert any(line.startswith(note) for line in headline(price(nano, asked)))
    assert not any("does not gain from" in line for line in headline(price(orin, asked)))
    lines = comparison_headline([price(orin, asked), price(nano, asked)])
    assert sum(line.startswith(note) for line in lines) == 1
    assert lines[0].startswith("net at 112 px in int8: ")


def test_note_when_extrapolated_says_so(priced: Priced) -> None:
    beyond = Priced(
        profile=priced.profile,
        prediction=priced.prediction,
        bits=priced.bits,
        unoffered=0,
        extrapolated=True,
    )
    assert headline(beyond)[-1].startswith("Note: the network is unlike those that the profile")
    assert comparison_rows([beyond])[0][1] == f"{priced.profile.evidence}, extrapolated"


def test_kernel_rows_when_many_name_ten_and_add_up(priced: Priced) -> None:
    rows = kernel_rows(priced.prediction)
    assert [len(row) for row in rows] == [len(KERNEL_COLUMNS)] * 12
    spent = {k.name: k.latency_ms for k in priced.prediction.kernels}
    costliest = sorted(spent, key=lambda name: -spent[name])[:10]
    assert [row[0] for row in rows[:10]] == costliest
    assert [row[0] for row in rows[10:]] == ["5 others", "overhead"]
    shares = [percent(row[KERNEL_COLUMNS.index("share")]) for row in rows]
    assert sum(shares) == pytest.approx(100, abs=0.05 * len(shares))


@pytest.mark.parametrize(
    ("rows_of", "names"),
    [(bound_rows, ["compute", "memory", "floor"]), (kind_rows, ["conv", "pooling"])],
)
def test_summary_rows_when_added_are_the_whole(
    rows_of: Callable[[ModelPrediction], list[tuple[str, ...]]], names: list[str], priced: Priced
) -> None:
    rows = rows_of(priced.prediction)
    assert [row[0] for row in rows] == [*names, "overhead"]
    assert [len(row) for row in rows] == [len(SUMMARY_COLUMNS)] * len(rows)
    assert sum(int(row[1]) for row in rows[:-1]) == 15
    assert sum(percent(row[-1]) for row in rows) == pytest.approx(100, abs=0.05 * len(rows))


def test_comparison_rows_when_printed_are_in_the_order_given(
    orin: HardwareProfile, nano: HardwareProfile
) -> None:
    several = [price(profile, network()) for profile in (nano, orin)]
    rows = comparison_rows(several)
    assert [row[0] for row in rows] == ["jetson-nano", "jetson-orin-nano"]
    assert [len(row) for row in rows] == [len(COMPARISON_COLUMNS)] * 2
    for row, one in zip(rows, several, strict=True):
        assert float(row[2]) == pytest.approx(one.prediction.latency_ms.value, rel=0.006)
        assert one.profile.energy is not None
        assert row[8] == one.profile.energy.boundary
        assert percent(row[9].partition(" ")[2]) <= 100


@pytest.mark.parametrize(
    ("macs", "text"),
    [(0, "0 "), (999, "999 "), (1000, "1.00 k"), (442_368, "442 k"), (1_814_073_344, "1.81 G")],
)
def test_macs_when_written_for_people(macs: int, text: str) -> None:
    assert macs_text(macs) == text


def test_name_when_it_holds_control_characters_is_one_line(orin: HardwareProfile) -> None:
    odd = NetworkDesc(name="a\nb\x1b[31m", input_px=8, kernels=network(layers=2).kernels)
    assert headline(price(orin, odd))[0].startswith("a b [31m at 8 px")
