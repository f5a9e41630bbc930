"""Which networks are fine-tuned fully after the search, and in which order."""

import math
from collections.abc import Sequence

from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import Knobs
from hwsearch.study.asked.effort import MOST_FINALISTS
from hwsearch.study.candidates.pricing_context import BASELINES, PricingContext
from hwsearch.study.finals.dominance import non_dominated
from hwsearch.study.trials.records import Record


def finalists(
    records: Sequence[Record], pricing: PricingContext, most: int | None = None
) -> list[Record]:
    """The completed trials that may be on the front: its layers from the outside in.

    Args:
        records: of all trials.
        pricing: of the run.
        most: how many, evenly spaced by cost when a layer has more; by default what the effort of
            the run says, or 8 under a time limit.
    """
    settings = pricing.settings
    if most is None:
        most = MOST_FINALISTS if settings.time_limit_s is not None else settings.lengths.finalists
    completed = [record for record in records if record.state == "completed"]
    completed.sort(key=lambda record: record.trial)
    return [
        completed[at]
        for at in outer_layers([_point(record, pricing) for record in completed], most)
    ]


def outer_layers(points: Sequence[tuple[float, ...]], most: int) -> list[int]:
    """Positions of the finalists among points, all of whose objectives go down, in order.

    Args:
        points: the error first, then the costs, by which a layer is spaced.
        most: positions.
    """
    left = list(range(len(points)))
    chosen: list[int] = []
    while left and len(chosen) < most:
        layer = [left[at] for at in non_dominated([points[one] for one in left])]
        ordered = sorted(layer, key=lambda at: (points[at][1:], at))
        chosen += _spaced(ordered, most - len(chosen))
        left = [at for at in left if at not in set(layer)]
    return sorted(chosen)


def by_gain(records: Sequence[Record], pricing: PricingContext) -> list[Record]:
    """Completed trials, each the one that adds the most to the front of those before it.

    The most accurate comes first. What one adds is area above guessing, over the logarithm of the
    first cost that the search brings down; ties go to the more accurate, then the earlier trial.
    """
    ordered = sorted(records, key=lambda record: record.trial)
    points = [_point(record, pricing) for record in ordered]
    return [ordered[at] for at in gain_order(points, 1 / pricing.backbones.classes)]


def gain_order(points: Sequence[tuple[float, ...]], guessing: float) -> list[int]:
    """Positions of points, the most accurate first, then whichever adds the most to those before.

    Args:
        points: the error, then the costs.
        guessing: its accuracy.
    """
    gains = [(math.log(cost), max(0.0, 1.0 - error - guessing)) for error, cost, *_ in points]
    highest = max((cost for cost, _ in gains), default=0.0)
    left = sorted(range(len(gains)), key=lambda at: (-gains[at][1], at))
    ordered = left[:1]
    left = left[1:]
    while left:
        taken = [gains[at] for at in ordered]
        areas = [round(_area([*taken, gains[at]], highest), 9) for at in left]
        ordered.append(left.pop(areas.index(max(areas))))
    return ordered


def baseline_candidates(
    chosen: Sequence[Record], pricing: PricingContext
) -> list[tuple[str, Candidate]]:
    """Dense fp32 and uniform int8 of each backbone among the finalists.

    At the input size that the finalists of that backbone use most (the smaller on a tie).
    """
    found = []
    for name in dict.fromkeys(record.knobs.backbone for record in chosen):
        sizes = [record.knobs.input_px for record in chosen if record.knobs.backbone == name]
        px = min(set(sizes), key=lambda size: (-sizes.count(size), size))
        for label, bits in BASELINES:
            found.append(
                (label, pricing.backbones.uniform(Knobs(backbone=name, input_px=px), bits))
            )
    return found


def _area(points: Sequence[tuple[float, float]], highest: float) -> float:
    """Under the front of (cost, gain) points, up to the highest cost."""
    area = best = 0.0
    last = 0.0
    for cost, gain in sorted(points):
        area += best * (cost - last)
        best, last = max(best, gain), cost
    return area + best * (highest - last)


def _point(record: Record, pricing: PricingContext) -> tuple[float, ...]:
    assert record.cost is not None
    assert record.accuracy is not None
    return (1.0 - record.accuracy, *pricing.values(record.cost))


def _spaced(ordered: list[int], room: int) -> list[int]:
    """At most ``room`` of a list, both ends included, evenly spaced."""
    if len(ordered) <= room:
        return ordered
    if room == 1:
        return [ordered[-1]]
    return [ordered[round(at * (len(ordered) - 1) / (room - 1))] for at in range(room)]
