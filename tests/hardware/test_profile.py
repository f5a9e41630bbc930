import copy
import json
import math
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from hwsearch.bits import FP16, FP32, INT8
from hwsearch.errors import FileModelError, TargetError
from hwsearch.files import packaged_folder, read_model
from hwsearch.hardware.kernels import KernelKind
from hwsearch.hardware.profile import SCHEMA_VERSION, HardwareProfile
from hwsearch.hardware.targets import load_profile

ORIN = packaged_folder("hw_profiles") / "jetson-orin-nano.yaml"


def content() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(ORIN.read_text(encoding="utf-8"))
    return data


def tampered(path: str, value: object) -> dict[str, Any]:
    """The shipped profile with one value changed, or removed if it is ``...``."""
    data = content()
    *parents, last = path.split("/")
    place = data
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return data


NUMBERS = [
    "channel_granularity",
    "compute/by_bits/W8A8/peak_gmac_per_s",
    "compute/by_bits/W8A8/channel_block",
    "memory/bandwidth_gb_per_s",
    "kernels/network_overhead_us",
    "kernels/floor_us",
    "kernels/bandwidth_fraction",
    "kernels/unhidden_fraction",
    "kernels/by_kind/conv/W8A8/compute_efficiency",
    "energy/baseline_w",
    "energy/active_pj_per_mac/W8A8",
    "energy/active_pj_per_byte",
    "interval/latency_sigma_log",
    "interval/energy_sigma_log",
]


@pytest.mark.parametrize("path", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 0, "fast", None, True, ...])
def test_profile_when_a_number_is_wrong(path: str, value: object) -> None:
    with pytest.raises(ValidationError):
        HardwareProfile.model_validate(tampered(path, value))


@pytest.mark.parametrize(
    "path",
    ["kernels/by_kind/conv/W8A8/compute_efficiency", "kernels/bandwidth_fraction"],
)
def test_profile_when_a_fraction_is_above_one(path: str) -> None:
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        HardwareProfile.model_validate(tampered(path, 1.01))


@pytest.mark.parametrize(
    "path",
    ["name", "runtime", "power_mode", "energy", "interval", "memory/provenance", "evidence"],
)
def test_profile_when_a_key_is_missing(path: str) -> None:
    with pytest.raises(ValidationError, match="Field required"):
        HardwareProfile.model_validate(tampered(path, ...))


def test_profile_when_provenance_is_incomplete() -> None:
    for key in ("source", "reference", "date"):
        with pytest.raises(ValidationError, match=key):
            HardwareProfile.model_validate(tampered(f"kernels/provenance/{key}", ...))
    with pytest.raises(ValidationError, match="reference"):
        HardwareProfile.model_validate(tampered("kernels/provenance/reference", " "))
    with pytest.raises(ValidationError, match="'measured', 'derived'"):
        HardwareProfile.model_validate(tampered("kernels/provenance/source", "guessed"))


def test_profile_when_a_kind_is_missing() -> None:
    with pytest.raises(ValidationError, match="lacks softmax; a kernel without a rate"):
        HardwareProfile.model_validate(tampered("kernels/by_kind/softmax", ...))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({}, "give compute_efficiency, or runs_as"),
        ({"compute_efficiency": 0.1, "runs_as": "W16A16"}, "give compute_efficiency, or runs_as"),
        ({"compute_efficiency": 0.1, "slowdown": 2.0}, "slowdown goes with runs_as"),
        ({"runs_as": "W16A16", "slowdown": 0.5}, "greater than or equal to 1"),
        ({"runs_as": "W4A8"}, "conv.W8A8 runs as W4A8, which has no compute_efficiency there"),
        ({"runs_as": "W8A8"}, "conv.W8A8 runs as W8A8, which has no compute_efficiency there"),
    ],
)
def test_profile_when_a_rate_is_contradictory(cell: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HardwareProfile.model_validate(tampered("kernels/by_kind/conv/W8A8", cell))


def test_profile_when_bits_are_unreadable() -> None:
    with pytest.raises(ValidationError, match="'int8' is not of the form W8A8"):
        HardwareProfile.model_validate(
            tampered("kernels/by_kind/conv/int8", {"compute_efficiency": 1})
        )


def test_profile_when_tables_disagree() -> None:
    with pytest.raises(ValidationError, match=re.escape("by_bits has no peak for it")):
        HardwareProfile.model_validate(tampered("compute/by_bits/W8A8", ...))
    with pytest.raises(ValidationError, match="active_pj_per_mac lacks it"):
        HardwareProfile.model_validate(tampered("energy/active_pj_per_mac/W16A16", ...))
    with pytest.raises(ValidationError, match="its own alias"):
        HardwareProfile.model_validate(tampered("aliases", ["jetson-orin-nano"]))


def test_profile_when_energy_has_no_evidence() -> None:
    assert HardwareProfile.model_validate(tampered("energy", None)).energy is None


def test_profile_when_schema_is_newer() -> None:
    data = tampered("schema_version", SCHEMA_VERSION + 1) | {"invented_later": 3}
    with pytest.raises(ValidationError, match="update hwsearch") as caught:
        HardwareProfile.model_validate(data)
    assert caught.value.error_count() == 1, "nothing else is known of a newer file"


def test_file_when_it_has_several_mistakes(tmp_path: Path) -> None:
    text = ORIN.read_text(encoding="utf-8")
    text = text.replace("bandwidth_gb_per_s: 68", "bandwidth_gb_per_s: .nan")
    text = text.replace("floor_us: 12", "floor_us: -12").replace("\nsummary:", "\nsumary:")
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FileModelError) as caught:
        read_model(path, HardwareProfile)
    lines = text.splitlines()
    message = str(caught.value)
    for key, problem in (
        ("  bandwidth_gb_per_s:", "finite"),
        ("  floor_us:", "greater than 0"),
        ("sumary:", "unknown key"),
    ):
        line = next(n for n, found in enumerate(lines, 1) if found.startswith(key))
        assert re.search(rf"bad\.yaml:{line}: .*{problem}", message), message
    assert "summary: missing" in message
    assert len(message.splitlines()) == 4


def test_legal_bits_when_widest_comes_first() -> None:
    orin, nano = load_profile("jetson-orin-nano"), load_profile("jetson-nano")
    assert orin.legal_bits(KernelKind.CONV) == (FP32, FP16, INT8)
    assert orin.legal_bits(KernelKind.SOFTMAX) == (FP32, FP16)
    assert orin.legal_bits(KernelKind.COPY) == (FP32, FP16, INT8)
    assert nano.legal_bits(KernelKind.CONV) == (FP32, FP16)


def test_check_bits_when_legal() -> None:
    load_profile("jetson-nano").check_bits((16, 32), (16, 32))
    load_profile("jetson-orin-nano").check_bits([8], {8, 16})


@pytest.mark.parametrize(
    ("name", "weights", "activations", "message"),
    [
        (
            "jetson-nano",
            (8,),
            (8,),
            "jetson-nano runs fp32 and fp16; int8 is slower there. "
            "Pick widths from 16 and 32, or another target",
        ),
        (
            "jetson-orin-nano",
            (4, 8),
            (8, 16),
            "jetson-orin-nano runs fp32, fp16 and int8; int4 has no kernels there. "
            "Pick widths from 8, 16 and 32, or another target",
        ),
        (
            "jetson-orin-nano",
            (8,),
            (16, 32),
            "jetson-orin-nano runs fp32, fp16 and int8; no layer has weights of 8 bits with "
            "activations of 16 or 32 bits there. Pick widths from 8, 16 and 32, or another target",
        ),
    ],
)
def test_check_bits_when_refused(
    name: str, weights: tuple[int, ...], activations: tuple[int, ...], message: str
) -> None:
    with pytest.raises(TargetError) as caught:
        load_profile(name).check_bits(weights, activations)
    assert str(caught.value) == message


def test_check_bits_when_nothing_is_asked() -> None:
    with pytest.raises(TargetError, match="no widths were asked for"):
        load_profile("jetson-orin-nano").check_bits((), ())


def test_hash_when_content_is_equal() -> None:
    data = content()
    shuffled = dict(reversed(copy.deepcopy(data).items()))
    shuffled["compute"]["by_bits"] = dict(reversed(data["compute"]["by_bits"].items()))
    first, second = HardwareProfile.model_validate(data), HardwareProfile.model_validate(shuffled)
    assert first.profile_hash == second.profile_hash
    dumped = first.model_dump(mode="json")
    canonical = json.dumps(dumped, sort_keys=True, separators=(",", ":"))
    assert first.profile_hash == sha256(canonical.encode()).hexdigest()
    assert HardwareProfile.model_validate(dumped).profile_hash == first.profile_hash


@pytest.mark.parametrize("path", NUMBERS)
def test_hash_when_a_number_changes(path: str) -> None:
    data = content()
    *parents, last = path.split("/")
    place = data
    for key in parents:
        place = place[key]
    place[last] = place[last] + 1 if isinstance(place[last], int) else place[last] * 0.99
    assert HardwareProfile.model_validate(data).profile_hash != load_profile("jetson").profile_hash
