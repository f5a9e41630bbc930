"""What a network costs on a target: by the fit of its profile, else by its rates."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hwsearch.hardware.cost import Cost, KernelCost
from hwsearch.hardware.kernel_table import Floats, KernelTable
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.recalibration import Recalibration
from hwsearch.hardware.roofline import Roofline

if TYPE_CHECKING:
    from hwsearch.hardware.learned.predictor import LearnedPredictor


class CostPredictor:
    """Prices networks on one target.

    Args:
        profile: the target.
        confidence: of the central intervals that ``predict`` returns.
        recalibration: learned on the very machine; None where nothing was timed there.

    Raises:
        ValueError: a confidence that is not strictly between 0 and 1.
    """

    def __init__(
        self,
        profile: HardwareProfile,
        confidence: float = 0.9,
        recalibration: Recalibration | None = None,
    ) -> None:
        self.profile: Final = profile
        self.confidence: Final = confidence
        self.recalibration: Final = recalibration
        self._pricing = _pricing(profile, confidence)
        self._factor = 1.0 if recalibration is None else recalibration.factor

    def predict(self, desc: NetworkDesc) -> Cost:
        """Latency, energy and size of a network, each kernel in its own bits.

        Raises:
            TargetError: a kernel whose kind cannot run in its bits on this target.
        """
        return self._corrected(self._pricing.predict(desc))

    def predict_all(self, networks: Sequence[NetworkDesc]) -> list[Cost]:
        """The costs of many networks, in their order; raises as ``predict`` does."""
        return [self._corrected(cost) for cost in self._pricing.predict_all(networks)]

    def latency_ms(self, desc: NetworkDesc) -> float:
        """The median latency alone, for search loops; raises as ``predict`` does."""
        return self._factor * self._pricing.latency_ms(desc)

    def latencies_ms(self, table: KernelTable) -> Floats:
        """The median latencies of many networks at once, of shape (networks,)."""
        return self._factor * self._pricing.latencies_ms(table)

    def kernels(self, desc: NetworkDesc) -> tuple[KernelCost, ...]:
        """The cost of every kernel, in order.

        The latencies add up to that of ``predict`` less the network overhead; likewise the
        energies. Raises as ``predict`` does.
        """
        kernels = self._pricing.kernels(desc)
        if self.recalibration is None:
            return kernels
        return tuple(
            replace(kernel, latency_ms=self._factor * kernel.latency_ms) for kernel in kernels
        )

    def _corrected(self, cost: Cost) -> Cost:
        return cost if self.recalibration is None else self.recalibration.of(cost)


def _pricing(profile: HardwareProfile, confidence: float) -> "Roofline | LearnedPredictor":
    if profile.fit is None:
        return Roofline(profile, confidence)
    from hwsearch.hardware.learned.predictor import LearnedPredictor

    return LearnedPredictor(profile, confidence)
