"""Ranges of outputs on pictures, for the runtimes whose int8 kernels write int8.

A range is not the least and the greatest value that was seen: it is narrowed to where rounding and
clipping together have the least squared error, as scales of inputs are
(``hwsearch.nets.quantize``).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import onnx
from torch import Tensor, nn

from hwsearch.deploy.float_graph import FloatGraph, float_graph
from hwsearch.deploy.integer_ops import integer_operations
from hwsearch.deploy.onnx_graph import Array, Graph
from hwsearch.deploy.plan import Grid, take_off
from hwsearch.deploy.qdq import INNER
from hwsearch.deploy.sites import find_sites
from hwsearch.errors import BackboneError
from hwsearch.hardware.runtimes import Fusion
from hwsearch.nets.quantize import CLIP_SHARES, sample_stride

#: Values of an output that are kept for each picture: 256 pictures have enough for a search.
_SAMPLES_PER_PICTURE: Final = 1_024


def observe_output_ranges(
    model: nn.Module, batches: Iterable[Tensor], *, fusion: Fusion = "relu"
) -> dict[str, tuple[float, float]]:
    """The range of outputs, on pictures, of what runs in integers.

    It is where rounding to 8 bits has the least squared error. Weights are quantized meanwhile,
    activations are not, as in calibration. Products have no entry, since runtimes write theirs in
    floating point without a loss of speed, and neither has what makes the result of the network.

    Args:
        model: with fake quantization; it is left as it is.
        batches: of shape (n, 3, px, px), all of one size.
        fusion: "relu" for ONNX Runtime: the convolution is quantized behind a ReLU or clip (key
            ``path:inner`` where more is fused elsewhere), and each operation that runs in integers
            for itself (key: the name of its node). "residual" for TensorRT: once, behind the
            activation and the residual add. OpenVINO (2026.4) needs no ranges: it ran every integer
            layer in int8 with its input quantized alone.

    Returns:
        By layer path, in running order, then by operation; empty if no convolution runs in int8.

    Raises:
        BackboneError: no pictures, or values that are not finite.
    """
    pictures = iter(batches)
    first = next(pictures, None)
    if first is None or len(first) == 0:
        raise BackboneError("output ranges need at least one picture; give a batch")
    bare, plans = take_off(model)
    made = float_graph(bare, plans, first.shape[-1])
    wanted = wanted_tensors(made, fusion)
    if not wanted:
        return {}
    tensors = list(dict.fromkeys(wanted.values()))
    scheme = next(plan.grid for plan in made.plans.values() if plan.grid is not None)
    found = _clipped_ranges(made.graph, tensors, _singles(first, pictures), scheme)
    return {key: found[tensor] for key, tensor in wanted.items()}


def wanted_tensors(made: FloatGraph, fusion: Fusion) -> dict[str, str]:
    """The tensors that are quantized, by the keys of ``observe_output_ranges``."""
    wanted: dict[str, str] = {}
    for path, site in find_sites(made.graph, list(made.plans)).items():
        is_convolution = made.graph.nodes[path].op_type == "Conv"
        if not is_convolution or not made.plans[path].runs_in_int8 or site.result:
            continue
        if fusion == "residual" or site.inner == site.outer:
            wanted[path] = site.outer
        else:
            wanted[f"{path}{INNER}"] = site.inner
    if fusion == "relu":
        wanted.update(integer_operations(made, wanted.values()))
    return wanted


def _singles(first: Tensor, rest: Iterator[Tensor]) -> Iterator[Array]:
    """Pictures one by one, as the graph of batch 1 takes them."""
    for batch in (first, *rest):
        for picture in batch.detach().cpu().float().contiguous().numpy():
            yield picture[None]


def tensors_of(graph: Graph, tensors: Sequence[str]) -> Callable[[Array], list[Array]]:
    """What computes these tensors of a graph for one picture, in ONNX Runtime."""
    import onnxruntime
    import torch

    model = graph.to_model()
    known = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    del model.graph.output[:]
    model.graph.output.extend(known[name] for name in tensors)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda picture: list(session.run(list(tensors), {graph.input: picture}))


def _clipped_ranges(
    graph: Graph, tensors: Sequence[str], pictures: Iterable[Array], scheme: Grid
) -> dict[str, tuple[float, float]]:
    compute = tensors_of(graph, tensors)
    low = np.full(len(tensors), np.inf)
    high = np.full(len(tensors), -np.inf)
    samples: list[list[Array]] = [[] for _ in tensors]
    for picture in pictures:
        values = compute(picture)
        low = np.minimum(low, [value.min() for value in values])
        high = np.maximum(high, [value.max() for value in values])
        for kept, value in zip(samples, values, strict=True):
            kept.append(value.ravel()[:: sample_stride(value.size, _SAMPLES_PER_PICTURE)].copy())
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise BackboneError("outputs are not finite on the pictures; check the weights")
    return {
        name: _least_error_range(np.concatenate(kept), float(least), float(greatest), scheme)
        for name, kept, least, greatest in zip(tensors, samples, low, high, strict=True)
    }


def _least_error_range(
    values: Array, least: float, greatest: float, scheme: Grid
) -> tuple[float, float]:
    """The share of a range whose grid of 8 bits has the least squared error on values."""

    def error(share: float) -> float:
        grid = scheme.over(least * share, greatest * share)
        integers = np.rint(values / grid.scale) + grid.zero_point
        rounded = grid.scale * (integers.clip(grid.low, grid.high) - grid.zero_point)
        return float(np.square(rounded - values).mean())

    best = min(reversed(CLIP_SHARES), key=error)  # of equal ones the widest
    return least * best, greatest * best
