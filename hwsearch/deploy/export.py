"""One ONNX file for one network, with the precision of every layer written into the graph."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from hwsearch.bits import LayerBits
from hwsearch.deploy.float_graph import float_graph
from hwsearch.deploy.half import halve
from hwsearch.deploy.input_contract import (
    Channels,
    InputContract,
    bake_normalization,
    write_contract,
)
from hwsearch.deploy.integer_ops import tensor_behind
from hwsearch.deploy.onnx_graph import OPSET, Graph
from hwsearch.deploy.plan import LayerPlan, take_off
from hwsearch.deploy.qdq import Quantizer, quantize_outputs
from hwsearch.deploy.sites import find_sites
from hwsearch.files import write_atomically
from hwsearch.nets.backbone import IN_CHANNELS


@dataclass(frozen=True, kw_only=True)
class PictureInfo:
    """What a network knows about its pictures.

    Attributes:
        mean: per channel (red, green, blue), on the scale 0..1.
        std: the same; the network takes ``(x / 255 - mean) / std``.
        class_names: in the order of the logits.
    """

    mean: Channels
    std: Channels
    class_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ExportedLayer:
    """One weighted layer of the file.

    Attributes:
        path: of the module, and name of its node in the file.
        bits: that the file asks for.
        output_quantized: whether what it writes is quantized, so that an integer kernel fits.
    """

    path: str
    bits: LayerBits
    output_quantized: bool


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """An ONNX file that was written.

    Attributes:
        opset: of the default domain; there is no other.
        input_name: of the picture, fp32.
        input_shape: (batch, channels, height, width); a dynamic batch is None.
        output_name: of the logits, fp32 of shape (batch, classes).
        layers: in running order.
    """

    path: Path
    opset: int
    input_name: str
    input_shape: tuple[int | None, int, int, int]
    output_name: str
    layers: tuple[ExportedLayer, ...]


def export_onnx(
    model: nn.Module,
    input_px: int,
    path: Path,
    *,
    output_ranges: Mapping[str, tuple[float, float]] | None = None,
    dynamic_batch: bool = False,
    pictures: PictureInfo | None = None,
    bake: bool = False,
) -> ExportedFile:
    """Write a network as ONNX: batch normalization folded, Q/DQ and casts where it has bits.

    Integer layers have int8 weights per output channel and a quantized input. Layers of 16 bits
    compute in half precision between casts. The rest is fp32.

    Args:
        model: plain, or with fake quantization (``hwsearch.nets.quantize``), calibrated. It is
            left as it is.
        input_px: height and width of the picture.
        path: of the file; its folder exists. It is replaced as a whole or not at all.
        output_ranges: least and greatest value behind integer layers, by path, and behind
            operations between them, where their output is to be quantized too
            (``observe_output_ranges``). Without them ONNX Runtime runs a
            convolution in fp32 unless an integer layer reads its output directly.
        dynamic_batch: leave the batch open; it is 1 otherwise, which runtimes optimize for.
        pictures: written into the file (``hwsearch.deploy.input_contract``).
        bake: let the file normalize pictures itself, so that it takes 0..255; needs ``pictures``.

    Raises:
        BackboneError: the network cannot be exported, a quantized layer cannot be found in what
            was, or an output range names no integer layer.
        OSError: the file cannot be written.
        ValueError: ``bake`` without ``pictures``.
    """
    if bake and pictures is None:
        raise ValueError("normalization cannot be baked in when it is not given")
    bare, plans = take_off(model)
    made = float_graph(bare, plans, input_px, dynamic_batch=dynamic_batch)
    sites = find_sites(made.graph, list(made.plans))
    ranges = output_ranges or {}
    operations = {
        name: tensor_behind(made.graph, made.graph.nodes[name])
        for name in ranges.keys() & (made.graph.nodes.keys() - made.plans.keys())
    }
    quantizer = Quantizer(made)
    quantizer.quantize_layers()
    quantize_outputs(quantizer, sites, operations, ranges)
    halve(made.graph, made.plans)
    if bake and pictures is not None:
        bake_normalization(made.graph, pictures.mean, pictures.std)
    proto = made.graph.to_model()
    if pictures is not None:
        write_contract(
            proto,
            InputContract(
                name=made.graph.input,
                input_px=input_px,
                batch=None if dynamic_batch else 1,
                mean=pictures.mean,
                std=pictures.std,
                baked=bake,
                class_names=pictures.class_names,
            ),
        )
    write_atomically(path, proto.SerializeToString(deterministic=True), mode=0o644)
    return ExportedFile(
        path=path,
        opset=OPSET,
        input_name=made.graph.input,
        input_shape=(None if dynamic_batch else 1, IN_CHANNELS, input_px, input_px),
        output_name=made.graph.output,
        layers=tuple(
            ExportedLayer(
                path=plan.path,
                bits=plan.bits,
                output_quantized=_is_quantized(made.graph, plan, sites[plan.path].inner),
            )
            for plan in made.plans.values()
        ),
    )


def _is_quantized(graph: Graph, plan: LayerPlan, inner: str) -> bool:
    """Whether everything behind an integer layer reads integers."""
    readers = graph.readers(inner)
    return (
        plan.runs_in_int8
        and bool(readers)
        and all(node.op_type == "QuantizeLinear" for node in readers)
    )
