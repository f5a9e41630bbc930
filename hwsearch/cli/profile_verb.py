"""``hwsearch profile``: show or check a hardware profile, or make one from measurements."""

from pathlib import Path

import click

from hwsearch.cli import profile_fit, profile_measure


@click.group(name="profile")
def command() -> None:
    """Show or check a hardware profile, or make one from measurements."""


@command.command(name="show")
@click.argument("target")
@click.option("--yaml", "as_yaml", is_flag=True, help="Print all of it, as a profile file.")
def show(target: str, as_yaml: bool) -> None:
    """Print a profile: legal bits, errors, where its numbers come from."""
    from hwsearch.cli.profile_text import profile_text
    from hwsearch.hardware.targets import load_profile

    profile = load_profile(target)
    if not as_yaml:
        click.echo(profile_text(profile), nl=False)
        return
    import yaml

    # That there is no evidence of energy has to be said; other keys may be left out.
    content = {"energy": None, **profile.model_dump(mode="json", exclude_none=True)}
    text = yaml.safe_dump(
        content, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
    )
    click.echo(text, nl=False)


@command.command(name="check")
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """List all mistakes of a profile file, with their lines."""
    from hwsearch.files import read_model
    from hwsearch.hardware.profile import HardwareProfile

    profile = read_model(file, HardwareProfile)
    click.echo(f"{file}: a valid profile of {profile.name}, hash {profile.profile_hash[:12]}")


command.add_command(profile_measure.command)
command.add_command(profile_fit.command)
