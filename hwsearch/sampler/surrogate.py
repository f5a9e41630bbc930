"""A small Gaussian process: what accuracy is to be expected, and how uncertain that is.

Matern 5/2 over groups of features with a length each, fitted by maximum a posteriori.

=========  ======================================================================================
symbol     meaning
=========  ======================================================================================
``D_g``    squared distances in feature group g, (n, n)
``w_g``    ``exp(-2 log length_g)``, so that ``r^2 = sum_g w_g D_g``
``K``      ``signal * k(r) + noise * I``, (n, n)
``theta``  logarithms: a length for each group, then signal and noise variance
=========  ======================================================================================

Values are standardized, so signal variances are near 1. Chosen on NAS-Bench-201 (three devices,
three seeds, median regret at 50 and 100 trials): Matern 5/2 1.8 and 0.6 %, squared exponential 2.3
and 0.7 %, exponential 3.4 and 1.0 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

from hwsearch.sampler.priced import Floats

#: Prior of a logarithmic length: median 2 standard deviations of the feature, so that a feature
#: matters little until the data say so.
_LENGTH_MEAN, _LENGTH_STD = 0.7, 1.0
_SIGNAL_STD: Final = 1.0
#: Prior of the logarithmic noise variance: around 5 % of the spread of the values.
_NOISE_MEAN, _NOISE_STD = -6.0, 2.0
_JITTER: Final = 1e-6
_ROOT5: Final = math.sqrt(5.0)
_STEPS: Final = 30

#: Groups of features, each (points, columns).
Features = Sequence[Floats]


@dataclass(frozen=True, kw_only=True, eq=False)
class Kernel:
    """Fitted parameters.

    Attributes:
        lengths: one for each group of features.
        signal: variance of the standardized values.
        noise: variance of what features do not explain.
    """

    lengths: Floats
    signal: float
    noise: float

    def covariance(self, first: Features, second: Features) -> Floats:
        """Of shape (points of first, points of second), without noise."""
        left = np.hstack([x / length for x, length in zip(first, self.lengths, strict=True)])
        right = np.hstack([x / length for x, length in zip(second, self.lengths, strict=True)])
        covariance: Floats = self.signal * _matern(_squared_distances(left, right))[0]
        return covariance


def fit_kernel(features: Features, values: Floats) -> Kernel:
    """Lengths, signal and noise of largest posterior probability; deterministic.

    Args:
        features: groups, (n, columns) each, on scales of about 1.
        values: (n,), standardized.
    """
    distances = np.array([_squared_distances(group, group) for group in features])
    groups = len(features)
    start = np.r_[np.full(groups, _LENGTH_MEAN), 0.0, -4.0]
    found = minimize(
        _negative_log_posterior,
        start,
        args=(distances, values),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-3.0, 6.0)] * groups + [(-4.0, 4.0), (-12.0, 2.0)],
        options={"maxiter": _STEPS},
    )
    signal, noise = np.exp(found.x[groups:])
    return Kernel(lengths=np.exp(found.x[:groups]), signal=float(signal), noise=float(noise))


class Surrogate:
    """A kernel with the points that it is conditioned on.

    Args:
        kernel: fitted to these or to some of these points.
        features: groups, (n, columns) each; n is at least 1.
        values: (n,), standardized.
        doubt: (n,), variance of each value beside the kernel's noise; none by default.
    """

    def __init__(
        self, kernel: Kernel, features: Features, values: Floats, doubt: Floats | float = 0.0
    ) -> None:
        self._kernel, self._features = kernel, features
        covariance = kernel.covariance(features, features)
        covariance[np.diag_indices(len(values))] += kernel.noise + _JITTER + doubt
        self._factor = np.linalg.cholesky(covariance)
        self._weights = cho_solve((self._factor, True), values, check_finite=False)

    def predict(self, features: Features) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the noise-free values, (points,) each."""
        covariance = self._kernel.covariance(features, self._features)
        mean: Floats = covariance @ self._weights
        whitened = solve_triangular(self._factor, covariance.T, lower=True, check_finite=False)
        variance = self._kernel.signal - np.einsum("ij,ij->j", whitened, whitened)
        deviation: Floats = np.sqrt(np.maximum(variance, 1e-10))
        return mean, deviation


def _negative_log_posterior(
    theta: Floats, distances: Floats, values: Floats
) -> tuple[float, Floats]:
    """Eq. 5.8 and 5.9 of Rasmussen and Williams (2006), with normal priors on theta."""
    groups, count = len(distances), len(values)
    weights = np.exp(-2.0 * theta[:groups])
    signal, noise = np.exp(theta[groups:])
    correlation, slope = _matern(np.tensordot(weights, distances, axes=1))
    covariance = signal * correlation
    covariance[np.diag_indices(count)] += noise + _JITTER
    factor = np.linalg.cholesky(covariance)
    half = solve_triangular(factor, np.eye(count), lower=True, check_finite=False)
    inverse = half.T @ half
    solved = inverse @ values
    outer = np.outer(solved, solved) - inverse
    value = 0.5 * values @ solved + np.log(np.diag(factor)).sum()
    gradient = np.empty_like(theta)
    weighted = outer * slope * signal
    gradient[:groups] = weights * np.tensordot(distances, weighted, axes=((1, 2), (0, 1)))
    gradient[groups] = -0.5 * signal * np.sum(outer * correlation)
    gradient[groups + 1] = -0.5 * noise * np.trace(outer)
    means = np.r_[np.full(groups, _LENGTH_MEAN), 0.0, _NOISE_MEAN]
    stds = np.r_[np.full(groups, _LENGTH_STD), _SIGNAL_STD, _NOISE_STD]
    value += 0.5 * float(np.sum(((theta - means) / stds) ** 2))
    gradient += (theta - means) / stds**2
    return float(value), gradient


def _matern(squared: Floats) -> tuple[Floats, Floats]:
    """Correlation at squared scaled distances, and its derivative by the squared distance."""
    distance = _ROOT5 * np.sqrt(squared)
    decay = np.exp(-distance)
    return (1.0 + distance + 5.0 / 3.0 * squared) * decay, -5.0 / 6.0 * (1.0 + distance) * decay


def _squared_distances(first: Floats, second: Floats) -> Floats:
    squared: Floats = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)
    squared -= 2.0 * first @ second.T
    np.maximum(squared, 0.0, out=squared)
    return squared
