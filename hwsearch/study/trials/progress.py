"""What a run tells whoever watches it; the command line draws it, the API may ignore it."""

from typing import Protocol

from hwsearch.study.trials.records import Record


class Watcher(Protocol):
    """Receives what happens, in order; it must not raise."""

    def deadline(self, at_s: float) -> None:
        """The time limit ends then, by ``time.monotonic``; not called without a limit."""

    def phase(self, text: str) -> None:
        """Something longer begins."""

    def step(self, done: int, total: int) -> None:
        """An optimizer step of the current phase is done."""

    def trial(
        self, record: Record, *, done: int, planned: int | None, left_s: float | None
    ) -> None:
        """A trial ended, the ``done``-th of ``planned`` in all; about ``left_s`` seconds left."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


class Silent:
    """Watches and says nothing."""

    def deadline(self, at_s: float) -> None:
        """Ignore."""

    def phase(self, text: str) -> None:
        """Ignore."""

    def step(self, done: int, total: int) -> None:
        """Ignore."""

    def trial(
        self, record: Record, *, done: int, planned: int | None, left_s: float | None
    ) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""
