"""Small random networks, quantized, and ONNX Runtime to run what is made of them."""

import copy
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.deploy.export import ExportedFile
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.quantize import Scheme, calibrate, quantize

CLASSES: Final = 10
#: Names and sizes of the networks that every export is tried on.
NETS: Final = {
    "resnet10t": 32,
    "mobilenetv2_050": 32,
    "test_efficientnet": 32,
    "lcnet_050": 64,
    "test_vit": 32,
}
MIXED: Final = (INT8, FP32, INT8, FP16, LayerBits(4, 8), LayerBits(4, 6), LayerBits(8, 16))

Bits = Callable[[int], LayerBits]
#: Integers throughout, or a bit of everything.
Asked = Literal["int8", "mixed"]


@dataclass(frozen=True, kw_only=True)
class Shared:
    """A quantized network and its file."""

    model: nn.Module
    px: int
    file: ExportedFile

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.file.path


MakeShared = Callable[..., Shared]


def pictures(px: int, count: int = 6) -> Tensor:
    return torch.randn(count, 3, px, px, generator=torch.Generator().manual_seed(1))


def settled(model: nn.Module, px: int) -> nn.Module:
    """Batch normalization as after training: statistics of its own, factors of both signs."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(2)
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None
            norm.weight.uniform_(0.8, 1.2)
            norm.weight[::5] *= -1
            norm.bias.normal_(0, 0.2)
        model.train()
        if norms:
            for _ in range(2):
                model(torch.randn(16, 3, px, px))
    return model.eval()


def network(name: str) -> nn.Module:
    return copy.deepcopy(_network(name))


@functools.cache
def _network(name: str) -> nn.Module:
    px = NETS[name]
    return settled(build(BackboneRef(name=name, classes=CLASSES), px), px)


def weighted(model: nn.Module) -> list[str]:
    return [p for p, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def quantized(
    model: nn.Module, px: int, bits: LayerBits | Bits, scheme: Scheme = "affine"
) -> nn.Module:
    made = copy.deepcopy(model)
    chosen = {
        path: bits if isinstance(bits, LayerBits) else bits(at)
        for at, path in enumerate(weighted(made))
    }
    quantize(made, chosen, scheme)
    calibrate(made, [pictures(px)])
    return made


def mixed(at: int) -> LayerBits:
    return MIXED[at % len(MIXED)]


def weight_of(model: nn.Module, path: str) -> NDArray[Any]:
    """The weight that a layer computes with, quantized if it is."""
    layer = model.get_submodule(path)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    weight: NDArray[Any] = layer.weight.detach().numpy()
    return weight


def torch_logits(model: nn.Module, values: Tensor) -> NDArray[Any]:
    with torch.no_grad():
        result: NDArray[Any] = model(values).numpy()
    return result


def session(path: Path, *, optimized: Path | None = None) -> Any:  # noqa: ANN401
    """A session that runs the graph as it is written, or as ONNX Runtime makes it over."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if optimized is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def logits(path: Path, values: Tensor, *, optimized: Path | None = None) -> NDArray[Any]:
    """The result for each picture, one at a time.

    As the graph is written, or by the kernels of ONNX Runtime where these are exact.
    """
    running = session(path, optimized=optimized if integer_kernels_are_exact() else None)
    name = running.get_inputs()[0].name
    return np.concatenate(
        [running.run(None, {name: picture[None].numpy()})[0] for picture in values]
    )


@functools.cache
def integer_kernels_are_exact() -> bool:
    """Whether uint8 times int8 is added up in 32 bits here.

    Without VNNI, x86 adds pairs of products in 16 bits, which saturate (ONNX Runtime's "When and
    why do I need to try U8U8?"): what a file computes is another thing then than what it says.
    """
    multiply = onnx.helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    graph = onnx.helper.make_graph(
        [multiply],
        "largest_products",
        [onnx.helper.make_tensor_value_info("a", onnx.TensorProto.UINT8, [8, 64])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, [8, 8])],
        [onnx.numpy_helper.from_array(np.full((64, 8), 127, np.int8), "b")],
    )
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    running = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = running.run(None, {"a": np.full((8, 64), 255, np.uint8)})[0]
    return bool((found == 64 * 255 * 127).all())


def operations(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def realised(path: Path, folder: Path) -> Counter[str]:
    """The operations that ONNX Runtime really runs."""
    optimized = folder / "optimized.onnx"
    session(path, optimized=optimized)
    return operations(optimized)
