"""A network as a device runs it: a sequence of fused kernels.

A runtime does not run modules. It fuses convolution, batch normalization, activation and residual
add into one kernel, so that is the unit in which cost is predicted.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np

from hwsearch.bits import FP32, LayerBits


class KernelKind(StrEnum):
    """What a kernel computes. Values are stored in profiles: the list only grows."""

    CONV = "conv"  # dense convolution, groups = 1 (a 1x1 kernel is pointwise)
    DEPTHWISE = "depthwise"  # convolution with one input channel in each group
    GROUPED = "grouped"  # any other convolution with groups > 1
    LINEAR = "linear"
    MATMUL = "matmul"  # a product of two activations, as in attention
    SOFTMAX = "softmax"
    NORM = "norm"  # a normalization that cannot be folded (LayerNorm, GroupNorm)
    POOLING = "pooling"
    ELEMENTWISE = "elementwise"  # arithmetic that fused into no neighbour
    COPY = "copy"  # data movement: concatenation, transposition that must be materialized

    @property
    def number(self) -> int:
        """Position in this list, for arrays."""
        return _NUMBERS[self]


_NUMBERS = {kind: number for number, kind in enumerate(KernelKind)}

#: The kinds that hold weights, and so can be given bits of their own.
WEIGHTED_KINDS = frozenset(
    {KernelKind.CONV, KernelKind.DEPTHWISE, KernelKind.GROUPED, KernelKind.LINEAR}
)


@dataclass(frozen=True, kw_only=True)
class KernelDesc:
    """One fused kernel at batch 1.

    Attributes:
        name: path of the weighted module ("layer1.0.conv1"), or of the operation for the others.
        in_channels: channels (features of a linear kernel) of the main input; of all inputs of a
            concatenation.
        out_channels: channels (features) of the output.
        kernel_size: (height, width) of the window; (1, 1) where there is none.
        stride: (height, width).
        groups: 1 except for grouped and depthwise convolutions.
        in_size: (height, width) of the main input; (1, 1) for a vector, (tokens, 1) for tokens.
        out_size: the same of the output.
        macs: multiply-accumulates; 0 for kinds that have none.
        input_elements: all activations read, a fused residual input included.
        output_elements: all activations written.
        weight_elements: weights and biases after folding.
        bits: what the layer is asked to run in; for kinds without weights what its input is in.
        curved: an activation other than a clip (ReLU, ReLU6) was fused, which integers cannot
            leave to saturation: hard-swish, SiLU, GELU.
        stage: 1 to 4, by resolution (see ``hwsearch.hardware.fuser``).
    """

    name: str
    kind: KernelKind
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    groups: int = 1
    in_size: tuple[int, int] = (1, 1)
    out_size: tuple[int, int] = (1, 1)
    macs: int = 0
    input_elements: int
    output_elements: int
    weight_elements: int = 0
    bits: LayerBits = FP32
    curved: bool = False
    stage: int = 1

    def __post_init__(self) -> None:
        if min(self.in_channels, self.out_channels, self.groups) < 1:
            raise ValueError(f"kernel {self.name}: channels and groups are at least 1")
        if min(self.macs, self.weight_elements) < 0:
            raise ValueError(f"kernel {self.name}: counts are not negative")
        if min(self.input_elements, self.output_elements) < 1:
            raise ValueError(f"kernel {self.name}: a kernel reads and writes something")

    @property
    def weight_bytes(self) -> float:
        """Storage of the weights at ``bits``; biases are counted at the same width."""
        return self.weight_elements * self.bits.weight_bits / 8

    @property
    def activation_bytes(self) -> float:
        """Activations read and written, at the activation bits."""
        return (self.input_elements + self.output_elements) * self.bits.activation_bits / 8

    @property
    def bytes(self) -> float:
        """All memory traffic of the kernel when nothing stays on chip."""
        return self.weight_bytes + self.activation_bytes


@dataclass(frozen=True, kw_only=True)
class NetworkDesc:
    """A whole network at batch 1, in the order in which its kernels run."""

    name: str
    input_px: int
    kernels: tuple[KernelDesc, ...]

    def __post_init__(self) -> None:
        if not self.kernels:
            raise ValueError(f"network {self.name} has no kernels")
        names = [kernel.name for kernel in self.kernels]
        if len(set(names)) != len(names):
            raise ValueError(f"network {self.name} has two kernels of one name")

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(kernel.macs for kernel in self.kernels)

    @cached_property
    def weight_elements(self) -> int:
        """Weights and biases after folding."""
        return sum(kernel.weight_elements for kernel in self.kernels)

    @cached_property
    def size_bytes(self) -> int:
        """Storage of all weights at their bits, rounded up to whole bytes."""
        return -int(-sum(kernel.weight_bytes for kernel in self.kernels) // 1)

    @cached_property
    def rows(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """What kernels are priced by, (kernels, 13); the columns are those of ``KernelTable``.

        Made once and not to be written to: fits and tables ask for the same networks many times.
        """
        found = np.array([_row(kernel) for kernel in self.kernels], dtype=np.float64)
        found.flags.writeable = False
        return found

    @cached_property
    def weighted(self) -> tuple[KernelDesc, ...]:
        """The kernels that can be given bits of their own."""
        return tuple(kernel for kernel in self.kernels if kernel.kind in WEIGHTED_KINDS)

    def with_bits(self, bits: Mapping[str, LayerBits]) -> "NetworkDesc":
        """The same network with other bits.

        Kernels without weights take the activation bits of the weighted kernel before them (the
        first ones: of the first weighted kernel), as integers of at most 8 bits or as floats.

        Raises:
            ValueError: a weighted kernel is missing from ``bits``, or a name is unknown.
        """
        names = {kernel.name for kernel in self.weighted}
        if names != set(bits):
            odd = sorted(names.symmetric_difference(bits))
            raise ValueError(f"bits must be given for exactly the weighted kernels; odd: {odd}")
        current = bits[self.weighted[0].name] if self.weighted else FP32
        kernels = []
        for kernel in self.kernels:
            if kernel.kind in WEIGHTED_KINDS:
                current = bits[kernel.name]
                kernels.append(dataclasses.replace(kernel, bits=current))
            else:
                width = current.activation_bits
                kernels.append(dataclasses.replace(kernel, bits=LayerBits(width, width)))
        return dataclasses.replace(self, kernels=tuple(kernels))


def _row(kernel: KernelDesc) -> tuple[float, ...]:
    """In the order of the fields of ``KernelTable``, behind its first two."""
    return (
        kernel.kind.number,
        max(kernel.kernel_size),
        max(kernel.stride),
        kernel.curved,
        kernel.in_channels,
        kernel.out_channels,
        kernel.groups,
        kernel.macs,
        kernel.input_elements,
        kernel.output_elements,
        kernel.weight_elements,
        kernel.bits.weight_bits,
        kernel.bits.activation_bits,
    )
