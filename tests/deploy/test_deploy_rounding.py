"""A module rounds where its file rounds; ONNX Runtime is the judge."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from deploy_fixtures import NETS, logits, network, pictures, quantized, torch_logits, weighted
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.deploy.export import export_onnx
from hwsearch.deploy.float_graph import float_graph
from hwsearch.deploy.plan import output_grids, take_off
from hwsearch.deploy.ranges import Fusion, observe_output_ranges, wanted_tensors
from hwsearch.deploy.rounding import (
    OutputPlace,
    align_biases,
    attached_outputs,
    output_places,
    round_outputs,
)
from hwsearch.deploy.sites import PASSING
from hwsearch.errors import BackboneError
from hwsearch.nets.quantize import (
    Scheme,
    calibrate,
    quantize,
    quantized_outputs,
    without_quantization,
)

PX = 16
#: The scheme of the runtime that reaches as far.
SCHEMES: dict[Fusion, Scheme] = {"relu": "affine", "residual": "symmetric"}


def rounded(model: nn.Module, px: int, fusion: Fusion = "relu") -> nn.Module:
    """As full fine-tuning leaves it."""
    round_outputs(model, px, fusion, SCHEMES[fusion])
    calibrate(model, [pictures(px)])
    align_biases(model, px)
    return model


def differences(
    model: nn.Module, px: int, fusion: Fusion, folder: Path, count: int
) -> NDArray[np.float32]:
    """The largest difference between the logits of module and file, for each picture."""
    seen = pictures(px, count)
    ranges = observe_output_ranges(model, [pictures(px)], fusion=fusion)
    export_onnx(model, px, folder / "model.onnx", output_ranges=ranges)
    expected = torch_logits(model, seen)
    found = logits(folder / "model.onnx", seen, optimized=folder / "optimized.onnx")
    largest: NDArray[np.float32] = np.abs(found - expected).max(1)
    return largest


@pytest.mark.parametrize(
    ("name", "fusion"),
    [
        ("resnet10t", "relu"), ("resnet10t", "residual"), ("mobilenetv2_050", "relu"),
        ("mobilenetv2_050", "residual"), ("test_efficientnet", "residual"),
    ],
)  # fmt: skip
def test_logits_when_outputs_round_are_those_of_the_file(
    name: str, fusion: Fusion, tmp_path: Path
) -> None:
    px = NETS[name]
    model = quantized(network(name), px, INT8, SCHEMES[fusion])
    before = differences(model, px, fusion, tmp_path, 16)
    assert before.min() > 0.01
    # A value in the middle of two integers goes to either by noise of 1e-7, and a random network
    # makes much of that. Most pictures have no such value.
    after = differences(rounded(model, px, fusion), px, fusion, tmp_path, 16)
    assert (after < 1e-3).mean() > 0.6
    assert after.mean() < 0.3 * before.mean()


@pytest.mark.parametrize("name", ["test_efficientnet", "lcnet_050"])
def test_logits_when_gates_round_in_the_file_alone_are_near(name: str, tmp_path: Path) -> None:
    px = NETS[name]
    model = rounded(quantized(network(name), px, INT8), px)
    export_onnx(
        model, px, tmp_path / "m.onnx", output_ranges=observe_output_ranges(model, [pictures(px)])
    )
    dense = torch_logits(network(name), pictures(px, 16))
    module = torch_logits(model, pictures(px, 16))
    file = logits(tmp_path / "m.onnx", pictures(px, 16), optimized=tmp_path / "optimized.onnx")
    # A random network amplifies every rounding; the gates add about as much as there is already.
    assert np.corrcoef(file.ravel(), module.ravel())[0, 1] > 0.9
    assert np.square(file - dense).mean() < 3 * np.square(module - dense).mean()


@pytest.mark.parametrize("name", NETS)
def test_places_in_timm_networks_are_all_found(name: str) -> None:
    px = NETS[name]
    model = quantized(network(name), px, INT8)
    made = float_graph(*take_off(model), px)
    for fusion in SCHEMES:
        places, tensors = output_places(model, px, fusion), wanted_tensors(made, fusion)
        assert places
        # All others are handed on, are gates within a module, or are read by one layer alone, which
        # rounds them.
        kinds = {node.name: node.op_type for node in made.graph.nodes.values()}
        for site in tensors.keys() - places.keys():
            if kinds.get(site) in PASSING | {"Sigmoid"}:
                continue
            reader = made.graph.read_once(tensors[site])
            while reader is not None and reader.op_type in PASSING:
                reader = made.graph.read_once(reader.output[0])
            assert reader is not None
            assert made.plans[reader.name].grid is not None


class Block(nn.Module):
    """Modules that return sites, and functions of which no module returns what they make."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.one, self.two = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.drop = nn.Identity()
        self.three = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, values: Tensor) -> Tensor:
        stem = self.act(self.norm(self.stem(values)))
        first = functional.relu(self.one(stem) + stem)
        second = functional.silu(self.two(first))
        # Handed on to one of two readers: rounding what ``drop`` returns would miss the other.
        third = functional.relu(self.three(second))
        result: Tensor = self.head((self.drop(third) + third.tanh()).mean((2, 3)))
        return result


def block(bits: LayerBits = INT8) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return quantized(Block().eval(), PX, bits)


def test_places_are_modules_that_return_the_tensor_to_all_that_read_it() -> None:
    # "one" and "three" end in functions whose output two nodes read.
    assert output_places(block(), PX, "relu") == {
        "stem": OutputPlace(module="act", grid_of="one"),
        "one:inner": OutputPlace(module="one", grid_of=None),
        "two:inner": OutputPlace(module="two", grid_of=None),
    }
    assert output_places(block(), PX, "residual") == {
        "stem": OutputPlace(module="act", grid_of="one"),
    }


def test_sites_when_no_module_returns_them_are_quantized_by_range(tmp_path: Path) -> None:
    model = rounded(block(), PX)
    ranges = observe_output_ranges(model, [pictures(PX)])
    left = {"/Add", "/Sigmoid", "/Mul", "three"}
    assert ranges.keys() - attached_outputs(model).keys() == left
    largest = differences(model, PX, "relu", tmp_path, 16)
    # The sum and the product are rounded by the layers that read them; the output of "three" and
    # the gate in the file alone.
    step = (ranges["three"][1] - min(0.0, ranges["three"][0])) / 255
    assert 0 < largest.max() < 10 * step


class Twice(nn.Module):
    """One activation for two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.act = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.ReLU()
        self.head = nn.Linear(4, 2)

    def forward(self, values: Tensor) -> Tensor:
        values = self.act(self.one(values))
        result: Tensor = self.head((self.act(self.two(values)) + values).mean((2, 3)))
        return result


def test_module_when_it_runs_twice_is_no_place() -> None:
    model = quantized(Twice().eval(), PX, INT8)
    assert output_places(model, PX, "relu") == {}


class Pooled(nn.Module):
    """A shortcut around a layer that reads what a pooling handed on."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.act, self.pool = nn.Conv2d(3, 4, 1), nn.ReLU(), nn.MaxPool2d(2)
        self.two, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, values: Tensor) -> Tensor:
        values = self.pool(self.act(self.one(values)))
        result: Tensor = self.head((self.two(values) + values).mean((2, 3)))
        return result


def test_output_when_another_reads_it_behind_a_pooling_is_rounded() -> None:
    model = quantized(Pooled().eval(), PX, INT8)
    assert output_places(model, PX, "relu")["one"] == OutputPlace(module="act", grid_of="two")


def test_grid_when_a_layer_reads_the_same_is_that_of_the_layer() -> None:
    model = block()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rounded(model, PX)
    stem = quantized_outputs(model)["act"]
    assert stem.quantizer is model.get_submodule("one.input_quantizer")
    # Its scale is chosen on what the layer reads, as without rounding.
    assert torch.equal(model.state_dict()["one.input_quantizer.scale"],
                       before["one.input_quantizer.scale"])  # fmt: skip
    grids = output_grids(model)
    assert grids["stem"] == take_off(model)[1]["one"].grid
    assert grids["two:inner"] != grids["one:inner"]


def test_file_when_the_module_rounds_takes_its_grids(tmp_path: Path) -> None:
    model = rounded(block(), PX)
    # Ranges far off the pictures' do not matter where the module has a grid.
    ranges = dict.fromkeys(attached_outputs(model), (-1000.0, 1000.0))
    export_onnx(model, PX, tmp_path / "model.onnx", output_ranges=ranges)
    found = logits(tmp_path / "model.onnx", pictures(PX))
    np.testing.assert_allclose(found, torch_logits(model, pictures(PX)), atol=1e-4)


def test_outputs_when_there_are_no_integers_are_left_alone() -> None:
    plain = Block().eval()
    before = torch_logits(plain, pictures(PX))
    rounded(plain, PX)
    assert attached_outputs(plain) == {}
    np.testing.assert_array_equal(torch_logits(plain, pictures(PX)), before)
    mixed = Block().eval()
    quantize(mixed, {"one": FP32, "two": INT8}, "affine")
    calibrate(mixed, [pictures(PX)])
    round_outputs(mixed, PX, "relu", "affine")
    assert list(attached_outputs(mixed)) == ["two:inner"]


def test_model_when_places_are_sought_is_left_as_it_was() -> None:
    model = block().train()
    before = copy.deepcopy(model.state_dict())
    output_places(model, PX, "relu")
    assert model.training
    act = model.get_submodule("act")
    assert isinstance(act, nn.ReLU)
    assert act.inplace
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_biases_when_aligned_are_whole_steps_and_hardly_move() -> None:
    model = quantized(network("resnet10t"), 32, INT8)
    before = copy.deepcopy(model.state_dict())
    align_biases(model, 32)
    made = float_graph(*take_off(model), 32)
    convolutions = [path for path in weighted(model) if made.graph.nodes[path].op_type == "Conv"]
    assert len(convolutions) == 14
    for path in convolutions:
        plan = made.plans[path]
        assert plan.grid is not None
        assert plan.scales is not None
        steps = made.graph.constants[f"{path}.bias"] / (plan.grid.scale * plan.scales)
        assert np.abs(steps - steps.round()).max() < 0.02
        name = made.shifts[path]
        moved = (model.state_dict()[name] - before[name]).abs()
        assert 0 < float((moved / (plan.grid.scale * torch.from_numpy(plan.scales))).max()) < 0.51
    changed = [n for n, value in model.state_dict().items() if not torch.equal(value, before[n])]
    assert sorted(changed) == sorted(made.shifts[path] for path in convolutions)


def test_outputs_when_quantization_is_taken_away_are_float(tmp_path: Path) -> None:
    model = rounded(block(), PX)
    bare = without_quantization(model)
    assert output_grids(bare) == {}
    export_onnx(bare, PX, tmp_path / "float.onnx")
    found = logits(tmp_path / "float.onnx", pictures(PX))
    np.testing.assert_allclose(found, torch_logits(bare, pictures(PX)), atol=1e-5)


def test_scale_of_an_output_when_not_finite_is_refused() -> None:
    model = rounded(block(), PX)
    quantized_outputs(model)["two"].quantizer.scale.fill_(float("nan"))
    with pytest.raises(BackboneError, match="output scale of 'two' is nan; calibrate"):
        output_grids(model)
