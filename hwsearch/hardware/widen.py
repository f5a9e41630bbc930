"""Making a fitted model less sure of itself, by what its own measurements cannot show."""

import math

from hwsearch.hardware.learned.model import FittedModel, fit_digest


def widened(model: FittedModel, more_sigma_log: float) -> FittedModel:
    """The same predictions with wider intervals.

    Args:
        model: of latency or energy.
        more_sigma_log: standard deviation of an error of its own, in the logarithm; it is added in
            squares to that of every prediction. 0 changes nothing. Where the model's interval
            factor is below 1, networks unlike those measured get ``more_sigma_log`` over it: their
            intervals are not narrowed by the factor, and rather too wide than too narrow.

    Raises:
        ValueError: a standard deviation that is not a finite number from 0 up.
    """
    if not 0 <= more_sigma_log < math.inf:
        raise ValueError(f"more_sigma_log {more_sigma_log} is not a finite number from 0 up")
    if more_sigma_log == 0:
        return model
    # The noise stands ahead of the factor that the whole interval is multiplied by.
    more = more_sigma_log / model.interval_factor
    old = model.coefficients
    residual = old.residual_noise_log
    coefficients = old.model_copy(
        update={
            "noise_log": math.hypot(old.noise_log, more),
            "residual_noise_log": None if residual is None else math.hypot(residual, more),
        }
    )
    return model.model_copy(
        update={
            "coefficients": coefficients,
            "digest": fit_digest(coefficients, model.interval_factor),
        }
    )
