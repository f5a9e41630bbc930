"""Candidates of an Optuna search space as rows of numbers: drawn, listed, changed, described.

A row holds one number for each parameter: the position of a categorical choice, else the value.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from hwsearch.sampler.priced import Floats

#: Steps of a number when the neighbourhood of a candidate is searched, in shares of its range.
_REACH: Final = (0.02, 0.1)

Space = Mapping[str, BaseDistribution]

#: Columns of one group of features, each (candidates, columns).
Features = list[Floats]


def sizes(space: Space) -> list[int | None]:
    """How many values each parameter has; None for a continuous one."""
    return [_size(distribution) for distribution in space.values()]


def every_row(space: Space) -> Floats:
    """All candidates, of shape (candidates, parameters); no parameter may be continuous."""
    options = [_values(distribution) for distribution in space.values()]
    return np.array(list(itertools.product(*options)), dtype=np.float64).reshape(-1, len(space))


def random_rows(space: Space, count: int, generator: np.random.Generator) -> Floats:
    """Candidates drawn uniformly, logarithmically where the parameter is; repeats are possible."""
    columns = [_from_unit(distribution, generator.random(count)) for distribution in space.values()]
    return np.array(columns, dtype=np.float64).reshape(len(space), count).T


def neighbours(space: Space, row: Floats, generator: np.random.Generator) -> Floats:
    """Candidates that differ in one parameter.

    Every other choice of a categorical parameter; of a number some steps up and down.
    """
    found: list[Floats] = []
    for at, distribution in enumerate(space.values()):
        for value in _others(distribution, float(row[at]), generator):
            changed = row.copy()
            changed[at] = value
            found.append(changed)
    return np.array(found, dtype=np.float64).reshape(-1, len(row))


def to_parameters(space: Space, rows: Floats) -> list[dict[str, Any]]:
    """Rows as Optuna stores candidates, with Python's own numbers."""
    columns = [
        _external(distribution, rows[:, at]) for at, distribution in enumerate(space.values())
    ]
    return [dict(zip(space, values, strict=True)) for values in zip(*columns, strict=True)]


def to_row(space: Space, parameters: Mapping[str, Any]) -> Floats | None:
    """The row of a stored candidate; None if it is not of this space, as after a changed range."""
    row = []
    for name, distribution in space.items():
        if name not in parameters:
            return None
        position = _position(distribution, parameters[name])
        if position is None:
            return None
        row.append(position)
    return np.array(row, dtype=np.float64)


def default_features(space: Space, rows: Floats) -> Features:
    """Groups of features, (candidates, columns) each.

    Numbers, and categorical parameters whose choices are numbers, are one column on [0, 1]; other
    choices are one-hot at distance 1 from each other.
    """
    return [_features(d, rows[:, at]) for at, d in enumerate(space.values())]


def _features(distribution: BaseDistribution, column: Floats) -> Floats:
    if isinstance(distribution, CategoricalDistribution):
        numbers = _numbers(distribution)
        if numbers is None:
            one_hot: Floats = np.eye(len(distribution.choices))[column.astype(int)] / math.sqrt(2.0)
            return one_hot
        span = float(np.ptp(numbers)) or 1.0
        scaled: Floats = ((numbers[column.astype(int)] - numbers.min()) / span)[:, None]
        return scaled
    return _to_unit(distribution, column)[:, None]


def _numbers(distribution: CategoricalDistribution) -> Floats | None:
    """The choices, if all of them are numbers."""
    choices = distribution.choices
    if all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in choices):
        return np.array(choices, dtype=np.float64)
    return None


def _size(distribution: BaseDistribution) -> int | None:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step + 1
    float_ = _float(distribution)
    if float_.single():
        return 1
    if float_.step is None:
        return None
    return round((float_.high - float_.low) / float_.step) + 1


def _values(distribution: BaseDistribution) -> Sequence[float]:
    size = _size(distribution)
    if size is None:
        raise ValueError(f"{distribution} is continuous, so its values cannot be listed")
    if isinstance(distribution, CategoricalDistribution):
        return range(size)
    low, step = _low_and_step(distribution)
    return [min(low + position * step, _high(distribution)) for position in range(size)]


def _from_unit(distribution: BaseDistribution, unit: Floats) -> Floats:
    """Values at shares of the range from 0 to 1."""
    size = _size(distribution)
    if isinstance(distribution, CategoricalDistribution):
        assert size is not None
        return np.minimum(np.floor(unit * size), size - 1)
    low, step = _low_and_step(distribution)
    high = _high(distribution)
    if _is_log(distribution):
        # Half a step more on both ends, so that the outermost integers are as likely as others.
        margin = 0.5 if isinstance(distribution, IntDistribution) else 0.0
        ends = math.log(low - margin), math.log(high + margin)
        value = np.exp(ends[0] + unit * (ends[1] - ends[0]))
        return np.clip(np.round(value) if margin else value, low, high)
    if size is None:
        return np.clip(low + unit * (high - low), low, high)
    return np.minimum(low + np.minimum(np.floor(unit * size), size - 1) * step, high)


def _to_unit(distribution: BaseDistribution, column: Floats) -> Floats:
    low, high = float(_low_and_step(distribution)[0]), float(_high(distribution))
    if low == high:
        return np.zeros(len(column))
    if _is_log(distribution):
        logs: Floats = (np.log(column) - math.log(low)) / (math.log(high) - math.log(low))
        return logs
    return (column - low) / (high - low)


def _others(
    distribution: BaseDistribution, value: float, generator: np.random.Generator
) -> list[float]:
    if isinstance(distribution, CategoricalDistribution):
        return [float(at) for at in range(len(distribution.choices)) if at != value]
    if _size(distribution) == 1:
        return []
    here = _to_unit(distribution, np.array([value]))[0]
    shares = np.array([sign * reach for reach in _REACH for sign in (-1, 1)])
    moved = np.clip(here + shares * generator.uniform(0.5, 1.5, len(shares)), 0.0, 1.0)
    found = set(_from_unit(distribution, moved).tolist())
    low, step = _low_and_step(distribution)
    if step:
        found |= {value - step, value + step}
    return sorted(one for one in found if low <= one <= _high(distribution) and one != value)


def _external(distribution: BaseDistribution, column: Floats) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return [distribution.choices[int(position)] for position in column]
    if isinstance(distribution, IntDistribution):
        return [round(value) for value in column.tolist()]
    values: list[Any] = column.tolist()
    return values


def _position(distribution: BaseDistribution, value: Any) -> float | None:  # noqa: ANN401
    if isinstance(distribution, CategoricalDistribution):
        # By Optuna's own rule, for which True is no 1.
        try:
            return float(distribution.to_internal_repr(value))
        except ValueError:
            return None
    if isinstance(value, bool | str) or value is None:
        return None
    low, _ = _low_and_step(distribution)
    return float(value) if low <= value <= _high(distribution) else None


def _low_and_step(distribution: BaseDistribution) -> tuple[float, float]:
    """The lowest value and the step; 0 for a continuous range."""
    if isinstance(distribution, IntDistribution):
        return distribution.low, distribution.step
    found = _float(distribution)
    return found.low, found.step or 0.0


def _high(distribution: BaseDistribution) -> float:
    if isinstance(distribution, IntDistribution):
        return distribution.high
    return _float(distribution).high


def _is_log(distribution: BaseDistribution) -> bool:
    if isinstance(distribution, IntDistribution):
        return distribution.log
    return _float(distribution).log


def _float(distribution: BaseDistribution) -> FloatDistribution:
    if not isinstance(distribution, FloatDistribution):
        raise ValueError(f"{distribution} is neither a number nor categorical")
    return distribution
