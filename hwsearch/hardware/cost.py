"""What one inference costs, with its uncertainty and its source."""

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Final, Literal

from hwsearch.bits import LayerBits
from hwsearch.hardware.kernels import KernelKind

Source = Literal["predicted", "measured"]
Bound = Literal["compute", "memory", "floor"]

_STANDARD_NORMAL: Final = NormalDist()


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A positive quantity with its uncertainty: lognormal with median ``value``.

    Attributes:
        low: lower end of the central interval of ``confidence``.
        high: upper end of it.
        confidence: strictly between 0 and 1.
        sigma_log: standard deviation of the logarithm; 0 is a certain value.
        extrapolated: the network is unlike those that the predictor was fitted to.

    Raises:
        ValueError: a number that is not finite, or out of order.
    """

    value: float
    low: float
    high: float
    confidence: float
    source: Source
    sigma_log: float
    extrapolated: bool = False

    def __post_init__(self) -> None:
        # A comparison with NaN is false, so NaN is refused here too.
        if not (0 < self.low <= self.value <= self.high < math.inf):
            raise ValueError(f"prediction out of order: {self.low}, {self.value}, {self.high}")
        if not (0 <= self.sigma_log < math.inf):
            raise ValueError(f"sigma_log {self.sigma_log} is not a finite number from 0 up")
        check_confidence(self.confidence)

    @classmethod
    def lognormal(
        cls,
        *,
        median: float,
        sigma_log: float,
        confidence: float,
        source: Source = "predicted",
        extrapolated: bool = False,
    ) -> "Prediction":
        """The prediction with the central interval of a lognormal distribution."""
        factor = math.exp(sigma_log * _central_quantile(confidence))
        return cls(
            value=median,
            low=median / factor,
            high=median * factor,
            confidence=confidence,
            source=source,
            sigma_log=sigma_log,
            extrapolated=extrapolated,
        )

    def upper(self, confidence: float) -> float:
        """The bound that the truth stays below with this probability (one-sided).

        Raises:
            ValueError: a confidence that is not strictly between 0 and 1.
        """
        check_confidence(confidence)
        return self.value * math.exp(self.sigma_log * _STANDARD_NORMAL.inv_cdf(confidence))

    def probability_below(self, limit: float) -> float:
        """Probability that the truth is at most ``limit``; 0 for a limit of 0 or less.

        Raises:
            ValueError: ``limit`` is NaN.
        """
        if math.isnan(limit):
            raise ValueError("the limit is NaN")
        if limit <= 0:
            return 0.0
        if self.sigma_log == 0 or math.isinf(limit):
            return 1.0 if self.value <= limit else 0.0
        return _STANDARD_NORMAL.cdf(math.log(limit / self.value) / self.sigma_log)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one inference at batch 1 costs; ``energy_mj`` is None where the profile has none."""

    latency_ms: Prediction
    energy_mj: Prediction | None
    size_bytes: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class KernelCost:
    """The share of one kernel.

    Attributes:
        bits: as asked; a profile's ``runs_as`` may price them as others.
        bytes: memory traffic in the bits that it is priced in.
        bound: the largest of floor, compute and memory time.
    """

    name: str
    kind: KernelKind
    bits: LayerBits
    macs: int
    bytes: float
    latency_ms: float
    energy_mj: float | None
    bound: Bound


@lru_cache(maxsize=64)
def _central_quantile(confidence: float) -> float:
    check_confidence(confidence)
    return _STANDARD_NORMAL.inv_cdf((1 + confidence) / 2)


def check_confidence(confidence: float) -> None:
    """Raise ValueError for a confidence that is not strictly between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not strictly between 0 and 1; try 0.9")
