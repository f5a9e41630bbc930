import copy
import math
from typing import Any

import pytest
from learned_fixtures import coefficients, leaf, small_fit
from pydantic import ValidationError

from hwsearch.hardware.learned.model import (
    Coefficients,
    Fit,
    KernelRange,
    fit_digest,
)
from hwsearch.hardware.learned.trees import FEATURES
from hwsearch.hardware.profile import HardwareProfile

# -- coefficients ---------------------------------------------------------------------------------


def test_coefficients_when_a_tree_splits_by_a_feature_that_there_is_not() -> None:
    beyond = f"{len(FEATURES)}:0.5 1.0 2.0"
    message = rf"residual\.0\.feature\n.*splits by feature {len(FEATURES)}; there are"
    with pytest.raises(ValidationError, match=message):
        coefficients(residual=(beyond,), residual_noise_log=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"effects": {}}, "at least 1"),
        ({"effects": {"all": (0.0, 0.0)}}, "the same number of samples, 2 or more"),
        ({"effects": {"all": (0.0,) * 3, "compute": (0.0,) * 4}}, "the same number of samples"),
        ({"effects": {"all": (0.0, math.nan, 0.0)}}, "finite"),
        ({"effects": {"all": (math.inf, 0.0, 0.0)}}, "finite"),
        ({"effects": {"all": ("fast", 0.0, 0.0)}}, "valid number"),
        ({"effects": {"rm -rf": (0.0, 0.0, 0.0)}}, "pattern"),
        ({"measured_range": (2.0, 1.0)}, "measured_range 2.0 to 1.0 is out of order"),
        ({"measured_range": (0.0, 1.0)}, "greater than 0"),
        ({"measured_range": (1.0, math.inf)}, "finite"),
        ({"noise_log": 0.0}, "greater than 0"),
        ({"noise_log": -0.1}, "greater than 0"),
        ({"noise_log": math.nan}, "finite"),
        ({"prior_scale": 0.0}, "greater than 0"),
        ({"largest_spread_log": math.inf}, "finite"),
        ({"residual": (leaf(0.1),)}, "residual and residual_noise_log go together"),
        ({"residual_noise_log": 0.1}, "residual and residual_noise_log go together"),
        ({"speed": 1.0}, "Extra inputs"),
    ],
)
def test_coefficients_when_something_is_wrong(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        coefficients(**changes)


@pytest.mark.parametrize(
    ("macs", "elements", "message"),
    [
        ((5.0, 1.0), (1.0, 2.0), "macs 5.0 to 1.0 are out of order"),
        ((1.0, 5.0), (2.0, 1.0), "elements 2.0 to 1.0 are out of order"),
        ((0.0, math.inf), (1.0, 2.0), "finite"),
        ((0.0, math.nan), (1.0, 2.0), "finite"),
        ((-1.0, 2.0), (1.0, 2.0), "greater than or equal to 0"),
    ],
)
def test_kernel_range_when_out_of_order_or_infinite(
    macs: tuple[float, float], elements: tuple[float, float], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        KernelRange(macs=macs, elements=elements)


def test_digest_when_content_is_equal_or_not() -> None:
    effects = {"all": (0.1, 0.2, 0.3), "compute": (0.0, 0.0, 0.0)}
    first = coefficients(effects=effects)
    second = coefficients(effects=dict(reversed(effects.items())))
    assert fit_digest(first, 1.0) == fit_digest(second, 1.0)
    again = Coefficients.model_validate(first.model_dump(mode="json"))
    assert fit_digest(again, 1.0) == fit_digest(first, 1.0)
    others = [
        coefficients(effects=effects | {"all": (0.1, 0.2, 0.30001)}),
        coefficients(effects=effects | {"compute/conv": (0.0, 0.0, 0.0)}),
        coefficients(effects=effects, noise_log=0.051),
        coefficients(effects=effects, residual=(leaf(0.1),), residual_noise_log=0.05),
    ]
    digests = {fit_digest(one, 1.0) for one in (first, *others)} | {fit_digest(first, 1.1)}
    assert len(digests) == 2 + len(others)


# -- a stored fit that was changed ----------------------------------------------------------------

DIGEST = r"not as they were written \(the digest differs\); fit the profile again"


def dumped() -> dict[str, Any]:
    return copy.deepcopy(small_fit().model_dump(mode="json"))


@pytest.mark.parametrize("quantity", ["latency", "energy"])
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("coefficients/effects/all/1", 0.123, DIGEST),
        ("coefficients/effects/compute~1conv", ..., DIGEST),
        ("coefficients/kernel_ranges/conv.spatial", ..., DIGEST),
        ("coefficients/residual", ["0:0.5 1.0"], "lacks 1 of its leaves"),
        ("coefficients/prior_scale", ..., "Field required"),
        ("digest", "0123456789abcdef", DIGEST),
        ("interval_factor", 0.5, DIGEST),
        ("interval_factor", math.nan, "finite"),
        ("interval_factor", ..., "Field required"),
        ("networks", 0, "greater than or equal to 1"),
        ("provenance", ..., "Field required"),
        ("cross_validation/mape_percent", -1.0, "cross_validation.mape_percent"),
        ("cross_validation/rmspe_percent", math.inf, "cross_validation.rmspe_percent"),
        ("cross_validation/spearman", 1.1, "cross_validation.spearman"),
        ("cross_validation/coverage_percent", 101.0, "cross_validation.coverage_percent"),
        ("cross_validation/networks", 0, "cross_validation.networks"),
        ("cross_validation/split", " ", "cross_validation.split"),
    ],
)
def test_fit_when_it_was_tampered_with(
    quantity: str, path: str, value: object, message: str
) -> None:
    data = dumped()
    *parents, last = (part.replace("~1", "/") for part in path.split("/"))
    place: Any = data["fit"][quantity]
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    with pytest.raises(ValidationError, match=message):
        HardwareProfile.model_validate(data)


def test_fit_when_a_quantity_is_missing() -> None:
    data = dumped()
    without = data["fit"] | {"latency": None}
    with pytest.raises(ValidationError, match="latency"):
        Fit.model_validate(without)
    with pytest.raises(ValidationError, match="noise_floor_percent"):
        Fit.model_validate(data["fit"] | {"noise_floor_percent": -1.0})
    with pytest.raises(ValidationError, match=r"fit\.energy needs the energy section"):
        HardwareProfile.model_validate(data | {"energy": None})
    data["fit"]["energy"] = None
    assert HardwareProfile.model_validate(data | {"energy": None}).energy is None


def test_fit_when_read_back_then_equal() -> None:
    again = HardwareProfile.model_validate(dumped())
    assert again.fit == small_fit().fit
    assert again.profile_hash == small_fit().profile_hash
    bare = HardwareProfile.model_validate(dumped() | {"fit": None})
    assert bare.profile_hash != small_fit().profile_hash
