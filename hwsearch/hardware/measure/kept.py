"""Results that are kept while a measurement runs, so that a killed one goes on where it was."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hwsearch.cache import content_key
from hwsearch.errors import HostError, RunError, UserError
from hwsearch.files import write_atomically

FILE_NAME: Final = "measured.jsonl"


def content_hash(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give ONNX files") from None


def result_key(file_hash: str, conditions: Mapping[str, object]) -> str:
    """One key for the same file measured under the same conditions."""
    return content_key([file_hash, conditions])


class KeptResults:
    """A file of JSON lines, each ``{"key": ..., "kind": ..., ...}``; a later line counts.

    Args:
        folder: where ``measured.jsonl`` lies or is made; None keeps nothing.

    Raises:
        HostError: the folder cannot be made or read.
        RunError: a line that is not the last is torn or is no result.
    """

    def __init__(self, folder: Path | None) -> None:
        self.path: Final = None if folder is None else folder / FILE_NAME
        self._lines: list[dict[str, Any]] = []
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._read()
            except OSError as error:
                raise HostError(f"{folder}: cannot be used ({error.strerror})") from None

    def get(self, key: str, kind: str) -> dict[str, Any] | None:
        """The last result of a key, or None."""
        found = self.all(key, kind)
        return found[-1] if found else None

    def all(self, key: str, kind: str) -> list[dict[str, Any]]:
        """All results of a key, oldest first."""
        return [line for line in self._lines if line["key"] == key and line["kind"] == kind]

    def add(self, key: str, kind: str, result: Mapping[str, object]) -> None:
        """Keep a result; it is on the disk when this returns.

        Raises:
            HostError: it cannot be written.
        """
        line = {"key": key, "kind": kind, **result}
        self._lines.append(line)
        if self.path is None:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise HostError(f"{self.path}: cannot be written ({error.strerror})") from None

    def forget(self, keys: set[str]) -> None:
        """Drop all results of these keys, so that they are measured again."""
        self._lines = [line for line in self._lines if line["key"] not in keys]
        if self.path is not None:
            self._rewrite()

    def _read(self) -> None:
        assert self.path is not None
        if not self.path.exists():
            return
        text = self.path.read_text("utf-8", errors="replace")
        whole, _, torn = text.rpartition("\n")
        for number, line in enumerate(whole.splitlines(), start=1):
            self._lines.append(self._parsed(number, line))
        if torn:  # the process was killed in the middle of its last line
            self._rewrite()

    def _parsed(self, number: int, text: str) -> dict[str, Any]:
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not (isinstance(line, dict) and {"key", "kind"} <= set(line)):
            raise RunError(f"{self.path}:{number}: no kept result; delete the file to start over")
        return line

    def _rewrite(self) -> None:
        assert self.path is not None
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in self._lines)
        write_atomically(self.path, text.encode(), mode=0o644)
