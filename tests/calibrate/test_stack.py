import pytest
import torch
from torch import nn

from hwsearch.calibrate.stack import stack
from hwsearch.errors import BackboneError


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def test_a_stage_halves_the_size_and_doubles_the_width() -> None:
    model = stack(7, block="plain", width=16, depth=2, stages=3)
    layers = convolutions(model)
    assert [layer.out_channels for layer in layers] == [16, 16, 16, 32, 32, 64, 64]
    assert [layer.stride[0] for layer in layers] == [2, 1, 1, 2, 1, 2, 1]


def test_the_sort_of_block_decides_the_groups() -> None:
    depthwise = convolutions(stack(7, block="depthwise", width=16, depth=1, stages=1))
    assert [layer.groups for layer in depthwise] == [1, 16, 16, 16, 16, 1]
    separable = convolutions(stack(7, block="separable", width=16, depth=1, stages=1))
    assert [layer.groups for layer in separable] == [1, 16, 1]
    grouped = convolutions(stack(7, block="grouped", width=16, depth=1, stages=1))
    assert [layer.groups for layer in grouped] == [1, 1, 2]
    pointwise = convolutions(stack(7, block="pointwise", width=16, depth=1, stages=1))
    assert [layer.kernel_size for layer in pointwise] == [(3, 3), (1, 1)]


def test_a_residual_block_adds_its_input() -> None:
    model = stack(7, block="residual", width=16, depth=1, stages=1).eval()
    block = model.get_submodule("1")
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
    values = torch.rand(1, 16, 8, 8)
    with torch.no_grad():
        assert torch.equal(block(values), values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": "dense"}, "a stack of 'dense' with 'relu' is none; blocks are plain, residual"),
        ({"activation": "gelu"}, "with 'gelu' is none; blocks are .* activations relu, hardswish"),
        ({"width": 12}, "width 12, depth 2, 3 stages and window 3 is none; the width is a mult"),
        ({"depth": 0}, "depth 0"),
        ({"stages": 0}, "0 stages"),
        ({"window": 4}, "the window odd"),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        stack(7, **arguments)  # type: ignore[arg-type]
