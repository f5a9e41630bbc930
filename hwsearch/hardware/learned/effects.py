"""Learning effects from measured networks: the most probable ones, and samples around them.

The model, for network n with terms ``x`` (``TermMatrix.values``), design ``D`` and effects ``e``::

    log measured_n = log sum_t x_nt exp((D e)_t) + noise,   noise ~ N(0, sigma^2)
    e_j ~ N(0, tau_j^2)

The most probable effects are found by damped Gauss-Newton steps (Levenberg-Marquardt). The samples
are solutions of the same problem with the measurements and the prior means perturbed by draws from
their own distributions: exact draws from the posterior where the model is linear ("randomize, then
optimize", Bardsley et al. 2014, doi:10.1137/140964023). An effect that no measurement touches is
left at its draw from the prior, so the samples disagree about kernels that were never measured.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np

from hwsearch.hardware.kernel_table import Floats
from hwsearch.hardware.learned.terms import Cap, Effect, TermMatrix, design, distinct

#: Draws from the posterior that are kept: their spread is known to about 20 %.
SAMPLES: Final = 12
_MOST_STEPS: Final = 60
#: Improvement of the objective below which a solution is good enough.
_TOLERANCE: Final = 1e-4
_LARGEST_STEP: Final = 2.0
#: Noise before any residual was seen, and how many measurements that is worth. Measurements whose
#: effects pass through them all do not tell it: with 25 nets of an x86 anything from 0.05 to 0.2 is
#: as probable within e, and nets never measured lie 0.19 off. With 0.1, worth four, intervals of
#: 90 % held 67 % of these.
_PRIOR_NOISE: Final = 0.14
_PRIOR_NOISE_WEIGHT: Final = 2.0
#: Residuals past this many sigmas count less (Huber): published tables have odd rows.
_HUBER: Final = 2.5
#: Keeps exponentials finite; no factor is near it.
_LARGEST_LOG: Final = 30.0
#: From so many measurements on a solution hardly moves, and a sample is one linear step from it.
_MANY: Final = 500
#: Scales on the prior that are tried, and how far from 1 they are believed to lie.
_SCALES: Final = (0.5, 1.0, 1.6, 2.5, 4.0)
_SCALE_SIGMA_LOG: Final = 1.0
#: Measurements that are enough to tell one scale from another.
_ENOUGH_FOR_SCALE: Final = 250
#: Standard deviation of an effect that is taken over from a relative unseen.
_RELATIVE_SIGMA: Final = 0.3


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Effects with their uncertainty.

    Attributes:
        effects: name to values; the first is the most probable, the others are the samples.
        noise: standard deviation of log(measured / predicted) around the truth of the effects, as
            the effects were solved with it.
        interval_noise: the same for intervals, wider where few measurements tell it.
        prior_scale: on the standard deviations before anything was measured, as it was chosen.
    """

    effects: Mapping[str, tuple[float, ...]]
    noise: float
    interval_noise: float
    prior_scale: float


def learn(
    terms: TermMatrix,
    measured: Floats,
    *,
    seed: int,
    samples: int = SAMPLES,
    start: Mapping[str, float] | None = None,
    prior_scale: float | None = None,
) -> Learned:
    """Fit effects to measured networks.

    Args:
        terms: of the networks.
        measured: positive, of shape (networks,), in the unit of the terms.
        seed: of the samples.
        samples: how many; none where only the most probable effects are wanted.
        start: means of the effects before anything was measured, where they are not 0: those of a
            relative of the target.
        prior_scale: on the standard deviations before anything was measured; where it is not
            given, what explains these measurements best.

    Raises:
        ValueError: numbers that do not match, or are not positive and finite.
    """
    if terms.values.shape[0] != len(measured) or len(measured) == 0:
        raise ValueError(f"{len(measured)} measurements for {terms.values.shape[0]} networks")
    if not (np.isfinite(measured).all() and (measured > 0).all()):
        raise ValueError("a measurement is not positive and finite")
    means = dict(start or {})
    known = distinct(terms.effects)
    names = [effect.name for effect in known]
    prior_mean = np.array([means.get(name, 0.0) for name in names])
    problem = _Problem(
        values=terms.values,
        design=design(terms.effects, names),
        target=np.log(measured),
        prior_mean=prior_mean,
        prior_sigma=np.array([effect.sigma for effect in known]),
    )
    scale = _chosen_scale(problem, seed) if prior_scale is None else prior_scale
    problem = problem.scaled(scale)
    best, noise = problem.fit(prior_mean, 2 * _PRIOR_NOISE, rounds=4)
    interval_noise = noise * _student_share(problem.free(best, noise))
    rng = np.random.default_rng(seed)
    prior_draws = np.array(
        [[prior_draw(effect, number) for effect in known] for number in range(samples)]
    ).reshape(samples, len(known))
    moved = interval_noise * rng.standard_normal((samples, len(measured)))
    shifted = scale * prior_draws
    draws: list[Floats] = [best]
    if len(measured) >= _MANY:
        draws += list(best + problem.linear_steps(best, moved, shifted, noise))
    else:
        for at in range(samples):
            target, prior = problem.target + moved[at], prior_mean + shifted[at]
            draws.append(problem.solve(best, target, prior, noise))
    values = np.stack(draws, axis=1)
    effects = {
        name: tuple(float(value) for value in row) for name, row in zip(names, values, strict=True)
    }
    for name in means.keys() - set(names):
        # Nothing was learned here, but the relative's mean is worth keeping. How sure that mean is
        # was not kept, so that the widest effect's uncertainty is put on it.
        effect = Effect(name, _RELATIVE_SIGMA)
        drawn = np.array([0.0, *(prior_draw(effect, number) for number in range(samples))])
        effects[name] = tuple(float(value) for value in means[name] + scale * drawn)
    return Learned(effects=effects, noise=noise, interval_noise=interval_noise, prior_scale=scale)


def factors(
    effects: Mapping[str, Sequence[float]],
    columns: Sequence[tuple[Effect, ...]],
    *,
    caps: Sequence[tuple[Cap, ...]] = (),
    prior_scale: float = 1.0,
) -> Floats:
    """The factor of each column in the most probable case and in every sample.

    Args:
        effects: learned; one that is missing has mean 0 and its draws from the prior.
        columns: of a term matrix, each with its effects.
        caps: for each column what its factor must not exceed, in any sample; or none at all.
        prior_scale: as in ``learn``.

    Returns:
        Positive, of shape (columns, 1 + samples).
    """
    width = len(next(iter(effects.values())))
    known: dict[str, Floats] = {}
    of_caps = [cap.effects for several in caps for cap in several]
    for effect in distinct([*columns, *of_caps]):
        values = effects.get(effect.name)
        if values is None:
            draws = (prior_scale * prior_draw(effect, number) for number in range(width - 1))
            values = [0.0, *draws]
        known[effect.name] = np.array(values)
    sums = np.array([sum(known[effect.name] for effect in one) for one in columns])
    for at, several in enumerate(caps):
        for cap in several:
            limit = cap.log_room + sum(known[effect.name] for effect in cap.effects)
            sums[at] = np.minimum(sums[at], limit)
    found: Floats = np.exp(np.clip(sums, -_LARGEST_LOG, _LARGEST_LOG))
    return found


@lru_cache(maxsize=65536)
def prior_draw(effect: Effect, sample: int) -> float:
    """A sample's draw from the prior of an effect.

    Made from the name, so an effect that was not in the fit has in every sample the value that it
    would have had there without evidence.
    """
    digest = hashlib.sha256(f"{sample}/{effect.name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return float(effect.sigma * rng.standard_normal())


def _log_prior_of_noise(noise: float) -> float:
    """Of its logarithm, but for a constant: as if measurements had been seen before.

    A wide prior on the effects must not win by passing through what is noise.
    """
    return -_PRIOR_NOISE_WEIGHT * (math.log(noise) + 0.5 * (_PRIOR_NOISE / noise) ** 2)


def _student_share(free: float) -> float:
    """By what a noise that is known from few measurements is widened.

    So that an interval of 90 % made of it holds as much as that of Student's distribution does.
    """
    from scipy.stats import norm, t

    return float(t.ppf(0.95, free) / norm.ppf(0.95))


def _chosen_scale(problem: "_Problem", seed: int) -> float:
    """The scale on the prior that makes the measurements the most probable.

    Empirical Bayes (MacKay 1992, doi:10.1162/neco.1992.4.3.415): boards and runtimes lie apart by
    more or less than the table of priors says, and the measurements of one show it.
    """
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(problem.target))[:_ENOUGH_FOR_SCALE]
    part = replace(problem, values=problem.values[some], target=problem.target[some])
    best, noise = part.fit(part.prior_mean, 2 * _PRIOR_NOISE, rounds=4)
    evidence = []
    for scale in _SCALES:
        scaled = part.scaled(scale)
        # From where the last scale ended, two rounds are as good as four.
        best, noise = scaled.fit(best, noise, rounds=2)
        prior = -0.5 * (math.log(scale) / _SCALE_SIGMA_LOG) ** 2
        evidence.append(scaled.log_evidence(best, noise) + _log_prior_of_noise(noise) + prior)
    return _SCALES[int(np.argmax(evidence))]


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """Shapes: values (n, t), design (t, e), target (n,), prior_mean and prior_sigma (e,)."""

    values: Floats
    design: Floats
    target: Floats
    prior_mean: Floats
    prior_sigma: Floats

    def scaled(self, scale: float) -> "_Problem":
        """The same problem with a wider or narrower prior."""
        return replace(self, prior_sigma=scale * self.prior_sigma)

    def fit(self, start: Floats, noise: float, *, rounds: int) -> tuple[Floats, float]:
        """The most probable effects with the noise that they leave."""
        best = start
        for _ in range(rounds):
            best = self.solve(best, self.target, self.prior_mean, noise)
            noise = self.noise(best, noise)
        return best, noise

    def log_evidence(self, effects: Floats, noise: float) -> float:
        """Logarithm of the probability of the measurements, by Laplace's approximation."""
        predicted, parts = self._forward(effects)
        residual = predicted - self.target
        scale = np.sqrt(self._weights(residual, noise)) / noise
        # In units of the prior's standard deviations, so that its own volume drops out.
        jacobian = (parts @ self.design) * scale[:, None] * self.prior_sigma
        few = jacobian if len(residual) < len(effects) else jacobian.T
        _, volume = np.linalg.slogdet(few @ few.T + np.eye(len(few)))
        objective = self._objective(residual, effects - self.prior_mean, noise)
        return float(-0.5 * (objective + volume) - len(residual) * math.log(noise))

    def solve(self, start: Floats, target: Floats, prior: Floats, noise: float) -> Floats:
        """The effects with the least objective, from a start."""
        effects, damping = start.copy(), 1e-3
        predicted, parts = self._forward(effects)
        residual = predicted - target
        objective = self._objective(residual, effects - prior, noise)
        for _ in range(_MOST_STEPS):
            scale = np.sqrt(self._weights(residual, noise)) / noise
            curvature = Curvature(parts * scale[:, None], self.design, 1 / self.prior_sigma**2)
            gradient = curvature.pull(scale * residual) + (effects - prior) / self.prior_sigma**2
            while True:
                step = np.clip(curvature.solve(-gradient, damping), -_LARGEST_STEP, _LARGEST_STEP)
                tried, tried_parts = self._forward(effects + step)
                tried_objective = self._objective(tried - target, effects + step - prior, noise)
                if tried_objective <= objective or damping > 1e9:
                    break
                damping *= 5
            if tried_objective > objective:
                break
            gain = objective - tried_objective
            effects, residual, parts = effects + step, tried - target, tried_parts
            objective, damping = tried_objective, max(damping / 5, 1e-9)
            if gain <= _TOLERANCE * max(1.0, abs(objective)):
                break
        return effects

    def linear_steps(self, effects: Floats, moved: Floats, drawn: Floats, noise: float) -> Floats:
        """How far solutions move with their measurements and priors' means, to first order.

        Args:
            effects: a solution, (e,).
            moved: by how much the logarithms of the measurements do, (samples, n).
            drawn: by how much the means of the prior do, (samples, e).
            noise: as in ``solve``.

        Returns:
            Of shape (samples, e).
        """
        predicted, parts = self._forward(effects)
        scale = np.sqrt(self._weights(predicted - self.target, noise)) / noise
        curvature = Curvature(parts * scale[:, None], self.design, 1 / self.prior_sigma**2)
        pull = curvature.pull((moved * scale).T) + (drawn / self.prior_sigma**2).T
        return curvature.solve(pull).T

    def noise(self, effects: Floats, noise: float) -> float:
        """Standard deviation of the residuals that the effects leave.

        What is left is spread over as many measurements as the effects did not use up (MacKay 1992,
        doi:10.1162/neco.1992.4.3.415): effects that pass through every measurement say nothing of
        the noise, which then is what it was taken for before.
        """
        residual, free = self._left_over(effects, noise)
        squares = np.minimum(residual**2, (_HUBER * noise) ** 2)
        total = float(squares.sum()) + _PRIOR_NOISE_WEIGHT * _PRIOR_NOISE**2
        return float(np.sqrt(total / free))

    def free(self, effects: Floats, noise: float) -> float:
        """Degrees of freedom by which the noise is known, those of its prior included."""
        return self._left_over(effects, noise)[1]

    def _left_over(self, effects: Floats, noise: float) -> tuple[Floats, float]:
        """Residuals, (n,), and the degrees of freedom that they and the prior leave."""
        predicted, parts = self._forward(effects)
        residual = predicted - self.target
        scale = np.sqrt(self._weights(residual, noise)) / noise
        curvature = Curvature(parts * scale[:, None], self.design, 1 / self.prior_sigma**2)
        used = float(curvature.leverage().sum())
        return residual, len(residual) - used + _PRIOR_NOISE_WEIGHT

    def _forward(self, effects: Floats) -> tuple[Floats, Floats]:
        """Logarithm of the predictions, (n,), and the share of each term, (n, t)."""
        parts = self.values * np.exp(np.clip(self.design @ effects, -_LARGEST_LOG, _LARGEST_LOG))
        total = parts.sum(1)
        return np.log(total), parts / total[:, None]

    def _objective(self, residual: Floats, off_prior: Floats, noise: float) -> float:
        scaled = np.abs(residual) / noise
        huber = np.where(scaled <= _HUBER, scaled**2, _HUBER * (2 * scaled - _HUBER))
        return float(huber.sum() + ((off_prior / self.prior_sigma) ** 2).sum())

    def _weights(self, residual: Floats, noise: float) -> Floats:
        scaled = np.abs(residual) / noise
        weights: Floats = np.minimum(1.0, _HUBER / np.maximum(scaled, 1e-12))
        return weights


class Curvature:
    """``J' J + diag(p)``, the curvature of the objective, for a Jacobian ``J = A D`` of (n, e).

    With fewer networks than effects, which is usual, systems of n equations are solved in place of
    those of e (Woodbury's identity)::

        (J' J + diag(d))^-1 b = b/d - J'/d (J/d J' + 1)^-1 J/d b

    Ten networks have two hundred effects, which makes it six times faster. With more networks J is
    never made: ``J' J = D' (A' A) D``, and A has a third of its columns.

    Args:
        parts: the weighted shares A of each term, (n, t).
        design: which effect is in the factor of which term, D, (t, e).
        precision: p, positive, (e,).
    """

    def __init__(self, parts: Floats, design: Floats, precision: Floats) -> None:
        self._parts, self._design, self._precision = parts, design, precision
        self._is_wide = len(parts) < design.shape[1]
        if self._is_wide:
            self._jacobian: Floats = parts @ design
            self._diagonal: Floats = precision + np.einsum(
                "ij,ij->j", self._jacobian, self._jacobian
            )
        else:
            self._whole: Floats = design.T @ (parts.T @ parts) @ design + np.diag(precision)

    def pull(self, residual: Floats) -> Floats:
        """``J' r``, for r of (n,) or (n, k)."""
        found: Floats = self._design.T @ (self._parts.T @ residual)
        return found

    def solve(self, right: Floats, damping: float = 0.0) -> Floats:
        """The step x with ``(C + damping diag(C)) x = right``; both of shape (e,) or (e, k)."""
        found: Floats
        if self._is_wide:
            diagonal = self._precision + damping * self._diagonal
            scaled = self._jacobian / diagonal
            inner = scaled @ self._jacobian.T
            inner.flat[:: len(inner) + 1] += 1.0
            found = (right.T / diagonal - np.linalg.solve(inner, scaled @ right).T @ scaled).T
            return found
        damped = self._whole.copy()
        damped.flat[:: len(damped) + 1] *= 1 + damping
        found = np.linalg.solve(damped, right).astype(np.float64)
        return found

    def leverage(self) -> Floats:
        """The diagonal of ``J C^-1 J'``, (n,): how far each network pulls its own prediction."""
        found: Floats
        if self._is_wide:
            inner = (self._jacobian / self._precision) @ self._jacobian.T
            inner.flat[:: len(inner) + 1] += 1.0
            # J C^-1 J' = 1 - (J/p J' + 1)^-1.
            found = 1 - np.diag(np.linalg.inv(inner))
            return found
        of_terms = self._design @ np.linalg.solve(self._whole, self._design.T)
        found = np.einsum("ij,ij->i", self._parts @ of_terms, self._parts)
        return found
