"""What times files for the targets."""

from hwsearch.hardware.measure.places import Runtime
from hwsearch.hardware.runtime_family import Family


def timed_by(family: Family) -> Runtime | None:
    """What times a file for a target of this family; None where nothing here does."""
    if family == "onnxruntime":
        return "onnxruntime"
    return "trtexec" if family == "tensorrt" else None
