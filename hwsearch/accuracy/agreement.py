"""How well short scores rank networks as full training does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

Floats = NDArray[np.float64]

#: Resamples of the interval: its ends repeat to about 0.01.
_RESAMPLES: Final = 2000


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Kendall's tau-b (ties counted) with an interval.

    Attributes:
        tau: from -1 to 1; 1 is the same order, 0 is chance.
        low: lower end of the 90 % interval.
        high: upper end.
        networks: on which it was measured.
    """

    tau: float
    low: float
    high: float
    networks: int


def agreement(short: Sequence[float], full: Sequence[float], *, seed: int = 0) -> Agreement | None:
    """Kendall's tau-b between two scores of the same networks.

    The interval is the bootstrap's percentiles over networks (Efron 1979,
    doi:10.1214/aos/1176344552); draws in which a score is the same for all networks are left out.

    Args:
        short: one score for each network; more is better.
        full: the scores that it is to foretell, in the same order.
        seed: of the draws.

    Returns:
        None where one of the two is the same for all networks: there is no order to agree on.

    Raises:
        ValueError: other numbers of scores, or one that is not finite.
    """
    first, second = np.array(short, dtype=np.float64), np.array(full, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} short scores for {len(second)} full ones")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a score is not finite")
    count = len(first)
    if len(set(short)) < 2 or len(set(full)) < 2:
        return None
    # Not scipy's bootstrap: one draw without an order would make its whole interval NaN.
    generator = np.random.default_rng(seed)
    drawn = generator.integers(count, size=(_RESAMPLES, count))
    tau = float(kendalltau(first, second).statistic)
    low, high = np.quantile(_taus(first, second, drawn), (0.05, 0.95))
    return Agreement(tau=tau, low=float(low), high=float(high), networks=count)


def _taus(first: Floats, second: Floats, drawn: NDArray[np.int64]) -> Floats:
    """Kendall's tau-b of each draw (rows of positions) that has an order.

    From how often each network was drawn: a pair of networks counts as often as there are pairs of
    their copies, and copies of one are tied. Two thousand calls of scipy take half a second.
    """
    times = np.stack([np.bincount(one, minlength=len(first)) for one in drawn]).astype(np.float64)
    signs = [np.sign(scores[:, None] - scores[None, :]) for scores in (first, second)]

    def pairs(weights: Floats) -> Floats:
        return np.asarray(((times @ weights) * times).sum(axis=1))

    untied = pairs(np.abs(signs[0])) * pairs(np.abs(signs[1]))
    kept = untied > 0
    return np.asarray(pairs(signs[0] * signs[1])[kept] / np.sqrt(untied[kept]))
