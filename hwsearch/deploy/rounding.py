"""Rounding in a module where its file rounds, so that scores see it.

Two things are rounded in a file beside the weights and inputs of layers. Outputs of convolutions
and of operations between them are, since integer kernels write integers
(``hwsearch.deploy.ranges``). So are the biases of convolutions: ONNX Runtime adds them to the
products of integers, in steps of the input's scale times the weight's. Either one alone makes the
logits of lcnet_050 correlate with those of the unrounded module at 0.994 and 0.997; a network of
many layers amplifies each rounding to that.
"""

import copy
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from hwsearch.deploy.float_graph import FloatGraph, float_graph
from hwsearch.deploy.onnx_graph import Array, Graph
from hwsearch.deploy.plan import take_off
from hwsearch.deploy.ranges import Fusion, tensors_of, wanted_tensors
from hwsearch.deploy.sites import PASSING
from hwsearch.nets.backbone import IN_CHANNELS
from hwsearch.nets.quantize import (
    ActivationQuantizer,
    OutputQuantizer,
    Scheme,
    WeightQuantizer,
    quantize_output,
    quantized_outputs,
    quantizers_of,
)

#: Two tensors are one if they differ by less than this share of their largest value. The same one
#: in torch and in ONNX Runtime differs by some 1e-6 of it, others by about as much as it.
_ALIKE: Final = 1e-3
#: Modules that only hand on, or that would take what is put into them for a part of their own.
_NO_PLACE: Final = (
    ActivationQuantizer, OutputQuantizer, WeightQuantizer,
    nn.Sequential, nn.ModuleList, nn.ModuleDict,
)  # fmt: skip
#: Pictures of noise on which a throw-away network gets its statistics.
_PICTURES: Final = 8
_SEED: Final = 0


@dataclass(frozen=True, kw_only=True)
class OutputPlace:
    """Where the output of a layer is rounded in a module.

    Attributes:
        module: path of what returns it.
        grid_of: path of the layer whose input has the same grid; None for a grid of its own.
    """

    module: str
    grid_of: str | None


def round_outputs(model: nn.Module, input_px: int, fusion: Fusion, scheme: Scheme) -> None:
    """Quantize outputs in a module where its file has them quantized; ``calibrate`` before use.

    Outputs that only a layer with an 8-bit input reads are rounded there already. Those that no
    module returns stay as they are: a sum written in ``forward`` that goes through a function, and
    the gate within a SiLU or hard swish. With such gates module and file name the same class for
    96 % of 2,000 pictures (test_efficientnet in int8) or 89 % (lcnet_050, 30 hard swishes), where
    they agree on 99.7 % and more without.

    Args:
        model: with fake quantization of weights and inputs.
        input_px: height and width of the picture.
        fusion: of the runtime that the file is for.
        scheme: of the grids.

    Raises:
        BackboneError: the network cannot be exported.
    """
    if any(quantizer.bits <= 8 for quantizer in quantizers_of(model)):
        attach_outputs(model, output_places(model, input_px, fusion), scheme)


def attach_outputs(model: nn.Module, places: Mapping[str, OutputPlace], scheme: Scheme) -> None:
    """Quantize outputs at places that are known, by site.

    Raises:
        BackboneError: a place is not there, or quantized already.
    """
    for site, place in places.items():
        quantize_output(model, place.module, site=site, grid_of=place.grid_of, scheme=scheme)


def attached_outputs(model: nn.Module) -> dict[str, OutputPlace]:
    """The places at which outputs of a module are quantized, by site."""
    return {
        found.site: OutputPlace(module=path, grid_of=found.grid_of)
        for path, found in quantized_outputs(model).items()
    }


def output_places(model: nn.Module, input_px: int, fusion: Fusion) -> dict[str, OutputPlace]:
    """The module behind each site at which the file rounds an output, by site.

    They are found by value: a copy with random weights runs in torch and in ONNX Runtime, and the
    first module that returns the tensor of a site is the one, if changing what it returns changes
    the result as changing the tensor does.

    Args:
        model: with fake quantization; it is left as it is.
        input_px: height and width of the picture.
        fusion: of the runtime that the file is for.

    Raises:
        BackboneError: the network cannot be exported.
    """
    bare, plans = take_off(model)
    picture = _randomize(bare, input_px)
    made = float_graph(bare, plans, input_px)
    sites = wanted_tensors(made, fusion)
    ahead = {site: _ahead(made, tensor) for site, tensor in sites.items()}
    handed_on = {name for name, node in made.graph.nodes.items() if node.op_type in PASSING}
    left = [site for site in sites if not ahead[site].alone and site not in handed_on]
    tensors = list(dict.fromkeys(sites[site] for site in left))
    if not tensors:
        return {}
    values = dict(zip(tensors, tensors_of(made.graph, tensors)(picture.numpy()), strict=True))
    modules = _modules_returning(bare, picture, values)
    modules = _confirmed(made.graph, bare, picture, modules)
    return {
        site: OutputPlace(module=modules.pop(sites[site]), grid_of=ahead[site].layer)
        for site in left
        if sites[site] in modules
    }


@dataclass(frozen=True, kw_only=True)
class _Ahead:
    """What reads an output, or what it is handed on as.

    Attributes:
        layer: the one whose 8-bit grid the file takes for the output (``Quantizer.grid_at``).
        alone: nothing else reads it, so that rounding the layer's input is enough.
    """

    layer: str | None
    alone: bool


def _ahead(made: FloatGraph, tensor: str) -> _Ahead:
    graph = made.graph
    while True:
        for path, plan in made.plans.items():
            if graph.nodes[path].input[0] == tensor and plan.grid is not None and plan.grid.full:
                return _Ahead(layer=path, alone=graph.read_once(tensor) is not None)
        node = graph.read_once(tensor)
        if node is None or node.op_type not in PASSING:
            return _Ahead(layer=None, alone=False)
        tensor = node.output[0]


def _randomize(bare: nn.Module, input_px: int) -> Tensor:
    """Give a network random weights and fitting statistics; a picture of noise for it.

    Trained weights will not do: where a branch has died out, a sum is the same as what it adds to.
    """
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for name, parameter in bare.named_parameters():
            if parameter.dim() > 1:
                fan_in = max(1, parameter[0].numel())
                parameter.normal_(0, math.sqrt(2 / fan_in), generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.2, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)
        noise = torch.randn(_PICTURES, IN_CHANNELS, input_px, input_px, generator=generator)
        norms = [m for m in bare.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        bare(noise)
    bare.eval()
    return noise[:1]


def _modules_returning(
    bare: nn.Module, picture: Tensor, values: Mapping[str, Array]
) -> dict[str, str]:
    """For each tensor the first module to return it of those that run once.

    One that hands it on is taken if no other is found: a function made it, as in timm's
    ``BatchNormAct2d``.
    """
    wanted = {name: torch.from_numpy(value) for name, value in values.items()}
    made: dict[str, list[str]] = {name: [] for name in wanted}
    handed: dict[str, list[str]] = {name: [] for name in wanted}
    calls: Counter[str] = Counter()

    def watch(path: str, _: nn.Module, given: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
        calls[path] += 1
        for name, value in wanted.items():
            if _same(output, value):
                on = any(_same(one, value) for one in given)
                (handed if on else made)[name].append(path)

    handles = []
    for path, module in bare.named_modules():
        if not path or isinstance(module, _NO_PLACE):
            continue
        if "inplace" in vars(module):
            # Else what it was given is what it returns.
            vars(module)["inplace"] = False
        handles.append(module.register_forward_hook(partial(watch, path)))
    with torch.no_grad():
        bare(picture)
    for handle in handles:
        handle.remove()
    found = {
        name: next((path for path in made[name] + handed[name] if calls[path] == 1), None)
        for name in wanted
    }
    return {name: path for name, path in found.items() if path is not None}


def _confirmed(
    graph: Graph, bare: nn.Module, picture: Tensor, modules: Mapping[str, str]
) -> dict[str, str]:
    """The modules at which a change to what they return is one to the tensor in the graph."""
    if _changes_alike(graph, bare, picture, modules):
        return dict(modules)
    return {
        tensor: path
        for tensor, path in modules.items()
        if _changes_alike(graph, bare, picture, {tensor: path})
    }


def _changes_alike(
    graph: Graph, bare: nn.Module, picture: Tensor, modules: Mapping[str, str]
) -> bool:
    # The sine: no normalization takes it back, and it keeps values in bounds.
    bent = copy.deepcopy(graph)
    for tensor in modules:
        readers = bent.readers(tensor)
        bent.redirect(tensor, bent.add("Sin", [tensor], f"{tensor}_bent").output[0], readers)
    handles = [
        bare.get_submodule(path).register_forward_hook(lambda _module, _given, output: output.sin())
        for path in modules.values()
    ]
    with torch.no_grad():
        expected = bare(picture)
    for handle in handles:
        handle.remove()
    [found] = tensors_of(bent, [bent.output])(picture.numpy())
    return _same(expected, torch.from_numpy(found))


def _same(tensor: Any, value: Tensor) -> bool:  # noqa: ANN401 - whatever a module returns
    if not isinstance(tensor, Tensor) or tensor.shape != value.shape:
        return False
    return float((tensor - value).abs().amax()) <= _ALIKE * float(value.abs().amax())


def align_biases(model: nn.Module, input_px: int) -> None:
    """Move the biases of integer convolutions to the steps that ONNX Runtime adds them in.

    A step is the scale of the input times that of the weights of an output channel, batch
    normalization folded. It is smaller than one of the output's by a factor of some hundred. What
    is moved is the shift of the normalization behind the layer, or else its own bias.

    Args:
        model: calibrated; nothing that steps depend on may change afterwards.
        input_px: height and width of the picture.

    Raises:
        BackboneError: the network cannot be exported.
    """
    if not any(quantizer.bits <= 8 for quantizer in quantizers_of(model)):
        return
    made = float_graph(*take_off(model), input_px)
    parameters = dict(model.named_parameters())
    uses = Counter(made.shifts.values())
    for path, name in made.shifts.items():
        plan, node = made.plans[path], made.graph.nodes[path]
        if not plan.runs_in_int8 or node.op_type != "Conv" or uses[name] > 1:
            continue
        assert plan.grid is not None
        assert plan.scales is not None
        bias = made.graph.constants[node.input[2]].astype(np.float64)
        step = plan.grid.scale * plan.scales.astype(np.float64)
        parameter = parameters.get(name)
        if parameter is not None:
            with torch.no_grad():
                parameter.add_(torch.from_numpy(np.round(bias / step) * step - bias))
