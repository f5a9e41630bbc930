"""``hwsearch targets``: the hardware profiles that a name reaches."""

import json

import click


@click.command(name="targets")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List the hardware profiles: aliases, runtimes, legal bits, evidence."""
    from hwsearch.hardware.kernels import KernelKind
    from hwsearch.hardware.profile import bits_name
    from hwsearch.hardware.targets import list_profiles

    profiles = list_profiles()
    rows = [
        {
            "target": profile.name,
            "aliases": list(profile.aliases),
            "device": profile.device,
            "runtime": f"{profile.runtime} {profile.runtime_version}",
            "power_mode": profile.power_mode,
            "legal_bits": [bits_name(bits) for bits in profile.legal_bits(KernelKind.CONV)],
            "energy": None if profile.energy is None else profile.energy.boundary,
            "evidence": profile.evidence,
            "latency_sigma_log": profile.interval.latency_sigma_log,
        }
        for profile in profiles
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title="targets", title_justify="left")
    for header in ("target", "alias", "runtime", "power mode", "bits", "energy", "evidence"):
        table.add_column(header)
    table.add_column("error", justify="right")
    for profile, row in zip(profiles, rows, strict=True):
        spread = 100 * (2.718281828 ** (1.645 * profile.interval.latency_sigma_log) - 1)
        table.add_row(
            profile.name,
            ", ".join(profile.aliases),
            str(row["runtime"]),
            profile.power_mode,
            " ".join(bits_name(bits) for bits in profile.legal_bits(KernelKind.CONV)),
            str(row["energy"] or "none"),
            profile.evidence,
            f"+{spread:.0f} %",
        )
    console = Console()
    console.print(table if console.is_terminal else table)
    console.print(
        "error: how far above the prediction the latency may be, at 95 % one-sided confidence"
    )
