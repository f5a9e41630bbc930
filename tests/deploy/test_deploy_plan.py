import numpy as np
import pytest
import torch
from deploy_fixtures import mixed, network, quantized, weight_of, weighted
from torch import nn
from torch.nn.utils import parametrize

from hwsearch.bits import INT8
from hwsearch.deploy.plan import LEAST_SCALE, Grid, LayerPlan, take_off
from hwsearch.errors import BackboneError
from hwsearch.nets.quantize import quantize


def test_integers_when_taken_off_are_those_of_the_fake_quantizer() -> None:
    model = quantized(network("test_efficientnet"), 32, mixed)
    bare, plans = take_off(model)
    for at, path in enumerate(weighted(model)):
        plan, bits = plans[path], mixed(at)
        assert plan.bits == bits
        plain = bare.get_submodule(path)
        assert not parametrize.is_parametrized(plain)
        assert type(plain).__name__ in {"Conv2d", "Linear"}
        if bits.weight_bits > 8:
            assert plan.integers is None
            continue
        assert plan.integers is not None
        assert plan.scales is not None
        trained = weight_of(model, path)
        scales = plan.scales.reshape(-1, *[1] * (trained.ndim - 1))
        assert np.abs(plan.integers).max() <= 2 ** (bits.weight_bits - 1) - 1
        np.testing.assert_allclose(plan.integers * scales, trained, rtol=1e-6, atol=1e-9)
        np.testing.assert_array_equal(weight_of(bare, path), trained)


def test_model_when_quantizers_are_taken_off_a_copy_keeps_them() -> None:
    # torch's own removal takes the weight off the class, which a copy shares.
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    quantize(model, {"0": INT8}, "affine")
    take_off(model)
    assert parametrize.is_parametrized(model[0])
    assert model(torch.zeros(1, 3, 2, 2)).shape == (1, 4, 2, 2)


def test_scale_when_not_finite_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    quantize(model, {"0": INT8}, "affine")
    model.get_buffer("0.input_quantizer.scale").fill_(float("nan"))
    with pytest.raises(BackboneError, match="input scale of '0' is nan; calibrate"):
        take_off(model)


def test_weight_when_not_finite_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    quantize(model, {"0": INT8}, "affine")
    with torch.no_grad():
        model.get_parameter("0.parametrizations.weight.original")[0] = float("nan")
    with pytest.raises(BackboneError, match="weights of '0' are not finite"):
        take_off(model)


def test_plan_when_scaled_keeps_its_integers_up_to_the_sign() -> None:
    integers = np.array([[1, -2], [3, 127], [0, 5]], dtype=np.int8)
    scales = np.array([0.5, 0.25, 2.0], dtype=np.float32)
    plan = LayerPlan(path="a", bits=INT8, integers=integers, scales=scales)
    found = plan.scaled(np.array([2.0, -3.0, 0.0]))
    assert found.integers is not None
    assert found.scales is not None
    assert found.integers.tolist() == [[1, -2], [-3, -127], [0, 0]]
    assert found.integers.dtype == np.int8
    np.testing.assert_allclose(found.scales, [1.0, 0.75, LEAST_SCALE])


@pytest.mark.parametrize(("least", "greatest"), [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0, 0)])
def test_grid_when_made_over_a_range_covers_it_and_zero(least: float, greatest: float) -> None:
    affine = Grid(scale=1.0, zero_point=3, low=0, high=15).over(least, greatest)
    symmetric = Grid(scale=1.0, zero_point=0, low=-8, high=7).over(least, greatest)
    for grid in (affine, symmetric):
        assert grid.full
        assert grid.low <= grid.zero_point <= grid.high
        low, high = grid.reach
        assert low <= min(least, 0) + grid.scale / 2
        assert high >= max(greatest, 0) - grid.scale / 2
        assert low <= 0 <= high
    assert symmetric.signed
    assert symmetric.zero_point == 0
    assert not affine.signed
