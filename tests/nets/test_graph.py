import pytest
import torch
from torch import Tensor, nn

from hwsearch.errors import BackboneError
from hwsearch.hardware.operators import TORCH, VIEW_KINDS
from hwsearch.nets.graph import Recording, record

SHAPE = (1, 3, 8, 8)


def block() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(),
        nn.Linear(256, 5),
    ).to("meta")  # fmt: skip


class Returning(nn.Module):
    """A module that returns what a test wants."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function
        self.layer = nn.Linear(8, 5)

    def forward(self, picture: Tensor) -> object:
        assert callable(self.function)
        return self.function(self.layer, picture)


def recorded(function: object) -> Recording:
    return record(Returning(function).to("meta"), SHAPE)


def test_record_when_sequential() -> None:
    found = record(block(), SHAPE)
    assert [
        operation.scope for operation in found.operations if TORCH[operation.op] not in VIEW_KINDS
    ] == [
        "0",
        "1",
        "2",
        "4",
    ]
    first = found.operations[0]
    assert (first.op, first.inputs, first.shape) == ("convolution", (-1,), (1, 4, 8, 8))
    assert first.parameters == {1: "0.weight", 2: "0.bias"}
    assert first.parameter_shapes == {1: (4, 3, 3, 3), 2: (4,)}
    assert found.output == len(found.operations) - 1
    assert found.operations[-1].shape == (1, 5)


@pytest.mark.parametrize("training", [True, False])
def test_record_when_done_restores_mode_and_hooks(training: bool) -> None:
    model = block().train(training)
    record(model, SHAPE)
    assert model.training is training
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_record_when_the_model_fails_restores_mode_and_hooks() -> None:
    model = block().train()
    with pytest.raises(BackboneError, match=r"does not run on a 9 px input: .*give another input"):
        record(model, (1, 3, 9, 9))
    assert model.training
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_record_when_run_leaves_batch_statistics() -> None:
    model = block()
    record(model, SHAPE)
    assert model.get_buffer("1.running_mean").device.type == "meta"


def test_record_when_weights_are_prepared_has_no_operation_for_it() -> None:
    def standardized(layer: nn.Linear, picture: Tensor) -> Tensor:
        weight = (layer.weight - layer.weight.mean()) * 2
        return nn.functional.linear(picture.mean((1, 2)), weight, layer.bias)

    ops = [operation.op for operation in recorded(standardized).operations]
    assert [op for op in ops if TORCH[op] not in VIEW_KINDS] == ["mean", "addmm"]


@pytest.mark.parametrize(
    "function",
    [
        lambda layer, x: (layer(x.mean((1, 2))), x),
        lambda layer, x: {"logits": layer(x.mean((1, 2)))},
        lambda layer, x: layer(x),
        lambda _layer, _x: None,
    ],
    ids=["tuple", "dict", "four dimensions", "none"],
)
def test_record_when_output_is_not_one_row_per_picture(function: object) -> None:
    with pytest.raises(BackboneError, match=r"must return one tensor of shape \(batch, classes\)"):
        recorded(function)


def test_record_when_output_ignores_the_picture() -> None:
    with pytest.raises(BackboneError, match="does not depend on its input"):
        recorded(lambda layer, _x: layer(torch.ones(1, 8)))


def test_record_when_control_flow_needs_values() -> None:
    with pytest.raises(BackboneError, match="does not run on a 8 px input"):
        recorded(lambda layer, x: layer(x.mean((1, 2))) if x.sum() > 0 else None)
