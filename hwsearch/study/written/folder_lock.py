"""One process at a time works on a run folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hwsearch.errors import RunError, RunLockedError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder; the kernel lets go of it if this process is killed.

    Raises:
        RunLockedError: another process holds it.
        RunError: it cannot be written.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunLockedError(
            f"another process works on {folder}; wait for it, or stop it"
        ) from None
    except OSError as error:
        raise RunError(
            f"{folder} cannot be written ({error.strerror}); give another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()
