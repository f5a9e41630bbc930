"""From a torch module to a clean fp32 ONNX graph in which each layer is known by its path.

The TorchScript exporter is used (``dynamo=False``). It writes opset 17, takes 0.1-0.3 s a network
where the other takes 1.5-3 s, follows whatever Python a module runs, and needs no further package.
The other one writes opset 18, and its conversion to 17 fails on the mean over height and width that
nearly every backbone ends in. When torch drops this exporter, ``_exported`` is what has to change.

Nothing is folded by the exporter, because it renames the weights that it folds. It is done here,
and a weight keeps its name, which is how a layer is found again.
"""

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from onnx import NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from hwsearch.deploy.onnx_graph import (
    OPSET,
    Array,
    Graph,
    attributes,
    picture_shapes,
    static_shapes,
)
from hwsearch.deploy.plan import LayerPlan
from hwsearch.errors import BackboneError
from hwsearch.nets.backbone import IN_CHANNELS

INPUT: Final = "picture"
OUTPUT: Final = "logits"

_WEIGHTED_OPS: Final = frozenset({"Conv", "Gemm", "MatMul"})
#: More rounds than any chain of shapes that depend on one another was seen to need (3).
_FOLDING_ROUNDS: Final = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class FloatGraph:
    """A graph in fp32, batch normalization folded.

    Attributes:
        graph: its weighted nodes are named after the paths of their layers.
        plans: of the layers that run, in running order, adjusted to the folding.
        shapes: channels, height and width of its tensors of four axes.
        shifts: names of the parameters that a layer's bias in the graph grows with, by its path.
    """

    graph: Graph
    plans: dict[str, LayerPlan]
    shapes: Mapping[str, tuple[int, int, int]]
    shifts: dict[str, str]


def float_graph(
    bare: nn.Module, plans: dict[str, LayerPlan], input_px: int, *, dynamic_batch: bool = False
) -> FloatGraph:
    """Export a module without quantizers (``take_off``) and clean the graph up.

    Raises:
        BackboneError: it cannot be exported, or a quantized layer is not found in what was.
    """
    graph = Graph(_exported(bare, input_px, dynamic_batch))
    fold_constants(graph)
    shapes = picture_shapes(graph.to_model())
    pool_means(graph, shapes)
    running = _find_layers(graph, plans)
    named = {path: _shift(graph, plan) for path, plan in running.items()}
    return FloatGraph(
        graph=graph,
        plans={path: fold_batch_norm(graph, plan) for path, plan in running.items()},
        shapes=shapes,
        shifts={path: name for path, name in named.items() if name is not None},
    )


def _exported(bare: nn.Module, input_px: int, dynamic_batch: bool) -> onnx.ModelProto:
    picture = torch.zeros(1, IN_CHANNELS, input_px, input_px)
    axes = {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}} if dynamic_batch else None
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            # That this exporter is old, and that sizes become constants: both are meant.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
            file = Path(folder) / "float.onnx"
            torch.onnx.export(
                bare,
                (picture,),
                file,
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes=axes,
                do_constant_folding=False,
                # "As the module is", which is evaluation: batch normalization is kept apart.
                training=torch.onnx.TrainingMode.PRESERVE,
            )
            return onnx.load(file)
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError, ValueError) as error:
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackboneError(
            f"the backbone cannot be exported to ONNX at {input_px} px: {text}; "
            "replace the operation, or use another backbone"
        ) from error


def fold_constants(graph: Graph) -> None:
    """Replace by its value whatever does not depend on the picture, and drop identities.

    A weight that is only handed on or transposed keeps its name.
    """
    for _ in range(_FOLDING_ROUNDS):
        _drop_identities(graph)
        _fold_shapes(graph)
        if not _fold_known(graph):
            return
    raise BackboneError("constants of the exported graph do not settle; use another backbone")


def _drop_identities(graph: Graph) -> None:
    for node in list(graph.nodes.values()):
        if node.op_type != "Identity":
            continue
        source, target = node.input[0], node.output[0]
        if source in graph.constants:
            # The exporter stores equal parameters once; under its own name each can change alone.
            graph.constants[target] = graph.constants[source]
        elif target == graph.output:
            continue
        else:
            graph.redirect(target, source, graph.readers(target))
        del graph.nodes[node.name]
    graph.prune()


def _fold_shapes(graph: Graph) -> None:
    shape_nodes = [node for node in graph.nodes.values() if node.op_type == "Shape"]
    if not shape_nodes:
        return
    shapes = static_shapes(graph.to_model())
    for node in shape_nodes:
        if node.input[0] in shapes:
            sizes = shapes[node.input[0]][slice(*_bounds(node))]
            graph.constants[node.output[0]] = np.array(sizes, dtype=np.int64)
            del graph.nodes[node.name]


def _bounds(node: NodeProto) -> tuple[int | None, int | None]:
    given = attributes(node)
    return given.get("start"), given.get("end")


def _fold_known(graph: Graph) -> int:
    """Evaluate the nodes that read constants only; how many they were."""
    folded: list[NodeProto] = []
    known = set(graph.constants)
    for node in graph.ordered():
        if all(name in known for name in node.input if name) and node.op_type != "Identity":
            folded.append(node)
            known.update(node.output)
    if not folded:
        return 0
    for name, value in _values(graph, folded).items():
        graph.constants[name] = value
    for node in folded:
        del graph.nodes[node.name]
    graph.prune()
    for node in folded:
        if node.op_type == "Transpose":
            _keep_name(graph, node.input[0], node.output[0])
    return len(folded)


def _values(graph: Graph, nodes: list[NodeProto]) -> dict[str, Array]:
    outputs = [name for node in nodes for name in node.output if name]
    read = {name for node in nodes for name in node.input}
    proto = helper.make_graph(
        nodes,
        "constants",
        [],
        [helper.make_value_info(name, onnx.TypeProto()) for name in outputs],
        [numpy_helper.from_array(v, n) for n, v in graph.constants.items() if n in read],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)])
    results = ReferenceEvaluator(model).run(None, {})
    return {name: np.asarray(value) for name, value in zip(outputs, results, strict=True)}


def _keep_name(graph: Graph, source: str, target: str) -> None:
    """Let a transposed weight go by the name of the weight, if nothing else reads that."""
    if graph.readers(source):
        return
    value = graph.constants.pop(target)
    graph.constants[source] = value
    graph.redirect(target, source, graph.readers(target))


def pool_means(graph: Graph, shapes: Mapping[str, tuple[int, int, int]]) -> None:
    """Write a mean over height and width as the pooling that it is; drop one over one pixel.

    ONNX Runtime has an integer kernel for the pooling only, which takes 2.6 us less than the mean
    on 1280 x 2 x 2 values. On 1280 x 1 x 1 it takes 11 us where nothing is left to do: a ninth of
    mobilenetv2_050 at 32 px.

    Args:
        graph: of which constants are folded.
        shapes: channels, height and width of its tensors of four axes.
    """
    for node in list(graph.nodes.values()):
        source, target = node.input[0], node.output[0]
        if source not in shapes or not _is_pooling(node):
            continue
        del graph.nodes[node.name]
        keeps_axes = bool(attributes(node).get("keepdims", 1))
        pooled = target if keeps_axes else f"{target}_pooled"
        if shapes[source][1:] == (1, 1):
            pooled = source
        else:
            graph.rename(graph.add("GlobalAveragePool", [source], pooled), node.name)
        if not keeps_axes:
            graph.rename(graph.add("Flatten", [pooled], target), f"{node.name}/Flatten")
        elif pooled == source:
            graph.redirect(target, source, graph.readers(target))


def _is_pooling(node: NodeProto) -> bool:
    """Whether a node averages over the height and width of a tensor of four axes."""
    if node.op_type == "ReduceMean":
        return sorted(axis % 4 for axis in attributes(node).get("axes", ())) == [2, 3]
    return node.op_type == "GlobalAveragePool"


def _find_layers(graph: Graph, plans: dict[str, LayerPlan]) -> dict[str, LayerPlan]:
    """Name weighted nodes after their layers; the plans of those, in running order.

    Raises:
        BackboneError: a quantized layer has no node, or more than one.
    """
    found: dict[str, LayerPlan] = {}
    for node in graph.ordered():
        if node.op_type not in _WEIGHTED_OPS or not node.input[1].endswith(".weight"):
            continue
        path = node.input[1].removesuffix(".weight")
        if path not in plans:
            continue
        if path in found:
            raise BackboneError(f"the layer '{path}' runs twice; hwsearch gives each layer one use")
        graph.rename(node, path)
        found[path] = plans[path]
    for path, plan in plans.items():
        if path not in found and not plan.bits.weight_bits == plan.bits.activation_bits == 32:
            raise BackboneError(
                f"the quantized layer '{path}' is not in the exported graph as one convolution or "
                "product with a weight of its own; leave it at 32 bits"
            )
    return found


def fold_batch_norm(graph: Graph, plan: LayerPlan) -> LayerPlan:
    """Fold the normalization behind a layer into it, if there is one that reads it alone.

    With ``g = gamma / sqrt(var + eps)`` for each output channel, the weight is multiplied by g,
    and the bias b becomes ``beta + g (b - mean)``.

    Returns:
        The plan, its integers and scales adjusted.
    """
    node = graph.nodes[plan.path]
    norm = _norm_behind(graph, node)
    if norm is None:
        return plan
    gamma, beta, mean, variance = (
        graph.constants[name].astype(np.float64) for name in norm.input[1:5]
    )
    factor = gamma / np.sqrt(variance + attributes(norm).get("epsilon", 1e-5))
    weight_name, bias_name = node.input[1], f"{plan.path}.bias"
    weight = graph.constants[weight_name]
    bias = graph.constants[node.input[2]] if len(node.input) > 2 else np.zeros_like(mean)
    shape = [1] * weight.ndim
    shape[output_axis(node)] = -1
    scaled = weight * factor.reshape(shape)
    graph.constants[weight_name] = np.asarray(scaled, dtype=np.float32)
    graph.constants[bias_name] = (beta + factor * (bias - mean)).astype(np.float32)
    node.input[:] = [node.input[0], weight_name, bias_name]
    node.output[0] = norm.output[0]
    del graph.nodes[norm.name]
    return plan.scaled(factor)


def _norm_behind(graph: Graph, node: NodeProto) -> NodeProto | None:
    """The normalization that can be folded into a weighted node."""
    norm = graph.read_once(node.output[0])
    if norm is None or norm.op_type != "BatchNormalization" or node.op_type == "MatMul":
        return None
    return norm


def _shift(graph: Graph, plan: LayerPlan) -> str | None:
    """The constant that is added to what a layer computes, by itself or by its normalization."""
    node = graph.nodes[plan.path]
    norm = _norm_behind(graph, node)
    inputs: list[str] = list(node.input if norm is None else norm.input)
    return inputs[2] if len(inputs) > 2 else None


def output_axis(node: NodeProto) -> int:
    """The axis of a weighted node's weight that its output channels are on."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if attributes(node).get("transB", 0) else 1
    return 1
