"""Prices networks with the fit of a profile.

The latency of a kernel is the sum of its terms times their learned factors, so compute and memory
time add up here: how much of one hides behind the other is in the factors.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from hwsearch.hardware.cost import Cost, KernelCost, Prediction, check_confidence
from hwsearch.hardware.kernel_table import KernelTable, kernel_table
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.latency_parts import LatencyTerms
from hwsearch.hardware.learned.evaluate import (
    Evaluated,
    calibrated_factor,
    energy_terms,
    evaluate,
    evaluate_energy,
)
from hwsearch.hardware.learned.model import FittedModel
from hwsearch.hardware.learned.terms import ClassifiedRows, classify, latency_terms
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.roofline import kernel_costs


class LearnedPredictor:
    """Prices networks on one target.

    Args:
        profile: the target, with a fit.
        confidence: of the central intervals that ``predict`` returns.

    Raises:
        ValueError: the profile has no fit.
    """

    def __init__(self, profile: HardwareProfile, confidence: float = 0.9) -> None:
        check_confidence(confidence)
        if profile.fit is None:
            raise ValueError(f"{profile.name} has no fit")
        self.profile: Final = profile
        self.confidence: Final = confidence
        self._fit = profile.fit

    def predict_terms(self, networks: Sequence[NetworkDesc]) -> tuple[list[Cost], LatencyTerms]:
        """The costs of many networks, with the terms of their latencies; as ``Roofline`` does."""
        rows = classify(self.profile, kernel_table(networks), networks)
        latency = self._latency(rows)
        energy = self._energy(rows, latency)
        costs = [
            Cost(
                latency_ms=self._prediction(latency, at),
                energy_mj=None if energy is None else self._prediction(energy, at),
                size_bytes=network.size_bytes,
                macs=network.macs,
            )
            for at, network in enumerate(networks)
        ]
        return costs, _terms(rows, latency)

    def terms(self, table: KernelTable, networks: Sequence[NetworkDesc] = ()) -> LatencyTerms:
        """The median latencies of many networks, by term."""
        rows = classify(self.profile, table, networks)
        return _terms(rows, self._latency(rows))

    def kernels(self, desc: NetworkDesc) -> tuple[KernelCost, ...]:
        """The cost of every kernel, in order; as ``Roofline.kernels``."""
        rows = classify(self.profile, kernel_table([desc]), [desc])
        latency = self._latency(rows)
        energy = self._energy(rows, latency)
        energies = None if energy is None else energy.of_term.sum(1)
        of_term = latency.of_term
        return kernel_costs(desc, rows.priced, of_term.sum(1), energies, of_term)

    def _latency(self, rows: ClassifiedRows) -> Evaluated:
        model = self._fit.latency
        return _calibrated(
            evaluate(model.coefficients, rows, *latency_terms(self.profile, rows)), model
        )

    def _energy(self, rows: ClassifiedRows, latency: Evaluated) -> Evaluated | None:
        """None where the profile says nothing of energy; without a fit of it, by its rates."""
        if self.profile.energy is None:
            return None
        model = self._fit.energy
        if model is not None:
            found = evaluate_energy(model.coefficients, self.profile, latency, rows)
            return _calibrated(found, model)
        terms, overhead = energy_terms(self.profile, latency, rows)
        sigma_log = np.hypot(latency.sigma_log, self.profile.interval.energy_sigma_log)
        return replace(
            latency,
            value=overhead + rows.table.per_network(terms.sum(1)),
            sigma_log=sigma_log,
            of_term=terms,
        )

    def _prediction(self, evaluated: Evaluated, at: int) -> Prediction:
        return Prediction.lognormal(
            median=float(evaluated.value[at]),
            sigma_log=float(evaluated.sigma_log[at]),
            confidence=self.confidence,
            extrapolated=bool(evaluated.extrapolated[at]),
        )


def _terms(rows: ClassifiedRows, latency: Evaluated) -> LatencyTerms:
    return LatencyTerms(table=rows.table, latency_ms=latency.value, of_term=latency.of_term)


def _calibrated(evaluated: Evaluated, model: FittedModel) -> Evaluated:
    factor = calibrated_factor(model.interval_factor, evaluated.extrapolated)
    return replace(evaluated, sigma_log=evaluated.sigma_log * factor)
