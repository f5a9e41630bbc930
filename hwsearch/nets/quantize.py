"""Fake quantization with the semantics of the runtimes: what is trained is what will run.

- Weights: per output channel, symmetric, without the most negative value.
- Activations: one scale per tensor, at the input of each quantized layer; symmetric where the
  runtime wants it (TensorRT), affine elsewhere. Outputs are rounded in the exported file only
  (``hwsearch.deploy.ranges``).
- 16 bits: rounded to half precision. 32 bits: untouched.
- Gradients pass straight through (STE, arXiv:1308.3432) inside the clipping range.

Batch normalization stays in the module and still exports exactly. Folding multiplies output
channel c of the weight by ``g = gamma_c / sqrt(var_c + eps)``. A symmetric per-channel quantizer
whose scale is a multiple of the channel's largest weight commutes with that factor:
``Q(g w) = g Q(w)``, since scale and weight grow by the same ``|g|`` and the range has no sign. So
the integers of the folded weight are those trained here (up to the sign of ``g``).
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hwsearch.bits import LayerBits
from hwsearch.errors import BackboneError

Scheme = Literal["symmetric", "affine"]

#: Values kept for choosing a scale, for each layer and batch: enough for a clipping search, where
#: 4,096 and 65,536 gave the same scale to within one grid step.
_SAMPLES_PER_BATCH: Final = 8_192
#: Shares of the largest magnitude that are tried as clipping point.
CLIP_SHARES: Final = tuple(0.2 + 0.04 * step for step in range(21))


class WeightQuantizer(nn.Module):
    """Parametrization that quantizes a weight of shape (out, ...) per output channel."""

    clip: Tensor

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.enabled = True
        self.register_buffer("clip", _weight_clip(weight.detach(), bits))

    def forward(self, weight: Tensor) -> Tensor:
        """Quantize; the identity while disabled."""
        if not self.enabled or self.bits == 32:
            return weight
        if self.bits == 16:
            return _half(weight)
        return _quantize_weight(weight, self.clip, self.bits)


class ActivationQuantizer(nn.Module):
    """Quantizes a tensor with one scale, chosen on calibration pictures."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, bits: int, scheme: Scheme) -> None:
        super().__init__()
        self.bits = bits
        self.scheme: Scheme = scheme
        self.enabled = True
        self.observing = False
        self.low: int = -(2 ** (bits - 1)) if scheme == "symmetric" else 0
        self.high: int = self.low + 2**bits - 1
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int32))
        self._samples: list[Tensor] = []
        self._extremes: list[Tensor] = []

    def forward(self, values: Tensor) -> Tensor:
        """Quantize a tensor of any shape; only look at it while observing."""
        if self.observing:
            flat = values.detach().reshape(-1)
            self._samples.append(flat[:: sample_stride(flat.numel(), _SAMPLES_PER_BATCH)].clone())
            self._extremes.append(torch.stack(torch.aminmax(flat)))
            return values
        if not self.enabled or self.bits == 32:
            return values
        if self.bits == 16:
            return _half(values)
        return torch.fake_quantize_per_tensor_affine(
            values, self.scale, self.zero_point, self.low, self.high
        )

    def choose_scale(self) -> None:
        """Set scale and zero point to the least squared error on what was observed.

        Raises:
            BackboneError: nothing was observed, or it was not finite.
        """
        if not self._samples:
            raise BackboneError(
                "a quantized layer is never run as a module; it cannot be calibrated"
            )
        samples, extremes = torch.cat(self._samples), torch.stack(self._extremes)
        self._samples, self._extremes = [], []
        low, high = float(extremes[:, 0].min()), float(extremes[:, 1].max())
        if not (torch.isfinite(samples).all() and low > -float("inf") and high < float("inf")):
            raise BackboneError("activations are not finite during calibration; check the weights")
        best = float("inf")
        for share in CLIP_SHARES:
            scale, zero_point = self._grid(low * share, high * share)
            quantized = torch.fake_quantize_per_tensor_affine(
                samples, scale, zero_point, self.low, self.high
            )
            error = float((quantized - samples).square().mean())
            if error <= best:
                best = error
                self.scale.copy_(scale)
                self.zero_point.copy_(zero_point)

    def _grid(self, low: float, high: float) -> tuple[Tensor, Tensor]:
        """Scale and zero point for a range that always holds zero exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        zero_point = 0
        if self.scheme == "symmetric":
            scale = max(low / self.low, high / self.high, 1e-12)
        else:
            scale = max((high - low) / self.high, 1e-12)
            zero_point = round(-low / scale)
        return self.scale.new_tensor([scale]), self.zero_point.new_tensor([zero_point])


def quantize(model: nn.Module, bits: Mapping[str, LayerBits], scheme: Scheme) -> None:
    """Attach fake quantization to layers, in place; ``calibrate`` before use.

    Args:
        model: holds a convolution or linear layer at each path in ``bits``.
        bits: for each layer; layers that are not named, or at 32 bits, stay as they are.
        scheme: of the activations.

    Raises:
        BackboneError: a path names no layer with a weight, or one that is quantized already.
    """
    for path, layer_bits in bits.items():
        try:
            layer = model.get_submodule(path)
        except AttributeError:
            raise BackboneError(f"the network has no layer '{path}' to quantize") from None
        if parametrize.is_parametrized(layer):
            raise BackboneError(f"layer '{path}' is quantized already")
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            raise BackboneError(
                f"'{path}' is a {type(layer).__name__}; only convolutions and linear layers can be "
                "quantized"
            )
        if layer_bits.weight_bits < 32:
            parametrize.register_parametrization(
                layer, "weight", WeightQuantizer(layer.weight, layer_bits.weight_bits)
            )
        if layer_bits.activation_bits < 32:
            layer.add_module(
                "input_quantizer", ActivationQuantizer(layer_bits.activation_bits, scheme)
            )
            layer.register_forward_pre_hook(_quantize_input)


def calibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Choose every activation scale on pictures; the model runs in evaluation mode.

    Weights are quantized meanwhile, activations are not, so each layer sees what its float
    activations are.

    Raises:
        BackboneError: a quantized layer never ran, or saw values that are not finite.
    """
    quantizers = [q for q in activation_quantizers(model) if q.bits <= 8]
    if not quantizers:
        return
    was_training = model.training
    model.eval()
    for quantizer in quantizers:
        quantizer.observing = True
    try:
        with torch.no_grad():
            for batch in batches:
                model(batch)
            for quantizer in quantizers:
                quantizer.choose_scale()
    finally:
        for quantizer in quantizers:
            quantizer.observing = False
        model.train(was_training)


def activation_quantizers(model: nn.Module) -> Iterator[ActivationQuantizer]:
    """All activation quantizers of a model."""
    for module in model.modules():
        if isinstance(module, ActivationQuantizer):
            yield module


def quantizers_of(module: nn.Module) -> list[WeightQuantizer | ActivationQuantizer]:
    """All quantizers within a module: of weights and inputs."""
    return [m for m in module.modules() if isinstance(m, WeightQuantizer | ActivationQuantizer)]


def weight_quantizer(layer: nn.Module) -> WeightQuantizer | None:
    """What quantizes the weight of a layer, if anything does."""
    found = (module for module in layer.modules() if isinstance(module, WeightQuantizer))
    return next(found, None)


def input_quantizer(layer: nn.Module) -> ActivationQuantizer | None:
    """What quantizes the input of a layer, if anything does."""
    found = dict(layer.named_children()).get("input_quantizer")
    return found if isinstance(found, ActivationQuantizer) else None


def without_quantization(model: nn.Module) -> nn.Module:
    """A copy whose weights and activations are those in fp32 that were trained."""
    bare = copy.deepcopy(model)
    for quantizer in quantizers_of(bare):
        quantizer.bits = 32
    return bare


@contextmanager
def only(model: nn.Module, path: str) -> Iterator[None]:
    """Quantize one layer only, for measuring how sensitive the network is to it."""
    everything = quantizers_of(model)
    layer = model.get_submodule(path)
    own = (weight_quantizer(layer), input_quantizer(layer))
    chosen = [quantizer for quantizer in own if quantizer is not None]
    before = [quantizer.enabled for quantizer in everything]
    try:
        for quantizer in everything:
            quantizer.enabled = False
        for quantizer in chosen:
            quantizer.enabled = True
        yield
    finally:
        for quantizer, enabled in zip(everything, before, strict=True):
            quantizer.enabled = enabled


@contextmanager
def activations_in_float(model: nn.Module) -> Iterator[None]:
    """Leave activations unquantized, while batch statistics are gathered before calibration."""
    quantizers = list(activation_quantizers(model))
    before = [quantizer.enabled for quantizer in quantizers]
    try:
        for quantizer in quantizers:
            quantizer.enabled = False
        yield
    finally:
        for quantizer, enabled in zip(quantizers, before, strict=True):
            quantizer.enabled = enabled


def sample_stride(values: int, most: int) -> int:
    """Every how many values one is kept for choosing a scale.

    Without a factor in common with their number, so that the ones kept come from every channel,
    row and column. With a divisor they are all of one column: at the dark edge of the digits the
    scale came out four times too small, and uniform int8 at 62 % instead of 99 %.

    Args:
        values: how many there are.
        most: about how many are kept.
    """
    stride = max(1, values // most)
    while math.gcd(stride, values) != 1:
        stride += 1
    return stride


def _quantize_input(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    quantizer = layer.input_quantizer
    assert isinstance(quantizer, ActivationQuantizer)
    return (quantizer(inputs[0]), *inputs[1:])


class _Half(torch.autograd.Function):
    """Rounding to half precision, straight through backwards."""

    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:  # noqa: ANN401
        limit = torch.finfo(torch.float16).max
        return values.clamp(-limit, limit).half().to(values.dtype)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        return gradient


def _half(values: Tensor) -> Tensor:
    rounded: Tensor = _Half.apply(values)
    return rounded


def _quantize_weight(weight: Tensor, clip: Tensor, bits: int) -> Tensor:
    """Fake-quantize (out, ...) per channel; the range is ``clip`` times the largest magnitude."""
    largest = 2 ** (bits - 1) - 1
    reach = weight.detach().abs().flatten(1).amax(1)
    scale = (reach * clip / largest).clamp_min(1e-12)
    zero_point = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero_point, 0, -largest, largest)


def _weight_clip(weight: Tensor, bits: int) -> Tensor:
    """Per channel, the share of the largest magnitude that is kept; below 8 bits clipping pays."""
    clip = weight.new_ones(weight.shape[0])
    if bits >= 8:
        return clip
    best = torch.full_like(clip, float("inf"))
    for share in CLIP_SHARES:
        tried = torch.full_like(clip, share)
        error = (_quantize_weight(weight, tried, bits) - weight).square().flatten(1).mean(1)
        clip = torch.where(error <= best, tried, clip)
        best = torch.minimum(error, best)
    return clip
