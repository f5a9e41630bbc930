import copy
import dataclasses

import pytest
import torch
from torch import nn
from training_fixtures import PX, make_data, same_weights

from hwsearch.accuracy.data.batches import normalized
from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.ladder import (
    CALIBRATION_BATCHES,
    Plan,
    advance,
    fine_tune,
    held_out_score,
    inherit,
    validation_score,
)
from hwsearch.accuracy.training import (
    Recipe,
    calibration_batches,
    evaluate,
    reestimate_batch_norm,
    train,
)
from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import make_blueprint
from hwsearch.nets.quantize import activation_quantizers, calibrate

REF = BackboneRef(name="resnet10t", classes=3, arguments='{"channels": [8, 8, 16, 16]}')
RECIPE = Recipe(steps=2, batch_size=16, learning_rate=0.02, seed=1)


@pytest.fixture(scope="module")
def data() -> DataSet:
    return make_data()


@pytest.fixture(scope="module")
def plan(data: DataSet) -> Plan:
    """Nothing removed, nothing quantized."""
    base = build(REF, PX)
    train(base, data, PX, Recipe(steps=4, batch_size=16))
    blueprint = make_blueprint(REF, PX)
    bits = {kernel.name: FP32 for kernel in blueprint.describe({}).weighted}
    return Plan(base=base, blueprint=blueprint, removed={}, bits=bits, scheme="symmetric")


def with_bits(plan: Plan, bits: LayerBits) -> Plan:
    return dataclasses.replace(plan, bits=dict.fromkeys(plan.bits, bits))


def outputs(model: nn.Module, data: DataSet) -> torch.Tensor:
    with torch.no_grad():
        result = model(normalized(data.validation.images, data.mean, data.std))
    assert isinstance(result, torch.Tensor)
    return result


def test_inherit_when_nothing_changes_is_the_base_with_new_statistics(
    plan: Plan, data: DataSet
) -> None:
    expected = copy.deepcopy(plan.base)
    reestimate_batch_norm(expected, data, PX, batch_size=16)
    assert torch.allclose(
        outputs(inherit(plan, data, batch_size=16), data), outputs(expected, data), atol=1e-5
    )


def test_inherit_when_channels_go_leaves_the_base_alone(plan: Plan, data: DataSet) -> None:
    before = copy.deepcopy(plan.base)
    group = plan.blueprint.graph.groups[0]
    smaller = dataclasses.replace(plan, removed={group.name: (0, 3)})
    model = inherit(with_bits(smaller, INT8), data, batch_size=16)
    assert same_weights(plan.base, before)
    weights = [sum(p.numel() for p in m.parameters()) for m in (model, plan.base)]
    assert weights[0] < weights[1]
    assert outputs(model, data).shape == (30, 3)


def test_inherit_when_quantized_is_calibrated_and_coarser_bits_differ_more(
    plan: Plan, data: DataSet
) -> None:
    exact = outputs(inherit(plan, data, batch_size=16), data)
    errors = []
    for bits in (INT8, LayerBits(3, 3)):
        model = inherit(with_bits(plan, bits), data, batch_size=16)
        assert list(activation_quantizers(model))
        found = outputs(model, data)
        calibrate(model, calibration_batches(data, PX, batch_size=16, count=CALIBRATION_BATCHES))
        assert torch.equal(outputs(model, data), found), "it was calibrated so"
        errors.append(float((outputs(model, data) - exact).abs().mean()))
    assert 0 < errors[0] < errors[1]


def test_advance_when_done_trains_and_settles_as_fine_tuning_does(
    plan: Plan, data: DataSet
) -> None:
    int8 = with_bits(plan, INT8)
    inherited, advanced = (inherit(int8, data, batch_size=16) for _ in range(2))
    steps: list[tuple[int, int]] = []
    advance(advanced, data, PX, RECIPE, on_step=lambda done, of: steps.append((done, of)))
    assert same_weights(advanced, fine_tune(int8, data, RECIPE))
    assert not same_weights(advanced, inherited)
    assert steps == [(1, 2), (2, 2)]
    assert not advanced.training


def test_scores_when_asked_use_their_own_split(plan: Plan, data: DataSet) -> None:
    model = inherit(plan, data, batch_size=16)
    assert validation_score(model, data, PX) == evaluate(model, data.validation, data)
    assert held_out_score(model, data, PX) == evaluate(model, data.test, data)
    assert held_out_score(model, data, PX).total == 12
