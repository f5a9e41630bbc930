"""``hwsearch profile``: show a hardware profile, or check one before it is used."""

from pathlib import Path

import click


@click.group(name="profile")
def command() -> None:
    """Show or check a hardware profile."""


@command.command(name="show")
@click.argument("target")
def show(target: str) -> None:
    """Print a profile: legal bits, rates, provenance."""
    import yaml

    from hwsearch.hardware.kernels import KernelKind
    from hwsearch.hardware.profile import bits_name
    from hwsearch.hardware.targets import load_profile

    profile = load_profile(target)
    click.echo(f"{profile.name}: {profile.summary}")
    click.echo(f"hash {profile.profile_hash}")
    for kind in KernelKind:
        names = ", ".join(bits_name(bits) for bits in profile.legal_bits(kind))
        click.echo(f"{kind.value:12s} {names}")
    content = profile.model_dump(mode="json", exclude={"name", "summary"})
    click.echo(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100), nl=False)


@command.command(name="check")
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """List all mistakes of a profile file, with their lines."""
    from hwsearch.files import read_model
    from hwsearch.hardware.profile import HardwareProfile

    profile = read_model(file, HardwareProfile)
    click.echo(f"{file}: a valid profile of {profile.name}, hash {profile.profile_hash[:12]}")
