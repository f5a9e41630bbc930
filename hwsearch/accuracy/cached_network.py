"""Files of and about trained networks in the cache folder, written by one process at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from hwsearch.errors import HostError
from hwsearch.files import write_atomically


def cache_error(folder: Path, error: OSError) -> HostError:
    """What to tell the user when the cache cannot be written."""
    return HostError(
        f"networks cannot be kept in '{folder}' ({error.strerror or error}); free some "
        "space there or set HWSEARCH_CACHE to another folder"
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock beside a cache file, waiting for whoever has it; makes its folder.

    Raises:
        HostError: the cache cannot be written.
    """
    lock = filelock.FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise cache_error(path.parent, error) from error
    try:
        yield
    finally:
        lock.release()


def store(path: Path, content: bytes) -> None:
    """Write a file whose lock the caller holds, all of it or nothing.

    Raises:
        HostError: the cache cannot be written.
    """
    try:
        for leftover in path.parent.glob(f"{path.name}.*.tmp"):
            leftover.unlink()  # its writer was killed: only the lock's holder writes
        write_atomically(path, content)
    except OSError as error:
        raise cache_error(path.parent, error) from error
