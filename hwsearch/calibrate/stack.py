"""Plain networks of one sort of block: what a backbone mixes, they have alone.

A kind of kernel that backbones use for a tenth of their time cannot be told from its neighbours
when only whole networks are timed. Here it takes most of the time.
"""

from typing import Final, Literal, get_args

from torch import Tensor, nn

from hwsearch.errors import BackboneError

Block = Literal["plain", "residual", "pointwise", "separable", "depthwise", "grouped"]
Activation = Literal["relu", "hardswish", "silu"]

#: Channels of one group of a grouped convolution.
_GROUP_WIDTH: Final = 8
#: Depthwise layers before each pointwise one where they are to take most of the time.
_DEPTHWISE_RUN: Final = 4
_ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {
    "relu": nn.ReLU, "hardswish": nn.Hardswish, "silu": nn.SiLU,
}  # fmt: skip


def stack(
    num_classes: int,
    *,
    block: Block = "plain",
    width: int = 32,
    depth: int = 2,
    stages: int = 3,
    window: int = 3,
    activation: Activation = "relu",
) -> nn.Module:
    """A stem of stride 2, stages of equal blocks that halve the size and double the width, a head.

    Args:
        num_classes: outputs.
        block: what the stages are made of.
        width: channels of the first stage; a multiple of 8.
        depth: blocks in a stage; the first has stride 2, except in the first stage.
        stages: how many.
        window: side of the convolutions that have one; odd.
        activation: behind each convolution.

    Raises:
        BackboneError: an argument out of range.
    """
    if block not in get_args(Block) or activation not in _ACTIVATIONS:
        raise BackboneError(
            f"a stack of '{block}' with '{activation}' is none; blocks are "
            f"{', '.join(get_args(Block))}, activations {', '.join(_ACTIVATIONS)}"
        )
    if width < 1 or width % _GROUP_WIDTH or min(depth, stages) < 1 or window % 2 == 0:
        raise BackboneError(
            f"a stack of width {width}, depth {depth}, {stages} stages and window {window} is "
            f"none; the width is a multiple of {_GROUP_WIDTH}, the window odd"
        )
    layers: list[nn.Module] = [_convolution(3, width, 3, 2, 1, activation)]
    channels = width
    for stage in range(stages):
        for at in range(depth):
            stride = 2 if stage and not at else 1
            outputs = width * 2**stage
            layers.append(_block(block, channels, outputs, stride, window, activation))
            channels = outputs
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
    return nn.Sequential(*layers, *head)


class _Residual(nn.Module):
    """Two convolutions around which the input goes."""

    def __init__(self, channels: int, window: int, activation: Activation) -> None:
        super().__init__()
        self.first = _convolution(channels, channels, window, 1, 1, activation)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, window, padding=window // 2, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.last = _ACTIVATIONS[activation]()

    def forward(self, values: Tensor) -> Tensor:
        """Shape (n, channels, side, side), kept."""
        result: Tensor = self.last(self.second(self.first(values)) + values)
        return result


def _block(
    block: Block, inputs: int, outputs: int, stride: int, window: int, activation: Activation
) -> nn.Module:
    if block == "plain":
        return _convolution(inputs, outputs, window, stride, 1, activation)
    if block == "pointwise":
        return _convolution(inputs, outputs, 1, stride, 1, activation)
    if block == "grouped":
        pointwise = _convolution(inputs, outputs, 1, 1, 1, activation)
        groups = outputs // _GROUP_WIDTH
        grouped = _convolution(outputs, outputs, window, stride, groups, activation)
        return nn.Sequential(pointwise, grouped)
    if block == "residual":
        if stride == 1 and inputs == outputs:
            return _Residual(inputs, window, activation)
        return _convolution(inputs, outputs, window, stride, 1, activation)
    run = _DEPTHWISE_RUN if block == "depthwise" else 1
    layers = [
        _convolution(inputs, inputs, window, 1 if at else stride, inputs, activation)
        for at in range(run)
    ]
    return nn.Sequential(*layers, _convolution(inputs, outputs, 1, 1, 1, activation))


def _convolution(
    inputs: int, outputs: int, window: int, stride: int, groups: int, activation: Activation
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            inputs, outputs, window, stride=stride, padding=window // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(outputs),
        _ACTIVATIONS[activation](),
    )
