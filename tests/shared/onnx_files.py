"""Small ONNX files, made node by node."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


def node(
    op: str,
    inputs: str,
    outputs: str,
    *,
    name: str | None = None,
    domain: str | None = None,
    **attributes: int | Sequence[int],
) -> NodeProto:
    """A node with its tensors in one string each: ``node("Conv", "x w", "y")``; "-" is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    made = helper.make_node(op, names, outputs.split(), name=name, domain=domain)
    made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return made


def write_onnx(
    path: Path,
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Array] | None = None,
    *,
    picture: Sequence[int | str | None] = (1, 3, 8, 8),
    picture_type: int = TensorProto.FLOAT,
    outputs: str = "y",
    inputs: Mapping[str, Sequence[int]] | None = None,
    opset: int = 21,
    other_domain: str | None = None,
) -> Path:
    """Write a file whose picture is ``x``; the types of outputs are left to inference."""
    given = [helper.make_tensor_value_info("x", picture_type, picture)]
    for name, shape in (inputs or {}).items():
        given.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    graph = helper.make_graph(
        list(nodes),
        "net",
        given,
        [onnx.ValueInfoProto(name=name) for name in outputs.split()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    if other_domain is not None:
        opsets.append(helper.make_opsetid(other_domain, 1))
    onnx.save(helper.make_model(graph, opset_imports=opsets), path)
    return path


def floats(*shape: int) -> Array:
    """Float weights of a shape."""
    return np.ones(shape, dtype=np.float32)


def quantized(
    name: str, shape: tuple[int, ...], *, bits: int = 8
) -> tuple[NodeProto, dict[str, Array]]:
    """A weight stored in integers, with the node that dequantizes it to ``name``."""
    import ml_dtypes

    kind = {8: np.dtype(np.int8), 4: np.dtype(ml_dtypes.int4)}[bits]
    constants = {
        f"{name}_q": np.ones(shape, dtype=np.int8).astype(kind),
        f"{name}_scale": np.full(shape[0], 0.1, dtype=np.float32),
        f"{name}_zero": np.zeros(shape[0], dtype=np.int8).astype(kind),
    }
    inputs = f"{name}_q {name}_scale {name}_zero"
    return node("DequantizeLinear", inputs, name, axis=0), constants


def pair(source: str, target: str, *, scale: str = "scale", zero: str = "zero") -> list[NodeProto]:
    """Quantize and dequantize an activation."""
    return [
        node("QuantizeLinear", f"{source} {scale} {zero}", f"{target}_q"),
        node("DequantizeLinear", f"{target}_q {scale} {zero}", target),
    ]


#: Scale and zero point of activations in 8 bits.
GRID: dict[str, Array] = {
    "scale": np.array(0.1, dtype=np.float32),
    "zero": np.array(128, dtype=np.uint8),
}
