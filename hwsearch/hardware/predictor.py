"""What a network costs on a target: by the fit of its profile, else by its rates."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hwsearch.hardware.cost import Cost, KernelCost
from hwsearch.hardware.kernel_table import Floats, KernelTable, kernel_table
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.recalibration import Recalibration, TimedNetwork
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

    def predict(self, desc: NetworkDesc) -> Cost:
        """Latency, energy and size of a network, each kernel in its own bits.

        Raises:
            TargetError: a kernel whose kind cannot run in its bits on this target.
        """
        return self.predict_all([desc])[0]

    def predict_all(self, networks: Sequence[NetworkDesc]) -> list[Cost]:
        """The costs of many networks, in their order; raises as ``predict`` does."""
        if not networks:
            return []
        costs, terms = self._pricing.predict_terms(networks)
        if self.recalibration is None:
            return costs
        return self.recalibration.correct(costs, terms.of_networks)

    def predict_timed(
        self, networks: Mapping[str, NetworkDesc], latencies_ms: Mapping[str, float]
    ) -> list[TimedNetwork]:
        """Networks that were timed, beside what the profile alone predicts of them.

        Args:
            networks: by name.
            latencies_ms: by the same names, for all of them or for some.
        """
        names = list(latencies_ms)
        if not names:
            return []
        costs, terms = self._pricing.predict_terms([networks[name] for name in names])
        return [
            TimedNetwork(
                name=name,
                parts_ms=tuple(parts.tolist()),
                sigma_log=cost.latency_ms.sigma_log,
                measured_ms=latencies_ms[name],
            )
            for name, cost, parts in zip(names, costs, terms.of_networks, strict=True)
        ]

    def latency_ms(self, desc: NetworkDesc) -> float:
        """The median latency alone, for search loops; raises as ``predict`` does."""
        return float(self.latencies_ms(kernel_table([desc]), [desc])[0])

    def latencies_ms(self, table: KernelTable, networks: Sequence[NetworkDesc] = ()) -> Floats:
        """The median latencies of many networks at once, of shape (networks,).

        Args:
            table: their kernels.
            networks: that the table was made of, where they are at hand: an error names the kernel.
        """
        terms = self._pricing.terms(table, networks)
        if self.recalibration is None:
            return terms.latency_ms
        return self.recalibration.latencies_ms(terms.of_networks)

    def kernels(self, desc: NetworkDesc) -> tuple[KernelCost, ...]:
        """The cost of every kernel, in order.

        The latencies add up to that of ``predict`` less the network overhead; likewise the
        energies. Raises as ``predict`` does.
        """
        kernels = self._pricing.kernels(desc)
        if self.recalibration is None:
            return kernels
        parts = self._pricing.terms(kernel_table([desc]), [desc]).of_kernels
        corrected = self.recalibration.latencies_ms(parts).tolist()
        return tuple(
            replace(kernel, latency_ms=latency_ms)
            for kernel, latency_ms in zip(kernels, corrected, strict=True)
        )


def _pricing(profile: HardwareProfile, confidence: float) -> "Roofline | LearnedPredictor":
    if profile.fit is None:
        return Roofline(profile, confidence)
    from hwsearch.hardware.learned.predictor import LearnedPredictor

    return LearnedPredictor(profile, confidence)
