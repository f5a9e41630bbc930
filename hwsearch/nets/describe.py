"""Any network as fused kernels: a timm name, a user's function, or an ONNX file.

torch is imported for the first two only; a file is read without it.
"""

import dataclasses
import re
from pathlib import Path
from typing import Final

from hwsearch.bits import FP16, FP32, INT8, WIDTHS, LayerBits
from hwsearch.errors import BackboneError, UserError
from hwsearch.files import nearest
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.space.timm_names import check_timm_name

#: Outputs of a classifier that does not say how many it has: those of ImageNet.
CLASSES: Final = 1000

_NAMES: Final = {"fp32": FP32, "fp16": FP16, "int8": INT8}


def read_bits(text: str) -> LayerBits:
    """Read "8" (weights and activations), "W4A8", or "int8", "fp16", "fp32".

    Raises:
        UserError: none of these, or a pair of widths that no runtime executes.
    """
    try:
        if text in _NAMES:
            return _NAMES[text]
        if re.fullmatch(r"\d+", text):
            return LayerBits(int(text), int(text))
        return LayerBits.parse(text)
    except ValueError as error:
        widths = ", ".join(map(str, WIDTHS))
        raise UserError(
            f"bits '{text}' cannot be used: {error}. "
            f"Give one of {widths}, or widths of weights and activations as in W4A8"
        ) from None


def describe(
    model: str, *, input_px: int | None = None, bits: LayerBits | None = None
) -> NetworkDesc:
    """The fused kernels of a network, dense, at batch 1.

    Args:
        model: a timm name, ``package.module:function`` (called with ``num_classes=1000``), or a
            path that ends in ``.onnx``.
        input_px: height and width of the picture. Left out, a timm name takes the size that it was
            pretrained at, and a file the size that it fixes.
        bits: of every layer with weights; fp32 where left out, and what a file says.

    Raises:
        BackboneError: the name or file is unknown, the network cannot be built, run or traced, or
            bits are given for a file that has bits of its own.
        HostError: a package that is needed is not installed.
    """
    if input_px is not None and input_px < 1:
        raise BackboneError(f"a picture of {input_px} px is none; give a size such as 224")
    if model.endswith(".onnx"):
        network = _from_file(model, input_px, bits)
    elif ":" in model:
        network = _own(model, input_px)
    else:
        network = _timm(model, input_px)
    network = dataclasses.replace(network, name=model)
    if bits is None:
        return network
    return network.with_bits({kernel.name: bits for kernel in network.weighted})


def _from_file(model: str, input_px: int | None, bits: LayerBits | None) -> NetworkDesc:
    from hwsearch.hardware.onnx_network import read_onnx

    path = Path(model)
    if not path.is_file():
        near = nearest(path.name, [file.name for file in path.parent.glob("*.onnx")])
        raise BackboneError(f"there is no file {model}.{near} Give the path of an ONNX file")
    network = read_onnx(path, input_px=input_px)
    own = sorted({str(kernel.bits) for kernel in network.weighted if kernel.bits != FP32})
    if bits is not None and own:
        raise BackboneError(
            f"{model} says itself in which bits its layers run ({', '.join(own)}); "
            "leave --bits out, or give the file of the fp32 network"
        )
    return network


def _own(model: str, input_px: int | None) -> NetworkDesc:
    if input_px is None:
        raise BackboneError(f"'{model}' does not say the size of its picture; give --px 224")
    return _traced(model, input_px, CLASSES)


def _timm(model: str, input_px: int | None) -> NetworkDesc:
    check_timm_name(model)
    import timm

    # A tag that does not exist is refused where the network is built.
    known = timm.get_pretrained_cfg(model.partition(".")[0], allow_unregistered=True)
    if known is None:
        if input_px is None:
            raise BackboneError(f"timm does not say the picture size of '{model}'; give --px 224")
        return _traced(model, input_px, CLASSES)
    _, height, width = known.input_size
    if input_px is None and height != width:
        raise BackboneError(
            f"'{model}' was trained on pictures of {height} x {width} and hwsearch prices square "
            "ones; give --px 224"
        )
    return _traced(model, input_px or height, known.num_classes or CLASSES)


def _traced(model: str, input_px: int, classes: int) -> NetworkDesc:
    from hwsearch.nets.backbone import BackboneRef, build
    from hwsearch.nets.trace import trace

    built = build(BackboneRef(name=model, classes=classes), input_px, device="meta")
    traced = trace(built, input_px)
    return traced.describe(model, traced.out_channels())
