"""Which networks are fine-tuned fully after the search, and in which order."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hwsearch.accuracy.training import Score
from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import Knobs
from hwsearch.study.candidates.workbench import BASELINES, Workbench
from hwsearch.study.finals.front import non_dominated
from hwsearch.study.trials.promotion import Climb, stop_reason
from hwsearch.study.trials.records import Record

#: Scores of the search are short and noisy, so more than its own front is taken, within reason. Of
#: 240 networks (``benchmarks/search/replay_ladder.py``, size) 95 % of the true front, which has 14,
#: was among ten finalists for 2 seeds of 10, among fourteen for 9.
_LEAST = 12
MOST_FINALISTS = 14


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A network that is to be fine-tuned fully.

    Attributes:
        needed: however little time is left.
        baseline: the other networks of its backbone are not offered without it.
    """

    candidate: Candidate
    needed: bool = True
    baseline: bool = False


def finalists(records: Sequence[Record], bench: Workbench) -> list[Record]:
    """The completed trials that may be on the front: its layers from the outside in.

    At least 12 (if there are as many) and at most 14, evenly spaced by cost when a layer has more;
    and those that are a baseline of the others, which is fine-tuned anyway: short scores of it need
    not be what keeps it off the front.
    """
    completed = [record for record in records if record.state == "completed"]
    completed.sort(key=lambda record: record.trial)
    taken = outer_layers([_point(record, bench) for record in completed])
    baselines = baseline_candidates([completed[at] for at in taken], bench)
    tuned = {candidate.id for _, candidate in baselines}
    return [
        record
        for at, record in enumerate(completed)
        if at in taken or (record.candidate is not None and record.candidate.id in tuned)
    ]


def outer_layers(points: Sequence[tuple[float, ...]]) -> list[int]:
    """Positions of the finalists among points, all of whose objectives go down, in order.

    Args:
        points: the error first, then the costs, by which a layer is spaced.
    """
    left = list(range(len(points)))
    chosen: list[int] = []
    while left and len(chosen) < _LEAST:
        layer = [left[at] for at in non_dominated([points[one] for one in left])]
        ordered = sorted(layer, key=lambda at: (points[at][1:], at))
        chosen += _spaced(ordered, MOST_FINALISTS - len(chosen))
        left = [at for at in left if at not in set(layer)]
    return sorted(chosen)


def runners_up(
    records: Sequence[Record], tuned: Mapping[str, Score], bench: Workbench
) -> list[Record]:
    """Completed trials that may yet be better than what was fine-tuned fully.

    By the rule of the rungs, full fine-tuning being the highest of them: what short scores foretell
    of it is learned from the networks that have both, so the worse they rank, the more trials keep
    a chance. At most 14, those that would add the most.

    Args:
        records: of all trials.
        tuned: validation scores after full fine-tuning, by candidate id.
        bench: of the run.
    """
    rungs = len(bench.settings.space.training.rung_steps) + 2
    completed = [record for record in records if record.state == "completed"]
    climbs = {}
    for record in completed:
        assert record.cost is not None
        assert record.candidate is not None
        full = tuned.get(record.candidate.id)
        scores = record.scores if full is None else (*record.scores, full)
        costs = bench.values(record.cost)
        climbs[record.trial] = Climb(trial=record.trial, costs=costs, scores=scores)
    others = list(climbs.values())
    left = [
        record
        for record in completed
        if len(climbs[record.trial].scores) < rungs
        and stop_reason(climbs[record.trial], others, rungs) is None
    ]
    return sorted(by_gain(left, bench)[:MOST_FINALISTS], key=lambda record: record.trial)


def by_gain(records: Sequence[Record], bench: Workbench) -> list[Record]:
    """Completed trials, each the one that adds the most to the front of those before it.

    The most accurate comes first. What one adds is area above guessing, over the logarithm of the
    first cost that the search brings down; ties go to the more accurate, then the earlier trial.
    """
    ordered = sorted(records, key=lambda record: record.trial)
    points = [_point(record, bench) for record in ordered]
    return [ordered[at] for at in gain_order(points, 1 / len(bench.data.class_names))]


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


def plan(
    chosen: Sequence[Record], baselines: Sequence[Candidate], bench: Workbench
) -> list[Planned]:
    """The order of full fine-tuning, so that wherever it ends the best of it was done.

    The most accurate finalist and its baselines are needed; then finalists by what they add, each
    behind the baselines of its backbone.
    """
    ordered = [record.candidate for record in by_gain(chosen, bench)]
    planned: list[Planned] = []
    for at, candidate in enumerate(one for one in ordered if one is not None):
        own = [one for one in baselines if one.backbone == candidate.backbone]
        ahead = [Planned(candidate=one, needed=at == 0, baseline=True) for one in own]
        known = {one.candidate.id for one in planned}
        new = [one for one in ahead if one.candidate.id not in known]
        finalist = Planned(candidate=candidate, needed=at == 0)
        planned += [finalist, *new] if at == 0 else [*new, finalist]
    return planned


def baseline_candidates(chosen: Sequence[Record], bench: Workbench) -> list[tuple[str, Candidate]]:
    """Dense fp32 and uniform int8 of each backbone among the finalists.

    At the input size that the finalists of that backbone use most (the smaller on a tie).
    """
    found = []
    for name in dict.fromkeys(record.knobs.backbone for record in chosen):
        sizes = [record.knobs.input_px for record in chosen if record.knobs.backbone == name]
        px = min(set(sizes), key=lambda size: (-sizes.count(size), size))
        for label, bits in BASELINES:
            found.append((label, bench.baseline(Knobs(backbone=name, input_px=px), bits)))
    return found


def _area(points: Sequence[tuple[float, float]], highest: float) -> float:
    """Under the front of (cost, gain) points, up to the highest cost."""
    area = best = 0.0
    last = 0.0
    for cost, gain in sorted(points):
        area += best * (cost - last)
        best, last = max(best, gain), cost
    return area + best * (highest - last)


def _point(record: Record, bench: Workbench) -> tuple[float, ...]:
    assert record.cost is not None
    assert record.accuracy is not None
    return (1.0 - record.accuracy, *bench.values(record.cost))


def _spaced(ordered: list[int], room: int) -> list[int]:
    """At most ``room`` of a list, both ends included, evenly spaced."""
    if len(ordered) <= room:
        return ordered
    if room == 1:
        return [ordered[-1]]
    return [ordered[round(at * (len(ordered) - 1) / (room - 1))] for at in range(room)]
