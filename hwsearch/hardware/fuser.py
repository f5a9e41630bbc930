"""From operations to the fused kernels that a device runs, with the channels left open.

Fusion follows what TensorRT, ONNX Runtime and OpenVINO do alike: batch normalization, activation
and one residual add go into the convolution or product before them; whatever else reads and writes
memory is a kernel of its own. Operations come from a recorded forward pass
(``hwsearch.nets.trace``) or from a file (``hwsearch.hardware.onnx_network``).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hwsearch.hardware.kernel_templates import Channels, KernelTemplate
from hwsearch.hardware.kernels import WEIGHTED_KINDS, KernelKind
from hwsearch.hardware.operators import POINTWISE_KINDS, VIEW_KINDS, OpKind

#: What a tensor is called: by the position of its operation, or by its name in a file.
Tensor = int | str
Shape = tuple[int, ...]

_PLAIN: Final = {
    OpKind.NORM: KernelKind.NORM,
    OpKind.SOFTMAX: KernelKind.SOFTMAX,
    OpKind.POOLING: KernelKind.POOLING,
    OpKind.COPY: KernelKind.COPY,
}
#: Kernels that take in a function of each element of their output.
_FUSING: Final = WEIGHTED_KINDS | {KernelKind.MATMUL, KernelKind.NORM, KernelKind.ELEMENTWISE}


@dataclass(frozen=True, kw_only=True)
class Op:
    """One operation.

    Attributes:
        label: of a kernel that it starts without weights of its own.
        inputs: the activations that it reads, in order, as often as it reads them.
        in_shapes: of these.
        outputs: the parts of a split are several.
        shape: of the first output.
        layer: path of the weighted module, or of the batch normalization.
        weight_elements: of an operation that is no layer.
        has_bias: of a layer.
        window, stride, groups: of a convolution.
        axis: of the output channels of a layer; that a concatenation runs along, None for a new
            one.
        order: of the axes after a transposition.
        inner: how many products are summed up to one element of a linear layer or a product.
    """

    kind: OpKind
    label: str
    inputs: tuple[Tensor, ...]
    in_shapes: tuple[Shape, ...]
    outputs: tuple[Tensor, ...]
    shape: Shape
    layer: str = ""
    weight_elements: int = 0
    has_bias: bool = False
    window: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    groups: int = 1
    axis: int | None = None
    order: tuple[int, ...] = ()
    inner: int = 0


@dataclass(frozen=True, kw_only=True)
class Fused:
    """The kernels of a network.

    Attributes:
        kernels: in the order in which they run.
        started_by: for each the position of the operation that it began with.
        kernel_of: position of the kernel behind each tensor; -1 behind the picture.
        pinned: weighted layers whose channels a reshape, a split or a product depends on.
    """

    kernels: tuple[KernelTemplate, ...]
    started_by: tuple[int, ...]
    kernel_of: Mapping[Tensor, int]
    pinned: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class _Value:
    """What is known of a tensor.

    Attributes:
        kernel: the one that wrote it; -1 for the picture.
        axis: of the channels; None where they are spread over several axes.
        downsampling: of the picture, so far.
        copied: a transposition wrote it in its new order.
    """

    kernel: int
    channels: Channels
    axis: int | None
    downsampling: int = 1
    copied: bool = False


def fuse(
    ops: Sequence[Op],
    *,
    picture: Tensor,
    picture_shape: Shape,
    outputs: Sequence[Tensor],
    picture_axis: int = 1,
) -> Fused:
    """Fuse operations into kernels.

    Args:
        ops: in running order.
        picture: the input.
        picture_shape: of it, with the batch.
        outputs: of the network; they are read by whoever asked for them.
        picture_axis: of its channels.
    """
    fuser = _Fuser(ops, picture, outputs)
    fuser.values[picture] = _Value(
        kernel=-1, channels=Channels(fixed=picture_shape[picture_axis]), axis=picture_axis
    )
    started_by: list[int] = []
    for at, op in enumerate(ops):
        fuser.values.update(dict.fromkeys(op.outputs, fuser.value(op)))
        started_by += [at] * (len(fuser.kernels) - len(started_by))
    _assign_stages(fuser.kernels)
    return Fused(
        kernels=tuple(fuser.kernels),
        started_by=tuple(started_by),
        kernel_of={name: value.kernel for name, value in fuser.values.items()},
        pinned=frozenset(fuser.pinned),
    )


class _Fuser:
    """Takes the operations in order; each is a view, joins the kernel before it, or starts one."""

    def __init__(self, ops: Sequence[Op], picture: Tensor, outputs: Sequence[Tensor]) -> None:
        self.kernels: list[KernelTemplate] = []
        self.values: dict[Tensor, _Value] = {}
        self.pinned: set[str] = set()
        self.names: Counter[str] = Counter()
        self.made: dict[str, int] = {}  # output channels of the layers so far
        # The tensor behind every view, and how many operations read it.
        self.through: dict[Tensor, Tensor] = {picture: picture}
        self.uses: Counter[Tensor] = Counter()
        for op in ops:
            sources = [self.through[name] for name in op.inputs]
            if op.kind in VIEW_KINDS:
                self.through.update(dict.fromkeys(op.outputs, sources[0]))
            else:
                self.through.update((name, name) for name in op.outputs)
                self.uses.update(set(sources))
        self.uses.update(self.through[name] for name in outputs if name in self.through)

    def value(self, op: Op) -> _Value:
        """The output of an operation, whose kernel is noted."""
        source = self.values[op.inputs[0]]
        if op.kind in VIEW_KINDS:
            return self._view(op, source)
        if op.kind in POINTWISE_KINDS:
            return self._pointwise(op)
        if op.kind in _PLAIN:
            weights = op.weight_elements if op.kind is OpKind.NORM else 0
            return self._plain(op, _PLAIN[op.kind], weights)
        match op.kind:
            case OpKind.CONVOLUTION | OpKind.LINEAR:
                return self._layer(op, source)
            case OpKind.PRODUCT:
                return self._product(op)
            case OpKind.BATCH_NORM:
                return self._batch_norm(op, source)
            case OpKind.CONCATENATION if len(op.inputs) > 1:
                return self._concatenation(op)
        return self._conversion(op, source)

    # -- operations without a kernel of their own ------------------------------------------------

    def _view(self, op: Op, source: _Value) -> _Value:
        axis = _axis_after_view(op, source.axis)
        whole = math.prod(op.shape) == math.prod(op.in_shapes[0])
        some = not whole and (op.kind is OpKind.PART or axis is None)
        if some or (axis is None and len(op.shape) > 2):
            self.pinned.update(source.channels.layers)
        # A change of layout that reaches another kernel is a copy; a product takes any layout.
        moves = len(op.shape) == 4 and sum(size > 1 for size in op.shape) > 1
        if op.kind is OpKind.TRANSPOSE and moves and source.kernel >= 0 and axis is not None:
            return replace(self._plain(op, KernelKind.COPY, axis=axis), copied=True)
        return replace(source, axis=axis)

    def _batch_norm(self, op: Op, source: _Value) -> _Value:
        if source.kernel >= 0 and self._alone(op.inputs[0]):
            kernel = self.kernels[source.kernel]
            if kernel.weighted and kernel.batch_norm is None and not kernel.residual_elements:
                # The shift becomes the bias of the layer, the factor goes into its weights.
                kernel.batch_norm = op.layer
                kernel.has_bias = True
                return source
        return self._plain(op, KernelKind.ELEMENTWISE, 2 * op.shape[1])

    def _conversion(self, op: Op, source: _Value) -> _Value:
        """Data in another order or type, which is free where the kernel before can write it so."""
        kind, free = KernelKind.COPY, False
        match op.kind:
            case OpKind.CLONE:
                free = source.copied or source.kernel < 0
            case OpKind.CAST:
                free = source.kernel < 0 or self._fuses(op, 0)
            case OpKind.NORM_PART:
                kind = KernelKind.NORM
                free = self._fuses(op, 0) and self.kernels[source.kernel].kind is kind
        return replace(source, copied=False) if free else self._plain(op, kind)

    def _pointwise(self, op: Op) -> _Value:
        at = self._host(op)
        if at is None:
            return self._plain(op, KernelKind.ELEMENTWISE, op.weight_elements)
        value = self.values[op.inputs[at]]
        kernel = self.kernels[value.kernel]
        others = [i for i, name in enumerate(op.inputs) if name != op.inputs[at]]
        kernel.curved |= op.kind is OpKind.CURVED
        if others:
            kernel.residual_elements += sum(math.prod(op.in_shapes[i]) for i in others)
        elif op.kind is OpKind.ADD or kernel.kind is KernelKind.NORM:
            # A factor goes into the weights of a layer, but a normalization has none.
            # Whatever has a value for each channel of a layer without a bias becomes that.
            if (
                kernel.weighted
                and not kernel.has_bias
                and op.weight_elements == kernel.out_channels
            ):
                kernel.has_bias = True
            else:
                kernel.extra_weight_elements += op.weight_elements
        return replace(value, copied=False)

    def _host(self, op: Op) -> int | None:
        """Position of the input whose kernel takes this function in; None if it needs its own."""
        fusing = [at for at in range(len(op.inputs)) if self._fuses(op, at)]
        if not fusing:
            return None
        if len(set(op.inputs)) == 1:
            return fusing[0]
        if op.kind is not OpKind.ADD or len(op.inputs) != 2:
            return None
        latest = max(fusing, key=lambda at: self.values[op.inputs[at]].kernel)
        kernel = self.kernels[self.values[op.inputs[latest]].kernel]
        return latest if kernel.weighted and not kernel.residual_elements else None

    def _fuses(self, op: Op, at: int) -> bool:
        """Whether the kernel behind an input can take in a function of each of its elements."""
        source = self.values[op.inputs[at]]
        return (
            source.kernel >= 0
            and self._alone(op.inputs[at])
            and self.kernels[source.kernel].kind in _FUSING
            and math.prod(op.shape) == math.prod(op.in_shapes[at])
        )

    def _alone(self, name: Tensor) -> bool:
        return self.uses[self.through[name]] == 1

    # -- operations with a kernel of their own ---------------------------------------------------

    def _layer(self, op: Op, source: _Value) -> _Value:
        assert op.axis is not None
        out_channels = op.shape[op.axis]
        if op.kind is OpKind.LINEAR:
            kind, in_channels = KernelKind.LINEAR, op.inner
            in_size = out_size = (math.prod(op.shape) // out_channels, 1)
        else:
            _, in_channels, height, width = op.in_shapes[0]
            in_size, out_size = (height, width), (op.shape[2], op.shape[3])
            one_each = op.groups == in_channels == out_channels
            kind = KernelKind.DEPTHWISE if one_each else KernelKind.GROUPED
            kind = KernelKind.CONV if op.groups == 1 else kind
        name = self._unique(op.layer)
        self.made[name] = out_channels
        kernel = KernelTemplate(
            name=name,
            kind=kind,
            reads=source.channels,
            writes=Channels(layers=(name,)),
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=op.window,
            stride=op.stride,
            groups=op.groups,
            in_size=in_size,
            out_size=out_size,
            input_elements=math.prod(op.in_shapes[0]),
            output_elements=math.prod(op.shape),
            has_bias=op.has_bias,
            downsampling=source.downsampling * max(op.stride),
        )
        return self._start(kernel, op.axis)

    def _product(self, op: Op) -> _Value:
        """A product of two activations; what both come from keeps its channels."""
        for name in op.inputs:
            self.pinned.update(self.values[name].channels.layers)
        value = self._plain(op, KernelKind.MATMUL)
        self.kernels[value.kernel].macs = math.prod(op.shape) * op.inner
        return value

    def _concatenation(self, op: Op) -> _Value:
        first = self.values[op.inputs[0]]
        channels = first.channels
        if op.axis is not None and op.axis == (1 if first.axis is None else first.axis):
            parts = [
                self._part(self.values[name], shape[op.axis])
                for name, shape in zip(op.inputs, op.in_shapes, strict=True)
            ]
            channels = Channels(
                layers=tuple(layer for part in parts for layer in part.layers),
                fixed=sum(part.fixed for part in parts),
            )
        value = self._plain(op, KernelKind.COPY, channels=channels)
        # No single input is the main one: which is the largest changes with what is pruned.
        kernel = self.kernels[value.kernel]
        kernel.in_channels = kernel.out_channels
        return value

    def _part(self, value: _Value, size: int) -> Channels:
        """The channels that a value adds to a concatenation, in which it takes ``size`` places.

        A flattened value has each of its channels as often as it has positions. One with some of
        a layer's outputs only, as after a split, keeps what it has.
        """
        times, rest = divmod(size, value.channels.count(self.made))
        if times and not rest:
            channels = value.channels
            return Channels(layers=channels.layers * times, fixed=channels.fixed * times)
        self.pinned.update(value.channels.layers)
        return Channels(fixed=size)

    def _plain(
        self,
        op: Op,
        kind: KernelKind,
        weight_elements: int = 0,
        *,
        channels: Channels | None = None,
        axis: int | None = None,
    ) -> _Value:
        """A kernel that is no layer: it reads its inputs and writes its output."""
        sizes = [math.prod(shape) for shape in op.in_shapes]
        largest = sizes.index(max(sizes))
        source, shape = self.values[op.inputs[largest]], op.in_shapes[largest]
        channels = source.channels if channels is None else channels
        if axis is None:
            # A mean over height and width leaves (batch, channels).
            other = 1 if len(op.shape) == 2 else None
            axis = source.axis if len(op.shape) == len(shape) else other
        in_size, out_size = _size(shape, source.axis), _size(op.shape, axis)
        ratio = max(1, round(in_size[0] / out_size[0])) if out_size[0] > 1 else 1
        kernel = KernelTemplate(
            name=self._unique(op.label),
            kind=kind,
            reads=channels,
            writes=channels,
            in_channels=_channels(shape, source.axis),
            out_channels=_channels(op.shape, axis),
            in_size=in_size,
            out_size=out_size,
            input_elements=sum(sizes),
            output_elements=math.prod(op.shape),
            extra_weight_elements=weight_elements,
            downsampling=source.downsampling * ratio,
        )
        return self._start(kernel, axis)

    def _start(self, kernel: KernelTemplate, axis: int | None) -> _Value:
        self.kernels.append(kernel)
        return _Value(
            kernel=len(self.kernels) - 1,
            channels=kernel.writes,
            axis=axis,
            downsampling=kernel.downsampling,
        )

    def _unique(self, name: str) -> str:
        self.names[name] += 1
        count = self.names[name]
        return name if count == 1 else f"{name}#{count}"


def _size(shape: Shape, axis: int | None) -> tuple[int, int]:
    """(height, width) of what remains beside batch and channels; (tokens, 1) where one remains."""
    rest = [size for at, size in enumerate(shape) if at not in (0, axis)] if axis else []
    return (rest[0], rest[1]) if len(rest) == 2 else (math.prod(rest), 1)


def _channels(shape: Shape, axis: int | None) -> int:
    return math.prod(shape[-1:]) if axis is None else shape[axis]


def _axis_after_view(op: Op, axis: int | None) -> int | None:
    before, after = op.in_shapes[0], op.shape
    if axis is None:
        return None
    if op.kind is OpKind.TRANSPOSE:
        return op.order.index(axis)
    channels = before[axis]
    if len(after) == len(before) and (op.kind is OpKind.PART or after[axis] == channels):
        return axis
    places = [at for at, size in enumerate(after) if size == channels]
    if len(places) == 1:
        return places[0]
    if len(after) == 2:
        return 1  # flattened before a classifier: features are channels times positions
    return axis if axis < len(after) and after[axis] == channels else None


def _assign_stages(kernels: Sequence[KernelTemplate]) -> None:
    """Number the kernels 1 to 4 by how far they have downsampled, the last being 4.

    Networks with one resolution throughout (a ViT) are cut into four equal parts by depth.
    """
    levels = {kernel.downsampling for kernel in kernels if kernel.weighted}
    for position, kernel in enumerate(kernels):
        below = sum(level > kernel.downsampling for level in levels)
        by_depth = 1 + 4 * position // len(kernels)
        kernel.stage = max(1, 4 - below) if len(levels) > 1 else by_depth
