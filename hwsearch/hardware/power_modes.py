"""Power modes of a device, each a profile of its own: ``jetson-agx-orin@15W``.

A mode is a number of compute units and three clocks. Compute slows with units and clock, floors
and overhead with the clock, memory with its own clock. Nobody measured the modes: all of it is
scaled from the mode that the profile describes, so intervals are wider and evidence is no more than
"derived".
"""

import math
from typing import Any, Final

from hwsearch.errors import TargetError
from hwsearch.files import nearest
from hwsearch.hardware.learned.model import Fit, FittedModel, fit_digest
from hwsearch.hardware.profile import HardwareProfile, PowerMode
from hwsearch.hardware.widen import widened

#: Between the name of a profile and that of a power mode.
SEPARATOR: Final = "@"


def in_power_mode(profile: HardwareProfile, name: str) -> HardwareProfile:
    """The profile of a device in another power mode.

    Args:
        profile: of the device, with ``power_modes``.
        name: of one of these, such as "15W".

    Returns:
        A profile without power modes and aliases, named ``profile@name``. In the mode of the
        profile itself it prices as the profile does.

    Raises:
        TargetError: the profile has no such mode; the message names those that it has.
    """
    modes = {} if profile.power_modes is None else profile.power_modes.by_name
    if name not in modes:
        has = ", ".join(f"{profile.name}{SEPARATOR}{one}" for one in modes)
        raise TargetError(
            f"{profile.name} has no power mode '{name}'.{nearest(name, list(modes))} "
            + (f"There are {has}" if has else f"It has none but its own: {profile.power_mode}")
        )
    mode = modes[name]
    slower = min(mode.clock_share, mode.unit_share, mode.memory_share) < 1
    assert profile.power_modes is not None
    more_sigma_log = profile.power_modes.scaling_sigma_log if slower else 0.0
    content = profile.model_dump(mode="json")
    content |= {
        "name": f"{profile.name}{SEPARATOR}{name}",
        "aliases": [],
        "power_mode": f"{name} ({mode.summary})",
        "power_modes": None,
    }
    if slower:
        content["evidence"] = "derived" if profile.evidence == "measured" else profile.evidence
        content["summary"] = f"{profile.summary}; scaled to {name}"
    _scale_rates(content, mode)
    _widen(content["interval"], more_sigma_log)
    if profile.fit is not None:
        fit = _scaled_fit(profile, profile.fit, mode, more_sigma_log)
        content["fit"] = fit.model_dump(mode="json")
    return HardwareProfile.model_validate(content)


def _scale_rates(content: dict[str, Any], mode: PowerMode) -> None:
    """Change the rates of a dumped profile."""
    for rate in content["compute"]["by_bits"].values():
        rate["peak_gmac_per_s"] *= mode.clock_share * mode.unit_share
    content["memory"]["bandwidth_gb_per_s"] *= mode.memory_share
    if content["memory"]["off_chip_gb_per_s"] is not None:
        content["memory"]["off_chip_gb_per_s"] *= mode.memory_share
    for key in ("network_overhead_us", "floor_us"):
        content["kernels"][key] /= mode.clock_share
    energy = content["energy"]
    if energy is not None:
        energy["baseline_w"] = mode.baseline_w
        for bits in energy["active_pj_per_mac"]:
            energy["active_pj_per_mac"][bits] *= mode.active_share


def _widen(interval: dict[str, Any], more_sigma_log: float) -> None:
    for key in ("latency_sigma_log", "energy_sigma_log"):
        interval[key] = math.hypot(interval[key], more_sigma_log)


def _scaled_fit(profile: HardwareProfile, fit: Fit, mode: PowerMode, more_sigma_log: float) -> Fit:
    """The same factors on the scaled rates, less sure of themselves."""
    # A network gets slower by at most this, so the measured range reaches that much further.
    most = 1 / min(mode.clock_share * mode.unit_share, mode.memory_share)
    scaled = {
        "latency": _scaled_model(profile, fit.latency, most, more_sigma_log),
        "energy": fit.energy and _scaled_model(profile, fit.energy, most, more_sigma_log),
    }
    return fit.model_copy(update=scaled)


def _scaled_model(
    profile: HardwareProfile, model: FittedModel, most: float, more_sigma_log: float
) -> FittedModel:
    if not more_sigma_log:
        return model
    model = widened(model, more_sigma_log)
    low, high = model.coefficients.measured_range
    changes: dict[str, object] = {
        "measured_range": (low, high * most),
        # The trees know networks by how long they take in the measured mode.
        "residual": (),
        "residual_noise_log": None,
    }
    coefficients = model.coefficients.model_copy(update=changes)
    checked, provenance = model.cross_validation, model.provenance
    changes = {
        "coefficients": coefficients,
        "digest": fit_digest(coefficients, model.interval_factor),
        "cross_validation": checked.model_copy(
            update={"split": f"{checked.split}, in the mode {profile.power_mode}"}
        ),
        "provenance": provenance.model_copy(
            update={
                "source": "derived" if provenance.source == "measured" else provenance.source,
                "reference": f"Scaled from {profile.name}: {provenance.reference}",
            }
        ),
    }
    return model.model_copy(update=changes)
