"""What the fake quantizers of a module hold, taken off so that the module can be exported.

The integers are those that training ended with, not a second quantization of the weights.
"""

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hwsearch.bits import LayerBits
from hwsearch.errors import BackboneError
from hwsearch.nets.quantize import (
    ActivationQuantizer,
    WeightQuantizer,
    activation_quantizers,
    input_quantizer,
    weight_quantizer,
)

#: The least scale of a channel of zeros; runtimes refuse zero.
LEAST_SCALE: Final = 1e-12


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The values that a quantized activation can have: ``scale * (integer - zero_point)``.

    Attributes:
        low: least integer; below zero for a symmetric grid.
        high: greatest integer.
    """

    scale: float
    zero_point: int
    low: int
    high: int

    @property
    def signed(self) -> bool:
        """Whether the integers are int8, or else uint8."""
        return self.low < 0

    @property
    def full(self) -> bool:
        """Whether it has all values of its type, so that the runtime saturates where it ends."""
        return self.high - self.low == 255

    @property
    def reach(self) -> tuple[float, float]:
        """The least and the greatest value."""
        return (
            self.scale * (self.low - self.zero_point),
            self.scale * (self.high - self.zero_point),
        )

    def over(self, least: float, greatest: float) -> "Grid":
        """An 8-bit grid of the same scheme over a range; zero is always on it."""
        least, greatest = min(least, 0.0), max(greatest, 0.0)
        if self.signed:
            scale = max(least / -128, greatest / 127, LEAST_SCALE)
            return Grid(scale=scale, zero_point=0, low=-128, high=127)
        scale = max((greatest - least) / 255, LEAST_SCALE)
        return Grid(scale=scale, zero_point=round(-least / scale), low=0, high=255)


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerPlan:
    """How one weighted layer is to run.

    Attributes:
        path: of the module.
        bits: that were searched.
        integers: int8 weight of shape (out, ...), for 8 bits and less.
        scales: of its output channels, shape (out,).
        grid: of its input, for 8 bits and less.
    """

    path: str
    bits: LayerBits
    integers: NDArray[np.int8] | None = None
    scales: NDArray[np.float32] | None = None
    grid: Grid | None = None

    @property
    def runs_in_int8(self) -> bool:
        """Whether weights and input are both integers."""
        return self.integers is not None and self.grid is not None

    def scaled(self, factor: NDArray[np.float64]) -> "LayerPlan":
        """The plan after each output channel was multiplied by a factor of shape (out,).

        The integers stay (see ``hwsearch.nets.quantize``), but for the sign.
        """
        if self.integers is None or self.scales is None:
            return self
        signs = np.sign(factor).astype(np.int8).reshape(-1, *[1] * (self.integers.ndim - 1))
        scales = np.maximum(self.scales.astype(np.float64) * np.abs(factor), LEAST_SCALE)
        return dataclasses.replace(
            self, integers=self.integers * signs, scales=scales.astype(np.float32)
        )


def take_off(model: nn.Module) -> tuple[nn.Module, dict[str, LayerPlan]]:
    """A float copy of a module on the CPU, and the plan of each convolution and linear layer.

    Weights of 8 bits and less hold their quantized values in the copy; activations are not
    quantized there.

    Raises:
        BackboneError: a quantizer holds values that are not finite.
    """
    bare = copy.deepcopy(model).cpu().eval()
    plans = {
        path: _take_off(layer, path)
        for path, layer in list(bare.named_modules())
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    for quantizer in activation_quantizers(bare):
        # The hooks that call them stay, and do nothing from here on.
        quantizer.enabled = False
    return bare, plans


def _take_off(layer: nn.Conv2d | nn.Linear, path: str) -> LayerPlan:
    found: dict[str, Any] = {}
    weight_bits = activation_bits = 32
    of_weight, of_input = weight_quantizer(layer), input_quantizer(layer)
    if of_weight is not None:
        weight_bits = of_weight.bits
        found.update(_integers(layer, of_weight, path))
    if of_input is not None:
        activation_bits = of_input.bits
        if of_input.bits <= 8:
            found["grid"] = _grid(of_input, path)
    return LayerPlan(path=path, bits=LayerBits(weight_bits, activation_bits), **found)


def _integers(
    layer: nn.Module, quantizer: WeightQuantizer, path: str
) -> dict[str, NDArray[np.int8] | NDArray[np.float32]]:
    """The integers and scales that the quantizer stands for; it is removed."""
    trained = layer.get_parameter("parametrizations.weight.original").detach().contiguous()
    if quantizer.bits > 8:
        # Rounding to half precision comes after folding: once instead of twice.
        _make_plain(layer, trained)
        return {}
    quantized = quantizer(trained).detach()
    _make_plain(layer, quantized)
    if not torch.isfinite(quantized).all():
        raise BackboneError(f"weights of '{path}' are not finite; train the network again")
    largest = 2 ** (quantizer.bits - 1) - 1
    reach = trained.abs().flatten(1).amax(1)
    scales = (reach * quantizer.clip / largest).clamp_min(LEAST_SCALE)
    steps = quantized / scales.reshape(-1, *[1] * (quantized.dim() - 1))
    integers = steps.round()
    assert float((steps - integers).abs().max()) < 1e-3
    assert int(integers.abs().max()) <= largest
    return {"integers": integers.to(torch.int8).numpy(), "scales": scales.numpy()}


def _make_plain(layer: nn.Module, weight: Tensor) -> None:
    """Put a weight in place of the parametrized one.

    ``parametrize.remove_parametrizations`` would take the weight off the class of the layer, which
    a deep copy shares with the model that it was copied from.
    """
    layer.__class__ = parametrize.type_before_parametrizations(layer)
    del layer.parametrizations
    layer.weight = nn.Parameter(weight, requires_grad=False)


def _grid(quantizer: ActivationQuantizer, path: str) -> Grid:
    scale = float(quantizer.scale)
    if not 0 < scale < float("inf"):
        raise BackboneError(f"the input scale of '{path}' is {scale}; calibrate the network again")
    return Grid(
        scale=scale,
        zero_point=int(quantizer.zero_point),
        low=quantizer.low,
        high=quantizer.high,
    )
