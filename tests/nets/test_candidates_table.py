import dataclasses

import numpy as np
import pytest
from branching_network import OWN

from hwsearch.bits import FP16, FP32, INT8
from hwsearch.hardware.kernel_table import KernelTable, kernel_table
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.targets import load_profile
from hwsearch.nets.backbone import BackboneRef
from hwsearch.nets.blueprint import Blueprint, make_blueprint
from hwsearch.nets.candidates_table import CandidatesTable

BACKBONES = [
    "test_resnet", "test_efficientnet", "mobilenetv3_small_050", "test_vit", "resnet10t", OWN,
]  # fmt: skip
WIDTHS = (FP32, FP16, INT8)


@pytest.fixture(scope="module", params=BACKBONES)
def blueprint(request: pytest.FixtureRequest) -> Blueprint:
    px = 160 if request.param == "test_vit" else 48
    return make_blueprint(BackboneRef(name=request.param, classes=10), px)


def draw(blueprint: Blueprint, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Kept channels, (count, groups), and positions in WIDTHS, (count, layers)."""
    rng = np.random.default_rng(seed)
    most = [group.channels for group in blueprint.graph.groups]
    layers = len(CandidatesTable.of(blueprint).layers)
    kept = [[rng.integers(1, channels + 1) for channels in most] for _ in range(count)]
    return np.array(kept, dtype=np.int64).reshape(count, len(most)), rng.integers(
        0, len(WIDTHS), (count, layers)
    )


def one_by_one(blueprint: Blueprint, kept: np.ndarray, chosen: np.ndarray) -> KernelTable:
    table = CandidatesTable.of(blueprint)
    return kernel_table(
        [
            blueprint.describe(
                dict(zip(table.groups, (int(one) for one in row), strict=True)),
                dict(zip(table.layers, (WIDTHS[at] for at in bits), strict=True)),
            )
            for row, bits in zip(kept, chosen, strict=True)
        ]
    )


def at_once(blueprint: Blueprint, kept: np.ndarray, chosen: np.ndarray) -> KernelTable:
    weights = np.array([bits.weight_bits for bits in WIDTHS])[chosen]
    activations = np.array([bits.activation_bits for bits in WIDTHS])[chosen]
    return CandidatesTable.of(blueprint).table(kept, weights, activations)


def test_table_equals_the_description_of_each_candidate(blueprint: Blueprint) -> None:
    kept, chosen = draw(blueprint, 6, seed=1)
    expected, found = one_by_one(blueprint, kept, chosen), at_once(blueprint, kept, chosen)
    for field in dataclasses.fields(KernelTable):
        np.testing.assert_array_equal(
            getattr(found, field.name), getattr(expected, field.name), err_msg=field.name
        )


def test_table_of_the_dense_network_has_its_macs(blueprint: Blueprint) -> None:
    table = CandidatesTable.of(blueprint)
    whole = np.array([[group.channels for group in blueprint.graph.groups]], dtype=np.int64)
    wide = np.full((1, len(table.layers)), 32)
    found = table.table(whole, wide, wide)
    assert found.per_network(found.macs)[0] == blueprint.describe({}).macs


def test_table_when_a_group_loses_channels_has_no_more_macs(blueprint: Blueprint) -> None:
    whole = np.array([[group.channels for group in blueprint.graph.groups]], dtype=np.int64)
    less = np.maximum(whole // 2, 1)
    chosen = np.zeros((1, len(CandidatesTable.of(blueprint).layers)), dtype=np.int64)
    before, after = at_once(blueprint, whole, chosen), at_once(blueprint, less, chosen)
    assert (after.macs <= before.macs).all()
    if len(whole[0]):
        assert after.macs.sum() < before.macs.sum()


def test_latencies_of_a_table_are_those_of_the_predictor_one_by_one(blueprint: Blueprint) -> None:
    predictor = CostPredictor(load_profile("jetson-orin-nano"))
    kept, chosen = draw(blueprint, 4, seed=2)
    table = CandidatesTable.of(blueprint)
    expected = [
        predictor.latency_ms(
            blueprint.describe(
                dict(zip(table.groups, (int(one) for one in row), strict=True)),
                dict(zip(table.layers, (WIDTHS[at] for at in bits), strict=True)),
            )
        )
        for row, bits in zip(kept, chosen, strict=True)
    ]
    found = predictor.latencies_ms(at_once(blueprint, kept, chosen))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_latencies_of_a_table_do_not_depend_on_its_order(blueprint: Blueprint) -> None:
    predictor = CostPredictor(load_profile("jetson-orin-nano"))
    kept, chosen = draw(blueprint, 5, seed=3)
    straight = predictor.latencies_ms(at_once(blueprint, kept, chosen))
    turned = predictor.latencies_ms(at_once(blueprint, kept[::-1], chosen[::-1]))
    np.testing.assert_allclose(turned, straight[::-1], rtol=1e-12)
