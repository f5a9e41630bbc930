"""``hwsearch targets``: the hardware profiles that a name reaches."""

import json
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from hwsearch.hardware.profile import HardwareProfile

#: Probability that the latency stays below the bound that the table shows.
_ONE_SIDED: Final = 0.95


@click.command(name="targets")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List the hardware profiles: aliases, runtimes, legal bits, evidence."""
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
        "error: how far above the prediction the latency may be, "
        f"at {100 * _ONE_SIDED:.0f} % one-sided confidence"
    )


def _entry(profile: "HardwareProfile") -> dict[str, Any]:
    """A profile as JSON; the whole of it is what ``hwsearch profile show`` prints."""
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
    }


def _row(profile: "HardwareProfile") -> tuple[str, ...]:
    sigmas = NormalDist().inv_cdf(_ONE_SIDED)
    above = math.exp(sigmas * profile.interval.latency_sigma_log) - 1
    return (
        profile.name,
        ", ".join(profile.aliases),
        f"{profile.runtime} {_short(profile.runtime_version)}",
        _short(profile.power_mode),
        " ".join(_legal_bits(profile)),
        "none" if profile.energy is None else profile.energy.boundary,
        profile.evidence,
        f"+{100 * above:.0f} %",
    )


def _short(text: str) -> str:
    """What stands before the brackets: of "10.3 (JetPack 6)", a table shows "10.3"."""
    return text.partition(" (")[0]


def _legal_bits(profile: "HardwareProfile") -> list[str]:
    from hwsearch.hardware.kernels import KernelKind
    from hwsearch.hardware.profile import bits_name

    return [bits_name(bits) for bits in profile.legal_bits(KernelKind.CONV)]
