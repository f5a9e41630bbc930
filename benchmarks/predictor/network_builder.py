"""Fused kernels of networks that are written out by hand, one call for each."""

from dataclasses import dataclass, field

from hwsearch.bits import LayerBits
from hwsearch.hardware.kernels import WEIGHTED_KINDS, KernelDesc, KernelKind, NetworkDesc


@dataclass
class NetworkBuilder:
    """Appends kernels on square pictures, in the order in which they run.

    The kernels are those that ``hwsearch.nets.trace`` finds in the same network: a convolution has
    its batch normalization and activation folded in (hence a bias), and a residual input if it is
    said so. A kernel without a name is called by its number.

    Attributes:
        bits: of all kernels; those without weights are in the activation bits.
    """

    bits: LayerBits
    kernels: list[KernelDesc] = field(default_factory=list)

    def add(
        self,
        kind: KernelKind,
        channels: tuple[int, int],
        size: tuple[int, int],
        *,
        window: int = 1,
        stride: int = 1,
        groups: int = 1,
        macs: int = 0,
        weights: int = 0,
        extra_input: int = 0,
        name: str = "",
    ) -> None:
        """Append any kernel.

        Args:
            kind: of the kernel.
            channels: of its input and its output.
            size: px of its input and its output.
            window: px of the window of a convolution.
            stride: of the window.
            groups: of a convolution.
            macs: multiply-accumulates.
            weights: weights and biases.
            extra_input: elements read beside the main input.
            name: by default its number.
        """
        bits = self.bits
        if kind not in WEIGHTED_KINDS:
            bits = LayerBits(bits.activation_bits, bits.activation_bits)
        self.kernels.append(
            KernelDesc(
                name=name or f"{len(self.kernels):03d}",
                kind=kind,
                in_channels=channels[0],
                out_channels=channels[1],
                kernel_size=(window, window),
                stride=(stride, stride),
                groups=groups,
                in_size=(size[0], size[0]),
                out_size=(size[1], size[1]),
                macs=macs,
                input_elements=channels[0] * size[0] ** 2 + extra_input,
                output_elements=channels[1] * size[1] ** 2,
                weight_elements=weights,
                bits=bits,
            )
        )

    def conv(
        self,
        cin: int,
        cout: int,
        px: int,
        window: int = 1,
        *,
        out_px: int | None = None,
        stride: int = 1,
        groups: int = 1,
        depthwise: bool = False,
        residual: bool = False,
        bias: bool = True,
        name: str = "",
    ) -> int:
        """Append a convolution, "same" unless ``out_px`` says otherwise; returns its output px.

        Raises:
            ValueError: the groups do not divide the channels.
        """
        after = -(-px // stride) if out_px is None else out_px
        groups = cin if depthwise else groups
        if cin % groups or cout % groups:
            raise ValueError(
                f"{groups} groups do not divide {cin} and {cout} channels; use a divisor of both"
            )
        weights = cout * window**2 * (cin // groups)
        self.add(
            _conv_kind(cin, cout, groups, depthwise),
            (cin, cout),
            (px, after),
            window=window,
            stride=stride,
            groups=groups,
            macs=weights * after**2,
            weights=weights + (cout if bias else 0),
            extra_input=cout * after**2 if residual else 0,
            name=name,
        )
        return after

    def linear(self, cin: int, cout: int, *, name: str = "") -> None:
        """Append a linear layer with a bias, on one vector."""
        self.add(
            KernelKind.LINEAR, (cin, cout), (1, 1), macs=cin * cout, weights=(cin + 1) * cout,
            name=name,
        )  # fmt: skip

    def pooling(self, channels: int, px: int, out_px: int = 1, *, name: str = "") -> int:
        """Append a pooling (or resizing) of every channel; global by default; returns ``out_px``.

        Its window is not recorded, as in ``hwsearch.nets.trace``.
        """
        self.add(KernelKind.POOLING, (channels, channels), (px, out_px), name=name)
        return out_px

    def elementwise(
        self, channels: int, px: int, *, extra_input: int = 0, weights: int = 0, name: str = ""
    ) -> None:
        """Append arithmetic that fused into no neighbour; a sum reads ``extra_input`` as well."""
        self.add(
            KernelKind.ELEMENTWISE, (channels, channels), (px, px), extra_input=extra_input,
            weights=weights, name=name,
        )  # fmt: skip

    def squeeze_excite(self, channels: int, squeezed: int, px: int) -> None:
        """Append a global pooling, two 1x1 convolutions and the product with what was pooled."""
        self.pooling(channels, px)
        self.conv(channels, squeezed, 1)
        self.conv(squeezed, channels, 1)
        self.elementwise(channels, px, extra_input=channels)

    def network(self, name: str, input_px: int) -> NetworkDesc:
        """The kernels so far as a network; raises ``ValueError`` if there are none."""
        return NetworkDesc(name=name, input_px=input_px, kernels=tuple(self.kernels))


def _conv_kind(cin: int, cout: int, groups: int, depthwise: bool) -> KernelKind:
    if depthwise or groups == cin == cout > 1:
        return KernelKind.DEPTHWISE
    return KernelKind.CONV if groups == 1 else KernelKind.GROUPED
