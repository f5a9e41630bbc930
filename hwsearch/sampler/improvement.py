"""Expected hypervolume improvement of candidates whose costs are known, in closed form.

One objective ``Y ~ N(mean, deviation^2)`` is uncertain and goes up; the costs ``c`` are known and
go down. With ``b(u)`` the best value that the front reaches at costs of at most ``u``, the expected
improvement is an integral over the costs that the candidate would dominate::

    EHVI = integral over c <= u <= reference of E[max(Y - b(u), 0)] du

``b`` is constant on the cells of the grid that the costs of the front span. For each of its levels
the volume of the cells beyond ``c`` is multilinear in ``c`` inside a cell, so tables of sums at the
nodes of the grid and an interpolation give it exactly. For one cost these are the strips of the
staircase; the general form is that of Emmerich et al. (doi:10.1109/CEC.2011.5949880) with all but
one deviation at zero.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtr
from scipy.stats import qmc

from hwsearch.sampler.priced import Floats, Ints

#: Entries of the tables above which three and more costs are integrated over quasi-random points.
#: 40 points of a front in three costs stay below it; one and two costs are always exact.
_LARGEST_TABLE: Final = 5_000_000
_POINTS: Final = 4096


def expected_improvement(mean: Floats, deviation: Floats, best: Floats | float) -> Floats:
    """``E[max(Y - best, 0)]`` for Y normal (Jones et al., doi:10.1023/A:1008306431147).

    Args:
        mean: of any shape that the others broadcast to.
        deviation: above 0.
        best: what has to be beaten.
    """
    z = (mean - best) / deviation
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    improvement: Floats = np.maximum(deviation * (z * ndtr(z) + density), 0.0)
    return improvement


@dataclass(frozen=True, kw_only=True, eq=False)
class Front:
    """What is to be improved: value up, costs down.

    Points may dominate each other, repeat, or lie beyond the reference, where they count nothing.

    Attributes:
        values: (points,) of the uncertain objective.
        costs: (points, costs).
        reference_value: worst value that counts.
        reference_costs: (costs,), the largest that count.
    """

    values: Floats
    costs: Floats
    reference_value: float
    reference_costs: Floats

    def inside(self) -> tuple[Floats, Floats]:
        """Values and costs of the non-dominated points that are better than the reference."""
        good = (self.values > self.reference_value) & (self.costs < self.reference_costs).all(1)
        values, costs = self.values[good], self.costs[good]
        kept = non_dominated(values, costs)
        return values[kept], costs[kept]


def non_dominated(values: Floats, costs: Floats) -> Ints:
    """Positions of the points that no other dominates, by falling value; of equals the first."""
    rest = np.lexsort((*costs.T[::-1], -values))
    kept: list[int] = []
    while len(rest):
        # Those after it are no better in value: it beats the ones that cost no less.
        best, rest = int(rest[0]), rest[1:]
        kept.append(best)
        rest = rest[~(costs[best] <= costs[rest]).all(axis=1)]
    return np.array(kept, dtype=np.int64)


def hypervolume_improvement(mean: Floats, deviation: Floats, costs: Floats, front: Front) -> Floats:
    """Expected growth of the dominated volume by one more point.

    Args:
        mean: (candidates,) of the uncertain objective.
        deviation: (candidates,), above 0.
        costs: (candidates, costs); of none, the result is ``expected_improvement`` over the best.
        front: that is to grow.

    Returns:
        (candidates,), at least 0; 0 for costs beyond the reference.
    """
    values, known = front.inside()
    if costs.shape[1] == 0:
        return expected_improvement(mean, deviation, max([front.reference_value, *values]))
    improvement = np.zeros(len(mean))
    within = (costs < front.reference_costs).all(axis=1)
    if not within.any():
        return improvement
    mean, deviation, costs = mean[within], deviation[within], costs[within]
    axes = [
        np.unique(np.r_[costs[:, axis].min(), known[:, axis], front.reference_costs[axis]])
        for axis in range(costs.shape[1])
    ]
    levels = np.unique(np.r_[front.reference_value, values])
    if len(axes) > 2 and math.prod(map(len, axes)) * len(levels) > _LARGEST_TABLE:
        improvement[within] = _over_points(mean, deviation, costs, front)
        return improvement
    reached = _reached(axes, values, known, front.reference_value)
    places = [
        np.clip(np.searchsorted(axis, costs[:, at], side="right") - 1, 0, len(axis) - 2)
        for at, axis in enumerate(axes)
    ]
    shares = [
        (costs[:, at] - axis[place]) / (axis[place + 1] - axis[place])
        for at, (axis, place) in enumerate(zip(axes, places, strict=True))
    ]
    total = np.zeros(len(mean))
    for level in levels:
        volume = _interpolated(_beyond(axes, reached == level), places, shares)
        some = volume > 0
        total[some] += volume[some] * expected_improvement(mean[some], deviation[some], level)
    improvement[within] = total
    return improvement


def _reached(axes: list[Floats], values: Floats, costs: Floats, least: float) -> Floats:
    """The best value at the costs of each cell, of shape (cells of axis 1, of axis 2, ...)."""
    reached = np.full([len(axis) - 1 for axis in axes], least)
    places = tuple(np.searchsorted(axis, costs[:, at]) for at, axis in enumerate(axes))
    np.maximum.at(reached, places, values)
    for axis in range(len(axes)):
        np.maximum.accumulate(reached, axis=axis, out=reached)
    return reached


def _beyond(axes: list[Floats], cells: Floats) -> Floats:
    """At every node of the grid the volume of the chosen cells that lie beyond it."""
    volume = cells.astype(np.float64)
    for at, axis in enumerate(axes):
        shape = [1] * len(axes)
        shape[at] = -1
        volume = volume * np.diff(axis).reshape(shape)
        volume = np.flip(np.cumsum(np.flip(volume, at), axis=at), at)
    padded: Floats = np.pad(volume, [(0, 1)] * len(axes))
    return padded


def _interpolated(nodes: Floats, places: list[Ints], shares: list[Floats]) -> Floats:
    """Multilinear interpolation at (candidates,) points given by cell and share of the cell."""
    total = np.zeros(len(places[0]))
    for corner in itertools.product((0, 1), repeat=len(places)):
        weight = np.ones(len(total))
        for share, end in zip(shares, corner, strict=True):
            weight = weight * (share if end else 1.0 - share)
        total += weight * nodes[tuple(p + end for p, end in zip(places, corner, strict=True))]
    return total


def _over_points(mean: Floats, deviation: Floats, costs: Floats, front: Front) -> Floats:
    """The same integral over a fixed quasi-random set of costs; for large fronts in many costs."""
    values, known = front.inside()
    low, high = costs.min(axis=0), front.reference_costs
    unit = qmc.Sobol(costs.shape[1], scramble=False).random(_POINTS)
    points = low + unit * (high - low)
    reached = np.full(_POINTS, front.reference_value)
    for value, cost in zip(values[::-1], known[::-1], strict=True):
        reached[(cost <= points).all(axis=1)] = value
    total = np.zeros(len(mean))
    beyond = np.ones((len(mean), _POINTS), dtype=bool)
    for axis in range(costs.shape[1]):
        beyond &= costs[:, axis, None] <= points[:, axis]
    for level in np.unique(reached):
        share = beyond[:, reached == level].sum(axis=1) / _POINTS
        total += share * expected_improvement(mean, deviation, level)
    volume: Floats = total * np.prod(high - low)
    return volume
