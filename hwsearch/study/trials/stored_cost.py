"""The predicted cost of a network as it is stored: whole, with the spread behind its interval."""

from typing import Self

from hwsearch.hardware.cost import Cost, Prediction
from hwsearch.report.stored import Amount, Count, Fraction, Source, StoredModel


class StoredPrediction(StoredModel):
    """A ``Prediction``, field by field."""

    value: Amount
    low: Amount
    high: Amount
    confidence: Fraction
    source: Source
    sigma_log: Amount
    extrapolated: bool

    @classmethod
    def of(cls, prediction: Prediction) -> Self:
        """What is stored of a prediction."""
        return cls(**{name: getattr(prediction, name) for name in cls.model_fields})

    def prediction(self) -> Prediction:
        """The prediction that was stored."""
        return Prediction(**self.model_dump())


class StoredCost(StoredModel):
    """A ``Cost``, field by field."""

    latency_ms: StoredPrediction
    energy_mj: StoredPrediction | None
    size_bytes: Count
    macs: Count

    @classmethod
    def of(cls, cost: Cost) -> Self:
        """What is stored of a cost."""
        energy = cost.energy_mj
        return cls(
            latency_ms=StoredPrediction.of(cost.latency_ms),
            energy_mj=None if energy is None else StoredPrediction.of(energy),
            size_bytes=cost.size_bytes,
            macs=cost.macs,
        )

    def cost(self) -> Cost:
        """The cost that was stored."""
        energy = self.energy_mj
        return Cost(
            latency_ms=self.latency_ms.prediction(),
            energy_mj=None if energy is None else energy.prediction(),
            size_bytes=self.size_bytes,
            macs=self.macs,
        )
