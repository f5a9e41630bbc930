"""How much each layer's quantization alone changes what the network says.

The table costs one forward pass per layer and bit-width, and decides where a bit budget is spent.
"""

import copy
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from hwsearch.accuracy.base_weights import BaseNetwork
from hwsearch.accuracy.data.batches import normalized
from hwsearch.accuracy.data.dataset import DataSet, Split
from hwsearch.accuracy.training import calibration_batches
from hwsearch.bits import FP32, LayerBits
from hwsearch.cache import CacheEntry, content_key
from hwsearch.errors import BackboneError
from hwsearch.nets.blueprint import Blueprint
from hwsearch.nets.quantize import Scheme, WeightQuantizer, calibrate, only, quantize

#: Part of every cache key; grows when the same question gets another answer.
_VERSION: Final = 2

_CALIBRATION_BATCH_SIZE: Final = 64
_CALIBRATION_BATCHES: Final = 4

#: Pictures in one forward pass: activations then stay in the processor's cache. 256 pictures of
#: 32 px through mobilenetv2_100 took 0.17 s in batches of 32 and 0.29 s in one.
_BATCH_SIZE: Final = 32

Table = dict[str, dict[LayerBits, float]]


def sensitivity_table(
    base: BaseNetwork,
    blueprint: Blueprint,
    options: Mapping[str, tuple[LayerBits, ...]],
    data: DataSet,
    *,
    scheme: Scheme,
    pictures: int = 96,
) -> Table:
    """Mean KL divergence from the float network when one layer alone is quantized.

    ``KL(p || q) = sum p (log p - log q)`` over the classes, with p of the base network and q of
    the one with the quantized layer.

    Args:
        base: is left as it is.
        blueprint: of the same backbone at the input size that is asked about.
        options: the bits that each layer is asked about; layers are convolutions and linear ones.
        data: its first validation pictures are compared, its first training pictures calibrate.
        scheme: of the activations.
        pictures: how many validation pictures; all, if there are fewer.

    Returns:
        For each layer and option the divergence in nats, at least 0, and 0 for 32 bits.

    Raises:
        BackboneError: a layer that the network does not have, or a divergence that is not finite.
        HostError: the cache cannot be written.
        ValueError: ``pictures`` is below 1.
    """
    if pictures < 1:
        raise ValueError(f"pictures {pictures} is not at least 1")
    known = {kernel.name for kernel in blueprint.trace.kernels if kernel.weighted}
    unknown = next((layer for layer in options if layer not in known), None)
    if unknown is not None:
        raise BackboneError(
            f"'{blueprint.ref.name}' has no layer '{unknown}' with weights; it has {len(known)}, "
            f"such as '{blueprint.trace.classifier}'"
        )
    px = blueprint.trace.input_px
    split = data.at(px).validation
    first = Split(images=split.images[:pictures], labels=split.labels[:pictures])
    parts = {
        "base": base.key,
        "options": {layer: sorted(map(str, offered)) for layer, offered in options.items()},
        "scheme": scheme,
        # Not the data's hash, which does not say which pictures come first.
        "pictures": hashlib.sha256(first.images.contiguous().numpy().tobytes()).hexdigest(),
        "count": len(first),
        "px": px,
        "version": _VERSION,
    }

    def measure() -> Table:
        images = normalized(first.images, data.mean, data.std)
        calibration = calibration_batches(
            data, px, batch_size=_CALIBRATION_BATCH_SIZE, count=_CALIBRATION_BATCHES
        )
        return _measure(base.model, options, scheme, images, calibration)

    def encode(table: Table) -> bytes:
        rows = {layer: {str(bits): kl for bits, kl in row.items()} for layer, row in table.items()}
        return json.dumps(rows).encode()

    def decode(content: bytes) -> Table:
        rows = json.loads(content)
        return {
            layer: {bits: rows[layer][str(bits)] for bits in offered}
            for layer, offered in options.items()
        }

    entry = CacheEntry(
        kind="sensitivity",
        key=content_key(parts),
        decode=decode,
        named="networks",
        remade="the sensitivities are measured again",
    )
    return entry.get(measure, encode)


def mean_kl_nats(reference: Tensor, other: Tensor) -> float:
    """Mean over the rows of KL(softmax(reference) || softmax(other)).

    Args:
        reference: logits, (N, classes).
        other: logits of the same shape.

    Returns:
        At least 0; what rounding brings below it is 0. Not finite where a logit is not.
    """
    # In double precision: at 8 bits the divergence is near the rounding of single precision.
    p = reference.double().log_softmax(1)
    q = other.double().log_softmax(1)
    divergence = float((p.exp() * (p - q)).sum(1).mean())
    return divergence if math.isnan(divergence) else max(0.0, divergence)


def _measure(
    base: nn.Module,
    options: Mapping[str, tuple[LayerBits, ...]],
    scheme: Scheme,
    images: Tensor,
    calibration: Iterable[Tensor],
) -> Table:
    table: Table = {layer: dict.fromkeys(offered, 0.0) for layer, offered in options.items()}
    asked = sorted({bits for offered in options.values() for bits in offered} - {FP32})
    reference = _logits(base, images)
    calibration = list(calibration)
    for bits in asked:
        layers = [layer for layer, offered in options.items() if bits in offered]
        model = copy.deepcopy(base)
        quantize(model, dict.fromkeys(layers, bits), scheme)
        # Each layer calibrates on its float input, which is what it gets when it alone is
        # quantized; ``only`` switches its weights on again.
        for module in model.modules():
            if isinstance(module, WeightQuantizer):
                module.enabled = False
        calibrate(model, calibration)
        for layer in layers:
            with only(model, layer):
                divergence = mean_kl_nats(reference, _logits(model, images))
            if not math.isfinite(divergence):
                raise BackboneError(
                    f"layer '{layer}' at {bits} makes the output not finite; check the weights, "
                    "or leave these bits out of the search space"
                )
            table[layer][bits] = divergence
    return table


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        starts = range(0, len(images), _BATCH_SIZE)
        return torch.cat([model(images[start : start + _BATCH_SIZE]) for start in starts])
