"""Structured channel pruning: which channels can go, and taking them out.

Channels that must go together (a residual stream, a depthwise convolution and what feeds it) form
a group; torch-pruning finds the groups. Some groups stay whole:

- the classifier's outputs, which are the classes;
- channels that a reshape, a split or a product of activations depends on (attention heads);
- channels of a grouped convolution, whose groups would become uneven;
- channels of a layer that runs on constants alone, and so is no kernel.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch_pruning
from torch import nn

from hwsearch.errors import BackboneError
from hwsearch.hardware.kernel_templates import Trace

#: What torch-pruning raises where it cannot follow a network.
_NOT_FOLLOWED: Final = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PruningGroup:
    """Channels that are removed together.

    Attributes:
        name: path of the first layer, in running order, that makes these channels.
        channels: how many there are, dense.
        stage: of that layer.
        outputs: weighted layers that lose outputs, and how many for each channel of the group.
    """

    name: str
    channels: int
    stage: int
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class ChannelGraph:
    """All prunable groups of a network, in running order; the groups share no output channel."""

    groups: tuple[PruningGroup, ...]

    def out_channels(self, dense: Mapping[str, int], kept: Mapping[str, int]) -> dict[str, int]:
        """Output channels of every weighted layer when groups keep ``kept`` of their channels.

        Args:
            dense: output channels of the dense network by layer.
            kept: kept channels by group; groups that are not named stay whole.

        Raises:
            BackboneError: an unknown group, or a count outside 1 to the dense count.
        """
        known = {group.name: group for group in self.groups}
        counts = dict(dense)
        for name, count in kept.items():
            group = known.get(name)
            if group is None or not 1 <= count <= group.channels:
                raise BackboneError(
                    f"cannot keep {count} channels of '{name}': no such group or count"
                )
            for layer, each in group.outputs:
                counts[layer] -= each * (group.channels - count)
        return counts


def channel_graph(model: nn.Module, trace: Trace) -> ChannelGraph:
    """Find the prunable groups of a model on the meta device (or any other)."""
    order = {kernel.name: at for at, kernel in enumerate(trace.kernels)}
    stages = {kernel.name: kernel.stage for kernel in trace.kernels}
    dense = trace.out_channels()
    groups = []
    for group in _groups(model, trace):
        per_layer = _outputs_of(group, model)
        name = _head(per_layer, order)
        channels = len(group[0].idxs)
        if not order.keys() >= per_layer.keys() or not _prunable(per_layer, group, trace):
            continue
        if any(count % channels or count != dense[layer] for layer, count in per_layer.items()):
            continue  # only part of a layer's outputs is in the group: a split; left whole
        groups.append(
            PruningGroup(
                name=name,
                channels=channels,
                stage=stages[name],
                outputs=tuple((layer, count // channels) for layer, count in per_layer.items()),
            )
        )
    return ChannelGraph(groups=tuple(sorted(groups, key=lambda group: order[group.name])))


def channel_importance(
    model: nn.Module, trace: Trace, graph: ChannelGraph
) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Importance of each channel of each group: mean 1 within a group.

    The L2 norm of all weights that go with the channel, normalized layer by layer and averaged
    (group magnitude importance, DepGraph, arXiv:2301.12900, Sec. 3.3).

    Returns:
        One array of shape (channels,) for each group.
    """
    scorer = torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer="mean")
    found = {}
    wanted = {group.name: group.channels for group in graph.groups}
    order = {kernel.name: at for at, kernel in enumerate(trace.kernels)}
    for group in _groups(model, trace):
        name = _head(_outputs_of(group, model), order)
        if name in wanted:
            with torch.no_grad():
                scores = scorer(group).double().cpu().numpy()
            if scores.shape != (wanted[name],) or not np.isfinite(scores).all():
                raise BackboneError(
                    f"the weights of '{name}' give no finite importance; check the base weights"
                )
            mean = float(scores.mean())
            found[name] = scores / mean if mean > 0 else np.ones_like(scores)
    return {group.name: found[group.name] for group in graph.groups}


def least_important(
    importance: Mapping[str, np.ndarray[Any, np.dtype[np.float64]]], kept: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """The channels to remove so that each group keeps its count; ties go by position."""
    removed = {}
    for name, count in kept.items():
        scores = importance[name]
        lowest = np.argsort(scores, kind="stable")[: len(scores) - count]
        if lowest.size:
            removed[name] = tuple(int(at) for at in np.sort(lowest))
    return removed


def remove_channels(model: nn.Module, trace: Trace, removed: Mapping[str, tuple[int, ...]]) -> None:
    """Take channels out of a model, in place.

    The kept channels hold the weights that they had.

    Args:
        model: has the dense shapes.
        trace: of the dense model.
        removed: channel positions by group (``least_important``).

    Raises:
        BackboneError: the removal would leave a group without channels, or is refused.
    """
    if not removed:
        return
    order = {kernel.name: at for at, kernel in enumerate(trace.kernels)}
    graph = _dependencies(model, trace.input_px)
    roots = {}
    for group in graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]):
        name = _head(_outputs_of(group, model), order)
        roots[name] = (group[0].dep.target.module, group[0].dep.handler)
    for name, channels in removed.items():
        if name not in roots:
            raise BackboneError(f"'{name}' heads no group of channels; nothing was removed there")
        module, handler = roots[name]
        group = graph.get_pruning_group(module, handler, idxs=list(channels))
        if not graph.check_pruning_group(group):
            raise BackboneError(f"removing {len(channels)} channels of '{name}' leaves none")
        group.prune()


def _dependencies(model: nn.Module, input_px: int) -> Any:  # noqa: ANN401 - untyped library
    device = next(model.parameters()).device
    kind = next(model.parameters()).dtype
    example = torch.zeros(1, 3, input_px, input_px, device=device, dtype=kind)
    was_training = model.training
    trainable = {name: p.requires_grad for name, p in model.named_parameters()}
    try:
        # torch-pruning follows autograd, and so needs gradients, but no batch statistics.
        model.eval()
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        with _quiet(), torch.enable_grad():
            return torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example)
    except _NOT_FOLLOWED as error:
        raise _not_followed(error) from error
    finally:
        model.train(was_training)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trainable[name])


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the one note of torch-pruning that parameters outside layers are pruned as well."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Unwrapped parameters detected")
        yield


def _groups(model: nn.Module, trace: Trace) -> Iterator[Any]:
    graph = _dependencies(model, trace.input_px)
    try:
        yield from graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear])
    except _NOT_FOLLOWED as error:
        raise _not_followed(error) from error


def _not_followed(error: Exception) -> BackboneError:
    return BackboneError(
        f"channels of this backbone cannot be followed ({type(error).__name__}: {error}); "
        "use another backbone"
    )


def _head(outputs: Mapping[str, int], order: Mapping[str, int]) -> str:
    """The first layer of a group, in running order."""
    return min(outputs, key=lambda layer: order.get(layer, len(order)))


def _outputs_of(group: Any, model: nn.Module) -> dict[str, int]:  # noqa: ANN401
    """Weighted layers that lose outputs in a group, with how many."""
    names = {module: name for name, module in model.named_modules()}
    outputs: dict[str, int] = {}
    for dependency, idxs in group:
        module = dependency.target.module
        if isinstance(module, nn.Conv2d | nn.Linear) and _is_output(dependency, module):
            name = names[module]
            outputs[name] = max(outputs.get(name, 0), len(set(idxs)))
    return outputs


def _is_output(dependency: Any, module: nn.Module) -> bool:  # noqa: ANN401
    if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
        return True  # a depthwise layer loses inputs and outputs together
    return bool(dependency.handler.__name__ == "prune_out_channels")


def _prunable(outputs: Mapping[str, int], group: Any, trace: Trace) -> bool:  # noqa: ANN401
    if trace.classifier in outputs or trace.pinned.intersection(outputs):
        return False
    for dependency, _ in group:
        module = dependency.target.module
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            one_each = module.groups == module.in_channels == module.out_channels
            if not one_each:
                return False
        if isinstance(module, nn.GroupNorm):
            return False
    return True
