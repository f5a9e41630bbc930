"""Whether a predicted cost meets the budgets at the stated confidence, and by how much."""

from collections.abc import Sequence
from dataclasses import dataclass

from hwsearch.errors import TargetError
from hwsearch.hardware.cost import Cost, Prediction
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.units import Budget, Quantity


@dataclass(frozen=True, kw_only=True)
class Admission:
    """How a cost stands to the budgets.

    Attributes:
        probability: that all budgets hold. The errors of latency and energy share their cause, so
            the least of the single probabilities is taken, not their product.
        violations: for each quantity with a budget, upper bound over limit less 1; at most 0 where
            the budget holds. What Optuna knows as a constraint.
    """

    probability: float
    violations: dict[Quantity, float]

    @property
    def admitted(self) -> bool:
        """Whether every budget holds at the confidence."""
        return all(violation <= 0 for violation in self.violations.values())

    @property
    def worst(self) -> float:
        """The largest violation."""
        return max(self.violations.values())


def check_energy(
    profile: HardwareProfile, budgets: Sequence[Budget], objectives: Sequence[Quantity] = ()
) -> None:
    """Refuse an energy budget or objective for a profile without energy.

    Raises:
        TargetError: with what to do.
    """
    asked = [*(budget.quantity for budget in budgets), *objectives]
    if profile.energy is None and "energy" in asked:
        raise TargetError(
            f"{profile.name} has no energy model, so an energy budget cannot be held; "
            "drop it, or pick another target (hwsearch targets)"
        )


def admission(cost: Cost, budgets: Sequence[Budget], confidence: float) -> Admission:
    """Hold a cost against budgets."""
    probabilities: list[float] = []
    violations: dict[Quantity, float] = {}
    for budget in budgets:
        if budget.quantity == "size":
            violations[budget.quantity] = cost.size_bytes / budget.limit - 1
            probabilities.append(float(cost.size_bytes <= budget.limit))
        else:
            prediction = prediction_of(cost, budget.quantity)
            violations[budget.quantity] = prediction.upper(confidence) / budget.limit - 1
            probabilities.append(prediction.probability_below(budget.limit))
    return Admission(probability=min(probabilities), violations=violations)


def prediction_of(cost: Cost, quantity: Quantity) -> Prediction:
    """The predicted latency or energy.

    Raises:
        TargetError: the target has no energy model.
    """
    if quantity == "latency":
        return cost.latency_ms
    if cost.energy_mj is None:
        raise TargetError("the target has no energy model")
    return cost.energy_mj


def value_of(cost: Cost, quantity: Quantity) -> float:
    """The point value of a quantity in its canonical unit."""
    return float(cost.size_bytes) if quantity == "size" else prediction_of(cost, quantity).value


def upper_of(cost: Cost, quantity: Quantity, confidence: float) -> float:
    """The value that holds at the confidence: the tightest budget that the cost still meets."""
    if quantity == "size":
        return float(cost.size_bytes)
    return prediction_of(cost, quantity).upper(confidence)
