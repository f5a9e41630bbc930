"""Which networks no other one beats."""

from collections.abc import Sequence

import numpy as np

from hwsearch.report.stored import BaselineEntry, CostEntry, ModelEntry
from hwsearch.sampler.improvement import non_dominated as best_first
from hwsearch.units import Quantity


def non_dominated(points: Sequence[tuple[float, ...]]) -> list[int]:
    """Positions of the points that no other dominates; all objectives go down.

    One point dominates another if it is no worse in any objective and better in one. Of equal
    points the first stays. Empty in, empty out.

    Args:
        points: tuples of one length; NaN is refused.

    Raises:
        ValueError: a NaN, which would be neither better nor worse than anything.
    """
    if not points:
        return []
    table = np.array(points, dtype=np.float64)
    if np.isnan(table).any():
        raise ValueError("a NaN has no rank")
    kept: list[int] = best_first(-table[:, 0], table[:, 1:]).tolist()
    return sorted(kept)


def objectives(
    entry: ModelEntry | BaselineEntry, quantities: Sequence[Quantity]
) -> tuple[float, ...]:
    """What is minimized: the error rate, then each cost."""
    values = [1.0 - entry.accuracy]
    for quantity in quantities:
        cost: CostEntry | None = entry.cost(quantity)
        if cost is None:
            raise ValueError(f"{entry.backbone} has no {quantity}, which the search brings down")
        values.append(cost.value)
    return tuple(values)


def never_worse(
    models: Sequence[ModelEntry],
    baselines: Sequence[BaselineEntry],
    quantities: Sequence[Quantity],
) -> tuple[list[ModelEntry], list[tuple[ModelEntry, str]]]:
    """The front of the models, less those that a baseline beats.

    Returns:
        What is on the front, cheapest first, and what is not, with the reason.
    """
    kept = {models[at].trial for at in non_dominated([objectives(m, quantities) for m in models])}
    front, refused = [], []
    for model in models:
        better = next((b for b in baselines if beats(b, model, quantities)), None)
        if better is not None:
            refused.append((model, f"the baseline {better.name} of {better.backbone} is better"))
        elif model.trial not in kept:
            refused.append((model, "another model of the front is better"))
        else:
            front.append(model)
    front.sort(key=lambda model: (model.latency_ms.value, model.trial))
    return front, refused


def beats(
    one: ModelEntry | BaselineEntry,
    other: ModelEntry | BaselineEntry,
    quantities: Sequence[Quantity],
) -> bool:
    """No worse in anything, or both faster and more accurate, however much smaller the other is."""
    mine, theirs = objectives(one, quantities), objectives(other, quantities)
    if all(a <= b for a, b in zip(mine, theirs, strict=True)) and mine != theirs:
        return True
    faster = one.latency_ms.value < other.latency_ms.value
    return faster and one.accuracy > other.accuracy
