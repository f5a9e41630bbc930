"""What a profile predicts, held against networks that were timed on the very machine.

A profile describes one machine. Another of the same kind is faster or slower as a whole, and more
so in arithmetic than in memory or in launches, in floats than in integers. A prediction is a sum
over such parts (``hwsearch.hardware.latency_parts``), and what a network takes is::

    measured_i = sum over parts g of exp(theta_g) * part_ig,  times exp(e_i)
    theta_g    = b + d_g
    b   ~ N(0, machine^2)            the machine as a whole
    d_g ~ N(0, (tau * machine)^2)    a part by itself
    e_i ~ N(0, sigma^2)              a network by itself

``theta`` is found by Gauss-Newton steps, and is normal around there (Laplace's approximation;
Gelman et al., Bayesian Data Analysis, 3rd edition, section 13.3). ``tau`` and ``sigma`` are those
of the largest marginal likelihood, where what the profile says of its own errors is worth a few
measurements of ``sigma``. Few networks, and networks that all differ alike from what was predicted,
are explained the best by ``tau`` = 0: one factor for all.

All factors are positive, so a network that is predicted to take longer in some part and no less in
the others takes longer after correction as well.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, NamedTuple, Self

import numpy as np

from hwsearch.hardware.cost import Cost, Prediction
from hwsearch.hardware.kernel_table import Floats
from hwsearch.hardware.latency_parts import PARTS

#: What the profile says of its own errors is worth so many measurements.
_PRIOR_WEIGHT: Final = 4.0
#: Two measurements of one network differ by so much themselves (``hwsearch.ship.verify``).
_LEAST_SIGMA_LOG: Final = 0.03
#: How differently the parts of a machine may be off, in shares of how far machines lie apart.
_PART_SHARES: Final = (0.0, 0.125, 0.25, 0.5, 1.0)
#: Values of sigma that are tried; each is a tenth or so above the one before.
_SIGMAS: Final = 40
#: What each e-fold adds that a network is predicted to take longer, or less long, than all that
#: were timed; as in ``hwsearch.hardware.learned.evaluate``.
_BEYOND_SIGMA: Final = 0.1
#: What ``hw_profiles/host.yaml`` said when one factor was stored without it.
_EARLIER_SIGMA_LOG: Final = 1.0
_STEPS, _SETTLED = 100, 1e-10


@dataclass(frozen=True, kw_only=True)
class TimedNetwork:
    """A network that was timed on the machine.

    Attributes:
        name: one for each network; a second timing takes the place of the first.
        parts_ms: of its latency as the profile alone predicts it, in the order of ``PARTS``.
        sigma_log: of that prediction.
        measured_ms: its latency.

    Raises:
        ValueError: another number of parts, or a latency that is not positive and finite.
    """

    name: str
    parts_ms: tuple[float, ...]
    sigma_log: float
    measured_ms: float

    def __post_init__(self) -> None:
        if len(self.parts_ms) != len(PARTS) or not all(part >= 0 for part in self.parts_ms):
            raise ValueError(f"{self.name}: {self.parts_ms} are not the parts of a latency")
        for value in (self.predicted_ms, self.sigma_log, self.measured_ms):
            if not 0 < value < math.inf:
                raise ValueError(f"{self.name}: {value} is not positive and finite")

    @property
    def predicted_ms(self) -> float:
        """By the profile alone."""
        return math.fsum(self.parts_ms)


class _Learned(NamedTuple):
    """Logarithms of the factors, their covariance, and sigma of a network by itself."""

    theta: Floats
    covariance: Floats
    sigma_log: float
    evidence: float


@dataclass(frozen=True, kw_only=True)
class Recalibration:
    """What predicted latencies are corrected by.

    Attributes:
        machine_sigma_log: how far machines that the profile may stand for lie apart.
        timed: the networks that it is learned from, sorted by name.
        factor: on all predictions before anything of ``timed`` is learned: what a run of an earlier
            version had learned as a whole.
        sigma_share: the same on standard deviations of the logarithm; not below 1 where a
            prediction is extrapolated.
        earlier_networks: that those were learned from.

    Raises:
        ValueError: numbers that are not positive and finite, or names that are not sorted.
    """

    machine_sigma_log: float
    timed: tuple[TimedNetwork, ...] = ()
    factor: float = 1.0
    sigma_share: float = 1.0
    earlier_networks: int = 0

    def __post_init__(self) -> None:
        for value in (self.machine_sigma_log, self.factor, self.sigma_share):
            if not 0 < value < math.inf:
                raise ValueError(f"a recalibration by {value} is not positive and finite")
        names = [one.name for one in self.timed]
        if names != sorted(set(names)):
            raise ValueError(f"timed networks are sorted by name, each name once; given: {names}")

    def with_timed(self, networks: Iterable[TimedNetwork]) -> Self:
        """What is learned from these as well; of a network that was timed before, the new time."""
        known = {one.name: one for one in (*self.timed, *networks)}
        return replace(self, timed=tuple(known[name] for name in sorted(known)))

    @property
    def networks(self) -> int:
        """How many were timed, now and earlier."""
        return len(self.timed) + self.earlier_networks

    @property
    def part_factors(self) -> dict[str, float]:
        """What each part of a predicted latency is multiplied by."""
        return dict(zip(PARTS, self._factors.tolist(), strict=True))

    @property
    def sigma_log(self) -> float | None:
        """How far a network by itself is off, as a standard deviation of the logarithm."""
        return self._learned.sigma_log if self.timed else None

    def told(self, profile: str) -> str:
        """What was learned of this machine, for people; ``profile`` is the name of its profile."""
        if not self.timed:
            return (
                f"{self.networks} networks were timed here: latencies are taken to be "
                f"{self.factor:.3g} x what profile {profile} predicts, and intervals "
                f"{self.sigma_share:.2g} x as wide"
            )
        ratios = [one.measured_ms / one.predicted_ms for one in self.timed]
        return (
            f"{self.networks} networks were timed here and took {min(ratios):.2f} to "
            f"{max(ratios):.2f} x what profile {profile} predicts: latencies are corrected by size "
            f"and bits, and then within {100 * self._learned.sigma_log:.0f} % in two of three"
        )

    def latencies_ms(self, parts_ms: Floats) -> Floats:
        """Corrected latencies of networks or kernels; parts are (n, parts), the result (n,)."""
        found: Floats = parts_ms @ self._factors
        return found

    def correct(self, costs: Sequence[Cost], parts_ms: Floats) -> list[Cost]:
        """Costs with their latencies corrected; energy was not measured and stays.

        Args:
            costs: of the profile alone.
            parts_ms: of the same networks, (networks, parts).
        """
        values = self.latencies_ms(parts_ms)
        sigmas = self._sigmas(costs, parts_ms)
        return [
            replace(
                cost,
                latency_ms=Prediction.lognormal(
                    median=float(value),
                    sigma_log=float(sigma),
                    confidence=cost.latency_ms.confidence,
                    source=cost.latency_ms.source,
                    extrapolated=cost.latency_ms.extrapolated,
                ),
            )
            for cost, value, sigma in zip(costs, values, sigmas, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain data, as the study keeps it."""
        return {
            "machine_sigma_log": self.machine_sigma_log,
            "factor": self.factor,
            "sigma_share": self.sigma_share,
            "earlier_networks": self.earlier_networks,
            "timed": [
                {
                    "name": one.name,
                    "parts_ms": dict(zip(PARTS, one.parts_ms, strict=True)),
                    "sigma_log": one.sigma_log,
                    "measured_ms": one.measured_ms,
                }
                for one in self.timed
            ],
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote, or the one factor that an earlier version stored."""
        if "timed" not in stored:
            return cls(
                machine_sigma_log=_EARLIER_SIGMA_LOG,
                factor=stored["factor"],
                sigma_share=stored["sigma_share"],
                earlier_networks=stored["networks"],
            )
        timed = tuple(
            TimedNetwork(
                name=one["name"],
                parts_ms=tuple(one["parts_ms"][part] for part in PARTS),
                sigma_log=one["sigma_log"],
                measured_ms=one["measured_ms"],
            )
            for one in stored["timed"]
        )
        return cls(**{**stored, "timed": timed})

    @cached_property
    def _factors(self) -> Floats:
        if not self.timed:
            return np.full(len(PARTS), self.factor)
        return self.factor * np.exp(self._learned.theta)

    @cached_property
    def _learned(self) -> _Learned:
        """The best of all tau and sigma; ties go to the least tau, then to the least sigma."""
        parts_ms = self.factor * np.array([one.parts_ms for one in self.timed])
        log_measured = np.log([one.measured_ms for one in self.timed])
        said = self.sigma_share * np.sqrt(np.mean([one.sigma_log**2 for one in self.timed]))
        highest = max(1.0, 2 * said)
        best: _Learned | None = None
        for share in _PART_SHARES:
            # A part by itself that cannot differ at all would make a prior without an inverse.
            by_itself = (max(share, 1e-4) * self.machine_sigma_log) ** 2
            prior = self.machine_sigma_log**2 + by_itself * np.eye(len(PARTS))
            for sigma in np.geomspace(_LEAST_SIGMA_LOG, highest, _SIGMAS):
                found = _posterior(parts_ms, log_measured, prior, float(sigma))
                # A scaled inverse chi-squared density of sigma^2.
                known = -_PRIOR_WEIGHT * (said**2 / (2 * sigma**2) + math.log(sigma))
                found = found._replace(evidence=found.evidence + known)
                if best is None or found.evidence > best.evidence + 1e-9:
                    best = found
        assert best is not None
        return best

    def _sigmas(self, costs: Sequence[Cost], parts_ms: Floats) -> Floats:
        said = np.array([cost.latency_ms.sigma_log for cost in costs])
        extrapolated = np.array([cost.latency_ms.extrapolated for cost in costs])
        unlike = said * max(1.0, self.sigma_share)
        if not self.timed:
            return np.where(extrapolated, unlike, said * self.sigma_share)
        shares = parts_ms * self._factors
        shares /= shares.sum(1, keepdims=True)
        spread = np.einsum("ng,gh,nh->n", shares, self._learned.covariance, shares)
        predicted = np.log(parts_ms.sum(1))
        sizes = np.log([one.predicted_ms for one in self.timed])
        beyond = np.maximum(0.0, np.maximum(predicted - sizes.max(), sizes.min() - predicted))
        found = np.sqrt(spread + self._learned.sigma_log**2 + (_BEYOND_SIGMA * beyond) ** 2)
        # The timed networks say nothing of those that the profile itself knows nothing of.
        widened: Floats = np.where(extrapolated, np.maximum(found, unlike), found)
        return widened


def recalibrate(networks: Sequence[TimedNetwork], *, machine_sigma_log: float) -> Recalibration:
    """Learn from networks that were timed; their order does not matter.

    Args:
        networks: with names that differ.
        machine_sigma_log: how far machines that the profile may stand for lie apart.

    Raises:
        ValueError: no networks.
    """
    if not networks:
        raise ValueError("a machine is learned from at least one network")
    return Recalibration(machine_sigma_log=machine_sigma_log).with_timed(networks)


def _posterior(parts_ms: Floats, log_measured: Floats, prior: Floats, sigma: float) -> _Learned:
    """The factors given tau (in their prior covariance) and sigma.

    Args:
        parts_ms: (networks, parts).
        log_measured: (networks,).
        prior: covariance of the logarithms of the factors, (parts, parts).
        sigma: of a network by itself.
    """
    precision = np.linalg.inv(prior)

    def at(theta: Floats) -> tuple[Floats, Floats, float]:
        """Shares of the parts, what is left of the measurements, and what is to be minimized."""
        terms = parts_ms * np.exp(theta)
        totals = terms.sum(1)
        left = log_measured - np.log(totals)
        loss = float(left @ left) / sigma**2 + float(theta @ precision @ theta)
        return terms / totals[:, None], left, loss

    theta = np.zeros(len(prior))
    shares, left, loss = at(theta)
    for _ in range(_STEPS):
        curvature = shares.T @ shares / sigma**2 + precision
        step = np.linalg.solve(curvature, shares.T @ left / sigma**2 - precision @ theta)
        longest = float(np.abs(step).max())
        step *= min(1.0, 1.0 / max(longest, 1e-12))  # an e-fold at a time: beyond it is no plane
        while True:
            new_shares, new_left, new_loss = at(theta + step)
            if new_loss <= loss or np.abs(step).max() < _SETTLED:
                break
            step /= 2
        if new_loss > loss:
            break
        theta, shares, left, loss = theta + step, new_shares, new_left, new_loss
        if longest < _SETTLED:
            break
    information = shares.T @ shares / sigma**2
    _, log_volume = np.linalg.slogdet(np.eye(len(prior)) + prior @ information)
    return _Learned(
        theta=theta,
        covariance=np.linalg.inv(information + precision),
        sigma_log=sigma,
        evidence=-0.5 * (loss + float(log_volume)) - len(left) * math.log(sigma),
    )
