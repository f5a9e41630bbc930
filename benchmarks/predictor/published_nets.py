"""Networks of published measurements, as fused kernels, from what their names say.

Written out by hand because their code is not a dependency: the synthetic convnets of the Jetson
Nano data set, and YOLOv8 / YOLO11 detection (ultralytics 8.3, ``yolov8.yaml``, ``yolo11.yaml``).
"""

import math
import re

from network_builder import NetworkBuilder

from hwsearch.bits import LayerBits
from hwsearch.hardware.kernels import KernelKind, NetworkDesc

_CONVNET = re.compile(r"convnet_L(\d+)_F(\d+)_((?:K\d+x\d+(?:_\d+)?_)+)W(\d+)(_DWS)?")
_GROUP = re.compile(r"K(\d+)x\d+(?:_(\d+))?_")

#: (depth, width, most channels) of ultralytics' compound scaling.
_SCALES = {
    "yolov8n": (0.33, 0.25, 1024),
    "yolov8s": (0.33, 0.50, 1024),
    "yolov8m": (0.67, 0.75, 768),
    "yolo11n": (0.50, 0.25, 1024),
    "yolo11s": (0.50, 0.50, 1024),
    "yolo11m": (0.50, 1.00, 512),
    "yolo11l": (1.00, 1.00, 512),
    "yolo11x": (1.00, 1.50, 512),
}


def jetson_nano_convnet(name: str, bits: LayerBits) -> NetworkDesc:
    """``convnet_L{depth}_F{filters}_K{k}x{k}[_n_K{k2}x{k2}_n]_W{input}[_DWS]``.

    Convolutions of stride 1 with ReLU, and a linear layer to 10 classes. Padding is 1 for windows
    of 1 and 3, else 2. Nets of two windows take them in turns, with padding 1 from their first odd
    window on. So read, the published parameters and MACs of every net are met exactly.

    Raises:
        ValueError: a name of another form.
    """
    match = _CONVNET.fullmatch(name)
    if match is None:
        raise ValueError(f"'{name}' is not the name of a Jetson Nano convnet")
    depth, filters, input_px, separable = int(match[1]), int(match[2]), int(match[4]), match[5]
    groups = [(int(window), int(count or depth)) for window, count in _GROUP.findall(match[3])]
    turns = range(max(count for _, count in groups))
    windows = [window for turn in turns for window, count in groups if turn < count]
    builder, px, channels, padding = NetworkBuilder(bits), input_px, 3, 2
    for window in windows:
        odd_of_mixed = len(groups) > 1 and (window % 2 == 1 or padding == 1)
        padding = 1 if window in {1, 3} or odd_of_mixed else 2
        after = px + 2 * padding - window + 1
        if separable:
            builder.conv(channels, channels, px, window, out_px=after, depthwise=True)
            builder.conv(channels, filters, after)
        else:
            builder.conv(channels, filters, px, window, out_px=after)
        px, channels = after, filters
    features = channels * px * px
    builder.linear(features, 10)
    return builder.network(name, input_px)


def yolo(name: str, input_px: int, bits: LayerBits, classes: int = 80) -> NetworkDesc:
    """A YOLOv8 or YOLO11 detector without its decoding; concatenation and splits cost nothing.

    Raises:
        KeyError: a name without a scale here.
    """
    depth, width, most = _SCALES[name]
    eleven = name.startswith("yolo11")
    build = NetworkBuilder(bits)

    def wide(channels: int) -> int:
        return math.ceil(min(channels, most) * width / 8) * 8

    def block(cin: int, cout: int, px: int, *, at: int, backbone: bool = False) -> None:
        if eleven:
            kernels3 = at in {6, 8, 22} or name[-1] in "mlx"
            ratio = 0.25 if at in {2, 4} else 0.5
            _c3k2(build, cin, cout, px, max(1, round(2 * depth)), kernels3, ratio)
        else:
            count = max(1, round({4: 6, 6: 6}.get(at, 3) * depth))
            _c2f(build, cin, cout, px, count, residual=backbone)

    thin = 256 if eleven else 128
    c3, c4, c5 = wide(512 if eleven else 256), wide(512), wide(1024)
    px2 = build.conv(
        wide(64), wide(128), build.conv(3, wide(64), input_px, 3, stride=2), 3, stride=2
    )
    block(wide(128), wide(thin), px2, at=2, backbone=True)
    px3 = build.conv(wide(thin), wide(256), px2, 3, stride=2)
    block(wide(256), c3, px3, at=4, backbone=True)
    px4 = build.conv(c3, c4, px3, 3, stride=2)
    block(c4, c4, px4, at=6, backbone=True)
    px5 = build.conv(c4, c5, px4, 3, stride=2)
    block(c5, c5, px5, at=8, backbone=True)
    _sppf(build, c5, px5)
    if eleven:
        _c2psa(build, c5, px5, max(1, round(2 * depth)))
    build.pooling(c5, px5, px4)
    block(c5 + c4, c4, px4, at=13)
    build.pooling(c4, px4, px3)
    block(c4 + c3, wide(256), px3, at=16)
    build.conv(wide(256), wide(256), px3, 3, stride=2)
    block(wide(256) + c4, c4, px4, at=19)
    build.conv(c4, c4, px4, 3, stride=2)
    block(c4 + c5, c5, px5, at=22)
    _heads(build, ((wide(256), px3), (c4, px4), (c5, px5)), classes, eleven)
    return build.network(name, input_px)


def _bottleneck(build: NetworkBuilder, cin: int, hidden: int, px: int, residual: bool) -> None:
    build.conv(cin, hidden, px, 3)
    build.conv(hidden, cin, px, 3, residual=residual)


def _c2f(build: NetworkBuilder, cin: int, cout: int, px: int, count: int, residual: bool) -> None:
    half = cout // 2
    build.conv(cin, 2 * half, px)
    for _ in range(count):
        _bottleneck(build, half, half, px, residual)
    build.conv((2 + count) * half, cout, px)


def _c3k2(
    build: NetworkBuilder, cin: int, cout: int, px: int, count: int, kernels3: bool, ratio: float
) -> None:
    hidden = int(cout * ratio)
    build.conv(cin, 2 * hidden, px)
    for _ in range(count):
        if kernels3:
            inner = hidden // 2
            build.conv(hidden, inner, px)
            build.conv(hidden, inner, px)
            _bottleneck(build, inner, inner, px, residual=True)
            _bottleneck(build, inner, inner, px, residual=True)
            build.conv(2 * inner, hidden, px)
        else:
            _bottleneck(build, hidden, hidden // 2, px, residual=True)
    build.conv((2 + count) * hidden, cout, px)


def _sppf(build: NetworkBuilder, channels: int, px: int) -> None:
    half = channels // 2
    build.conv(channels, half, px)
    for _ in range(3):
        build.pooling(half, px, px)
    build.conv(4 * half, channels, px)


def _c2psa(build: NetworkBuilder, channels: int, px: int, count: int) -> None:
    half = channels // 2
    heads, tokens = max(1, half // 64), px * px
    build.conv(channels, channels, px)
    for _ in range(count):
        build.conv(half, 2 * half, px)
        # Keys are half as wide as values: two products of (tokens x tokens) per head.
        build.add(KernelKind.MATMUL, (half, heads * tokens), (px, px), macs=tokens**2 * half // 2)
        build.add(KernelKind.SOFTMAX, (heads * tokens, heads * tokens), (px, px))
        build.add(KernelKind.MATMUL, (heads * tokens, half), (px, px), macs=tokens**2 * half)
        build.conv(half, half, px, 3, depthwise=True, residual=True)
        build.conv(half, half, px, residual=True)
        build.conv(half, 2 * half, px)
        build.conv(2 * half, half, px, residual=True)
    build.conv(channels, channels, px)


def _heads(
    build: NetworkBuilder, levels: tuple[tuple[int, int], ...], classes: int, eleven: bool
) -> None:
    box = max(16, levels[0][0] // 4, 64)
    score = max(levels[0][0], min(classes, 100))
    for channels, px in levels:
        build.conv(channels, box, px, 3)
        build.conv(box, box, px, 3)
        build.conv(box, 64, px)
        if eleven:
            build.conv(channels, channels, px, 3, depthwise=True)
            build.conv(channels, score, px)
            build.conv(score, score, px, 3, depthwise=True)
            build.conv(score, score, px)
        else:
            build.conv(channels, score, px, 3)
            build.conv(score, score, px, 3)
        build.conv(score, classes, px)
