from typing import Any

import pytest
import torch
from deploy_fixtures import pictures, quantized
from torch import Tensor, nn

from hwsearch.bits import FP32, INT8
from hwsearch.deploy.ranges import observe_output_ranges
from hwsearch.errors import BackboneError
from hwsearch.nets.quantize import (
    ActivationQuantizer,
    activations_in_float,
    calibrate,
    quantize,
)

PX = 8


class Net(nn.Module):
    """A residual block with ReLU, a convolution with SiLU, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inside = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.swish = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)
        self.seen: dict[str, Tensor] = {}

    def forward(self, values: Tensor) -> Tensor:
        see = self.seen
        see["stem"] = stem = torch.relu(self.stem(values))
        see["inside:inner"] = inside = self.inside(stem)
        see["inside"] = total = torch.relu(inside + stem)
        see["swish:inner"] = swish = self.swish(total)
        see["gate"] = swish.sigmoid()
        see["swish"] = bent = nn.functional.silu(swish)
        see["mean"] = mean = bent.mean((2, 3))
        result: Tensor = self.head(mean)
        return result


@pytest.fixture
def model() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made: Any = quantized(Net().eval(), PX, INT8)
    assert isinstance(made, Net)
    return made


def computed(model: Net, values: Tensor) -> dict[str, Tensor]:
    """What the module itself computes at each place, activations in float."""
    with torch.no_grad(), activations_in_float(model):
        model(values)
    found = {key: value.clone() for key, value in model.seen.items()}
    model.seen.clear()
    return found


def assert_range_of_least_error(found: tuple[float, float], values: Tensor) -> None:
    """The grid over the range is the one that calibration chooses on the same values."""
    reference = ActivationQuantizer(8, "affine")
    reference.observing = True
    reference(values)
    reference.choose_scale()
    least, greatest = min(found[0], 0.0), max(found[1], 0.0)
    assert (greatest - least) / 255 == pytest.approx(float(reference.scale), rel=1e-3)
    assert float(values.min()) - 1e-5 <= found[0] <= found[1] <= float(values.max()) + 1e-5


def test_ranges_when_for_relu_fusion_are_those_of_the_module(model: Net) -> None:
    values = pictures(PX)
    found = observe_output_ranges(model, [values[:2], values[2:]])
    # Layers first, then operations; the mean is what the classifier reads.
    seen_as = dict.fromkeys(["stem", "inside:inner", "swish:inner"]) | {
        "/Add": "inside", "/Sigmoid": "gate", "/Mul": "swish", "/ReduceMean": "mean",
        "/ReduceMean/Flatten": "mean",
    }  # fmt: skip
    assert list(found) == list(seen_as)
    true = computed(model, values)
    for key, reach in found.items():
        assert_range_of_least_error(reach, true[seen_as[key] or key])


def test_range_when_one_value_is_far_from_all_others_is_clipped(model: Net) -> None:
    values = pictures(PX, 128)
    values[0, :, 0, 0] = 60.0
    _, greatest = observe_output_ranges(model, [values])["stem"]
    assert greatest < 0.99 * float(computed(model, values)["stem"].max())


def test_range_of_what_makes_the_result_is_not_wanted() -> None:
    layers = [nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 2, 1)]
    model = quantized(nn.Sequential(*layers, nn.Flatten()).eval(), PX, INT8)
    found = observe_output_ranges(model, [pictures(PX)])
    assert "0" in found
    assert "3" not in found


def test_ranges_when_for_residual_fusion_are_behind_everything(model: Net) -> None:
    found = observe_output_ranges(model, [pictures(PX)], fusion="residual")
    assert list(found) == ["stem", "inside", "swish"]
    true = computed(model, pictures(PX))
    for key, reach in found.items():
        assert_range_of_least_error(reach, true[key])


def test_ranges_when_pictures_are_split_otherwise_are_the_same(model: Net) -> None:
    values = pictures(PX)
    whole = observe_output_ranges(model, [values])
    assert observe_output_ranges(model, [values[:1], values[1:]]) == whole
    assert observe_output_ranges(model, [values.flip(0)]) == whole


def test_ranges_when_layers_are_float_leave_them_out() -> None:
    model = Net().eval()
    assert observe_output_ranges(model, [pictures(PX)]) == {}
    quantize(model, {"stem": FP32, "swish": INT8}, "affine")
    calibrate(model, [pictures(PX)])
    found = observe_output_ranges(model, [pictures(PX)])
    assert list(found) == ["swish:inner", "/Sigmoid", "/Mul"]


def test_model_when_observed_is_left_as_it_was(model: Net) -> None:
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    observe_output_ranges(model, [pictures(PX)])
    assert model.training
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


@pytest.mark.parametrize("batches", [[], [torch.zeros(0, 3, PX, PX)]])
def test_pictures_when_there_are_none_are_asked_for(model: Net, batches: list[Tensor]) -> None:
    with pytest.raises(BackboneError, match="need at least one picture; give a batch"):
        observe_output_ranges(model, batches)


def test_outputs_when_not_finite_are_refused(model: Net) -> None:
    with torch.no_grad():
        model.get_parameter("inside.bias").fill_(float("inf"))
    with pytest.raises(BackboneError, match="outputs are not finite on the pictures"):
        observe_output_ranges(model, [pictures(PX)])
