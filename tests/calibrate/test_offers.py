from datetime import date

import pytest
from calibrate_fixtures import as_predicted, bare_host, small_pool

from hwsearch.bits import FP32, INT8
from hwsearch.calibrate.offers import Speed, offer, speeds
from hwsearch.hardware.file_model import Provenance
from hwsearch.hardware.kernels import KernelKind
from hwsearch.hardware.learned.fit import fit_profile
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile

PROVENANCE = Provenance(source="measured", reference="a test", date=date(2026, 11, 27))


def fusing_host() -> HardwareProfile:
    """A host whose runtime fuses conversions; its depthwise int8 is priced and not offered."""
    content = bare_host().model_dump(mode="json")
    content["kernels"]["fuses_clips_only"] = False
    slow = {"runs_as": "W32A32", "slowdown": 2.5}
    content["kernels"]["by_kind"]["depthwise"]["W8A8"] = slow
    return HardwareProfile.model_validate(content)


def speed(kind: KernelKind, time_ratio: float) -> Speed:
    return Speed(kind=kind, bits=INT8, time_ratio=time_ratio, kernels=9)


def speeds_of(measurements: list[Measurement]) -> tuple[Speed, ...]:
    profile = fit_profile(fusing_host(), measurements, provenance=PROVENANCE)
    return speeds(profile, measurements)


def reached(profile: HardwareProfile, kind: KernelKind) -> float:
    """How many times as fast int8 is as fp32, by the rates of a profile."""
    rates, peaks = profile.kernels.by_kind[kind], profile.compute.by_bits
    wide, narrow = rates[FP32].compute_efficiency, rates[INT8].compute_efficiency
    assert wide is not None
    assert narrow is not None
    return narrow * peaks[INT8].peak_gmac_per_s / (wide * peaks[FP32].peak_gmac_per_s)


def with_grouped_int8_slow(times: float) -> list[Measurement]:
    """A machine whose grouped int8 kernels take so many times what the profile says."""
    predictor = CostPredictor(fusing_host())
    found = []
    for net in small_pool():
        latency_ms = predictor.predict(net.network).latency_ms.value
        latency_ms += (times - 1) * sum(
            cost.latency_ms
            for cost in predictor.kernels(net.network)
            if cost.kind is KernelKind.GROUPED and cost.bits == INT8
        )
        found.append(Measurement(network=net.network, latency_ms=latency_ms))
    return found


def test_speeds_are_those_of_the_machine() -> None:
    found = {one.kind: one for one in speeds_of(as_predicted(fusing_host(), small_pool()))}
    assert {KernelKind.CONV, KernelKind.DEPTHWISE, KernelKind.GROUPED} <= set(found)
    # The host's rates: dense int8 faster, depthwise int8 at 1 / 2.5.
    assert found[KernelKind.CONV].time_ratio < 0.8
    assert found[KernelKind.DEPTHWISE].time_ratio == pytest.approx(2.5, rel=0.1)
    assert all(one.bits == INT8 and one.kernels >= 5 for one in found.values())


def test_a_kind_that_is_slower_than_thought_is_offered_no_more() -> None:
    before = fusing_host()
    assert INT8 in before.legal_bits(KernelKind.GROUPED)
    found = speeds_of(with_grouped_int8_slow(6.0))
    (slow,) = (one for one in found if one.kind is KernelKind.GROUPED)
    assert slow.time_ratio > 1
    after = offer(before, found, provenance=PROVENANCE)
    assert after.legal_bits(KernelKind.GROUPED) == (FP32,)
    rate = after.kernels.by_kind[KernelKind.GROUPED][INT8]
    assert rate.runs_as == FP32
    assert rate.slowdown == pytest.approx(slow.time_ratio, abs=0.01)


def test_a_kind_that_pays_is_offered_at_its_measured_ratio() -> None:
    before = fusing_host()
    assert INT8 not in before.legal_bits(KernelKind.DEPTHWISE)
    after = offer(before, [speed(KernelKind.DEPTHWISE, 0.5)], provenance=PROVENANCE)
    assert reached(after, KernelKind.DEPTHWISE) == pytest.approx(2.0, rel=0.01)


def test_a_slower_kind_is_offered_where_conversions_have_a_price() -> None:
    before = bare_host()
    found = [speed(KernelKind.DEPTHWISE, 3.0), speed(KernelKind.CONV, 0.4)]
    after = offer(before, found, provenance=PROVENANCE)
    assert reached(after, KernelKind.DEPTHWISE) == pytest.approx(1 / 3.0, rel=0.01)
    assert "may still spare conversions" in after.kernels.provenance.reference
    # What is offered already is left alone, slower or not.
    same = offer(before, found, provenance=PROVENANCE, only_changes=True)
    assert same.kernels.by_kind == before.kernels.by_kind


def test_only_changes_leaves_alone_what_is_offered_rightly() -> None:
    before = fusing_host()
    found = [speed(KernelKind.CONV, 0.4), speed(KernelKind.DEPTHWISE, 2.0)]
    after = offer(before, found, provenance=PROVENANCE, only_changes=True)
    assert after.kernels.by_kind == before.kernels.by_kind
    changed = [speed(KernelKind.CONV, 1.2)]
    after = offer(before, changed, provenance=PROVENANCE, only_changes=True)
    assert after.legal_bits(KernelKind.CONV) == (FP32,)


def test_a_ratio_beyond_the_peak_is_bounded() -> None:
    after = offer(fusing_host(), [speed(KernelKind.CONV, 0.01)], provenance=PROVENANCE)
    assert after.kernels.by_kind[KernelKind.CONV][INT8].compute_efficiency == 1.0
