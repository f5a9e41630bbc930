import numpy as np
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from hwsearch.sampler.parameters import (
    default_features,
    every_row,
    neighbours,
    random_rows,
    sizes,
    to_parameters,
    to_row,
)

SPACE: dict[str, BaseDistribution] = {
    "backbone": CategoricalDistribution(("a", "b", True)),
    "ratio": CategoricalDistribution((0.0, 0.25, 1.0)),
    "width": IntDistribution(8, 64, step=8),
    "layers": IntDistribution(1, 1000, log=True),
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "share": FloatDistribution(0.0, 1.0, step=0.25),
    "only": FloatDistribution(2.0, 2.0),
}
SMALL = {name: SPACE[name] for name in ("backbone", "share", "only")}
GENERATOR = np.random.default_rng(0)


def test_random_rows_lie_inside_and_survive_the_way_back() -> None:
    rows = random_rows(SPACE, 500, np.random.default_rng(0))
    for row, parameters in zip(rows, to_parameters(SPACE, rows), strict=True):
        for name, distribution in SPACE.items():
            assert distribution._contains(distribution.to_internal_repr(parameters[name]))
        again = to_row(SPACE, parameters)
        assert again is not None
        assert again.tolist() == row.tolist()
        assert type(parameters["width"]) is int
        assert type(parameters["rate"]) is float


def test_random_rows_reach_every_value_and_follow_the_scale() -> None:
    rows = random_rows(SPACE, 2000, np.random.default_rng(0))
    parameters = to_parameters(SPACE, rows)
    assert {one["backbone"] for one in parameters} == {"a", "b", True}
    assert {one["width"] for one in parameters} == set(range(8, 65, 8))
    assert {one["share"] for one in parameters} == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert 0.45 < np.mean([one["rate"] < 1e-2 for one in parameters]) < 0.55
    assert min(one["layers"] for one in parameters) == 1


def test_every_row_lists_each_candidate_once() -> None:
    rows = every_row(SMALL)
    assert rows.shape == (15, 3)
    assert len({tuple(row) for row in rows.tolist()}) == 15
    assert sizes(SMALL) == [3, 5, 1]
    with pytest.raises(ValueError, match="is continuous, so its values cannot be listed"):
        every_row(SPACE)


def test_neighbours_differ_in_one_parameter_and_lie_inside() -> None:
    (row,) = random_rows(SPACE, 1, np.random.default_rng(5))
    found = neighbours(SPACE, row, GENERATOR)
    assert ((found != row).sum(axis=1) == 1).all()
    changed = {int(np.flatnonzero(one != row)[0]) for one in found}
    assert changed == set(range(len(SPACE) - 1))  # the last has one value
    assert all(to_row(SPACE, one) is not None for one in to_parameters(SPACE, found))
    categorical = found[found[:, 0] != row[0]]
    assert sorted([*categorical[:, 0].tolist(), row[0]]) == [0, 1, 2]


def test_default_features_measure_numbers_by_share_and_choices_by_difference() -> None:
    rows = np.array([[0, 0, 8, 1, 1e-4, 0, 2], [1, 1, 64, 1000, 1e-2, 0.25, 2]], dtype=float)
    groups = default_features(SPACE, rows)
    assert [group.shape[1] for group in groups] == [3, 1, 1, 1, 1, 1, 1]
    distances = [float(((group[0] - group[1]) ** 2).sum() ** 0.5) for group in groups]
    assert distances == pytest.approx([1.0, 0.25, 1.0, 1.0, 0.5, 0.25, 0.0])


@pytest.mark.parametrize(
    "changed",
    [
        {"backbone": "c"},
        {"width": 72},
        {"width": 4},
        {"rate": "1"},
        {"width": True},
        {"rate": None},
    ],
)
def test_to_row_when_a_value_is_of_another_space_is_none(changed: dict[str, object]) -> None:
    (parameters,) = to_parameters(SPACE, random_rows(SPACE, 1, GENERATOR))
    assert to_row(SPACE, parameters) is not None
    assert to_row(SPACE, parameters | changed) is None
    missing = {name: value for name, value in parameters.items() if name not in changed}
    assert to_row(SPACE, missing) is None
