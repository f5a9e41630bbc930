"""What differs from one runtime to another: one row for each that profiles name.

A new runtime is a row here, and a hand-over script in ``hwsearch.ship.handover``.
"""

from dataclasses import dataclass
from typing import Final, Literal

#: What runs files for a measurement (``hwsearch.hardware.measure``).
Runner = Literal["onnxruntime", "onnxruntime-cuda", "openvino", "trtexec"]
Family = Literal["onnxruntime", "tensorrt", "openvino", "edgetpu", "tflite", "other"]
#: How far a runtime's int8 convolution reaches: up to a ReLU, with kernels of their own for what
#: follows (``hwsearch.deploy.integer_ops``), or over any activation and one residual add.
Fusion = Literal["relu", "residual"]


@dataclass(frozen=True, kw_only=True)
class RuntimeFacts:
    """What is to be known of the runtime of a target.

    Attributes:
        family: that its profile names.
        begins: how the text of a profile begins, in small letters.
        fusion: how far its integer convolutions reach; None where outputs need no grid.
        timed_by: what times a file for it; None where nothing here does.
        takes_float_file: its converter starts from the network without quantization.
        runs_here: it is ONNX Runtime, which says on this machine in which bits it runs a layer.
    """

    family: Family
    begins: tuple[str, ...] = ()
    fusion: Fusion | None = "relu"
    timed_by: Runner | None = None
    takes_float_file: bool = False
    runs_here: bool = False


_FACTS: Final[tuple[RuntimeFacts, ...]] = (
    RuntimeFacts(
        family="onnxruntime", begins=("onnx runtime",), timed_by="onnxruntime", runs_here=True
    ),
    RuntimeFacts(family="tensorrt", begins=("tensorrt",), fusion="residual", timed_by="trtexec"),
    # It runs every integer layer in int8 with its input quantized alone.
    RuntimeFacts(family="openvino", begins=("openvino",), fusion=None),
    RuntimeFacts(family="tflite", begins=("tflite", "litert"), takes_float_file=True),
)
_EDGE_TPU: Final = RuntimeFacts(family="edgetpu", takes_float_file=True)
_OTHER: Final = RuntimeFacts(family="other", takes_float_file=True)

#: For people.
RUNNER_NAMES: Final[dict[Runner, str]] = {
    "onnxruntime": "ONNX Runtime",
    "onnxruntime-cuda": "ONNX Runtime, CUDA",
    "openvino": "OpenVINO",
    "trtexec": "TensorRT",
}
_RUNNER_FAMILIES: Final[dict[Runner, Family]] = {
    "onnxruntime": "onnxruntime",
    "onnxruntime-cuda": "onnxruntime",
    "openvino": "openvino",
    "trtexec": "tensorrt",
}


def runtime_facts(runtime: str) -> RuntimeFacts:
    """The facts about what a profile calls its runtime, such as "TensorRT 10.3"."""
    text = runtime.lower()
    if "edge tpu" in text:
        return _EDGE_TPU
    return next((facts for facts in _FACTS if text.startswith(facts.begins)), _OTHER)


def runner_facts(runner: Runner) -> RuntimeFacts:
    """The facts about what runs files for a measurement."""
    return next(facts for facts in _FACTS if facts.family == _RUNNER_FAMILIES[runner])
