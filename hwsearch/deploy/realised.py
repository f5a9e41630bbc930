"""In which precision ONNX Runtime really runs each layer of a file.

Asked for here, on this machine's processor: the graph that ONNX Runtime makes of the file says
it. An integer layer is one whose int8 weights are read by an integer kernel; where they are
unpacked instead, the layer computes in fp32, and slower than if nothing had been quantized.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.errors import HostError

#: Kernels of ONNX Runtime that multiply integers.
INTEGER_KERNELS: Final = frozenset(
    {
        "QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger",
        "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
    }
)  # fmt: skip
_FLOAT_KERNELS: Final = frozenset(
    {"Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
)


def runtime_name() -> str:
    """ONNX Runtime with its version, as the files write it."""
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}"


def realised_bits(path: Path, asked: Mapping[str, LayerBits]) -> dict[str, LayerBits]:
    """The bits that each layer runs in here.

    Widths of less than 8 bits are held and computed in 8.

    Args:
        path: an ONNX file of ``export_onnx``.
        asked: by path of the layer, as in the file.

    Returns:
        By layer, in the order of ``asked``.

    Raises:
        HostError: ONNX Runtime does not run the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        nodes, kinds = _optimized(path, Path(folder) / "optimized.onnx")
    readers = _weight_readers(nodes)
    return {layer: _realised(layer, readers, kinds) for layer in asked}


def classes_of(path: Path, pictures: NDArray[np.float32]) -> NDArray[np.int64]:
    """The class that a file names for each picture, one at a time, as it runs here.

    Args:
        path: an ONNX file of ``export_onnx``.
        pictures: of shape (N, 3, px, px), as the file takes them.

    Raises:
        HostError: ONNX Runtime does not run the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name
        logits = [session.run(None, {name: picture[None]})[0] for picture in pictures]
    except Exception as error:  # its exceptions have no common base of their own
        raise _not_run(path, error) from error
    found: NDArray[np.int64] = np.concatenate(logits).argmax(1)
    return found


def differences(
    asked: Mapping[str, LayerBits], realised: Mapping[str, LayerBits]
) -> dict[str, tuple[LayerBits, LayerBits]]:
    """The layers that run in other bits than was asked: asked and realised by layer."""
    return {
        layer: (bits, realised[layer]) for layer, bits in asked.items() if realised[layer] != bits
    }


def difference_text(found: Mapping[str, tuple[LayerBits, LayerBits]]) -> str:
    """Differences in one line: "3 layers asked for W8A8 run as W32A32 (blocks.0.conv, ...)"."""
    layers: dict[tuple[LayerBits, LayerBits], list[str]] = {}
    for layer, pair in found.items():
        layers.setdefault(pair, []).append(layer)
    parts = []
    for (asked, realised), names in layers.items():
        first = ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
        one = len(names) == 1
        parts.append(
            f"{len(names)} {'layer' if one else 'layers'} asked for {asked} "
            f"{'runs' if one else 'run'} as {realised} ({first})"
        )
    return "; ".join(parts)


def _optimized(path: Path, target: Path) -> tuple[list[NodeProto], dict[str, int]]:
    """Nodes of the graph that ONNX Runtime makes of a file, and the types of its constants."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # It warns that the optimized file fits this machine only, which is what it is made for.
    options.log_severity_level = 3
    options.optimized_model_filepath = str(target)
    try:
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base of their own
        raise _not_run(path, error) from error
    graph = onnx.load(target).graph
    return list(graph.node), {tensor.name: tensor.data_type for tensor in graph.initializer}


def _not_run(path: Path, error: Exception) -> HostError:
    line = " ".join(str(error).split())[:300]
    return HostError(f"{runtime_name()} does not run {path} ({line})")


def _weight_readers(nodes: list[NodeProto]) -> dict[str, list[tuple[str, str]]]:
    """For each layer the kernels that read its weight: kind of node, name of the weight."""
    readers: dict[str, list[tuple[str, str]]] = {}
    for node in nodes:
        if node.op_type not in INTEGER_KERNELS | _FLOAT_KERNELS:
            continue
        for name in node.input:
            # ONNX Runtime puts words before and behind the names of weights that it converts.
            layer, found, _ = name.removeprefix("FusedBack_").rpartition(".weight")
            if found:
                readers.setdefault(layer, []).append((node.op_type, name))
    return readers


def _realised(
    layer: str, readers: Mapping[str, list[tuple[str, str]]], kinds: Mapping[str, int]
) -> LayerBits:
    for kernel, weight in readers.get(layer, []):
        if kernel in INTEGER_KERNELS and kinds.get(weight) in (TensorProto.INT8, TensorProto.UINT8):
            return INT8
        if kernel in _FLOAT_KERNELS and kinds.get(weight) == TensorProto.FLOAT16:
            return FP16
    # Weights in blocks of channels (NCHWc) and unpacked ones have other names; both are fp32.
    return FP32
