import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.errors import BackboneError
from hwsearch.nets.quantize import (
    ActivationQuantizer,
    Scheme,
    WeightQuantizer,
    activation_quantizers,
    activations_in_float,
    calibrate,
    only,
    quantize,
    quantizers_of,
)

INTEGER_BITS = (2, 3, 4, 5, 6, 7, 8)
SCHEMES: tuple[Scheme, ...] = ("symmetric", "affine")


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Net(nn.Module):
    """Two convolutions and a classifier; the spare layer never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)
        self.spare = nn.Linear(8, 5)

    def forward(self, pictures: Tensor) -> Tensor:
        values = torch.relu(self.two(torch.relu(self.one(pictures))))
        result: Tensor = self.head(values.mean((2, 3)))
        return result


LAYERS = ("one", "two", "head")


def pictures() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def quantized(model: nn.Module, bits: LayerBits, scheme: Scheme = "affine") -> nn.Module:
    made = copy.deepcopy(model).eval()
    quantize(made, dict.fromkeys(LAYERS, bits), scheme)
    calibrate(made, [pictures()])
    return made


def observed(values: Tensor, bits: int, scheme: Scheme) -> ActivationQuantizer:
    quantizer = ActivationQuantizer(bits, scheme)
    quantizer.observing = True
    assert quantizer(values) is values
    quantizer.choose_scale()
    quantizer.observing = False
    return quantizer


def rounded(values: Any, scale: Any, low: int, high: int, zero: int = 0) -> Any:  # noqa: ANN401
    """The definition: divide, round to even, add the zero point, clamp, and back."""
    integers = np.clip(np.rint(values / scale) + zero, low, high)
    return (integers - zero) * scale


@pytest.mark.parametrize("bits", INTEGER_BITS)
def test_weight_when_quantized_is_the_definition(bits: int) -> None:
    weight = torch.randn(6, 4, 3, 3)
    quantizer = WeightQuantizer(weight, bits)
    found = quantizer(weight).numpy()
    largest = 2 ** (bits - 1) - 1
    for channel, share in enumerate(quantizer.clip.tolist()):
        dense = weight[channel].numpy().astype(np.float64)
        scale = np.abs(dense).max() * share / largest
        np.testing.assert_allclose(
            found[channel], rounded(dense, scale, -largest, largest), atol=1e-5
        )
        assert len(np.unique(found[channel])) <= 2**bits - 1


@pytest.mark.parametrize("bits", INTEGER_BITS)
def test_weight_when_clipped_is_no_worse_than_unclipped(bits: int) -> None:
    weight = torch.randn(6, 64)
    found = WeightQuantizer(weight, bits)(weight)
    largest = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(1, keepdim=True) / largest
    plain = (weight / scale).round().clamp(-largest, largest) * scale
    clipped_error = (found - weight).square().mean(1)
    assert (clipped_error <= (plain - weight).square().mean(1) * (1 + 1e-5)).all()


@pytest.mark.parametrize("bits", INTEGER_BITS)
def test_weight_when_scaled_or_negated_commutes(bits: int) -> None:
    weight = torch.randn(4, 32)
    factor = torch.tensor([[2.0], [-0.5], [-8.0], [1.0]])  # exact in binary
    found = WeightQuantizer(weight * factor, bits)(weight * factor)
    torch.testing.assert_close(found, factor * WeightQuantizer(weight, bits)(weight))


def test_weight_when_a_channel_is_zero_stays_zero() -> None:
    weight = torch.randn(3, 8)
    weight[1] = 0
    found = WeightQuantizer(weight, 4)(weight)
    assert torch.isfinite(found).all()
    assert (found[1] == 0).all()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_folding_when_normalization_stays_is_exact(bits: int) -> None:
    layer, norm = nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8).eval()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.normal_()  # about half of them negative
        norm.bias.normal_()
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        folded = layer.weight * factor[:, None, None, None]
        shift = norm.bias - norm.running_mean * factor
    assert (factor < 0).any()
    model = nn.Sequential(layer, norm).eval()
    quantize(model, {"0": LayerBits(bits, bits)}, "affine")
    values = torch.randn(2, 4, 8, 8)
    calibrate(model, [values])
    (quantizer,) = activation_quantizers(model)
    with torch.no_grad():
        expected = functional.conv2d(
            quantizer(values), WeightQuantizer(folded, bits)(folded), shift
        )
        torch.testing.assert_close(model(values), expected, rtol=1e-5, atol=1e-5)


def test_weight_gradient_when_straight_through() -> None:
    weight = torch.tensor([[-2.0, -1.5, -0.3, 0.0, 0.7, 1.5, 2.0]], requires_grad=True)
    quantizer = WeightQuantizer(weight, 8)
    quantizer.clip.fill_(0.5)  # the range is -1 to 1
    quantizer(weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[0, 0, 1, 1, 1, 0, 0]]


def test_activation_gradient_when_straight_through() -> None:
    quantizer = ActivationQuantizer(8, "symmetric")
    quantizer.scale.fill_(1 / 128)
    values = torch.tensor([-1.5, -1.0, 0.3, 0.9, 1.5], requires_grad=True)
    quantizer(values).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 1, 1, 0]


def test_half_when_rounded() -> None:
    dense = torch.tensor([0.1, -3.14159, 1e-9, 65504.0, 1e6])
    for quantizer in (WeightQuantizer(dense[:, None], 16), ActivationQuantizer(16, "affine")):
        values = dense.clone().requires_grad_()
        found = quantizer(values)
        assert torch.equal(found[:4], values[:4].half().float())
        assert found[4] == 65504  # finite, as the largest half
        found.sum().backward()
        assert values.grad is not None
        assert values.grad.tolist() == [1] * 5


def test_quantize_when_32_bits_changes_nothing() -> None:
    model = Net().eval()
    same = quantized(model, FP32)
    assert quantizers_of(same) == []
    assert torch.equal(same(pictures()), model(pictures()))


def test_quantize_when_16_bits_is_half_of_weights_and_inputs() -> None:
    linear = nn.Linear(8, 4)
    layer, expected = nn.Sequential(linear), copy.deepcopy(linear)
    quantize(layer, {"0": FP16}, "symmetric")
    calibrate(layer, [])  # nothing to choose
    values = torch.randn(3, 8)
    with torch.no_grad():
        expected.weight.copy_(expected.weight.half().float())
        torch.testing.assert_close(layer(values), expected(values.half().float()))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", INTEGER_BITS)
@pytest.mark.parametrize(("shift", "spread"), [(0.0, 1.0), (5.0, 0.1), (-3.0, 2.0), (0.5, 100.0)])
def test_activation_when_calibrated(bits: int, scheme: Scheme, shift: float, spread: float) -> None:
    values = torch.randn(1000) * spread + shift
    quantizer = observed(values, bits, scheme)
    scale, zero = float(quantizer.scale), int(quantizer.zero_point)
    found = quantizer(values)
    assert float(quantizer(torch.zeros(1))) == 0
    assert len(found.unique()) <= 2**bits
    assert quantizer.low <= zero <= quantizer.high
    if scheme == "symmetric":
        assert zero == 0
        assert (quantizer.low, quantizer.high) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    expected = rounded(values.double().numpy(), scale, quantizer.low, quantizer.high, zero)
    np.testing.assert_allclose(found.numpy(), expected, atol=scale * 1e-3)

    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    plain = (high - low) / (2**bits - 1)
    start = round(-low / plain)
    if scheme == "symmetric":
        plain, start = max(low / quantizer.low, high / quantizer.high), 0
    naive = rounded(values.double().numpy(), plain, quantizer.low, quantizer.high, start)
    error = float((found - values).double().square().mean())
    assert error <= float(np.square(naive - values.double().numpy()).mean()) * (1 + 1e-4)


def test_activation_when_all_are_zero_stays_zero() -> None:
    for scheme in SCHEMES:
        assert (observed(torch.zeros(10), 4, scheme)(torch.zeros(10)) == 0).all()


def test_calibrate_when_several_batches_sees_all() -> None:
    model = nn.Sequential(nn.Linear(4, 2))
    quantize(model, {"0": INT8}, "symmetric")
    calibrate(model, [torch.full((1, 4), 0.1), torch.full((1, 4), 10.0)])
    (quantizer,) = activation_quantizers(model)
    assert float(quantizer(torch.tensor([10.0]))) == pytest.approx(10, rel=0.02)


@pytest.mark.parametrize("training", [True, False])
def test_calibrate_when_done_restores_mode_and_statistics(training: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train(training)
    quantize(model, {"0": INT8}, "affine")
    before = model.get_buffer("1.running_mean").clone()
    calibrate(model, [pictures()])
    assert model.training is training
    assert torch.equal(model.get_buffer("1.running_mean"), before)
    assert not any(quantizer.observing for quantizer in activation_quantizers(model))


def test_calibrate_when_a_layer_never_runs_is_refused() -> None:
    model = Net()
    quantize(model, {"spare": INT8}, "affine")
    with pytest.raises(BackboneError, match="never run as a module"):
        calibrate(model, [pictures()])
    assert not any(quantizer.observing for quantizer in activation_quantizers(model))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_calibrate_when_not_finite_is_refused(value: float) -> None:
    model = Net()
    quantize(model, {"one": INT8}, "affine")
    with pytest.raises(BackboneError, match="not finite during calibration; check the weights"):
        calibrate(model, [torch.full((1, 3, 8, 8), value)])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "has no layer 'nowhere' to quantize"),
        ("norm", "'norm' is a BatchNorm2d; only convolutions and linear layers"),
        ("act", "'act' is a ReLU; only convolutions and linear layers"),
        ("", "'' is a Sequential; only convolutions"),
    ],
)
def test_quantize_when_path_is_no_layer_is_refused(path: str, message: str) -> None:
    model = nn.Sequential()
    model.add_module("norm", nn.BatchNorm2d(2))
    model.add_module("act", nn.ReLU())
    with pytest.raises(BackboneError, match=message):
        quantize(model, {path: INT8}, "affine")


def test_quantize_when_done_twice_is_refused() -> None:
    model = quantized(Net(), INT8)
    with pytest.raises(BackboneError, match="layer 'one' is quantized already"):
        quantize(model, {"one": INT8}, "affine")


def test_only_when_one_layer_is_chosen() -> None:
    dense, low = Net().eval(), LayerBits(2, 4)
    model = quantized(dense, low)
    for path in LAYERS:
        alone = copy.deepcopy(dense)
        quantize(alone, {path: low}, "affine")
        source = dict(zip(LAYERS, activation_quantizers(model), strict=True))[path]
        (target,) = activation_quantizers(alone)
        target.load_state_dict(source.state_dict())
        with torch.no_grad(), only(model, path):
            assert torch.equal(model(pictures()), alone(pictures()))


@pytest.mark.parametrize(
    "context", [lambda model: only(model, "two"), activations_in_float], ids=["only", "float"]
)
def test_context_when_it_fails_restores(
    context: Callable[[nn.Module], AbstractContextManager[None]],
) -> None:
    model = quantized(Net(), INT8)
    quantizers_of(model)[0].enabled = False
    before = [quantizer.enabled for quantizer in quantizers_of(model)]

    def fail() -> None:
        with context(model):
            assert [quantizer.enabled for quantizer in quantizers_of(model)] != before
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [quantizer.enabled for quantizer in quantizers_of(model)] == before


def test_activations_in_float_when_weights_stay_quantized() -> None:
    model = quantized(Net(), LayerBits(2, 2))
    with torch.no_grad():
        both = model(pictures())
        with activations_in_float(model):
            weights_only = model(pictures())
        expected = Net().eval()
        for path in LAYERS:
            layer, source = expected.get_submodule(path), model.get_submodule(path)
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            assert isinstance(source, nn.Conv2d | nn.Linear)
            layer.weight.copy_(source.weight)
            assert layer.bias is not None
            assert source.bias is not None
            layer.bias.copy_(source.bias)
        assert torch.equal(weights_only, expected(pictures()))
    assert not torch.equal(weights_only, both)


@pytest.mark.parametrize("shape", [(64, 16, 32, 32), (64, 24, 24, 24), (3, 5, 7, 11), (1, 1, 1, 1)])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_scale_when_the_edges_are_dark_is_that_of_all_values(
    shape: tuple[int, ...], scheme: Scheme
) -> None:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    values[..., 0] = 0.01
    values[..., 0, :] = 0.01
    chosen = observed(values, 8, scheme)
    # Evenly spread values lose the least with nothing clipped.
    reach = float(chosen.scale) * (chosen.high - int(chosen.zero_point))
    assert reach == pytest.approx(float(values.max()), rel=0.05)


@pytest.mark.parametrize("shape", [(64, 16, 32, 32), (64, 24, 48, 48), (32, 96, 12, 12)])
def test_samples_when_taken_come_from_every_row_column_and_channel(shape: tuple[int, ...]) -> None:
    for axis in range(1, 4):
        position = torch.arange(shape[axis]).reshape([-1 if at == axis else 1 for at in range(4)])
        quantizer = ActivationQuantizer(8, "affine")
        quantizer.observing = True
        quantizer(position.expand(shape).float())
        (samples,) = quantizer._samples
        counts = torch.bincount(samples.long(), minlength=shape[axis])
        assert counts.min() > 0.8 * counts.max()
