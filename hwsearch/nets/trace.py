"""From a module to its fused kernels, with the channels left open.

The operations of a recorded forward pass are put into the words of ``hwsearch.hardware.fuser``,
which fuses them.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from torch import nn

from hwsearch.errors import BackboneError
from hwsearch.hardware.fuser import Op, fuse
from hwsearch.hardware.kernel_templates import Trace
from hwsearch.hardware.operators import TORCH, OpKind
from hwsearch.nets.graph import Operation, Recording, record

_PICTURE: Final = -1


def trace(model: nn.Module, input_px: int, in_channels: int = 3) -> Trace:
    """Trace a model whose parameters are on the meta device.

    Args:
        model: returns (batch, classes).
        input_px: height and width of the picture.
        in_channels: of the picture.

    Raises:
        BackboneError: the model does not run, or runs an operation that has no kernel here. It is
            an error rather than a cost of zero.
    """
    # Torch spells them out as matrix products and gates, step by step, which no runtime runs.
    for name, module in model.named_modules():
        if isinstance(module, nn.RNNBase | nn.RNNCellBase):
            raise BackboneError(
                f"the layer '{name}' is recurrent ({type(module).__name__}), which has no cost "
                "model; use a backbone of convolutions or attention"
            )
    recording = record(model, (1, in_channels, input_px, input_px))
    fused = fuse(
        list(_ops(recording)),
        picture=_PICTURE,
        picture_shape=recording.input_shape,
        outputs=[recording.output],
    )
    last = fused.kernel_of[recording.output]
    if last < 0 or not fused.kernels[last].weighted:
        raise BackboneError("the backbone must end in a linear layer or convolution")
    return Trace(
        input_px=input_px,
        kernels=fused.kernels,
        pinned=fused.pinned,
        classifier=fused.kernels[last].name,
    )


def _ops(recording: Recording) -> Iterator[Op]:
    layers = set()
    for operation in recording.operations:
        op = _op(operation)
        if op.kind in {OpKind.CONVOLUTION, OpKind.LINEAR}:
            if op.layer in layers:
                raise BackboneError(
                    f"the layer '{op.layer}' runs twice; hwsearch gives each layer one use"
                )
            layers.add(op.layer)
        yield op


def _op(operation: Operation) -> Op:
    kind, scope, shape = TORCH.get(operation.op), operation.scope, operation.shape
    if kind is None:
        raise BackboneError(
            f"operation '{operation.op}' in '{scope or 'the backbone'}' has no cost model; "
            "use another backbone, or replace the operation"
        )
    if kind is OpKind.LINEAR and not operation.parameters:
        kind = OpKind.PRODUCT
    weights = sum(math.prod(operation.parameter_shapes[at]) for at in operation.parameters)
    op = Op(
        kind=kind,
        label=f"{scope}.{operation.op}" if scope else operation.op,
        inputs=operation.inputs,
        in_shapes=operation.in_shapes,
        outputs=(operation.index,),
        shape=shape,
        weight_elements=weights,
    )
    match kind:
        case OpKind.TRANSPOSE:
            return replace(op, order=_order(operation))
        case OpKind.CONVOLUTION:
            return _convolution(operation, op)
        case OpKind.LINEAR:
            return replace(
                op,
                layer=_layer_name(operation),
                has_bias=operation.op != "mm",
                axis=len(shape) - 1,
                inner=operation.in_shapes[0][-1],
            )
        case OpKind.PRODUCT:
            if len(operation.inputs) != 2:
                raise BackboneError(
                    f"operation '{operation.op}' in '{scope}' has no cost model; "
                    "use another backbone"
                )
            return replace(op, inner=operation.in_shapes[0][-1])
        case OpKind.BATCH_NORM:
            return replace(op, layer=operation.parameters.get(1, scope).removesuffix(".weight"))
        case OpKind.CONCATENATION if operation.op == "cat":
            axis = next((a for a in operation.arguments.values() if isinstance(a, int)), 0)
            return replace(op, axis=axis % len(shape))
    return op


def _convolution(operation: Operation, op: Op) -> Op:
    weight, stride = operation.parameter_shapes.get(1), operation.arguments[3]
    if weight is None or len(weight) != 4 or len(stride) != 2:
        raise BackboneError(
            f"'{operation.scope}' is not a 2-d convolution with weights of its own; "
            "use another backbone"
        )
    return replace(
        op,
        layer=_layer_name(operation),
        has_bias=2 in operation.parameters,
        window=(weight[2], weight[3]),
        stride=(int(stride[0]), int(stride[1])),
        groups=int(operation.arguments[8]),
        axis=1,
    )


def _layer_name(operation: Operation) -> str:
    weights = [name for name in operation.parameters.values() if name.endswith("weight")]
    if len(weights) != 1:
        raise BackboneError(
            f"the layer '{operation.scope}' has no weight of its own (it is shared or "
            "computed); use another backbone"
        )
    return weights[0].removesuffix(".weight")


def _order(operation: Operation) -> tuple[int, ...]:
    """Of the axes after a transposition; "t" is that of a matrix or of a vector."""
    rank = len(operation.shape)
    if operation.op == "permute":
        return tuple(int(axis) % rank for axis in operation.arguments[1])
    first, second = 0, rank - 1
    if operation.op == "transpose":
        first, second = (int(operation.arguments[at]) % rank for at in (1, 2))
    order = list(range(rank))
    order[first], order[second] = second, first
    return tuple(order)
