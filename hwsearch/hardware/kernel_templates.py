"""The fused kernels of a dense network with the channels left open, to be filled in.

Each kernel knows which layers own the channels that it reads and writes, so a pruned network is
described by arithmetic, without building or running it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hwsearch.hardware.kernels import WEIGHTED_KINDS, KernelDesc, KernelKind, NetworkDesc


@dataclass(frozen=True, kw_only=True)
class Channels:
    """What the channels of a value are made of.

    Attributes:
        layers: weighted layers, all of whose outputs are among them; one that was concatenated
            twice is named twice.
        fixed: how many more there are that pruning leaves alone: those of the picture, and parts
            of the outputs of a pinned layer.
    """

    layers: tuple[str, ...] = ()
    fixed: int = 0

    def count(self, out_channels: Mapping[str, int]) -> int:
        """How many there are when layers have these output channels."""
        return self.fixed + sum(out_channels[layer] for layer in self.layers)


@dataclass(kw_only=True)
class KernelTemplate:
    """A fused kernel of the dense network, with what its channels are made of.

    Attributes:
        reads: channels of the main input; of all inputs of a concatenation.
        writes: channels of the output; a weighted kernel makes its own.
        residual_elements: elements of a residual input that was fused (dense).
        has_bias: the folded kernel adds a bias.
        batch_norm: path of the batch normalization that was folded into it.
        curved: an activation other than a clip was fused into it.
    """

    name: str
    kind: KernelKind
    reads: Channels
    writes: Channels
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
    residual_elements: int = 0
    extra_weight_elements: int = 0
    has_bias: bool = False
    batch_norm: str | None = None
    curved: bool = False
    downsampling: int = 1
    stage: int = 1

    @property
    def weighted(self) -> bool:
        """Whether the kernel has weights, and so bits of its own."""
        return self.kind in WEIGHTED_KINDS

    def describe(self, dense: Mapping[str, int], current: Mapping[str, int]) -> KernelDesc:
        """The kernel with these output channels of layers in place of the dense ones.

        It is exact, because elements are proportional to channels.
        """
        in_dense, in_now = self.reads.count(dense), self.reads.count(current)
        out_dense, out_now = self.writes.count(dense), self.writes.count(current)
        in_channels = self.in_channels * in_now // in_dense
        out_channels = self.out_channels * out_now // out_dense
        groups = out_channels if self.kind is KernelKind.DEPTHWISE else self.groups
        # Some weights are per channel, some are alone (a learnable factor of the whole layer).
        each, alone = divmod(self.extra_weight_elements, out_dense)
        macs, weights = self.macs, each * out_now + alone
        if self.weighted:
            window = math.prod(self.kernel_size) * (in_channels // groups)
            weights += out_channels * (window + self.has_bias)
            macs = math.prod(self.out_size) * out_channels * window
        return KernelDesc(
            name=self.name,
            kind=self.kind,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=self.kernel_size,
            stride=self.stride,
            groups=groups,
            in_size=self.in_size,
            out_size=self.out_size,
            macs=macs,
            input_elements=self.input_elements * in_now // in_dense
            + self.residual_elements * out_now // out_dense,
            output_elements=self.output_elements * out_now // out_dense,
            weight_elements=weights,
            curved=self.curved,
            stage=self.stage,
        )


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The fused kernels of a dense network.

    Attributes:
        kernels: in the order in which they run.
        pinned: weighted layers whose channels a reshape, a split or a product depends on: pruning
            them would change what the network computes, not only how wide it is.
        classifier: the weighted kernel that makes the output.
    """

    input_px: int
    kernels: tuple[KernelTemplate, ...]
    pinned: frozenset[str]
    classifier: str

    def out_channels(self) -> dict[str, int]:
        """Output channels of each weighted layer, dense."""
        return {k.name: k.out_channels for k in self.kernels if k.weighted}

    def describe(self, name: str, out_channels: Mapping[str, int]) -> NetworkDesc:
        """The network with these output channels in place of the dense ones.

        Args:
            name: of the network.
            out_channels: for every weighted layer; depthwise layers follow their input.
        """
        dense = self.out_channels()
        return NetworkDesc(
            name=name,
            input_px=self.input_px,
            kernels=tuple(kernel.describe(dense, out_channels) for kernel in self.kernels),
        )
