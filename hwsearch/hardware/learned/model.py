"""What a fit stores in a profile: effects with their samples, ranges, and how well it did."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Self

import numpy as np
from pydantic import Field, StringConstraints, model_validator

from hwsearch.hardware.file_model import Count, FileModel, Finite, Positive, Provenance, Text
from hwsearch.hardware.kernel_table import Floats

EffectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_./@WA]+$")]
Percent = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class Tree(FileModel):
    """A regression tree; node 0 is the root.

    Attributes:
        feature: of each node what it splits by; -1 is a leaf.
        threshold: values up to it go left; the value of a leaf.
        left, right: the nodes that follow; 0 at a leaf.
    """

    feature: tuple[int, ...]
    threshold: tuple[Finite, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]

    @model_validator(mode="after")
    def _well_formed(self) -> Self:
        count = len(self.feature)
        if not count == len(self.threshold) == len(self.left) == len(self.right) or count == 0:
            raise ValueError("the columns of a tree differ in length")
        for node, feature in enumerate(self.feature):
            # Children come after their parent, so that every walk ends.
            if feature >= 0 and not (
                node < self.left[node] < count and node < self.right[node] < count
            ):
                raise ValueError("a tree's nodes are out of order")
        return self

    def predict(self, features: Floats) -> Floats:
        """Values of the leaves that rows of (n, features) fall into."""
        feature, threshold = np.array(self.feature), np.array(self.threshold)
        left, right = np.array(self.left), np.array(self.right)
        node = np.zeros(len(features), dtype=np.int64)
        rows = np.arange(len(features))
        while (inner := feature[node] >= 0).any():
            lower = features[rows, np.maximum(feature[node], 0)] <= threshold[node]
            node = np.where(inner, np.where(lower, left[node], right[node]), node)
        leaves: Floats = threshold[node]
        return leaves


class KernelRange(FileModel):
    """The smallest and the largest kernels of a variant that were measured.

    Attributes:
        macs: of one kernel.
        elements: read, written and held by one kernel.
    """

    macs: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
    elements: tuple[Positive, Positive]


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
        digest: of the coefficients; finds what was changed or lost on the way.
    """

    provenance: Provenance
    networks: Count
    cross_validation: CrossValidation
    interval_factor: Positive
    digest: Text
    coefficients: Coefficients

    @model_validator(mode="after")
    def _as_written(self) -> Self:
        if self.digest != coefficients_digest(self.coefficients):
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


def coefficients_digest(coefficients: Coefficients) -> str:
    """SHA-256 of canonical JSON, the first 16 digits."""
    content = coefficients.model_dump(mode="json")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
