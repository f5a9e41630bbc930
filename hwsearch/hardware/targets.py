"""Targets by name: a path, the name of a profile, or an alias of one; "@" before a power mode."""

import re
from pathlib import Path
from typing import Final

from hwsearch.errors import TargetError
from hwsearch.files import named_files, nearest, read_model
from hwsearch.hardware.power_modes import SEPARATOR, in_power_mode
from hwsearch.hardware.profile import HardwareProfile

#: The profile that describes the machine that hwsearch runs on.
HOST_TARGET: Final = "host"

#: ``aliases: [jetson, orin]`` on a line of its own, where every shipped profile has it.
_ALIASES: Final = re.compile(r"^aliases: *\[([a-z0-9_.@, -]*)\] *(?:#.*)?$", re.MULTILINE)


def load_profile(target: str) -> HardwareProfile:
    """The profile of a target: a YAML file, else a name, else an alias.

    A power mode may follow each of them: ``jetson-agx-orin@15W``, ``mine.yaml@15W``.

    Raises:
        TargetError: nothing of that name; two profiles with that alias; a file named otherwise
            than the profile in it; a profile without that power mode.
        FileModelError: the profile has mistakes.
    """
    base, separator, mode = target.rpartition(SEPARATOR)
    if separator and not _is_path(target) and target not in named_files("hw_profiles"):
        return in_power_mode(_load(base), mode)
    return _load(target)


def _load(target: str) -> HardwareProfile:
    if _is_path(target):
        return read_model(Path(target), HardwareProfile)
    files = named_files("hw_profiles")
    if target in files:
        return _load_named(target, files[target])
    aliases = {name: _aliases(path) for name, path in files.items()}
    meant = [name for name, known in aliases.items() if target in known]
    if len(meant) > 1:
        names = " and ".join(meant)
        raise TargetError(f"target '{target}' is an alias of {names}; give one of these names")
    if not meant:
        known = [*files, *(alias for some in aliases.values() for alias in some)]
        raise TargetError(
            f"target '{target}' is not known.{nearest(target, known)} "
            f"There are {', '.join(known)}; or give the path of a profile ending in .yaml"
        )
    return _load_named(meant[0], files[meant[0]])


def resolve(target: str) -> tuple[str, bool]:
    """The name of the profile behind a target, and whether an alias led to it.

    Raises:
        TargetError, FileModelError: as ``load_profile`` does.
    """
    profile = load_profile(target)
    by_name = target.partition(SEPARATOR)[0] == profile.name.partition(SEPARATOR)[0]
    by_path = _is_path(target) or _is_path(target.rpartition(SEPARATOR)[0])
    return profile.name, not by_path and not by_name


def list_profiles() -> list[HardwareProfile]:
    """Every profile that a name reaches, sorted by name.

    Raises:
        TargetError: a file named otherwise than the profile in it.
        FileModelError: a profile has mistakes.
    """
    return [_load_named(name, path) for name, path in named_files("hw_profiles").items()]


def _aliases(path: Path) -> tuple[str, ...]:
    """The aliases in a profile file.

    Found by reading that one key: to look through all profiles with their fits takes seconds.
    A file in which it does not stand plainly on top is read as a whole, with all its mistakes.
    """
    try:
        found = _ALIASES.search(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        found = None
    if found is None:
        return read_model(path, HardwareProfile).aliases
    return tuple(word for word in found[1].replace(",", " ").split() if word)


def _is_path(target: str) -> bool:
    path = Path(target)
    return path.suffix in {".yaml", ".yml"} or path.is_file()


def _load_named(name: str, path: Path) -> HardwareProfile:
    profile = read_model(path, HardwareProfile)
    if profile.name != name:
        raise TargetError(
            f"{path} holds the profile '{profile.name}'; rename the file to {profile.name}.yaml, "
            f"or the profile to {name}"
        )
    return profile
