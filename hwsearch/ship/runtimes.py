"""What the runtimes of targets want of a file."""

from hwsearch.deploy.ranges import Fusion
from hwsearch.hardware.measure.places import Runtime
from hwsearch.hardware.runtime_family import Family


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
