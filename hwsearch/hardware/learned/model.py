"""What a fit stores in a profile: effects with their samples, ranges, and how well it did."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from hwsearch.hardware.file_model import Count, FileModel, Finite, Positive, Provenance, Text
from hwsearch.hardware.learned.trees import Tree

EffectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_./@WA]+$")]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Percent = NotNegative


class KernelRange(FileModel):
    """The smallest and the largest kernels of a variant that were measured.

    Attributes:
        macs: of one kernel.
        elements: read, written and held by one kernel.
    """

    macs: tuple[NotNegative, NotNegative]
    elements: tuple[Positive, Positive]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for name, (low, high) in (("macs", self.macs), ("elements", self.elements)):
            if low > high:
                raise ValueError(f"{name} {low} to {high} are out of order")
        return self


class CrossValidation(FileModel):
    """How well networks were predicted that the fit had not seen.

    Attributes:
        split: what was left out at a time.
        networks: predicted so, in all.
        mape_percent: mean of |predicted / measured - 1|.
        rmspe_percent: root of the mean of its square.
        spearman: rank correlation.
        coverage_percent: measurements inside the interval of 90 %.
    """

    split: Text
    networks: Count
    mape_percent: Percent
    rmspe_percent: Percent
    spearman: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
    coverage_percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class Coefficients(FileModel):
    """What predictions are made from.

    Attributes:
        prior_scale: on the standard deviations of effects before anything was measured.
        noise_log: standard deviation of log(measured / predicted) given the effects.
        measured_range: the least and the largest measurement.
        largest_spread_log: of the samples among the measured networks; beyond it is extrapolation.
        kernel_ranges: by variant.
        effects: by name; the most probable value, then the samples.
        residual: trees over features of the network; none where they did not help.
        residual_noise_log: what ``noise_log`` becomes where the trees apply.
    """

    prior_scale: Positive
    noise_log: Positive
    measured_range: tuple[Positive, Positive]
    largest_spread_log: Positive
    kernel_ranges: Mapping[str, KernelRange]
    effects: Annotated[Mapping[EffectName, tuple[Finite, ...]], Field(min_length=1)]
    residual: tuple[Tree, ...] = ()
    residual_noise_log: Positive | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        lengths = {len(values) for values in self.effects.values()}
        if len(lengths) != 1 or min(lengths) < 3:
            raise ValueError("every effect has one value and the same number of samples, 2 or more")
        low, high = self.measured_range
        if low > high:
            raise ValueError(f"measured_range {low} to {high} is out of order")
        if (self.residual_noise_log is None) != (not self.residual):
            raise ValueError("residual and residual_noise_log go together")
        return self


class FittedModel(FileModel):
    """Factors of one quantity, latency in ms or energy in mJ.

    Attributes:
        networks: measured, to which the effects were fitted.
        interval_factor: what the intervals are widened by so that nine of ten networks that were
            left out fall inside (split conformal, Lei et al. 2018, arXiv:1604.04173).
        digest: of the coefficients and the interval factor; finds what was changed or lost on the
            way.
    """

    provenance: Provenance
    networks: Count
    cross_validation: CrossValidation
    interval_factor: Positive
    digest: Text
    coefficients: Coefficients

    @model_validator(mode="after")
    def _as_written(self) -> Self:
        if self.digest != fit_digest(self.coefficients, self.interval_factor):
            raise ValueError(
                "the coefficients are not as they were written (the digest differs); "
                "fit the profile again"
            )
        return self


class Fit(FileModel):
    """What was learned from measured networks.

    Attributes:
        noise_floor_percent: how far two measurements of one network lie apart on this target.
    """

    noise_floor_percent: Percent | None = None
    latency: FittedModel
    energy: FittedModel | None = None


def fit_digest(coefficients: Coefficients, interval_factor: float) -> str:
    """SHA-256 of canonical JSON, the first 16 digits: of all that makes predictions."""
    content = {"coefficients": coefficients.model_dump(mode="json"), "factor": interval_factor}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
