"""What a job tells while it runs."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Report:
    """Receives what a job does.

    Attributes:
        phase: is told what is being done.
        step: is called with the step and the number of steps of a training.
    """

    phase: Callable[[str], None]
    step: Callable[[int, int], None]
