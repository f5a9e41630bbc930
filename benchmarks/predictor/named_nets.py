"""Networks that published tables call by name, as fused kernels.

Only names that say which network was run: "squeezenet" or "resnet50_v1" at 299 px do not, and are
refused rather than guessed.
"""

import re
from functools import cache
from itertools import pairwise
from typing import Final

from mobilenets import mobilenet
from network_builder import NetworkBuilder
from published_nets import yolo

from hwsearch.bits import LayerBits
from hwsearch.errors import BackboneError
from hwsearch.hardware.kernels import NetworkDesc

_YOLO = re.compile(r"yolo(v8|11)[nsmlx]")
_MOBILENET = re.compile(r"mobilenet_v([12])(?:_(\d\.\d+))?( \(VWW\))?")
_MOBILENET_V3 = re.compile(r"mobilenet_v3_(large|small)_(\d\.\d+|minimalistic)")

#: Names of edge tables: (library, its name).
_EDGE_TRACED: Final = {
    "densenet": ("torchvision", "densenet121"),
    "efficientnet-lite0": ("timm", "efficientnet_lite0"),
    "efficientnet-lite1": ("timm", "efficientnet_lite1"),
    "efficientnet-lite2": ("timm", "efficientnet_lite2"),
    "efficientnet-lite3": ("timm", "efficientnet_lite3"),
    "efficientnet-lite4": ("timm", "efficientnet_lite4"),
    "efficientnet_edgetpu_s": ("timm", "efficientnet_es"),
    "efficientnet_edgetpu_m": ("timm", "efficientnet_em"),
    "efficientnet_edgetpu_l": ("timm", "efficientnet_el"),
    "inception_resnet_v2": ("timm", "inception_resnet_v2"),
    "inception_v3": ("timm", "inception_v3"),
    "inception_v4": ("timm", "inception_v4"),
    "mnasnet_0.50": ("torchvision", "mnasnet0_5"),
    "mnasnet_0.75": ("torchvision", "mnasnet0_75"),
    "mnasnet_1.0": ("torchvision", "mnasnet1_0"),
    "mnasnet_1.3": ("torchvision", "mnasnet1_3"),
    "resnet50": ("torchvision", "resnet50"),
    "vgg16": ("torchvision", "vgg16"),
    "vgg19": ("torchvision", "vgg19"),
}


def jetson_network(name: str, input_px: int, bits: LayerBits) -> NetworkDesc:
    """A network of ``jetson_published.csv``: YOLOv8, YOLO11, or one of torchvision.

    Raises:
        BackboneError: another name, or a network that cannot be traced.
    """
    if _YOLO.fullmatch(name):
        return yolo(name, input_px, bits)
    return _in(bits, _traced("torchvision", name, input_px))


def edge_network(name: str, input_px: int, bits: LayerBits) -> NetworkDesc:
    """A network of ``edge_published.csv``: MobileNets, MLPerf Tiny's, and what timm also has.

    Raises:
        BackboneError: another name, or a network that cannot be traced.
    """
    if match := _MOBILENET.fullmatch(name):
        classes = 2 if match[3] else 1001
        width = float(match[2] or 1)
        return mobilenet(f"mobilenet_v{match[1]}", "", width, input_px, bits, classes)
    if match := _MOBILENET_V3.fullmatch(name):
        if match[2] == "minimalistic":
            return mobilenet("mobilenet_v3", f"{match[1]}-minimalistic", 1.0, input_px, bits)
        return mobilenet("mobilenet_v3", match[1], float(match[2]), input_px, bits)
    if name == "resnet8 (CIFAR-10)":
        return tiny_resnet8(input_px, bits)
    if name == "autoencoder (ToyADMOS)":
        return tiny_autoencoder(bits)
    if name not in _EDGE_TRACED:
        raise BackboneError(f"{name} is not described here; name its exact version")
    library, theirs = _EDGE_TRACED[name]
    return _in(bits, _traced(library, theirs, input_px))


def tiny_resnet8(input_px: int, bits: LayerBits) -> NetworkDesc:
    """Image classification of MLPerf Tiny (mlcommons/tiny, ``keras_model.py``), 10 classes."""
    build = NetworkBuilder(bits)
    px, cin = build.conv(3, 16, input_px, 3), 16
    for cout in (16, 32, 64):
        stride = 1 if cout == cin else 2
        after = build.conv(cin, cout, px, 3, stride=stride)
        build.conv(cout, cout, after, 3, residual=cout == cin)
        if cout != cin:
            build.conv(cin, cout, px, stride=stride, residual=True)
        px, cin = after, cout
    build.pooling(cin, px)
    build.linear(cin, 10)
    return build.network("resnet8", input_px)


def tiny_autoencoder(bits: LayerBits) -> NetworkDesc:
    """Anomaly detection of MLPerf Tiny: ten linear layers, 640 features in and out."""
    build = NetworkBuilder(bits)
    features = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)
    for before, after in pairwise(features):
        build.linear(before, after)
    return build.network("autoencoder", 1)


def _in(bits: LayerBits, network: NetworkDesc) -> NetworkDesc:
    return network.with_bits({kernel.name: bits for kernel in network.weighted})


@cache
def _traced(library: str, name: str, input_px: int) -> NetworkDesc:
    import timm
    import torch
    import torchvision

    from hwsearch.nets.trace import trace

    known = torchvision.models.list_models() if library == "torchvision" else timm.list_models()
    if name not in known:
        raise BackboneError(f"{name} is not in {library}; describe it in named_nets.py")
    with torch.device("meta"):
        if library == "timm":
            model = timm.create_model(name)
        else:
            model = torchvision.models.get_model(name, weights=None)
    traced = trace(model.eval(), input_px)
    return traced.describe(name, traced.out_channels())
