"""What a score at a low fidelity foretells of the score at the highest one.

A straight line through the pairs of those who reached both, with the interval of simple linear
regression for one more observation (Student's distribution, ``n - 2`` degrees of freedom). Which
candidates reached both depends on their low score, and that leaves the line unbiased. It is wide
for few pairs and far from them, so that nothing is foretold of what was never seen.

==========  =======================================================================================
symbol      meaning
==========  =======================================================================================
``x, y``    scores at the low and at the highest fidelity, ``n`` pairs
``s^2``     squared residuals over ``n - 2``
``Sxx``     ``sum (x - mean x)^2``
``var``     ``s^2 (1 + 1/n + (x0 - mean x)^2 / Sxx)`` at a new ``x0``
==========  =======================================================================================
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from scipy.special import stdtr

#: Fewer pairs leave an interval that decides nothing.
LEAST_PAIRS: Final = 6
#: A residual of this share of the scores is none.
_ROUNDING: Final = 1e-12


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Of one score: ``(Y - mean) / scale`` is distributed as Student's t.

    Attributes:
        freedom: degrees of freedom, above 2.
    """

    mean: float
    scale: float
    freedom: int

    @property
    def deviation(self) -> float:
        """Standard deviation."""
        return self.scale * math.sqrt(self.freedom / (self.freedom - 2))

    def probability_above(self, value: float) -> float:
        """That the score comes out higher than a value."""
        return float(stdtr(self.freedom, (self.mean - value) / self.scale))


@dataclass(frozen=True, kw_only=True)
class Line:
    """A fitted line, and how far pairs lie from it.

    Attributes:
        intercept: at a low score of 0.
        residual: standard deviation about the line, above 0.
        middle: mean of the low scores.
        spread: sum of their squared distances from it.
        pairs: that it was fitted to.
    """

    intercept: float
    slope: float
    residual: float
    middle: float
    spread: float
    pairs: int

    @classmethod
    def fit(
        cls, low: Sequence[float], high: Sequence[float], *, least_residual: float = 0.0
    ) -> Self | None:
        """By least squares.

        Args:
            low: one score for each candidate at the low fidelity.
            high: those at the highest one, in the same order.
            least_residual: that the residuals are taken for, where few pairs happen to lie nearer.

        Returns:
            None for fewer than ``LEAST_PAIRS``, or where all low scores are the same, or nothing is
            left of a residual.

        Raises:
            ValueError: other numbers of scores.
        """
        first, second = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        if first.shape != second.shape:
            raise ValueError(f"{len(first)} low scores for {len(second)} high ones")
        if len(first) < LEAST_PAIRS or np.ptp(first) == 0.0:
            return None
        middle = float(first.mean())
        spread = float(((first - middle) ** 2).sum())
        slope = float((first - middle) @ second) / spread
        intercept = float(second.mean()) - slope * middle
        left = second - intercept - slope * first
        residual = max(math.sqrt(float(left @ left) / (len(first) - 2)), least_residual)
        if residual <= _ROUNDING * float(np.abs(second).max()):
            return None
        return cls(
            intercept=intercept,
            slope=slope,
            residual=residual,
            middle=middle,
            spread=spread,
            pairs=len(first),
        )

    def foretell(self, low: float) -> Forecast:
        """The high score of a candidate with this low one."""
        apart = (low - self.middle) ** 2 / self.spread
        return Forecast(
            mean=self.intercept + self.slope * low,
            scale=self.residual * math.sqrt(1.0 + 1.0 / self.pairs + apart),
            freedom=self.pairs - 2,
        )
