"""The runtimes that profiles name."""

from typing import Final, Literal

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
    """The family of what a profile says of its runtime, such as "TensorRT 10.3"."""
    text = runtime.lower()
    if "edge tpu" in text:
        return "edgetpu"
    return next((family for begin, family in _BEGINNINGS if text.startswith(begin)), "other")
