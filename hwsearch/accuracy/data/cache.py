"""Decoded pictures on disk, so that a second run does not decode again.

A file ``decoded/<key>.safetensors`` in the cache folder is written under another name and then
renamed, so that a reader sees all of it or nothing, whoever is killed and however many write.
"""

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from hwsearch.errors import DataError
from hwsearch.files import cache_folder

_LOG = logging.getLogger(__name__)

#: The tensor that holds the checksum of the others.
_DIGEST: Final = "sha256"

#: What a killed writer left behind is removed when it is older than this.
_LEFTOVER_AGE_S: Final = 24 * 3600


def files_key(root: Path, paths: Iterable[str], **conditions: str | int) -> str:
    """A name for what decoding some files under some conditions gives.

    Args:
        root: the folder below which the files are; its place enters the key, since pictures of
            one size and date may lie in two folders under the same names.
        paths: below the root, in the order in which they are decoded.
        conditions: all else that the pixels depend on.

    Returns:
        SHA-256 in hex over root, conditions and path, size and time of change of every file.

    Raises:
        DataError: a file is gone, or a link leads nowhere.
    """
    listed = []
    for path in paths:
        try:
            state = (root / path).stat()
        except OSError as error:
            raise DataError(
                f"picture '{root / path}' cannot be read ({error.strerror}); remove or replace it"
            ) from None
        listed.append((path, state.st_size, state.st_mtime_ns))
    text = json.dumps([str(root.resolve()), sorted(conditions.items()), listed])
    return hashlib.sha256(text.encode()).hexdigest()


def cached(key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Read tensors from the cache, or make and store them.

    A cache file that is corrupt is made again, and one that cannot be written is done without;
    both are logged as warnings. The result is the same.
    """
    path = cache_folder() / "decoded" / f"{key}.safetensors"
    stored = _read(path)
    if stored is not None:
        return stored
    tensors = make()
    try:
        _write(path, tensors)
    except (OSError, SafetensorError) as error:
        _LOG.warning(
            "decoded pictures cannot be kept in '%s' (%s) and will be decoded again next time; "
            "free some space there or set HWSEARCH_CACHE to another folder",
            path.parent,
            getattr(error, "strerror", None) or error,
        )
    return tensors


def _read(path: Path) -> dict[str, Tensor] | None:
    try:
        # Read at once, not mapped: the file may be replaced by another writer in between.
        tensors = load(path.read_bytes())
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError) as error:
        problem = str(error)
    else:
        digest = tensors.pop(_DIGEST, None)
        if digest is not None and torch.equal(digest, _digest(tensors)):
            return tensors
        problem = "its checksum does not match"
    _LOG.warning("'%s' is corrupt (%s); the pictures are decoded again", path, problem)
    return None


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent)
    handle, name = tempfile.mkstemp(prefix=f"{path.stem}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    os.close(handle)
    try:
        save_file({**tensors, _DIGEST: _digest(tensors)}, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(folder: Path) -> None:
    oldest = time.time() - _LEFTOVER_AGE_S
    for leftover in folder.glob("*.tmp"):
        try:
            if leftover.stat().st_mtime < oldest:
                leftover.unlink()
        except FileNotFoundError:
            continue  # another writer was faster


def _digest(tensors: dict[str, Tensor]) -> Tensor:
    """SHA-256 over names, types, shapes and content: uint8, (32,)."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].contiguous().numpy()
        digest.update(f"{name}:{array.dtype}:{array.shape}:".encode())
        digest.update(array.reshape(-1).data)
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)
