"""From recorded operations to fused kernels, with the channels left open.

Fusion follows what TensorRT, ONNX Runtime and OpenVINO do alike: batch normalization, activation
and one residual add go into the convolution or product before them; everything else that reads
and writes memory is a kernel of its own.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from torch import nn

from hwsearch.errors import BackboneError
from hwsearch.hardware.kernels import WEIGHTED_KINDS, KernelKind
from hwsearch.nets.graph import VIEWS, Operation, Recording, record
from hwsearch.nets.kernel_templates import Channels, KernelTemplate, Trace

_CONVOLUTIONS: Final = frozenset({"convolution", "_convolution"})
_LINEARS: Final = frozenset({"addmm", "mm", "linear"})
_PRODUCTS: Final = frozenset({"bmm", "baddbmm"})
_BATCH_NORMS: Final = frozenset(
    {"native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "batch_norm"}
)
_NORMS: Final = frozenset({"native_layer_norm", "native_group_norm", "_fused_rms_norm", "rms_norm"})
_SOFTMAXES: Final = frozenset({"_softmax", "softmax", "_safe_softmax", "_log_softmax"})
_POOLINGS: Final = frozenset(
    {
        "max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d",
        "adaptive_max_pool2d", "mean", "amax", "sum", "upsample_bilinear2d", "upsample_nearest2d",
    }
)  # fmt: skip
_COPIES: Final = frozenset(
    {"cat", "clone", "_to_copy", "constant_pad_nd", "roll", "pixel_shuffle", "stack", "copy"}
)
_POINTWISE: Final = frozenset(
    {
        "add", "sub", "mul", "div", "relu", "hardtanh", "hardswish", "hardsigmoid", "sigmoid",
        "silu", "gelu", "tanh", "clamp", "clamp_min", "leaky_relu", "elu", "exp", "pow", "sqrt",
        "rsqrt", "neg", "abs", "mish", "softplus", "_prelu_kernel", "maximum", "minimum", "prelu",
        "rsub", "square", "reciprocal", "erf", "log", "celu", "selu", "where",
    }
)  # fmt: skip
#: Arithmetic that is no activation, and activations that the saturation of integers replaces.
_STRAIGHT: Final = frozenset(
    {"add", "sub", "rsub", "mul", "div", "neg", "relu", "hardtanh", "clamp", "clamp_min"}
)
#: Views of some of the elements only, unless all of them are asked for.
_SPLITS: Final = frozenset({"chunk", "select", "slice", "split", "split_with_sizes", "unbind"})
_PLAIN: Final = {
    **dict.fromkeys(_SOFTMAXES, KernelKind.SOFTMAX),
    **dict.fromkeys(_POOLINGS, KernelKind.POOLING),
}
_FUSING: Final = WEIGHTED_KINDS | {KernelKind.MATMUL, KernelKind.NORM, KernelKind.ELEMENTWISE}


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
    return _Fuser(record(model, (1, in_channels, input_px, input_px)), input_px).trace()


@dataclass
class _Value:
    """What is known of an operation's output: who makes it, what its channels are made of."""

    kernel: int
    channels: Channels
    channel_axis: int | None
    shape: tuple[int, ...]
    downsampling: int = 1
    is_view: bool = False
    copied: bool = False
    uses: int = 0
    pinned_by: set[str] = field(default_factory=set)


class _Fuser:
    """Walks the operations once; each is a view, joins the kernel before it, or starts one."""

    def __init__(self, recording: Recording, input_px: int) -> None:
        self.recording = recording
        self.input_px = input_px
        self.kernels: list[KernelTemplate] = []
        self.values: dict[int, _Value] = {}
        self.pinned: set[str] = set()
        self.names: Counter[str] = Counter()
        self.made: dict[str, int] = {}  # output channels of the weighted layers so far
        self.uses = self._count_uses()

    def trace(self) -> Trace:
        picture = self.recording.input_shape
        self.values[-1] = _Value(-1, Channels(fixed=picture[1]), 1, picture)
        for operation in self.recording.operations:
            self.values[operation.index] = self._value(operation)
        last = self.values[self.recording.output].kernel
        if last < 0 or not self.kernels[last].weighted:
            raise BackboneError("the backbone must end in a linear layer or convolution")
        _assign_stages(self.kernels)
        return Trace(
            input_px=self.input_px,
            kernels=tuple(self.kernels),
            pinned=frozenset(self.pinned),
            classifier=self.kernels[last].name,
        )

    def _count_uses(self) -> Counter[int]:
        """How many operations read each output, looking through views."""
        through: dict[int, int] = {-1: -1}
        uses: Counter[int] = Counter()
        for operation in self.recording.operations:
            if operation.op in VIEWS and operation.inputs:
                through[operation.index] = through[operation.inputs[0]]
            else:
                through[operation.index] = operation.index
                uses.update({through[source] for source in operation.inputs})
        self.through = through
        uses[through[self.recording.output]] += 1
        return uses

    def _value(self, operation: Operation) -> _Value:
        op = operation.op
        if op in VIEWS:
            return self._view(operation)
        if op in _CONVOLUTIONS:
            return self._convolution(operation)
        if op in _LINEARS and operation.parameters:
            return self._linear(operation)
        if op in _PRODUCTS or op in _LINEARS:
            return self._product(operation)
        if op in _BATCH_NORMS:
            return self._batch_norm(operation)
        if op in _POINTWISE:
            return self._pointwise(operation)
        if op in _COPIES:
            return self._copy(operation)
        if op in _NORMS:
            return self._plain(operation, KernelKind.NORM, self._weights_of(operation))
        if op in _PLAIN:
            return self._plain(operation, _PLAIN[op])
        raise BackboneError(
            f"operation '{op}' in '{operation.scope or 'the backbone'}' has no cost model; "
            "use another backbone, or replace the operation"
        )

    # -- operations without a kernel of their own ------------------------------------------------

    def _view(self, operation: Operation) -> _Value:
        source = self.values[operation.inputs[0]]
        axis = _axis_after_view(operation, source)
        splits = operation.op in _SPLITS
        whole = math.prod(operation.shape) == math.prod(source.shape)
        if (splits and not whole) or (axis is None and not whole):
            self.pinned.update(source.channels.layers)
        if axis is None and len(operation.shape) > 2:
            self.pinned.update(source.channels.layers)
        value = _Value(
            source.kernel, source.channels, axis, operation.shape, source.downsampling, is_view=True
        )
        value.copied = source.copied
        if operation.op in {"permute", "transpose"} and self._moves_data(operation):
            return self._plain(operation, KernelKind.COPY, axis=axis, copied=True)
        return value

    def _moves_data(self, operation: Operation) -> bool:
        """Whether a change of layout reaches a kernel other than a product, which absorbs it."""
        if sum(size > 1 for size in operation.shape) < 2 or len(operation.shape) != 4:
            return False
        source = self.values[operation.inputs[0]]
        return source.kernel >= 0 and source.channel_axis is not None

    def _batch_norm(self, operation: Operation) -> _Value:
        source = self.values[operation.inputs[0]]
        name = operation.parameters.get(1, operation.scope).removesuffix(".weight")
        if self._alone(operation.inputs[0]) and source.kernel >= 0:
            kernel = self.kernels[source.kernel]
            if kernel.weighted and kernel.batch_norm is None and not kernel.residual_elements:
                kernel.batch_norm = name
                kernel.has_bias = True
                return self._joined(operation, source)
        return self._plain(operation, KernelKind.ELEMENTWISE, 2 * operation.shape[1])

    def _pointwise(self, operation: Operation) -> _Value:
        host = self._fusing_input(operation)
        if host is None:
            return self._plain(operation, KernelKind.ELEMENTWISE, self._weights_of(operation))
        source = self.values[host]
        kernel = self.kernels[source.kernel]
        others = [at for at in operation.inputs if at != host]
        kernel.curved |= operation.op not in _STRAIGHT
        if others:
            kernel.residual_elements += sum(math.prod(self.values[at].shape) for at in others)
        elif operation.parameters and operation.op == "add":
            kernel.extra_weight_elements += self._weights_of(operation)
        return self._joined(operation, source)

    def _fusing_input(self, operation: Operation) -> int | None:
        """The input whose kernel takes this operation in, or None if it needs its own."""
        sources = [at for at in operation.inputs if self._fusable(at, operation)]
        if not sources:
            return None
        if len(operation.inputs) == 1:
            return sources[0]
        if operation.op != "add" or len(operation.inputs) != 2:
            return None
        latest = max(sources, key=lambda at: self.values[at].kernel)
        kernel = self.kernels[self.values[latest].kernel]
        if not kernel.weighted or kernel.residual_elements:
            return None
        return latest

    def _fusable(self, index: int, operation: Operation) -> bool:
        source = self.values[index]
        if source.kernel < 0 or not self._alone(index):
            return False
        if self.kernels[source.kernel].kind not in _FUSING:
            return False
        return math.prod(operation.shape) == math.prod(source.shape)

    def _alone(self, index: int) -> bool:
        return self.uses[self.through[index]] == 1

    def _joined(self, operation: Operation, source: _Value) -> _Value:
        return _Value(
            source.kernel,
            source.channels,
            source.channel_axis,
            operation.shape,
            source.downsampling,
        )

    # -- operations with a kernel of their own ---------------------------------------------------

    def _convolution(self, operation: Operation) -> _Value:
        source = self.values[operation.inputs[0]]
        weight = operation.parameter_shapes.get(1)
        if weight is None or len(weight) != 4:
            raise BackboneError(
                f"'{operation.scope}' is not a 2-d convolution with weights of its own; "
                "use another backbone"
            )
        groups = int(operation.arguments[8])
        in_channels, out_channels = operation.in_shapes[0][1], operation.shape[1]
        stride = _pair(operation.arguments[3])
        kind = KernelKind.CONV
        if groups > 1:
            one_each = groups == in_channels == out_channels
            kind = KernelKind.DEPTHWISE if one_each else KernelKind.GROUPED
        out_size = (operation.shape[2], operation.shape[3])
        return self._weighted(
            operation,
            kind=kind,
            source=source,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=(weight[2], weight[3]),
            stride=stride,
            groups=groups,
            in_size=(operation.in_shapes[0][2], operation.in_shapes[0][3]),
            out_size=out_size,
            has_bias=2 in operation.parameters,
            axis=1,
        )

    def _linear(self, operation: Operation) -> _Value:
        source = self.values[operation.inputs[0]]
        features_in, features_out = operation.in_shapes[0][-1], operation.shape[-1]
        tokens = math.prod(operation.shape) // features_out
        return self._weighted(
            operation,
            kind=KernelKind.LINEAR,
            source=source,
            in_channels=features_in,
            out_channels=features_out,
            in_size=(tokens, 1),
            out_size=(tokens, 1),
            has_bias=operation.op != "mm",
            axis=len(operation.shape) - 1,
        )

    def _weighted(
        self,
        operation: Operation,
        *,
        kind: KernelKind,
        source: _Value,
        in_channels: int,
        out_channels: int,
        in_size: tuple[int, int],
        out_size: tuple[int, int],
        has_bias: bool,
        axis: int,
        kernel_size: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        groups: int = 1,
    ) -> _Value:
        weights = [name for name in operation.parameters.values() if name.endswith("weight")]
        if len(weights) != 1:
            raise BackboneError(
                f"the layer '{operation.scope}' has no weight of its own (it is shared or "
                "computed); use another backbone"
            )
        name = weights[0].removesuffix(".weight")
        if self.names[name]:
            raise BackboneError(f"the layer '{name}' runs twice; hwsearch gives each layer one use")
        downsampling = source.downsampling * max(stride)
        self._start(
            KernelTemplate(
                name=name,
                kind=kind,
                reads=source.channels,
                writes=Channels(layers=(name,)),
                in_channels=in_channels,
                out_channels=out_channels,
                kernel_size=kernel_size,
                stride=stride,
                groups=groups,
                in_size=in_size,
                out_size=out_size,
                macs=math.prod(out_size) * out_channels * (in_channels // groups)
                * math.prod(kernel_size),
                input_elements=math.prod(operation.in_shapes[0]),
                output_elements=math.prod(operation.shape),
                has_bias=has_bias,
                downsampling=downsampling,
            )
        )  # fmt: skip
        return _Value(
            len(self.kernels) - 1,
            Channels(layers=(name,)),
            axis,
            operation.shape,
            downsampling,
        )

    def _product(self, operation: Operation) -> _Value:
        """A product of two activations; what both come from keeps its channels."""
        if len(operation.inputs) != 2:
            raise BackboneError(
                f"operation '{operation.op}' in '{operation.scope}' has no cost model; "
                "use another backbone"
            )
        for index in operation.inputs:
            self.pinned.update(self.values[index].channels.layers)
        value = self._plain(operation, KernelKind.MATMUL)
        kernel = self.kernels[value.kernel]
        kernel.macs = math.prod(operation.shape) * operation.in_shapes[0][-1]
        return value

    def _copy(self, operation: Operation) -> _Value:
        source = self.values[operation.inputs[0]]
        if operation.op in {"clone", "_to_copy"} and (source.copied or source.kernel < 0):
            return self._joined(operation, source)
        if operation.op in {"cat", "stack"} and len(operation.inputs) > 1:
            return self._concatenation(operation)
        return self._plain(operation, KernelKind.COPY)

    def _concatenation(self, operation: Operation) -> _Value:
        first = self.values[operation.inputs[0]]
        axis = next((a for a in operation.arguments.values() if isinstance(a, int)), 0)
        axis %= len(operation.shape)
        channels = first.channels
        along = 1 if first.channel_axis is None else first.channel_axis
        if operation.op == "cat" and axis == along:
            parts = [self._part(self.values[at], axis) for at in operation.inputs]
            channels = Channels(
                layers=tuple(layer for part in parts for layer in part.layers),
                fixed=sum(part.fixed for part in parts),
            )
        value = self._plain(operation, KernelKind.COPY, channels=channels)
        # No single input is the main one: which is the largest changes with what is pruned.
        kernel = self.kernels[value.kernel]
        kernel.in_channels = kernel.out_channels
        return value

    def _part(self, value: _Value, axis: int) -> Channels:
        """The channels that a value adds to a concatenation.

        A flattened value has each of its channels as often as it has positions. One with some of
        a layer's outputs only, as after a split, keeps what it has.
        """
        times, rest = divmod(value.shape[axis], value.channels.count(self.made))
        if times and not rest:
            channels = value.channels
            return Channels(layers=channels.layers * times, fixed=channels.fixed * times)
        self.pinned.update(value.channels.layers)
        return Channels(fixed=value.shape[axis])

    def _plain(
        self,
        operation: Operation,
        kind: KernelKind,
        weight_elements: int = 0,
        *,
        channels: Channels | None = None,
        axis: int | None = None,
        copied: bool = False,
    ) -> _Value:
        """A kernel without a weighted layer: it reads its inputs and writes its output."""
        largest = max(operation.inputs, key=lambda at: math.prod(self.values[at].shape))
        source = self.values[largest]
        channels = source.channels if channels is None else channels
        in_elements = sum(math.prod(shape) for shape in operation.in_shapes)
        shape = operation.in_shapes[operation.inputs.index(largest)]
        kept = axis if axis is not None else _axis_after(operation, source)
        in_size = _size(shape, source.channel_axis)
        out_size = _size(operation.shape, kept)
        ratio = max(1, round(in_size[0] / max(1, out_size[0]))) if out_size[0] > 1 else 1
        label = f"{operation.scope}.{operation.op}" if operation.scope else operation.op
        self.names[label] += 1
        count = self.names[label]
        self._start(
            KernelTemplate(
                name=label if count == 1 else f"{label}#{count}",
                kind=kind,
                reads=channels,
                writes=channels,
                in_channels=_channels(shape, source.channel_axis),
                out_channels=_channels(operation.shape, kept),
                in_size=in_size,
                out_size=out_size,
                input_elements=in_elements,
                output_elements=math.prod(operation.shape),
                extra_weight_elements=weight_elements,
                downsampling=source.downsampling * ratio,
            ),
            counted=False,
        )
        return _Value(
            len(self.kernels) - 1,
            channels,
            kept,
            operation.shape,
            source.downsampling * ratio,
            copied=copied,
        )

    def _start(self, kernel: KernelTemplate, *, counted: bool = True) -> None:
        if counted:
            self.names[kernel.name] += 1
            self.made[kernel.name] = kernel.out_channels
        self.kernels.append(kernel)

    def _weights_of(self, operation: Operation) -> int:
        return sum(math.prod(operation.parameter_shapes[at]) for at in operation.parameters)


def _pair(value: object) -> tuple[int, int]:
    if isinstance(value, list | tuple) and len(value) == 2:
        return int(value[0]), int(value[1])
    raise BackboneError(f"a convolution of stride {value} has no cost model; use 2-d convolutions")


def _size(shape: tuple[int, ...], axis: int | None) -> tuple[int, int]:
    """(height, width) of what remains beside batch and channels; (tokens, 1) where one remains."""
    rest = [size for at, size in enumerate(shape) if at not in (0, axis)] if axis else []
    if len(rest) == 2:
        return rest[0], rest[1]
    return (math.prod(rest), 1)


def _channels(shape: tuple[int, ...], axis: int | None) -> int:
    return shape[-1] if axis is None else shape[axis]


def _axis_after(operation: Operation, source: _Value) -> int | None:
    """The channel axis after an operation that is no view."""
    if len(operation.shape) == len(source.shape):
        return source.channel_axis
    # A mean over height and width leaves (batch, channels).
    return 1 if len(operation.shape) == 2 else None


def _axis_after_view(operation: Operation, source: _Value) -> int | None:
    axis, shape = source.channel_axis, operation.shape
    if axis is None:
        return None
    if operation.op == "permute":
        order = [int(d) % len(shape) for d in operation.arguments[1]]
        return order.index(axis)
    if operation.op in {"transpose", "t"}:
        first, second = 0, 1
        if operation.op == "transpose":
            first, second = (int(operation.arguments[at]) % len(shape) for at in (1, 2))
        return {first: second, second: first}.get(axis, axis)
    if len(shape) == len(source.shape) and (
        operation.op in _SPLITS or shape[axis] == source.shape[axis]
    ):
        return axis
    channels = source.shape[axis]
    places = [at for at, size in enumerate(shape) if size == channels]
    if len(places) == 1:
        return places[0]
    if len(shape) == 2:
        return 1  # flattened before a classifier: features are channels times positions
    return axis if axis < len(shape) and shape[axis] == channels else None


def _assign_stages(kernels: list[KernelTemplate]) -> None:
    """Number the kernels 1 to 4 by how far they have downsampled, the last being 4.

    Networks with one resolution throughout (a ViT) are cut into four equal parts by depth.
    """
    levels = sorted({kernel.downsampling for kernel in kernels if kernel.weighted})
    if len(levels) < 2:
        for position, kernel in enumerate(kernels):
            kernel.stage = 1 + 4 * position // len(kernels)
        return
    for kernel in kernels:
        below = sum(level > kernel.downsampling for level in levels)
        kernel.stage = max(1, 4 - below)
