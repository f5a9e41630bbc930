"""The runtimes that profiles name, and what each wants of a file."""

from typing import Final, Literal

from hwsearch.deploy.ranges import Fusion
from hwsearch.hardware.measure.places import Runtime

Family = Literal["onnxruntime", "tensorrt", "openvino", "edgetpu", "tflite", "other"]

#: How the text of a profile begins, in small letters.
_BEGINNINGS: Final[tuple[tuple[str, Family], ...]] = (
    ("onnx runtime", "onnxruntime"),
    ("tensorrt", "tensorrt"),
    ("openvino", "openvino"),
    ("tflite", "tflite"),
    ("litert", "tflite"),
)


def family_of(runtime: str) -> Family:
    """The family of what ``front.json`` says of the runtime, such as "TensorRT 10.3"."""
    text = runtime.lower()
    if "edge tpu" in text:
        return "edgetpu"
    return next((family for begin, family in _BEGINNINGS if text.startswith(begin)), "other")


def fusion_of(family: Family) -> Fusion | None:
    """How far its integer convolutions reach; None where outputs need not be quantized."""
    if family == "openvino":
        return None
    return "residual" if family == "tensorrt" else "relu"


def timed_by(family: Family) -> Runtime | None:
    """What times a file for a target of this family; None where nothing here does."""
    if family == "onnxruntime":
        return "onnxruntime"
    return "trtexec" if family == "tensorrt" else None
