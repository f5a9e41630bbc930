"""Where search spaces and profiles are found, and how their YAML is read.

A name is looked up as a path as given, then in ``./<folder>``, then in the user's configuration
folder, then among the files that came with the package.
"""

import difflib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hwsearch.errors import FileModelError, HostError

Folder = Literal["search_spaces", "hw_profiles"]
ModelT = TypeVar("ModelT", bound=BaseModel)
_Location = tuple[int | str, ...]

#: A search space or a profile is a page or a few; more than this is some other file.
_LARGEST_FILE_BYTES: Final = 1_000_000
#: libyaml where PyYAML was built with it; it reads about ten times as fast.
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def config_folder() -> Path:
    """The user's configuration folder, ``$HWSEARCH_CONFIG`` if that is set."""
    import platformdirs

    return Path(os.environ.get("HWSEARCH_CONFIG") or platformdirs.user_config_dir("hwsearch"))


def cache_folder() -> Path:
    """The user's cache folder, ``$HWSEARCH_CACHE`` if that is set."""
    import platformdirs

    return Path(os.environ.get("HWSEARCH_CACHE") or platformdirs.user_cache_dir("hwsearch"))


def packaged_folder(folder: Folder) -> Path:
    """The folder that came with the package: inside a wheel, or beside it in a checkout.

    Raises:
        HostError: neither is there.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / folder, package.parent / folder):
        if candidate.is_dir():
            return candidate
    raise HostError(f"the installation lacks its folder '{folder}'; install hwsearch again")


def named_files(folder: Folder) -> dict[str, Path]:
    """All files of a kind by name (the stem), the nearest folder winning, sorted by name."""
    found: dict[str, Path] = {}
    for place in (Path.cwd() / folder, config_folder() / folder, packaged_folder(folder)):
        if place.is_dir():
            for path in sorted(place.glob("*.yaml")):
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def read_model(path: Path, model: type[ModelT]) -> ModelT:
    """Read a YAML file into a pydantic model.

    Raises:
        FileModelError: all mistakes of the file at once, each as ``file:line: key: what``.
    """
    data, lines, repeated = _parsed(path, _read_text(path))
    if not isinstance(data, Mapping):
        raise FileModelError(f"{path}:1: the file must hold keys with values")
    problems = [(line, f"{key}: given twice; keep one of them") for line, key in repeated]
    try:
        value = model.model_validate(data)
    except ValidationError as error:
        for item in error.errors():
            problems.append((_line_of(item["loc"], lines), _problem(item, lines)))
    if problems:
        unique = sorted(dict.fromkeys(problems))
        raise FileModelError("\n".join(f"{path}:{line}: {text}" for line, text in unique))
    return value


def write_atomically(path: Path, *content: bytes, mode: int = 0o600) -> None:
    """Write a file so that readers see all of it or the earlier one, whatever is killed.

    Args:
        path: in a folder that exists.
        content: all of it, in one or more parts.
        mode: of the file; for the owner alone unless it is to be shared.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def nearest(word: str, known: Mapping[str, object] | list[str]) -> str:
    """A hint for a mistyped name: " Did you mean 'x'?", or nothing when none is near."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise FileModelError(f"{path}: {path.stat().st_size} bytes is more than a page of YAML")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise FileModelError(f"{path}:1: not UTF-8 text") from None
    except OSError as error:
        raise FileModelError(f"{path}: cannot be read ({error.strerror})") from None


def _parsed(path: Path, text: str) -> tuple[object, dict[_Location, int], list[tuple[int, str]]]:
    """The values of a file, the line of each, and the keys that are given twice."""
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None, {}, []
            # Constructing rewrites merged mappings ("<<") in place, so the nodes are read before.
            lines, repeated = dict(_lines(root, ())), list(_repeated_keys(root))
            return loader.construct_document(root), lines, repeated
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = 1 if mark is None else mark.line + 1
        problem = getattr(error, "problem", None) or "not YAML"
        raise FileModelError(f"{path}:{line}: {problem}") from None
    except (ValueError, RecursionError) as error:  # a date such as 2024-13-45; a list in itself
        raise FileModelError(f"{path}:1: not YAML that can be read ({error})") from None


def _lines(node: yaml.Node, at: _Location) -> Iterator[tuple[_Location, int]]:
    """The line (from 1) of each key and list entry below a node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, str(key.value))
            yield here, key.start_mark.line + 1
            yield from _lines(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            here = (*at, index)
            yield here, value.start_mark.line + 1
            yield from _lines(value, here)


def _repeated_keys(node: yaml.Node) -> Iterator[tuple[int, str]]:
    """Keys given twice, which YAML itself lets pass: the later would silently win."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                yield key.start_mark.line + 1, name
            seen.add(name)
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated_keys(value)


def _line_of(location: _Location, lines: Mapping[_Location, int]) -> int:
    for length in range(len(location), 0, -1):
        if location[:length] in lines:
            return lines[location[:length]]
    return 1


def _problem(item: ErrorDetails, lines: Mapping[_Location, int]) -> str:
    # pydantic adds its own parts to a location (union members, "[key]"): keep those of the file.
    location: _Location = item["loc"]
    known = [part for n, part in enumerate(location) if location[: n + 1] in lines]
    key = ".".join(str(part) for part in (known or location)) or "the file"
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    if item["type"] == "missing":
        return f"{'.'.join(str(part) for part in location)}: missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{key}: {message[:1].lower()}{message[1:]}"
