import dataclasses
from datetime import date

import pytest
from calibrate_fixtures import as_predicted, bare_host, small_pool

from hwsearch.calibrate.fitting import Fitted, Identity, fit_target
from hwsearch.errors import TargetError
from hwsearch.hardware.file_model import Provenance
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile

PROVENANCE = Provenance(source="measured", reference="a test", date=date(2026, 11, 27))
IDENTITY = Identity(
    name="bench",
    summary="a bench",
    device="a processor",
    runtime="ONNX Runtime",
    runtime_version="9.9",
    power_mode="2 threads",
)


def fit(measurements: list[Measurement], base: HardwareProfile | None = None) -> Fitted:
    return fit_target(
        base or bare_host(), IDENTITY, measurements, provenance=PROVENANCE, noise_floor_percent=1.5
    )


def test_the_profile_says_what_was_measured() -> None:
    profile = fit(as_predicted(bare_host(), small_pool(), slower=2.0)).profile
    assert {field: getattr(profile, field) for field in dataclasses.asdict(IDENTITY)} == (
        dataclasses.asdict(IDENTITY)
    )
    assert profile.evidence == "measured"
    assert profile.aliases == ()
    assert profile.fit is not None
    assert profile.fit.noise_floor_percent == 1.5
    assert profile.fit.latency.networks == len(small_pool())
    assert profile.fit.latency.provenance == PROVENANCE


def test_a_machine_twice_as_slow_is_predicted_twice_as_slow() -> None:
    profile = fit(as_predicted(bare_host(), small_pool(), slower=2.0)).profile
    networks = [net.network for net in small_pool()]
    before = CostPredictor(bare_host()).predict_all(networks)
    after = CostPredictor(profile).predict_all(networks)
    ratios = [
        new.latency_ms.value / old.latency_ms.value for new, old in zip(after, before, strict=True)
    ]
    assert sum(ratios) / len(ratios) == pytest.approx(2.0, rel=0.05)


def test_a_fitted_base_helps_where_little_was_measured() -> None:
    slow = as_predicted(bare_host(), small_pool(), slower=3.0)
    relative = fit(slow).profile
    few, rest = slow[:6], slow[6:]

    def error(profile: HardwareProfile) -> float:
        costs = CostPredictor(profile).predict_all([one.network for one in rest])
        return sum(
            abs(cost.latency_ms.value / one.latency_ms - 1)
            for cost, one in zip(costs, rest, strict=True)
        ) / len(rest)

    assert error(fit(few, base=relative).profile) < error(fit(few).profile)


def test_too_few_nets_are_refused() -> None:
    with pytest.raises(TargetError, match="4 measured networks are too few to fit bench"):
        fit(as_predicted(bare_host(), small_pool())[:4])


def test_energy_without_a_section_for_it_is_refused() -> None:
    measurements = [
        dataclasses.replace(one, energy_mj=2.0) for one in as_predicted(bare_host(), small_pool())
    ]
    with pytest.raises(TargetError, match="bench has no energy section, so energies cannot be"):
        fit(measurements)
