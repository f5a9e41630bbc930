"""Which networks to measure: those about which the model, as far as it goes, knows least.

Near a prediction its logarithm is linear in the effects, so the effects stay normal, and what a
measurement would teach is known before it is made (Bayesian D-optimal design, Chaloner and
Verdinelli 1995, doi:10.1214/ss/1177009939). Networks are taken one after the other, each where the
prediction is the least certain given those before it.
"""

from typing import Final

import numpy as np

from hwsearch.hardware.kernel_table import Floats, Ints
from hwsearch.hardware.learned.terms import TermMatrix, design, distinct

#: Noise of a measurement and of the model's form, in the logarithm.
_NOISE: Final = 0.1


def choose_networks(terms: TermMatrix, count: int) -> Ints:
    """Positions of the networks to measure, the most informative first.

    Args:
        terms: of the networks that could be measured, before any factor.
        count: how many to choose.

    Returns:
        Of shape (count,); ties go to the network that comes first.

    Raises:
        ValueError: more are wanted than there are, or none.
    """
    networks = len(terms.values)
    if not 1 <= count <= networks:
        raise ValueError(f"{count} of {networks} networks cannot be chosen")
    known = distinct(terms.effects)
    shares = terms.values / terms.values.sum(1, keepdims=True)
    gradient: Floats = shares @ design(terms.effects, [effect.name for effect in known])
    covariance = np.diag(np.array([effect.sigma for effect in known]) ** 2)
    chosen: list[int] = []
    for _ in range(count):
        spread = gradient @ covariance
        variance = (spread * gradient).sum(1)
        variance[chosen] = -np.inf
        best = int(np.argmax(variance))
        chosen.append(best)
        # What is left of the covariance after this network was measured (Kalman's update).
        column = spread[best]
        covariance -= np.outer(column, column) / (column @ gradient[best] + _NOISE**2)
    return np.array(chosen, dtype=np.int64)
