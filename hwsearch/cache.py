"""What is made once and kept in the user's cache folder, under the hash of all that decides it.

A file ``<kind>/<key>`` holds the SHA-256 of its content, then the content. It is written under
another name and renamed, so that a reader sees all of it or nothing. A lock beside it, which the
kernel frees when its holder is killed, keeps two processes from making the same thing.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

import filelock

from hwsearch.errors import HostError
from hwsearch.files import cache_folder, write_atomically

_LOG = logging.getLogger(__name__)
T = TypeVar("T")

_DIGEST_BYTES: Final = 32


class UnfitContentError(Exception):
    """Raised by ``CacheEntry.decode``: the content is whole, and not what is wanted any more."""


def content_key(parts: object) -> str:
    """SHA-256 (hex) of plain values; equal for equal values, whatever the order of keys."""
    text = json.dumps(parts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class CacheEntry(Generic[T]):
    """One thing in the cache, whether it is there or not.

    Attributes:
        kind: names the folder.
        key: a hash of all that decides the content.
        decode: the thing from its content.
        named: what it is, for messages: "networks" cannot be kept.
        remade: what happens without it, for messages: "the base network is trained again".
    """

    kind: str
    key: str
    decode: Callable[[bytes], T]
    named: str
    remade: str

    @property
    def path(self) -> Path:
        """Where it lies."""
        return cache_folder() / self.kind / self.key

    def read(self) -> T | None:
        """The thing; None when there is none or, with a warning, it is corrupt."""
        try:
            with self.path.open("rb") as file:
                digest, content = file.read(_DIGEST_BYTES), file.read()
            if hashlib.sha256(content).digest() == digest:
                return self.decode(content)
            problem = "its checksum does not match"
        except FileNotFoundError:
            return None
        except (OSError, UnfitContentError) as error:
            problem = str(error)
        _LOG.warning("'%s' is corrupt (%s); %s", self.path, problem, self.remade)
        return None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock, waiting for whoever has it; makes the folder.

        Raises:
            HostError: the cache cannot be written.
        """
        lock = filelock.FileLock(self.path.with_name(f"{self.key}.lock"))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield
        finally:
            lock.release()

    def write(self, content: bytes) -> None:
        """Write the content, all of it or nothing; the caller holds the lock.

        Raises:
            HostError: the cache cannot be written.
        """
        try:
            for leftover in self.path.parent.glob(f"{self.key}.*.tmp"):
                leftover.unlink()  # its writer was killed: only the lock's holder writes
            write_atomically(self.path, hashlib.sha256(content).digest(), content)
        except OSError as error:
            raise self._unwritable(error) from error

    def get(
        self, make: Callable[[], T], encode: Callable[[T], bytes], *, required: bool = True
    ) -> T:
        """Read the thing, or make and keep it. Of several who want it, one makes it.

        Args:
            make: the thing.
            encode: its content.
            required: whether a cache that cannot be written is an error; otherwise it is done
                without, with a warning.

        Raises:
            HostError: the cache cannot be written.
        """
        with contextlib.ExitStack() as stack:
            with contextlib.nullcontext() if required else contextlib.suppress(HostError):
                stack.enter_context(self.locked())
            found = self.read()
            if found is not None:
                return found
            made = make()
            try:
                self.write(encode(made))
            except HostError as error:
                if required:
                    raise
                _LOG.warning("%s; %s next time", error, self.remade)
            return made

    def _unwritable(self, error: OSError) -> HostError:
        return HostError(
            f"{self.named} cannot be kept in '{self.path.parent}' ({error.strerror or error}); "
            "free some space there or set HWSEARCH_CACHE to another folder"
        )
