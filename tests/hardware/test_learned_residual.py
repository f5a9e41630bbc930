import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import sklearn.ensemble
from learned_fixtures import leaf, random_networks
from test_predictor import conv, net, profile

from hwsearch.bits import FP32, INT8
from hwsearch.hardware.kernel_table import Floats, kernel_table
from hwsearch.hardware.kernels import KernelDesc, KernelKind, NetworkDesc
from hwsearch.hardware.learned.residual import correction, features_of, fit_trees
from hwsearch.hardware.learned.terms import classify
from hwsearch.hardware.learned.trees import FEATURES, Tree, predict

TARGET = profile()
NETWORKS = random_networks(8, seed=1, bits=(FP32, INT8))


def features(*networks: NetworkDesc) -> dict[str, Floats]:
    """The columns by name; every network is predicted to take 2 ms."""
    found = features_of(classify(TARGET, kernel_table(networks)), np.full(len(networks), 2.0))
    assert found.shape == (len(networks), len(FEATURES))
    return dict(zip(FEATURES, found.T, strict=True))


def variant_of(kernel: KernelDesc) -> str:
    if kernel.kind is not KernelKind.CONV:
        return kernel.kind.value
    if kernel.in_channels <= 4:
        return "conv.stem"
    return "conv.pointwise" if kernel.kernel_size == (1, 1) else "conv.spatial"


def padding(value: float, tile: int) -> float:
    """Logarithm of how much larger whole tiles are."""
    return math.log(math.ceil(value / tile) * tile / value)


def random_data(rows: int, columns: int, seed: int) -> tuple[Floats, Floats]:
    """Whole numbers, and steps and products of them with a little noise."""
    rng = np.random.default_rng(seed)
    inputs = rng.integers(0, 50, (rows, columns)).astype(float)
    steps = 0.2 * (inputs[:, 0] > 20) - 0.15 * (inputs[:, 1] > 30) * (inputs[:, 2] > 10)
    return inputs, steps + 0.02 * rng.standard_normal(rows)


# -- features -------------------------------------------------------------------------------------


def test_features_when_computed_in_plain_loops() -> None:
    found = features(*NETWORKS)
    for at, network in enumerate(NETWORKS):
        kernels = network.kernels

        def weighted(values: list[float], one: NetworkDesc = network) -> float:
            """The mean over kernels, each counted by its MACs."""
            macs = [kernel.macs for kernel in one.kernels]
            return sum(m * v for m, v in zip(macs, values, strict=True)) / sum(macs)

        pixels = [kernel.out_size[0] * kernel.out_size[1] for kernel in kernels]
        activations = sum(kernel.input_elements + kernel.output_elements for kernel in kernels)
        expected = {
            "log_predicted": np.log(2.0),
            "log_macs": np.log(network.macs),
            "log_activations": np.log(activations),
            "log_weights": np.log1p(network.weight_elements),
            "kernels": len(kernels),
            "log2_in_channels": weighted([np.log2(kernel.in_channels) for kernel in kernels]),
            "log2_out_channels": weighted([np.log2(kernel.out_channels) for kernel in kernels]),
            "log2_pixels": weighted([np.log2(count) for count in pixels]),
            "window": weighted([max(kernel.kernel_size) for kernel in kernels]),
            "strided": weighted([max(kernel.stride) > 1 for kernel in kernels]),
        }
        expected["log_intensity"] = np.log(network.macs / (activations + network.weight_elements))
        for tile in (8, 32, 64, 128):
            name = f"channels_to_{tile}"
            expected[f"out_{name}"] = weighted([padding(k.out_channels, tile) for k in kernels])
            expected[f"in_{name}"] = weighted([padding(k.in_channels, tile) for k in kernels])
        for tile in (4, 8, 16, 32):
            sides = [math.sqrt(count) for count in pixels]
            expected[f"side_to_{tile}"] = weighted([padding(side, tile) for side in sides])
        variants = [variant_of(kernel) for kernel in kernels]
        for name in {name.removeprefix("count_") for name in FEATURES if "count_" in name}:
            expected[f"count_{name}"] = variants.count(name)
            expected[f"mac_share_{name}"] = weighted([variant == name for variant in variants])
        assert set(expected) == set(FEATURES)
        assert {name: column[at] for name, column in found.items()} == pytest.approx(expected)


def test_features_when_a_network_has_neither_macs_nor_weights() -> None:
    copy = conv(kind=KernelKind.COPY, macs=0, weight_elements=0)
    found = features(net(copy, copy))
    assert all(np.isfinite(column).all() for column in found.values())
    assert (found["count_copy"][0], found["mac_share_copy"][0]) == (2, 0)


# -- trees ----------------------------------------------------------------------------------------


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models of scikit-learn that ``fit_trees`` makes."""
    made: list[Any] = []

    class Spy(sklearn.ensemble.GradientBoostingRegressor):  # type: ignore[misc]
        def fit(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            made.append(self)
            return super().fit(*args, **kwargs)

    monkeypatch.setattr(sklearn.ensemble, "GradientBoostingRegressor", Spy)
    return made


def test_trees_when_compared_with_those_of_scikit_learn(teacher: list[Any]) -> None:
    inputs, log_ratio = random_data(80, 6, seed=1)
    trees = fit_trees(inputs, log_ratio, seed=0)
    (model,) = teacher
    fresh, _ = random_data(200, 6, seed=2)
    for rows in (inputs, fresh):
        assert correction(trees, rows) == pytest.approx(model.predict(rows), abs=1e-4)
    every_tree = [tree for (tree,) in model.estimators_]
    assert len(trees) == len(every_tree)
    for plain, theirs in zip(trees[:5], every_tree[:5], strict=True):
        expected = model.learning_rate * theirs.predict(fresh)
        assert predict([plain], fresh) == pytest.approx(expected, rel=1e-4)


def test_trees_when_one_row_is_odd_then_hardly_moved() -> None:
    inputs, log_ratio = random_data(120, 6, seed=5)
    fresh, _ = random_data(100, 6, seed=6)
    clean = correction(fit_trees(inputs, log_ratio, seed=0), fresh)
    log_ratio[7] = 5.0
    moved = np.abs(correction(fit_trees(inputs, log_ratio, seed=0), fresh) - clean)
    assert np.median(moved) < 0.05


def test_trees_when_seeds_are_equal_or_not() -> None:
    inputs, log_ratio = random_data(60, 5, seed=7)
    first, same, other = (fit_trees(inputs, log_ratio, seed=seed) for seed in (1, 1, 2))
    assert same == first
    assert other != first


def test_trees_when_stored_then_read_back_equal() -> None:
    inputs, log_ratio = random_data(60, 5, seed=8)
    trees = fit_trees(inputs, log_ratio, seed=0)
    assert tuple(Tree.model_validate(tree.model_dump(mode="json")) for tree in trees) == trees
    assert all(type(value) is float for tree in trees for value in tree.threshold)
    assert all(feature < 5 for tree in trees for feature in tree.feature)


def test_correction_when_it_is_large_then_bounded_and_still_in_order() -> None:
    inputs = np.zeros((1, 1))
    found = [correction([leaf(x)], inputs)[0] for x in (-9.0, -0.6, -0.1, 0.1, 0.6, 9.0)]
    assert found[0] == -found[-1]
    assert np.exp(found[-1]) < 2, "trees never double a prediction"
    assert all(first <= second for first, second in pairwise(found))
