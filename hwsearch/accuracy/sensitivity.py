"""How much each layer's quantization alone changes what the network says.

The table costs one forward pass per layer and bit-width, and decides where a bit budget is spent.
"""

import copy
import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from hwsearch.accuracy.base_weights import BaseNetwork
from hwsearch.accuracy.cached_network import cache_error
from hwsearch.accuracy.data.batches import normalized
from hwsearch.accuracy.data.dataset import DataSet, Split
from hwsearch.accuracy.training import calibration_batches
from hwsearch.bits import FP32, LayerBits
from hwsearch.errors import BackboneError
from hwsearch.files import cache_folder, write_atomically
from hwsearch.nets.blueprint import Blueprint
from hwsearch.nets.quantize import Scheme, WeightQuantizer, calibrate, only, quantize

_LOG = logging.getLogger(__name__)

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
    _require_layers(options, blueprint)
    px = blueprint.trace.input_px
    split = data.at(px).validation
    first = Split(images=split.images[:pictures], labels=split.labels[:pictures])
    path = _path(base.key, options, scheme, first, px)
    stored = _read(path, options)
    if stored is not None:
        return stored
    images = normalized(first.images, data.mean, data.std)
    calibration = calibration_batches(
        data, px, batch_size=_CALIBRATION_BATCH_SIZE, count=_CALIBRATION_BATCHES
    )
    table = _measure(base.model, options, scheme, images, calibration)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(_to_json(table), indent=1).encode())
    except OSError as error:
        raise cache_error(path.parent, error) from error
    return table


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
        _float_weights(model)
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


def _float_weights(model: nn.Module) -> None:
    """Switch weight quantization off, so that each layer calibrates on its float input.

    That is the input it gets when it alone is quantized; ``only`` switches it on again.
    """
    for module in model.modules():
        if isinstance(module, WeightQuantizer):
            module.enabled = False


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        starts = range(0, len(images), _BATCH_SIZE)
        return torch.cat([model(images[start : start + _BATCH_SIZE]) for start in starts])


def _require_layers(options: Mapping[str, tuple[LayerBits, ...]], blueprint: Blueprint) -> None:
    known = {kernel.name for kernel in blueprint.trace.kernels if kernel.weighted}
    unknown = next((layer for layer in options if layer not in known), None)
    if unknown is not None:
        raise BackboneError(
            f"'{blueprint.ref.name}' has no layer '{unknown}' with weights; it has {len(known)}, "
            f"such as '{blueprint.trace.classifier}'"
        )


# -- cache ----------------------------------------------------------------------------------------


def _path(
    base_key: str,
    options: Mapping[str, tuple[LayerBits, ...]],
    scheme: Scheme,
    first: Split,
    px: int,
) -> Path:
    parts = {
        "base": base_key,
        "options": {layer: sorted(map(str, offered)) for layer, offered in options.items()},
        "scheme": scheme,
        # Not the data's hash, which does not say which pictures come first.
        "pictures": hashlib.sha256(first.images.contiguous().numpy().tobytes()).hexdigest(),
        "count": len(first),
        "px": px,
        "version": _VERSION,
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "base" / f"{base_key}.sensitivity-{key[:16]}.json"


def _to_json(table: Table) -> dict[str, Any]:
    return {
        layer: {str(bits): divergence for bits, divergence in row.items()}
        for layer, row in table.items()
    }


def _read(path: Path, options: Mapping[str, tuple[LayerBits, ...]]) -> Table | None:
    """The stored table, or None when there is none or it is corrupt."""
    try:
        stored = json.loads(path.read_bytes())
        table = {
            layer: {bits: float(stored[layer][str(bits)]) for bits in offered}
            for layer, offered in options.items()
        }
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError) as error:
        _LOG.warning("'%s' is corrupt (%s); the sensitivities are measured again", path, error)
        return None
    if all(0 <= value < math.inf for row in table.values() for value in row.values()):
        return table
    _LOG.warning("'%s' holds an impossible value; the sensitivities are measured again", path)
    return None
