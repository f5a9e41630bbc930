"""Decoded pictures in the cache, so that a second run does not decode again."""

from collections.abc import Callable, Iterable
from pathlib import Path

import safetensors.torch
from torch import Tensor

from hwsearch.cache import CacheEntry, content_key
from hwsearch.errors import DataError


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
    return content_key([str(root.resolve()), conditions, listed])


def cached(key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Read tensors from the cache, or make and store them.

    A cache that cannot be written is done without, with a warning.
    """
    entry = CacheEntry(
        kind="decoded",
        key=key,
        decode=safetensors.torch.load,
        named="decoded pictures",
        remade="the pictures are decoded again",
    )
    return entry.get(make, safetensors.torch.save, required=False)
