"""Networks of NAS-Bench-201 (arXiv:2001.00326) from their cell strings, as fused kernels.

The skeleton: a 3x3 stem to 16 channels at 32 px, five cells, a residual block of stride 2 to 32
channels, five cells, one to 64, five cells, batch normalization with ReLU, global pooling, linear.

ReLU-Conv-BN is one convolution kernel: the ReLU in front costs nothing on its own. Sums are taken
from left to right, and fuse into a convolution by the rule of ``hwsearch.nets.trace``: into the
later of the two that they add, if nobody else reads it and it holds no sum already.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from network_builder import NetworkBuilder

from hwsearch.bits import LayerBits
from hwsearch.hardware.kernels import KernelDesc, KernelKind, NetworkDesc

#: (source, node) of each edge, in the order of the cell string. Node 0 is the cell's input, 3 its
#: output.
EDGES: Final = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))

#: Operations of an edge.
OPERATIONS: Final = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")

_CELL = re.compile(r"\|(\w+)~0\|\+\|(\w+)~0\|(\w+)~1\|\+\|(\w+)~0\|(\w+)~1\|(\w+)~2\|")
_STAGES: Final = ((16, 32), (32, 16), (64, 8))
_CELLS: Final = 5
_SHORTCUT: Final = ".shortcut"
_WINDOWS: Final = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}

#: What a runtime leaves out. "nothing": an eager framework runs every operation, also for a zero.
#: "unread": a compiler of graphs drops what nobody reads. "dead": it also folds what is computed
#: from zeros alone, so that only paths from the picture to the output are left.
Removal = Literal["nothing", "unread", "dead"]

#: What a node is when nothing reaches it.
_ZEROS: Final = -1


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A kernel of a cell, whatever its channels; ``residual`` if a sum was fused into it."""

    name: str
    kind: str
    residual: bool = False


@dataclass
class _Operation:
    """A kernel before fusion, with the tensors that it reads and the one that it writes."""

    name: str
    kind: str
    reads: tuple[int, ...]
    writes: int
    residual: bool = False


def parse_cell(arch: str) -> tuple[str, ...]:
    """The operations of ``EDGES``.

    Raises:
        ValueError: another form, or an unknown operation.
    """
    match = _CELL.fullmatch(arch)
    if match is None:
        raise ValueError(f"'{arch}' is not a cell |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
    operations = match.groups()
    for operation in operations:
        if operation not in OPERATIONS:
            raise ValueError(f"'{operation}' is not of NAS-Bench-201; pick one of {OPERATIONS}")
    return operations


def is_constant(operations: Sequence[str]) -> bool:
    """Whether no path leads through the cell, so that the output ignores the picture."""
    return not live_operations(operations)


def live_operations(operations: Sequence[str]) -> tuple[str, ...]:
    """The operations on paths from the input to the output of the cell, in order of ``EDGES``."""
    return tuple(operation for operation in _kept(operations, "dead") if operation != "none")


def nasbench201(
    arch: str, bits: LayerBits, *, classes: int = 10, removed: Removal = "dead"
) -> NetworkDesc:
    """One network of the benchmark on pictures of 32 px.

    Published ``macs`` and ``params`` are those with nothing removed: ``NetworkDesc.macs`` and
    ``unfolded_params`` meet them exactly on all 15,625 rows.

    Args:
        arch: the cell, ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``.
        bits: of every kernel.
        classes: outputs.
        removed: what does not run. A network whose output nothing reaches keeps its classifier
            only; one whose last cell makes its output of zeros keeps that cell and what follows.

    Raises:
        ValueError: another form of the cell, or an unknown operation.
    """
    operations = parse_cell(arch)
    steps = _steps(_kept(operations, removed))
    kernels: list[KernelDesc] = []
    if removed == "nothing" or not is_constant(operations):
        kernels.append(_stem(bits))
        for stage in range(len(_STAGES)):
            if stage:
                kernels.extend(_reduction(stage, bits))
            for cell in range(_CELLS):
                kernels.extend([_kernel(stage, cell, step, bits) for step in steps])
    else:
        kernels.extend(_kernel(len(_STAGES) - 1, _CELLS - 1, step, bits) for step in steps)
    kernels.extend(_head(bits, classes, with_features=bool(kernels)))
    return NetworkDesc(name=arch, input_px=32, kernels=tuple(kernels))


def unfolded_params(network: NetworkDesc) -> int:
    """Parameters as the benchmark counts them, before batch normalization is folded.

    A normalization has two factors for each channel where the folded kernel has one bias; the
    shortcuts of the residual blocks have neither.
    """
    normalized = sum(
        kernel.out_channels
        for kernel in network.kernels
        if kernel.kind is KernelKind.CONV and not kernel.name.endswith(_SHORTCUT)
    )
    return network.weight_elements + normalized


def _kept(operations: Sequence[str], removed: Removal) -> tuple[str, ...]:
    """The operations with "none" in place of what is removed."""
    if removed == "nothing":
        return tuple(operations)
    edges = list(zip(EDGES, operations, strict=True))
    reached, read = {0}, {3}
    for (source, node), operation in edges:
        if operation != "none" and source in reached:
            reached.add(node)
    for (source, node), operation in sorted(edges, reverse=True):
        if operation != "none" and node in read:
            read.add(source)
    return tuple(
        operation if node in read and (removed == "unread" or source in reached) else "none"
        for (source, node), operation in edges
    )


def _steps(operations: Sequence[str]) -> tuple[_Step, ...]:
    recorded, output = _recorded(operations)
    return tuple(
        _Step(name=operation.name, kind=operation.kind, residual=operation.residual)
        for operation in _fused(recorded, output)
    )


def _recorded(operations: Sequence[str]) -> tuple[list[_Operation], int]:
    """The kernels of a cell without fusion, and the tensor that is its output.

    Tensor 0 is the cell's input; a skip is another name for what it reads.
    """
    recorded: list[_Operation] = []
    nodes: dict[int, int] = {0: 0}

    def run(name: str, kind: str, *reads: int) -> int:
        recorded.append(_Operation(name, kind, reads, len(recorded) + 1))
        return len(recorded)

    for node in (1, 2, 3):
        terms = []
        for (source, target), operation in zip(EDGES, operations, strict=True):
            if target != node or operation == "none":
                continue
            read = nodes[source]
            if operation != "skip_connect":
                terms.append(run(f"{source}{node}.{operation}", operation, read))
            elif read != _ZEROS:
                terms.append(read)
        total = terms[0] if terms else _ZEROS
        for count, term in enumerate(terms[1:], start=1):
            total = run(f"{node}.sum{count}", "sum", total, term)
        nodes[node] = total
    return recorded, nodes[3]


def _fused(recorded: list[_Operation], output: int) -> list[_Operation]:
    uses = Counter(read for operation in recorded for read in operation.reads)
    uses[output] += 1
    kernels: list[_Operation] = []
    makers: dict[int, _Operation] = {}
    for operation in recorded:
        host = None
        if operation.kind == "sum":
            hosts = [makers[at] for at in operation.reads if at in makers and uses[at] == 1]
            host = max(hosts, key=lambda maker: maker.writes, default=None)
        if host is None or host.residual:
            kernels.append(operation)
            if operation.kind in _WINDOWS:
                makers[operation.writes] = operation
        else:
            host.residual = True
            makers[operation.writes] = host
    return kernels


# Networks share their kernels: the whole table has some 500 distinct ones.


@cache
def _kernel(stage: int, cell: int, step: _Step, bits: LayerBits) -> KernelDesc:
    channels, px = _STAGES[stage]
    build = NetworkBuilder(bits)
    name = f"stage{stage}.cell{cell}.{step.name}"
    if step.kind == "sum":
        build.elementwise(channels, px, extra_input=channels * px**2, name=name)
    elif step.kind in _WINDOWS:
        window = _WINDOWS[step.kind]
        build.conv(channels, channels, px, window, residual=step.residual, name=name)
    else:
        build.pooling(channels, px, px, name=name)
    return build.kernels[0]


@cache
def _stem(bits: LayerBits) -> KernelDesc:
    build = NetworkBuilder(bits)
    build.conv(3, _STAGES[0][0], 32, 3, name="stem")
    return build.kernels[0]


@cache
def _reduction(stage: int, bits: LayerBits) -> tuple[KernelDesc, ...]:
    """The residual block in front of a stage; its shortcut pools, and has no normalization."""
    (before, px), (after, half) = _STAGES[stage - 1], _STAGES[stage]
    name = f"stage{stage}.reduction"
    build = NetworkBuilder(bits)
    build.conv(before, after, px, 3, stride=2, name=f"{name}.conv_a")
    build.conv(after, after, half, 3, name=f"{name}.conv_b")
    build.pooling(before, px, half, name=f"{name}.pool")
    build.conv(before, after, half, residual=True, bias=False, name=f"{name}{_SHORTCUT}")
    return tuple(build.kernels)


@cache
def _head(bits: LayerBits, classes: int, *, with_features: bool) -> tuple[KernelDesc, ...]:
    channels, px = _STAGES[-1]
    build = NetworkBuilder(bits)
    if with_features:
        build.elementwise(channels, px, weights=2 * channels, name="last_norm")
        build.pooling(channels, px, name="pool")
    build.linear(channels, classes, name="classifier")
    return tuple(build.kernels)
