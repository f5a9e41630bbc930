"""How far predictions lie from measurements, and how scores spread over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from scipy.stats import rankdata

from hwsearch.hardware.kernel_table import Floats

#: What the intervals of the tables are meant to hold.
CONFIDENCE: Final = 0.9


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Predictions of networks, lognormal around their median.

    Attributes:
        value: the medians, of shape (networks,).
        sigma_log: standard deviation of log(measured / value), (networks,); None where the method
            does not say how wrong it may be.
    """

    value: Floats
    sigma_log: Floats | None = None

    def upper(self, confidence: float) -> Floats:
        """One-sided bounds, (networks,); the medians themselves where there is no sigma."""
        if self.sigma_log is None:
            return self.value
        bound: Floats = self.value * np.exp(self.sigma_log * NormalDist().inv_cdf(confidence))
        return bound


def joined(forecasts: Sequence[Forecast]) -> Forecast:
    """Forecasts of one method in a row; without sigma if one of them has none."""
    sigmas = [one.sigma_log for one in forecasts if one.sigma_log is not None]
    whole = len(sigmas) == len(forecasts)
    return Forecast(
        value=np.concatenate([one.value for one in forecasts]),
        sigma_log=np.concatenate(sigmas) if whole else None,
    )


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Errors of one method on one set of networks.

    Attributes:
        spearman: NaN where one of the two is constant.
        coverage_percent: measurements inside the central interval of 90 %; None without intervals.
    """

    mape_percent: float
    rmspe_percent: float
    spearman: float
    coverage_percent: float | None


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A score over seeds, profiles or devices: its median with both quartiles."""

    median: float
    q1: float
    q3: float

    def __str__(self) -> str:
        digits = 3 if abs(self.median) < 1 else 1
        if self.q1 == self.q3:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.q1:.{digits}f}-{self.q3:.{digits}f})"


def mape_percent(measured: Floats, predicted: Floats) -> float:
    """Mean of |predicted / measured - 1|."""
    return float(100 * np.abs(_relative(measured, predicted)).mean())


def rmspe_percent(measured: Floats, predicted: Floats) -> float:
    """Root of the mean of (predicted / measured - 1)^2."""
    return float(100 * np.sqrt((_relative(measured, predicted) ** 2).mean()))


def spearman(measured: Floats, predicted: Floats) -> float:
    """Rank correlation, ties sharing their mean rank; NaN where one of the two is constant."""
    first, second = rankdata(measured), rankdata(predicted)
    if first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def coverage_percent(measured: Floats, forecast: Forecast) -> float | None:
    """Share of measurements inside the central interval; None where the forecast has none."""
    if forecast.sigma_log is None:
        return None
    reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * forecast.sigma_log
    return float(100 * (np.abs(np.log(measured / forecast.value)) <= reach).mean())


def score(measured: Floats, forecast: Forecast) -> Scores:
    """All scores of one forecast; raises ValueError where shapes differ or nothing is given."""
    return Scores(
        mape_percent=mape_percent(measured, forecast.value),
        rmspe_percent=rmspe_percent(measured, forecast.value),
        spearman=spearman(measured, forecast.value),
        coverage_percent=coverage_percent(measured, forecast),
    )


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles, NaN left out; NaN where nothing is left."""
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return Spread(median=float("nan"), q1=float("nan"), q3=float("nan"))
    q1, median, q3 = (float(one) for one in np.quantile(known, (0.25, 0.5, 0.75)))
    return Spread(median=median, q1=q1, q3=q3)


def spread_columns(scores: Sequence[Scores]) -> dict[str, Spread | None]:
    """The spread of each score; None where no forecast had intervals."""
    covered = [one.coverage_percent for one in scores if one.coverage_percent is not None]
    return {
        "mape_percent": spread([one.mape_percent for one in scores]),
        "rmspe_percent": spread([one.rmspe_percent for one in scores]),
        "spearman": spread([one.spearman for one in scores]),
        "coverage_percent": spread(covered) if covered else None,
    }


def _relative(measured: Floats, predicted: Floats) -> Floats:
    if measured.shape != predicted.shape or measured.size == 0:
        raise ValueError(f"{predicted.size} predictions for {measured.size} measurements")
    return predicted / measured - 1
