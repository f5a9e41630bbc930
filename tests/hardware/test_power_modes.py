import math
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_fixtures import random_networks
from pydantic import ValidationError
from test_predictor import profile

from hwsearch.bits import FP16, FP32, INT8
from hwsearch.errors import TargetError
from hwsearch.hardware.power_modes import in_power_mode
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import list_profiles, load_profile

NETWORKS = random_networks(20, seed=1, bits=(FP32, FP16, INT8))
PROVENANCE = {"source": "declared", "reference": "made up for tests", "date": "2024-01-02"}
WITH_MODES = [one for one in list_profiles() if one.power_modes is not None]
ALL_MODES = [
    (one.name, mode) for one in WITH_MODES if one.power_modes for mode in one.power_modes.by_name
]


def with_modes(**modes: Mapping[str, object]) -> HardwareProfile:
    """The device of round numbers with some modes; shares that are not given are 1."""
    whole = {"summary": "made up", "clock_share": 1.0, "unit_share": 1.0, "memory_share": 1.0}
    by_name = {name: whole | {"baseline_w": 5.0} | dict(mode) for name, mode in modes.items()}
    return profile(
        power_modes={"provenance": PROVENANCE, "scaling_sigma_log": 0.3, "by_name": by_name}
    )


def latencies_ms(target: HardwareProfile) -> list[float]:
    return [cost.latency_ms.value for cost in CostPredictor(target).predict_all(NETWORKS)]


def test_mode_when_scaled_by_hand() -> None:
    base = with_modes(slow={"clock_share": 0.5, "unit_share": 0.25, "memory_share": 0.8})
    slow = in_power_mode(base, "slow")
    for bits, rate in base.compute.by_bits.items():
        assert slow.compute.by_bits[bits].peak_gmac_per_s == rate.peak_gmac_per_s / 8
        assert slow.compute.by_bits[bits].channel_block == rate.channel_block
    assert slow.memory.bandwidth_gb_per_s == pytest.approx(0.8 * base.memory.bandwidth_gb_per_s)
    assert slow.kernels.floor_us == 2 * base.kernels.floor_us
    assert slow.kernels.network_overhead_us == 2 * base.kernels.network_overhead_us
    assert slow.interval.latency_sigma_log == pytest.approx(
        math.hypot(base.interval.latency_sigma_log, 0.3)
    )
    assert (slow.name, slow.power_mode) == ("round@slow", "slow (made up)")
    assert slow.power_modes is None


def test_mode_when_its_energy_is_scaled() -> None:
    base = with_modes(slow={"clock_share": 0.5, "baseline_w": 2.0, "active_share": 0.4})
    energy = in_power_mode(base, "slow").energy
    assert base.energy is not None
    assert energy is not None
    assert energy.baseline_w == 2.0
    for bits, pj in base.energy.active_pj_per_mac.items():
        assert energy.active_pj_per_mac[bits] == pytest.approx(0.4 * pj)
    assert energy.active_pj_per_byte == base.energy.active_pj_per_byte


def test_mode_when_it_is_that_of_the_profile_prices_as_the_profile() -> None:
    base = with_modes(own={})
    own = in_power_mode(base, "own")
    assert latencies_ms(own) == latencies_ms(base)
    assert own.interval == base.interval
    assert own.evidence == base.evidence


def test_mode_when_unknown_names_those_that_there_are() -> None:
    base = with_modes(slow={}, fast={})
    with pytest.raises(TargetError) as caught:
        in_power_mode(base, "slo")
    message = str(caught.value)
    assert message == (
        "round has no power mode 'slo'. Did you mean 'slow'? There are round@slow, round@fast"
    )


def test_mode_when_the_profile_has_none_says_which_is_its_own() -> None:
    base = profile(power_mode="15 W")
    with pytest.raises(TargetError, match=r"no power mode '7W'\. It has none but its own: 15 W"):
        in_power_mode(base, "7W")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"baseline_w": None}, "power mode slow needs a baseline_w"),
        ({"baseline_w": 5.5}, "power mode slow has a higher baseline_w than"),
        ({"clock_share": 1.1}, "less than or equal to 1"),
        ({"unit_share": 0.0}, "greater than 0"),
        ({"surplus": 1}, "Extra inputs are not permitted"),
    ],
)
def test_mode_when_it_cannot_be_is_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        with_modes(slow=changes)


def test_modes_when_the_profile_has_no_energy_need_no_baseline() -> None:
    base = with_modes(slow={"clock_share": 0.5})
    bare = base.model_copy(update={"energy": None})
    scaled = in_power_mode(HardwareProfile.model_validate(bare.model_dump(mode="json")), "slow")
    assert scaled.energy is None


@pytest.mark.parametrize("name", ["15 W", "@15W", "", "15W\n"])
def test_mode_when_its_name_cannot_be_typed_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="should match pattern"):
        with_modes(**{name: {}})


@settings(max_examples=30, deadline=None)
@given(
    first=st.tuples(*[st.floats(0.05, 1.0)] * 3),
    second=st.tuples(*[st.floats(0.05, 1.0)] * 3),
)
def test_mode_when_no_clock_is_higher_is_never_faster(
    first: tuple[float, ...], second: tuple[float, ...]
) -> None:
    names = ("clock_share", "unit_share", "memory_share")
    lower = [min(pair) for pair in zip(first, second, strict=True)]
    base = with_modes(
        high=dict(zip(names, first, strict=True)), low=dict(zip(names, lower, strict=True))
    )
    high, low = (latencies_ms(in_power_mode(base, name)) for name in ("high", "low"))
    for faster, slower, own in zip(high, low, latencies_ms(base), strict=True):
        assert slower >= faster * (1 - 1e-12)
        assert faster >= own * (1 - 1e-12)


def test_shipped_when_listed_then_boards_have_modes() -> None:
    names = {one.name for one in WITH_MODES}
    assert names >= {"jetson-agx-orin", "jetson-orin-nano", "jetson-orin-nx", "jetson-xavier-nx"}
    assert {("jetson-agx-orin", mode) for mode in ("15W", "30W", "50W")} <= set(ALL_MODES)


@pytest.mark.parametrize(("name", "mode"), ALL_MODES)
def test_shipped_mode_when_it_prices_networks(name: str, mode: str) -> None:
    base, scaled = load_profile(name), load_profile(f"{name}@{mode}")
    before = CostPredictor(base).predict_all(NETWORKS)
    for cost, own in zip(CostPredictor(scaled).predict_all(NETWORKS), before, strict=True):
        assert cost.latency_ms.value >= own.latency_ms.value * (1 - 1e-9)
        assert cost.latency_ms.sigma_log >= own.latency_ms.sigma_log
        assert cost.energy_mj is not None
        watts = cost.energy_mj.value / cost.latency_ms.value
        # A board draws a few watts besides the module whose budget names the mode.
        assert 2 < watts < {"7W": 11, "10W": 15, "15W": 21}.get(mode, 60)


def test_shipped_mode_when_the_profile_has_a_fit_scales_it() -> None:
    base = load_profile("jetson-orin-nx")
    scaled = load_profile("jetson-orin-nx@15W")
    assert base.fit is not None
    assert scaled.fit is not None
    assert scaled.fit.latency.coefficients.effects == base.fit.latency.coefficients.effects
    assert scaled.fit.latency.coefficients.noise_log > base.fit.latency.coefficients.noise_log
    assert scaled.fit.latency.provenance.source == "derived"
    assert scaled.fit.latency.provenance.reference.startswith("Scaled from jetson-orin-nx: ")
    assert "in the mode MAXN" in scaled.fit.latency.cross_validation.split
    assert scaled.evidence == "derived"
