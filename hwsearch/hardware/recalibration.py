"""What a profile predicts, held against networks that were timed on the very machine.

A profile describes one machine; another of the same kind is faster or slower as a whole. With
log(measured / predicted) = b + e of the timed networks::

    b ~ N(0, spread^2)      the machine as a whole
    e ~ N(0, tau^2)         a network by itself

b is normal again given the measurements (Gelman et al., Bayesian Data Analysis, 3rd edition,
section 2.5), and tau^2 is their variance, with what the profile says of itself worth a few of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hwsearch.hardware.cost import Cost, Prediction

#: What the profile says of its own errors is worth so many measurements.
_PRIOR_WEIGHT: Final = 4.0
#: Two measurements of one network differ by so much themselves (``hwsearch.ship.verify``).
_LEAST_SIGMA_LOG: Final = 0.03


@dataclass(frozen=True, kw_only=True)
class Recalibration:
    """What predicted latencies are multiplied by, and how wrong they are then.

    Attributes:
        factor: on the median.
        sigma_share: on the standard deviation of the logarithm; not below 1 where a prediction is
            extrapolated, since the timed networks say nothing of such.
        networks: that were timed.

    Raises:
        ValueError: a number that is not positive and finite.
    """

    factor: float
    sigma_share: float
    networks: int

    def __post_init__(self) -> None:
        for value in (self.factor, self.sigma_share):
            if not 0 < value < math.inf:
                raise ValueError(f"a recalibration by {value} is not positive and finite")

    def then(self, other: "Recalibration") -> "Recalibration":
        """Both: the other was learned on what this one had corrected."""
        return Recalibration(
            factor=self.factor * other.factor,
            sigma_share=self.sigma_share * other.sigma_share,
            networks=self.networks + other.networks,
        )

    def told(self, profile: str) -> str:
        """What was learned of this machine, for people; ``profile`` is the name of its profile."""
        return (
            f"{self.networks} networks were timed here: latencies are taken to be "
            f"{self.factor:.3g} x what profile {profile} predicts, and intervals "
            f"{self.sigma_share:.2g} x as wide"
        )

    def of(self, cost: Cost) -> Cost:
        """The cost with its latency corrected; energy was not measured and stays."""
        latency = cost.latency_ms
        share = max(1.0, self.sigma_share) if latency.extrapolated else self.sigma_share
        corrected = Prediction.lognormal(
            median=latency.value * self.factor,
            sigma_log=latency.sigma_log * share,
            confidence=latency.confidence,
            source=latency.source,
            extrapolated=latency.extrapolated,
        )
        return Cost(
            latency_ms=corrected,
            energy_mj=cost.energy_mj,
            size_bytes=cost.size_bytes,
            macs=cost.macs,
        )


def recalibrate(
    predicted: Sequence[Prediction], measured_ms: Sequence[float], *, machine_sigma_log: float
) -> Recalibration:
    """Learn from networks that were timed.

    Args:
        predicted: of the profile.
        measured_ms: of the same networks.
        machine_sigma_log: how far machines that the profile may stand for lie apart.

    Raises:
        ValueError: no networks, or not as many of both.
    """
    if len(predicted) != len(measured_ms) or not predicted:
        raise ValueError(f"{len(predicted)} predictions for {len(measured_ms)} measurements")
    count = len(predicted)
    ratios = [
        math.log(measured / one.value) for one, measured in zip(predicted, measured_ms, strict=True)
    ]
    mean = math.fsum(ratios) / count
    said = math.fsum(one.sigma_log**2 for one in predicted) / count
    squares = math.fsum((ratio - mean) ** 2 for ratio in ratios)
    own = (_PRIOR_WEIGHT * said + squares) / (_PRIOR_WEIGHT + count - 1)
    shared = 1 / (1 / machine_sigma_log**2 + count / own)
    shift = shared * count * mean / own
    sigma = max(_LEAST_SIGMA_LOG, math.sqrt(own + shared))
    return Recalibration(
        factor=math.exp(shift), sigma_share=sigma / math.sqrt(said), networks=count
    )
