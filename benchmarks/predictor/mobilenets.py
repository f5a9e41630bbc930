"""The MobileNets of TensorFlow (v1, v2, v3) at any width and input size, as fused kernels.

Sources: arXiv:1704.04861 (v1), arXiv:1801.04381 (v2), arXiv:1905.02244 (v3), and for rounding and
the minimalistic v3 the code that made the published checkpoints (``slim/nets/mobilenet``). "SAME"
padding is part of the convolution, as it is in TensorFlow Lite and Arm NN.
"""

from functools import cache
from typing import Final

from network_builder import NetworkBuilder

from hwsearch.bits import LayerBits
from hwsearch.hardware.kernels import NetworkDesc

#: v1: (channels, stride) of each separable convolution, at width 1.
_V1: Final = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip

#: v2: (expansion, channels, repetitions, stride of the first); Table 2 of the paper.
_V2: Final = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
    (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip

#: v3: (window, expansion, channels, squeeze-excite, stride); Tables 1 and 2 of the paper, with the
#: expansion as a factor of the input channels, which is how it follows the width.
_V3_LARGE: Final = (
    (3, 1, 16, False, 1), (3, 4, 24, False, 2), (3, 3, 24, False, 1), (5, 3, 40, True, 2),
    (5, 3, 40, True, 1), (5, 3, 40, True, 1), (3, 6, 80, False, 2), (3, 2.5, 80, False, 1),
    (3, 184 / 80, 80, False, 1), (3, 184 / 80, 80, False, 1), (3, 6, 112, True, 1),
    (3, 6, 112, True, 1), (5, 6, 160, True, 2), (5, 6, 160, True, 1), (5, 6, 160, True, 1),
)  # fmt: skip
_V3_SMALL: Final = (
    (3, 1, 16, True, 2), (3, 72 / 16, 24, False, 2), (3, 88 / 24, 24, False, 1),
    (5, 4, 40, True, 2), (5, 6, 40, True, 1), (5, 6, 40, True, 1), (5, 3, 48, True, 1),
    (5, 3, 48, True, 1), (5, 6, 96, True, 2), (5, 6, 96, True, 1), (5, 6, 96, True, 1),
)  # fmt: skip

#: v3: blocks, and the channels of the last two 1x1 convolutions.
_V3: Final = {"large": (_V3_LARGE, 960, 1280), "small": (_V3_SMALL, 576, 1024)}

#: Each family with its variants.
FAMILIES: Final = {
    "mobilenet_v1": ("",),
    "mobilenet_v2": ("",),
    "mobilenet_v3": ("large", "small", "large-minimalistic", "small-minimalistic"),
}


@cache
def mobilenet(
    family: str, variant: str, width: float, input_px: int, bits: LayerBits, classes: int = 1001
) -> NetworkDesc:
    """One MobileNet; the same object for the same arguments.

    Args:
        family: a key of ``FAMILIES``.
        variant: one of that family's; "" where it has none.
        width: multiplier of the channels. v1 truncates, v2 and v3 round to multiples of 8; the
            last convolution of v2 and v3 never falls below its width 1.
        input_px: height and width of the picture.
        bits: of every kernel.
        classes: outputs; TensorFlow's checkpoints have a background class.

    Raises:
        ValueError: an unknown family or variant, or a width that is not positive.
    """
    if variant not in FAMILIES.get(family, ()):
        known = ", ".join(
            f"{name} {other}".strip() for name in FAMILIES for other in FAMILIES[name]
        )
        raise ValueError(f"'{family} {variant}' is not a MobileNet; pick one of {known}")
    if not width > 0:
        raise ValueError(f"width {width} is not above zero; the published ones are 0.25 to 1.4")
    build = NetworkBuilder(bits)
    if family == "mobilenet_v1":
        features = _v1(build, width, input_px)
    elif family == "mobilenet_v2":
        features = _v2(build, width, input_px)
    else:
        size, _, minimalistic = variant.partition("-")
        features = _v3(build, size, width, input_px, bool(minimalistic))
    build.linear(features, classes)
    name = "_".join(part for part in (family, variant, f"{width:g}", str(input_px)) if part)
    return build.network(name, input_px)


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of ``divisor``, at least one of them and never 10 % below ``channels``.

    ``_make_divisible`` of ``slim/nets/mobilenet/mobilenet.py``.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def _v1(build: NetworkBuilder, width: float, input_px: int) -> int:
    """Returns the features of the classifier, as the other two do."""

    def scaled(channels: int) -> int:
        return max(8, int(channels * width))

    cin = scaled(32)
    px = build.conv(3, cin, input_px, 3, stride=2)
    for channels, stride in _V1:
        px = build.conv(cin, cin, px, 3, stride=stride, depthwise=True)
        build.conv(cin, scaled(channels), px)
        cin = scaled(channels)
    build.pooling(cin, px)
    return cin


def _v2(build: NetworkBuilder, width: float, input_px: int) -> int:
    cin = make_divisible(32 * width)
    px = build.conv(3, cin, input_px, 3, stride=2)
    for expansion, channels, repetitions, first_stride in _V2:
        cout = make_divisible(channels * width)
        for turn in range(repetitions):
            stride = first_stride if turn == 0 else 1
            px = _inverted_residual(build, cin, cout, px, expansion=expansion, stride=stride)
            cin = cout
    features = make_divisible(1280 * max(1.0, width))
    build.conv(cin, features, px)
    build.pooling(features, px)
    return features


def _v3(build: NetworkBuilder, size: str, width: float, input_px: int, minimalistic: bool) -> int:
    blocks, last, features = _V3[size]
    cin = make_divisible(16 * width)
    px = build.conv(3, cin, input_px, 3, stride=2)
    for window, expansion, channels, squeeze_excite, stride in blocks:
        cout = make_divisible(channels * width)
        px = _inverted_residual(
            build, cin, cout, px,
            window=3 if minimalistic else window,
            expansion=expansion,
            stride=stride,
            squeeze_excite=squeeze_excite and not minimalistic,
        )  # fmt: skip
        cin = cout
    last, features = make_divisible(last * width), make_divisible(features * max(1.0, width))
    build.conv(cin, last, px)
    build.pooling(last, px)
    build.conv(last, features, 1)
    return features


def _inverted_residual(
    build: NetworkBuilder,
    cin: int,
    cout: int,
    px: int,
    *,
    expansion: float,
    stride: int,
    window: int = 3,
    squeeze_excite: bool = False,
) -> int:
    """Expand (unless the factor is 1), depthwise, squeeze and excite, project; returns px."""
    hidden = cin
    if expansion > 1:
        hidden = make_divisible(cin * expansion)
        build.conv(cin, hidden, px)
    after = build.conv(hidden, hidden, px, window, stride=stride, depthwise=True)
    if squeeze_excite:
        build.squeeze_excite(hidden, make_divisible(hidden / 4), after)
    build.conv(hidden, cout, after, residual=stride == 1 and cin == cout)
    return after
