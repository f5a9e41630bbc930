"""An Optuna sampler for searches whose costs are known before a trial and whose accuracy is not."""

from hwsearch.sampler.known_cost import KnownCostSampler
from hwsearch.sampler.priced import Priced, Pricer

__all__ = ["KnownCostSampler", "Priced", "Pricer"]
