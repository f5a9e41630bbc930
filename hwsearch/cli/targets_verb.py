"""``hwsearch targets``: the hardware profiles that a name reaches."""

import json
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from hwsearch.hardware.learned.model import FittedModel
    from hwsearch.hardware.profile import HardwareProfile

#: Probability that the latency stays below the bound that the table shows.
_ONE_SIDED: Final = 0.95


@click.command(name="targets")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List the hardware profiles: aliases, runtimes, legal bits, evidence, errors."""
    from hwsearch.hardware.targets import list_profiles

    profiles = list_profiles()
    if as_json:
        click.echo(json.dumps([_entry(profile) for profile in profiles], indent=1))
        return
    from hwsearch.cli.view import print_table

    print_table(
        "targets",
        ("target", "alias", "runtime", "power mode", "bits", "energy", "evidence", "error"),
        [_row(profile) for profile in profiles],
    )
    click.echo(
        "error: mean error of the latency of networks that the fit had not seen, and how many; "
        f"+: nothing was measured,\nand the latency may be that far above the prediction at "
        f"{100 * _ONE_SIDED:.0f} % one-sided confidence\n"
        "power mode: another one is chosen by its name, as in jetson-agx-orin@15W"
    )


def _entry(profile: "HardwareProfile") -> dict[str, Any]:
    """A profile as JSON; the whole of it is what ``hwsearch profile show`` prints."""
    fit = profile.fit
    return {
        "target": profile.name,
        "aliases": list(profile.aliases),
        "device": profile.device,
        "runtime": f"{profile.runtime} {profile.runtime_version}",
        "power_mode": profile.power_mode,
        "legal_bits": _legal_bits(profile),
        "energy": None if profile.energy is None else profile.energy.boundary,
        "evidence": profile.evidence,
        "latency_sigma_log": profile.interval.latency_sigma_log,
        "latency_error": None if fit is None else _errors(fit.latency),
        "energy_error": None if fit is None or fit.energy is None else _errors(fit.energy),
        "power_modes": _modes(profile),
    }


def _errors(model: "FittedModel") -> dict[str, Any]:
    return model.cross_validation.model_dump(mode="json")


def _row(profile: "HardwareProfile") -> tuple[str, ...]:
    from hwsearch.cli.profile_text import short_bits
    from hwsearch.hardware.kernels import KernelKind

    return (
        profile.name,
        ", ".join(profile.aliases),
        f"{profile.runtime} {_short(profile.runtime_version)}",
        " ".join([_short(profile.power_mode), *_other_modes(profile)]),
        " ".join(short_bits(profile, KernelKind.CONV)),
        "none" if profile.energy is None else profile.energy.boundary,
        profile.evidence,
        _error(profile),
    )


def _error(profile: "HardwareProfile") -> str:
    if profile.fit is not None:
        checked = profile.fit.latency.cross_validation
        return f"{checked.mape_percent:.1f} % ({checked.networks} nets)"
    sigmas = NormalDist().inv_cdf(_ONE_SIDED)
    above = math.exp(sigmas * profile.interval.latency_sigma_log) - 1
    return f"+{100 * above:.0f} %"


def _other_modes(profile: "HardwareProfile") -> list[str]:
    """The modes besides the one that the profile describes, as they follow its name."""
    modes = {} if profile.power_modes is None else profile.power_modes.by_name
    return [
        f"@{name}"
        for name, mode in modes.items()
        if min(mode.clock_share, mode.unit_share, mode.memory_share) < 1
    ]


def _modes(profile: "HardwareProfile") -> list[str]:
    return [] if profile.power_modes is None else list(profile.power_modes.by_name)


def _short(text: str) -> str:
    """What stands before the brackets: of "10.3 (JetPack 6)", a table shows "10.3"."""
    return text.partition(" (")[0]


def _legal_bits(profile: "HardwareProfile") -> list[str]:
    from hwsearch.hardware.kernels import KernelKind
    from hwsearch.hardware.profile import bits_name

    return [bits_name(bits) for bits in profile.legal_bits(KernelKind.CONV)]
