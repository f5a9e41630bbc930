import math

import pytest
from learned_fixtures import random_networks

from hwsearch.bits import FP16
from hwsearch.hardware.learned.model import FittedModel, fit_digest
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.targets import load_profile
from hwsearch.hardware.widen import widened

TARGET = load_profile("jetson-orin-nx")
NETWORKS = random_networks(10, seed=2, bits=(FP16,))


def latency(interval_factor: float | None = None) -> FittedModel:
    """The fit as it is shipped, or with another interval factor."""
    assert TARGET.fit is not None
    fit = TARGET.fit.latency
    if interval_factor is None:
        return fit
    digest = fit_digest(fit.coefficients, interval_factor)
    return fit.model_copy(update={"interval_factor": interval_factor, "digest": digest})


@pytest.mark.parametrize("more", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("interval_factor", [0.7, 1.0, 1.6])
def test_widened_when_it_predicts_then_errors_add_in_squares(
    more: float, interval_factor: float
) -> None:
    assert TARGET.fit is not None
    plain = latency(interval_factor)
    narrow, wider = (
        TARGET.model_copy(update={"fit": TARGET.fit.model_copy(update={"latency": model})})
        for model in (plain, widened(plain, more))
    )
    before = CostPredictor(narrow).predict_all(NETWORKS)
    after = CostPredictor(wider).predict_all(NETWORKS)
    # A factor below 1 does not narrow what is extrapolated, so that it cannot be made up for there.
    not_narrowed = min(1.0, interval_factor)
    for cost, own in zip(after, before, strict=True):
        assert cost.latency_ms.value == own.latency_ms.value
        added = more / not_narrowed if own.latency_ms.extrapolated else more
        assert cost.latency_ms.sigma_log == pytest.approx(
            math.hypot(own.latency_ms.sigma_log, added)
        )


def test_widened_when_written_out_then_the_digest_holds() -> None:
    wider = widened(latency(), 0.2)
    assert FittedModel.model_validate(wider.model_dump(mode="json")) == wider


@pytest.mark.parametrize("more", [-0.1, math.inf, math.nan])
def test_widened_when_no_standard_deviation_is_refused(more: float) -> None:
    with pytest.raises(ValueError, match="is not a finite number from 0 up"):
        widened(latency(), more)
