"""What a file wants to be fed: written into the file, and told by every hand-over script."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper

from hwsearch.deploy.onnx_graph import Graph
from hwsearch.errors import RunError

#: Key of the metadata of a file.
_KEY: Final = "hwsearch.input"
#: Names of the normalized picture and its two constants, where normalization is in the file.
_CENTRED, _NORMALIZED = "picture_centred", "picture_normalized"

Channels = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class InputContract:
    """The input of a file: fp32, RGB, channels first.

    Attributes:
        name: of the input.
        input_px: height and width.
        batch: pictures at a time; None where it is open.
        mean: per channel, on the scale 0..1.
        std: the same.
        baked: the file normalizes by itself and takes 0..255; else it takes
            ``(x / 255 - mean) / std``.
        class_names: in the order of the logits.
    """

    name: str
    input_px: int
    batch: int | None
    mean: Channels
    std: Channels
    baked: bool
    class_names: tuple[str, ...]

    @property
    def scale(self) -> tuple[float, float, float]:
        """The factor that brings 0..255 to what the file takes, per channel."""
        if self.baked:
            return (1.0, 1.0, 1.0)
        red, green, blue = (1 / (255 * std) for std in self.std)
        return (red, green, blue)

    @property
    def offset(self) -> tuple[float, float, float]:
        """What is added after the factor, per channel."""
        if self.baked:
            return (0.0, 0.0, 0.0)
        red, green, blue = (-m / s for m, s in zip(self.mean, self.std, strict=True))
        return (red, green, blue)

    @property
    def value_range(self) -> tuple[float, float]:
        """The least and the greatest value that any picture gives."""
        ends = [
            level * factor + added
            for factor, added in zip(self.scale, self.offset, strict=True)
            for level in (0, 255)
        ]
        return min(ends), max(ends)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the metadata of the file."""
        low, high = self.value_range
        return {
            "name": self.name,
            "shape": [self.batch or "batch", 3, self.input_px, self.input_px],
            "type": "float32",
            "layout": "NCHW",
            "colours": "RGB",
            "range": [low, high],
            "normalization": "in the file" if self.baked else "(x / 255 - mean) / std",
            "mean": list(self.mean),
            "std": list(self.std),
            "class_names": list(self.class_names),
        }


def write_contract(model: onnx.ModelProto, contract: InputContract) -> None:
    """Put a contract into the metadata of a model."""
    text = json.dumps(contract.to_json(), ensure_ascii=False, allow_nan=False)
    helper.set_model_props(model, {_KEY: text})


def read_contract(path: Path) -> InputContract:
    """What a file says about its input.

    Raises:
        RunError: it is no ONNX file that hwsearch exported.
    """
    try:
        model = onnx.load(path)
        properties = {item.key: item.value for item in model.metadata_props}
        data = json.loads(properties[_KEY])
        batch, _, height, _ = data["shape"]
        return InputContract(
            name=data["name"],
            input_px=height,
            batch=batch if isinstance(batch, int) else None,
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
            baked=data["normalization"] == "in the file",
            class_names=tuple(data["class_names"]),
        )
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); export the run again") from None
    except (DecodeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} is no ONNX file of hwsearch ({type(error).__name__}); export the run again"
        ) from None


def bake_normalization(graph: Graph, mean: Channels, std: Channels) -> None:
    """Let the graph take values from 0 to 255 and normalize them itself."""
    readers = graph.readers(graph.input)
    shape = (1, 3, 1, 1)
    centre = np.array(mean, dtype=np.float64).reshape(shape) * 255
    factor = 1 / (np.array(std, dtype=np.float64).reshape(shape) * 255)
    graph.constant("picture_mean", centre.astype(np.float32))
    graph.constant("picture_factor", factor.astype(np.float32))
    graph.redirect(graph.input, _NORMALIZED, readers)
    graph.add("Sub", [graph.input, "picture_mean"], _CENTRED)
    graph.add("Mul", [_CENTRED, "picture_factor"], _NORMALIZED)
