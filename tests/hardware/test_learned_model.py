import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
from learned_fixtures import coefficients, leaf, small_fit
from pydantic import ValidationError

from hwsearch.hardware.learned.model import (
    Coefficients,
    Fit,
    FittedModel,
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
    ("macs", "message"), [((-1.0, 2.0), "greater than or equal to 0"), ((0.0, math.nan), "finite")]
)
def test_kernel_range_when_numbers_are_wrong(macs: tuple[float, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        KernelRange(macs=macs, elements=(1.0, 2.0))


@pytest.mark.parametrize(
    ("macs", "elements", "message"),
    [
        ((5.0, 1.0), (1.0, 2.0), "macs 5.0 to 1.0 are out of order"),
        ((1.0, 5.0), (2.0, 1.0), "elements 2.0 to 1.0 are out of order"),
        ((0.0, math.inf), (1.0, 2.0), "finite"),
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


def dumped() -> dict[str, Any]:
    return copy.deepcopy(small_fit().model_dump(mode="json"))


def _first_effect(data: dict[str, Any]) -> list[float]:
    effects: dict[str, list[float]] = data["effects"]
    return effects[next(iter(effects))]


def _nan(data: dict[str, Any]) -> None:
    _first_effect(data)[0] = math.nan


def _text(data: dict[str, Any]) -> None:
    _first_effect(data)[0] = "0.1"  # type: ignore[call-overload]


def _one_number(data: dict[str, Any]) -> None:
    _first_effect(data)[1] += 1e-4


def _sign(data: dict[str, Any]) -> None:
    _first_effect(data)[0] *= -1


def _missing_effect(data: dict[str, Any]) -> None:
    del data["effects"]["compute/conv"]


def _another_effect(data: dict[str, Any]) -> None:
    data["effects"]["compute/new"] = [0.0] * len(_first_effect(data))


def _missing_sample(data: dict[str, Any]) -> None:
    _first_effect(data).pop()


def _every_last_sample(data: dict[str, Any]) -> None:
    for values in data["effects"].values():
        values.pop()


def _noise(data: dict[str, Any]) -> None:
    data["noise_log"] *= 0.5


def _negative_noise(data: dict[str, Any]) -> None:
    data["noise_log"] *= -1


def _range(data: dict[str, Any]) -> None:
    data["measured_range"][1] *= 10


def _kernel_range(data: dict[str, Any]) -> None:
    data["kernel_ranges"].pop("conv.spatial")


def _lost_key(data: dict[str, Any]) -> None:
    del data["prior_scale"]


def _trees_without_noise(data: dict[str, Any]) -> None:
    data["residual"] = [leaf(0.1).model_dump(mode="json")]


def _trees(data: dict[str, Any]) -> None:
    _trees_without_noise(data)
    data["residual_noise_log"] = 0.05


def _tree_without_a_leaf(data: dict[str, Any]) -> None:
    data["residual"] = ["0:0.5 1.0"]
    data["residual_noise_log"] = 0.05


DIGEST = r"not as they were written \(the digest differs\); fit the profile again"


@pytest.mark.parametrize("quantity", ["latency", "energy"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_nan, "finite"),
        (_text, "valid number"),
        (_one_number, DIGEST),
        (_sign, DIGEST),
        (_missing_effect, DIGEST),
        (_another_effect, DIGEST),
        (_missing_sample, "the same number of samples"),
        (_every_last_sample, DIGEST),
        (_noise, DIGEST),
        (_negative_noise, "greater than 0"),
        (_range, DIGEST),
        (_kernel_range, DIGEST),
        (_lost_key, "Field required"),
        (_trees_without_noise, "go together"),
        (_trees, DIGEST),
        (_tree_without_a_leaf, "lacks 1 of its leaves"),
    ],
)
def test_fit_when_it_was_tampered_with(
    quantity: str, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    data = dumped()
    change(data["fit"][quantity]["coefficients"])
    with pytest.raises(ValidationError, match=message):
        HardwareProfile.model_validate(data)


@pytest.mark.parametrize(
    "path",
    ["digest", "coefficients", "provenance", "networks", "cross_validation", "interval_factor"],
)
def test_fit_when_a_part_is_missing(path: str) -> None:
    data = dumped()["fit"]["latency"]
    del data[path]
    with pytest.raises(ValidationError, match="Field required"):
        FittedModel.model_validate(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("digest", "0123456789abcdef", DIGEST),
        ("interval_factor", 0.0, "greater than 0"),
        ("interval_factor", math.nan, "finite"),
        ("networks", 0, "greater than or equal to 1"),
    ],
)
def test_fit_when_a_number_is_wrong(path: str, value: object, message: str) -> None:
    data = dumped()["fit"]["latency"] | {path: value}
    with pytest.raises(ValidationError, match=message):
        FittedModel.model_validate(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mape_percent", -1.0),
        ("mape_percent", math.nan),
        ("rmspe_percent", math.inf),
        ("spearman", 1.1),
        ("spearman", math.nan),
        ("coverage_percent", 101.0),
        ("networks", 0),
        ("split", " "),
    ],
)
def test_cross_validation_when_a_number_is_impossible(key: str, value: object) -> None:
    data = dumped()["fit"]["latency"]
    data["cross_validation"][key] = value
    with pytest.raises(ValidationError, match=f"cross_validation.{key}"):
        FittedModel.model_validate(data)


def test_fit_when_its_interval_factor_was_changed() -> None:
    data = dumped()["fit"]["latency"]
    data["interval_factor"] *= 0.1
    with pytest.raises(ValidationError, match=DIGEST):
        FittedModel.model_validate(data)


def test_fit_when_energy_has_no_section_that_says_what_it_is() -> None:
    data = dumped() | {"energy": None}
    with pytest.raises(ValidationError, match=r"fit\.energy needs the energy section"):
        HardwareProfile.model_validate(data)
    data["fit"]["energy"] = None
    assert HardwareProfile.model_validate(data).energy is None


def test_fit_when_latency_is_missing() -> None:
    data = dumped()["fit"]
    with pytest.raises(ValidationError, match="latency"):
        Fit.model_validate(data | {"latency": None})
    with pytest.raises(ValidationError, match="noise_floor_percent"):
        Fit.model_validate(data | {"noise_floor_percent": -1.0})


def test_fit_when_read_back_then_equal() -> None:
    again = HardwareProfile.model_validate(dumped())
    assert again.fit == small_fit().fit
    assert again.profile_hash == small_fit().profile_hash


def test_hash_when_a_profile_has_a_fit() -> None:
    data = dumped()
    assert HardwareProfile.model_validate(data | {"fit": None}).profile_hash != (
        small_fit().profile_hash
    )


def test_fit_when_assigned_to() -> None:
    fit = small_fit().fit
    assert fit is not None
    with pytest.raises(ValidationError, match="frozen"):
        fit.latency = fit.latency  # type: ignore[misc]
