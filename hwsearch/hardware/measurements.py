"""What a device said about networks: the rows that a profile is fitted to."""

import math
from dataclasses import dataclass

from hwsearch.hardware.kernels import NetworkDesc


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One network on one target at batch 1.

    Attributes:
        network: as the target's runtime ran it, each kernel in its bits.
        latency_ms: of one inference.
        energy_mj: of one inference, or None where only time was measured.
        group: what it has in common with others ("separable", "mobilenet_v2"); for splits by it.

    Raises:
        ValueError: a figure that is not a positive finite number.
    """

    network: NetworkDesc
    latency_ms: float
    energy_mj: float | None = None
    group: str = ""

    def __post_init__(self) -> None:
        for name, value in (("latency_ms", self.latency_ms), ("energy_mj", self.energy_mj)):
            if value is not None and not (0 < value < math.inf):
                raise ValueError(f"{self.network.name}: {name} {value} is not positive and finite")
