"""The time of a run: what is spent, what a limit leaves, and where it went."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import fmean
from typing import Final

#: Pieces of work whose length is remembered: exporting a network, timing one before it is trained,
#: and all that a file takes.
EXPORT: Final = "export"
TIMING: Final = "timing"
SHIP: Final = "ship"


class Clock:
    """Answers all questions of time; it starts when it is made.

    Args:
        limit_s: of the whole run, its earlier parts included; None for no limit.
        earlier_s: seconds by phase of the parts of this run before it was resumed.
        now: seconds that only grow.
    """

    def __init__(
        self,
        limit_s: float | None = None,
        *,
        earlier_s: Mapping[str, float] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit_s = limit_s
        self._earlier_s = dict(earlier_s or {})
        self._phases_s: dict[str, float] = {}
        self._inner_s = 0.0
        self._samples_s: dict[str, list[float]] = {}
        self._now = now
        self._begin_s = now()

    @property
    def spent_s(self) -> float:
        """Seconds since the run began, without the time between its parts."""
        return self._now() - self._begin_s + sum(self._earlier_s.values())

    @property
    def left_s(self) -> float | None:
        """Seconds that the limit leaves, below zero once it is over; None without a limit."""
        return None if self.limit_s is None else self.limit_s - self.spent_s

    @property
    def deadline_s(self) -> float | None:
        """When the limit is over, on the clock that ``now`` reads."""
        left_s = self.left_s
        return None if left_s is None else self._now() + left_s

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of a block to a phase of the run; a phase within it is not counted."""
        begin_s, self._inner_s, before_s = self._now(), 0.0, self._inner_s
        try:
            yield
        finally:
            whole_s = self._now() - begin_s
            self._phases_s[name] = self._phases_s.get(name, 0.0) + whole_s - self._inner_s
            self._inner_s = before_s + whole_s

    def took(self, what: str, seconds: float) -> None:
        """Remember how long a piece of work took."""
        self._samples_s.setdefault(what, []).append(seconds)

    def mean_s(self, what: str) -> float | None:
        """Mean seconds of such a piece of work in this run; None if there was none."""
        samples_s = self._samples_s.get(what)
        return fmean(samples_s) if samples_s else None

    def wall_s(self) -> dict[str, float]:
        """Seconds by phase, earlier parts of the run included; the rest is "other"."""
        counted_s = {**self._phases_s}
        counted_s["other"] = max(0.0, self._now() - self._begin_s - sum(counted_s.values()))
        names = dict.fromkeys([*self._earlier_s, *counted_s])
        return {name: self._earlier_s.get(name, 0.0) + counted_s.get(name, 0.0) for name in names}
