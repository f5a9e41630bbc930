"""Writing profiles: a whole one, or a fit into a file whose own text and comments stay."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hwsearch.errors import TargetError
from hwsearch.files import read_model, write_atomically
from hwsearch.hardware.profile import HardwareProfile

#: Top-level keys that a fit may change; both stand on lines of their own.
_EVIDENCE: Final = "evidence:"
_FIT_KEY: Final = "fit"
_FIT: Final = f"{_FIT_KEY}:"
_FIT_COMMENT: Final = "# Written by a command; its digests find what was changed by hand."


def write_profile(profile: HardwareProfile, to: Path, comments: Sequence[str]) -> None:
    """Write a profile that no file holds yet.

    Args:
        profile: with or without a fit.
        to: is written atomically.
        comments: lines at the top, for people.

    Raises:
        OSError: it cannot be written.
    """
    parts = ["".join(f"# {line}\n" for line in comments), _yaml(_content(profile))]
    if profile.fit is not None:
        fit = _plain(profile.fit.model_dump(mode="json"))
        parts.append(f"\n{_FIT_COMMENT}\n{_yaml({_FIT_KEY: fit})}")
    write_atomically(to, "".join(parts).encode(), mode=0o644)
    assert read_model(to, HardwareProfile) == profile, "a profile is what its file says"


def _content(profile: HardwareProfile) -> dict[str, Any]:
    """All but the fit. ``energy`` is said even where there is none, the schema wants it."""
    content = profile.model_dump(mode="json")
    del content[_FIT_KEY]
    return {
        key: _plain(value) for key, value in content.items() if value is not None or key == "energy"
    }


def _yaml(content: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(
        content, sort_keys=False, default_flow_style=None, width=100, allow_unicode=True
    )


def write_fit(base: Path, profile: HardwareProfile, to: Path) -> None:
    """Write the text of a profile file with another fit.

    Args:
        base: the profile without a fit, or with an earlier one, which is replaced. It may be
            ``to`` itself.
        profile: what ``base`` holds, with the fit.
        to: is written atomically.

    Raises:
        TargetError: the text of ``base`` is not what ``profile`` was made from.
    """
    if profile.fit is None:
        raise TargetError(f"{profile.name} has no fit to write; fit it to measurements first")
    lines = base.read_text(encoding="utf-8").splitlines()
    kept = lines[: _first(lines, _FIT)]
    while kept and (not kept[-1].strip() or kept[-1] == _FIT_COMMENT):
        kept.pop()
    at = _first(kept, _EVIDENCE)
    if at < len(kept):
        kept[at] = f"{_EVIDENCE} {profile.evidence}"
    text = _yaml({_FIT_KEY: _plain(profile.fit.model_dump(mode="json"))})
    content = "\n".join([*kept, "", _FIT_COMMENT, text])
    write_atomically(to, content.encode(), mode=0o644)
    if read_model(to, HardwareProfile) != profile:
        raise TargetError(
            f"{to} was written from {base}, which is not the profile that was fitted; "
            "fit the file that is meant"
        )


def _first(lines: list[str], key: str) -> int:
    """Position of a top-level key; the number of lines if there is none."""
    return next((at for at, line in enumerate(lines) if line.startswith(key)), len(lines))


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Lists of numbers for YAML's flow style; nested ones stay as they are."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value
