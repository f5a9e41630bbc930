"""Where a fitted profile is written, and what is said about it."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from hwsearch.errors import HostError, UserError

if TYPE_CHECKING:
    from hwsearch.calibrate.fitting import Fitted
    from hwsearch.hardware.profile import HardwareProfile

_SUFFIX: Final = ".yaml"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def output_path(out: Path | None, name: str, *, overwrite: bool) -> Path:
    """The file that is to be written; its folder is made.

    Args:
        out: a file that ends in .yaml, a folder, or None for ``./hw_profiles``.
        name: of the profile.
        overwrite: a file that is there may be replaced.

    Raises:
        UserError: a name that no target can have, a file that is there, or one that a target of
            that name could not be found in.
        HostError: the folder cannot be made.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"'{name}' cannot name a target; give --name with small letters, digits, '-', '.', '_'"
        )
    folder = Path("hw_profiles") if out is None else out
    path = folder if folder.suffix == _SUFFIX else folder / f"{name}{_SUFFIX}"
    if path.stem != name:
        raise UserError(
            f"the profile '{name}' is found in a file {name}{_SUFFIX} only, not {path.name}; "
            f"give --name {path.stem} or another --out"
        )
    if path.exists() and not overwrite:
        raise UserError(f"{path} is there already; give --overwrite, or another --name or --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"{path.parent} cannot be made ({error.strerror})") from None
    return path


def save(profile: "HardwareProfile", path: Path, command: str) -> None:
    """Write a profile.

    Args:
        profile: with a fit.
        path: see ``output_path``.
        command: that made it.

    Raises:
        HostError: it cannot be written.
    """
    from hwsearch.hardware.profile_file import write_profile

    comments = (
        f"{profile.summary}.",
        f"Made by:  {command}",
        f"Used by:  hwsearch run --target {profile.name} --budget 10ms",
    )
    try:
        write_profile(profile, path, comments)
    except OSError as error:
        raise HostError(f"{path} cannot be written ({error.strerror}); free space") from None


def show_fitted(fitted: "Fitted", path: Path, *, as_json: bool, more: Mapping[str, object]) -> None:
    """Print what was fitted, how well, and how it is used.

    Args:
        fitted: the profile and the speeds of its kernels.
        path: of its file.
        as_json: as one object, with ``more`` in it.
        more: what else JSON says.
    """
    if as_json:
        click.echo(json.dumps({**_entry(fitted, path), **more}, indent=1, allow_nan=False))
        return
    profile = fitted.profile
    assert profile.fit is not None
    for name, model in (("latency", profile.fit.latency), ("energy", profile.fit.energy)):
        if model is not None:
            checked = model.cross_validation
            click.echo(
                f"{name}: nets left out ({checked.split}) are predicted to "
                f"{checked.mape_percent:.1f} % (mean error), {checked.rmspe_percent:.1f} % (root "
                f"of mean square), rank correlation {checked.spearman:.3f}; from {model.networks} "
                "nets"
            )
    if profile.fit.noise_floor_percent is not None:
        click.echo(f"two measurements differ by {profile.fit.noise_floor_percent:g} % (median)")
    for line in speed_lines(fitted):
        click.echo(line)
    click.echo(f"written to {path}")
    click.echo(f"hwsearch run --target {_reached_by(path)} --budget 10ms")


def speed_lines(fitted: "Fitted") -> list[str]:
    """Which bits pay, and how much, in one line for each pair of widths."""
    from hwsearch.hardware.profile import bits_name

    lines = []
    for bits in dict.fromkeys(speed.bits for speed in fitted.speeds):
        of_bits = [speed for speed in fitted.speeds if speed.bits == bits]
        pays = ", ".join(str(speed) for speed in of_bits if speed.pays) or "nothing"
        slow = ", ".join(str(speed) for speed in of_bits if not speed.pays)
        # Where conversions have a price, a slower kernel may still pay between others in its bits.
        kept = fitted.profile.kernels.fuses_clips_only
        what = "slower, offered all the same" if kept else "not offered"
        lines.append(f"{bits_name(bits)} over fp32: {pays}" + (f"; {what}: {slow}" if slow else ""))
    return lines


def _reached_by(path: Path) -> str:
    """The name where ``--target`` looks for it, else the path."""
    return path.stem if path.parent == Path("hw_profiles") else str(path)


def _entry(fitted: "Fitted", path: Path) -> dict[str, Any]:
    profile = fitted.profile
    fit = profile.fit
    assert fit is not None
    return {
        "schema_version": 1,
        "target": profile.name,
        "profile": str(path),
        "profile_hash": profile.profile_hash,
        "device": profile.device,
        "runtime": f"{profile.runtime} {profile.runtime_version}",
        "power_mode": profile.power_mode,
        "noise_floor_percent": fit.noise_floor_percent,
        "latency_error": fit.latency.cross_validation.model_dump(mode="json"),
        "energy_error": None
        if fit.energy is None
        else fit.energy.cross_validation.model_dump(mode="json"),
        "speeds": _speeds(fitted),
    }


def _speeds(fitted: "Fitted") -> Sequence[Mapping[str, object]]:
    return [
        {
            "kind": speed.kind.value,
            "bits": str(speed.bits),
            "speedup_over_fp32": float(f"{1 / speed.time_ratio:.3g}"),
            "offered": speed.pays,
            "kernels": speed.kernels,
        }
        for speed in fitted.speeds
    ]
