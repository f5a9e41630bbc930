# ruff: noqa: ANN401 - torch hands over any operator
"""A network whose stages are pruned unevenly is described as the module that results is shaped."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from branching_network import OWN
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hwsearch.hardware.kernels import KernelDesc, KernelKind, NetworkDesc
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import Blueprint, make_blueprint
from hwsearch.nets.realize import pruned
from hwsearch.nets.trace import trace

PX = 64
#: Share of the channels that goes, for stages 1 to 4.
MIXES = (
    (0.25, 0.25, 0.25, 0.25),
    (0.5, 0.5, 0.5, 0.5),
    (0.75, 0.75, 0.75, 0.75),
    (0.0, 0.25, 0.5, 0.75),
    (0.75, 0.5, 0.0, 0.25),
    (0.5, 0.75, 0.25, 0.0),
)


def drawn(blueprint: Blueprint, ratios: Sequence[float], seed: int) -> dict[str, tuple[int, ...]]:
    """Channels to remove, by group: the ratio of its stage, or any where there are no ratios."""
    random = np.random.default_rng(seed)
    removed = {}
    for group in blueprint.graph.groups:
        ratio = ratios[group.stage - 1] if ratios else random.choice([0.0, 0.125, 0.5, 0.75])
        count = int(ratio * group.channels)
        if count:
            chosen = random.choice(group.channels, count, replace=False)
            removed[group.name] = tuple(sorted(int(at) for at in chosen))
    return removed


def both(ref: BackboneRef, ratios: Sequence[float], seed: int = 0) -> tuple[NetworkDesc, nn.Module]:
    """The description of a pruned network, and the module; ``pruned`` compares them, too."""
    blueprint = make_blueprint(ref, PX)
    removed = drawn(blueprint, ratios, seed)
    sizes = {group.name: group.channels for group in blueprint.graph.groups}
    kept = {name: sizes[name] - len(channels) for name, channels in removed.items()}
    return blueprint.describe(kept), pruned(build(ref, PX), blueprint, removed)


class Concatenations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own base
    """Elements read and written, and channels, of each concatenation that really runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[tuple[int, int, int]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.cat.default and len(args[0]) > 1:
            self.found.append((sum(t.numel() for t in args[0]), result.numel(), result.shape[1]))
        return result


def check_against_a_pass(network: NetworkDesc, model: nn.Module) -> None:
    """Hold a description to a forward pass of real numbers, without the tracer."""
    shapes: dict[str, tuple[torch.Size, torch.Size]] = {}

    def remember(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            shapes[name] = (inputs[0].shape, output.shape)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(remember(name))
    counter = Concatenations()
    with torch.no_grad(), counter:
        model.eval()(torch.zeros(1, 3, PX, PX))
    for kernel in network.weighted:
        layer = model.get_submodule(kernel.name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        read, written = shapes[kernel.name]
        axis = 1 if isinstance(layer, nn.Conv2d) else -1
        assert (kernel.in_channels, kernel.out_channels) == (read[axis], written[axis])
        assert kernel.output_elements == written.numel()
        assert kernel.macs == layer.weight.numel() * (written.numel() // written[axis])
    copies = [kernel for kernel in network.kernels if is_concatenation(kernel)]
    assert [(k.input_elements, k.output_elements, k.out_channels) for k in copies] == counter.found
    assert all(kernel.in_channels == kernel.out_channels for kernel in copies)


def is_concatenation(kernel: KernelDesc) -> bool:
    return kernel.kind is KernelKind.COPY and kernel.name.partition("#")[0].endswith("cat")


def check_kernel_by_kernel(network: NetworkDesc, model: nn.Module) -> None:
    again = trace(model.to("meta"), PX)
    found = again.describe(network.name, again.out_channels())
    assert len(found.kernels) == len(network.kernels)
    for kernel, real in zip(network.kernels, found.kernels, strict=True):
        assert kernel == real


@pytest.mark.parametrize("ratios", MIXES)
def test_own_module_when_pruned_by_stage(ratios: tuple[float, ...]) -> None:
    network, model = both(BackboneRef(name=OWN, classes=10), ratios)
    assert sum(map(is_concatenation, network.kernels)) == 5
    check_against_a_pass(network, model)
    check_kernel_by_kernel(network, model)


@pytest.mark.parametrize("seed", range(4))
def test_own_module_when_every_group_goes_its_own_way(seed: int) -> None:
    network, model = both(BackboneRef(name=OWN, classes=10), (), seed)
    check_against_a_pass(network, model)
    check_kernel_by_kernel(network, model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilevit_xxs", "dla46_c"])
@pytest.mark.parametrize("ratios", [*MIXES, ()])
def test_backbone_when_pruned_by_stage(name: str, ratios: tuple[float, ...]) -> None:
    network, model = both(BackboneRef(name=name, classes=10), ratios)
    assert any(map(is_concatenation, network.kernels))
    check_kernel_by_kernel(network, model)


@pytest.mark.slow
def test_backbone_when_unevenly_pruned_is_as_a_pass_of_it_is() -> None:
    check_against_a_pass(*both(BackboneRef(name="dla46_c", classes=10), MIXES[3]))
