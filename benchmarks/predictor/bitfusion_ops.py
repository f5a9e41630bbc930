"""The layers of the BitFusion table, one kernel each, from their keys."""

import re

from network_builder import NetworkBuilder

from hwsearch.bits import LayerBits
from hwsearch.hardware.kernels import NetworkDesc

_KEY = re.compile(r"\((\d+), (\d+), (\d+), (\d+), (\d+), (\d+), (\d+)\)-(W\d+A\d+)")


def bitfusion_op(key: str) -> NetworkDesc:
    """``(cin, cout, px, window, stride, padding, groups)-W{bits}A{bits}``, px being the input's.

    A stride of 2 is seen on 14 to 112 px and never on 7, the last size of these networks: so the
    size is that of the input. That ``cin`` comes first shows in the latencies: what an element of
    the input costs grows with the activation bits, what one of the output costs does not (it is
    about ten times more: 1x1 layers are bound by writing, not by MACs).

    Raises:
        ValueError: a key of another form, bits without a ``LayerBits``, or groups that do not
            divide the channels.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"'{key}' is not (cin, cout, px, window, stride, padding, groups)-W8A8")
    cin, cout, px, window, stride, padding, groups = (int(match[at]) for at in range(1, 8))
    build = NetworkBuilder(LayerBits.parse(match[8]))
    out_px = (px + 2 * padding - window) // stride + 1
    build.conv(cin, cout, px, window, out_px=out_px, stride=stride, groups=groups)
    return build.network(key, px)
