"""Whether a backbone can be deployed at all, asked before anything is searched.

It is exported with every layer in int8, as the searched networks will be, and ONNX Runtime is asked
which layers it runs in integers. Neither depends on the weights, nor on the bits of the others.
"""

import copy
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Final

import torch
from torch import nn

from hwsearch.bits import INT8
from hwsearch.deploy.export import export_onnx
from hwsearch.deploy.ranges import observe_output_ranges
from hwsearch.deploy.realised import differences, realised_bits
from hwsearch.nets.backbone import IN_CHANNELS
from hwsearch.nets.quantize import Scheme, calibrate, quantize

_PICTURES: Final = 2


def layers_without_int8(
    dense: nn.Module, input_px: int, layers: Collection[str], scheme: Scheme
) -> frozenset[str]:
    """The layers that ONNX Runtime would run in floating point although int8 was asked for.

    There their int8 weights would be unpacked for every picture: slower than fp32.

    Args:
        dense: the backbone, without quantization; left as it is.
        input_px: side of the picture.
        layers: that may be asked to run in int8.
        scheme: of activations.

    Raises:
        BackboneError: the backbone cannot be exported.
        HostError: ONNX Runtime does not run it.
    """
    model = copy.deepcopy(dense).cpu().eval()
    quantize(model, dict.fromkeys(layers, INT8), scheme)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(_PICTURES, IN_CHANNELS, input_px, input_px, generator=generator)
    calibrate(model, [noise])
    with tempfile.TemporaryDirectory(prefix="hwsearch-") as folder:
        made = export_onnx(
            model,
            input_px,
            Path(folder) / "model.onnx",
            output_ranges=observe_output_ranges(model, [noise[:1]]),
        )
        asked = {layer.path: layer.bits for layer in made.layers if layer.path in layers}
        return frozenset(differences(asked, realised_bits(made.path, asked)))
