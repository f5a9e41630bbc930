from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hwsearch.deploy.float_graph import float_graph
from hwsearch.deploy.onnx_graph import Graph
from hwsearch.deploy.plan import take_off
from hwsearch.deploy.sites import Site, find_sites

Activation = Callable[[Tensor], Tensor]


class Block(nn.Module):
    """A convolution, what is behind it, and a second one that ends the network."""

    def __init__(self, behind: Activation) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Conv2d(3, 4, 1)
        self.behind = behind

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.last(self.behind(self.conv(values))).mean((2, 3))
        return result


def sites_of(model: nn.Module) -> tuple[Graph, dict[str, Site]]:
    made = float_graph(*take_off(model), 8)
    return made.graph, find_sites(made.graph, list(made.plans))


def maker(graph: Graph, tensor: str) -> str:
    node = graph.producer(tensor)
    assert node is not None
    return node.op_type


@pytest.mark.parametrize(
    ("behind", "inner", "outer"),
    [
        (nn.Identity(), "Conv", "Conv"),
        (nn.ReLU(), "Relu", "Relu"),
        (nn.ReLU6(), "Clip", "Clip"),
        (nn.Hardswish(), "Conv", "HardSwish"),
        (nn.Sigmoid(), "Conv", "Sigmoid"),
        (nn.LeakyReLU(), "Conv", "LeakyRelu"),
        (nn.SiLU(), "Conv", "Mul"),
        (nn.GELU(), "Conv", "Mul"),
        (nn.Mish(), "Conv", "Mul"),
        (lambda x: torch.relu(x) * 0.5 + 1, "Relu", "Add"),
    ],
)
def test_site_when_behind_an_activation(behind: Activation, inner: str, outer: str) -> None:
    graph, sites = sites_of(Block(behind))
    site = sites["conv"]
    assert (maker(graph, site.inner), maker(graph, site.outer)) == (inner, outer)
    assert (site.inner == site.outer) == (inner == outer)
    assert not site.residual
    assert not site.result
    # All of the activation is inside: the next convolution reads it.
    assert graph.nodes["last"].input[0] == site.outer


class Residual(nn.Module):
    """A block as in a ResNet, with a convolution on the other path too."""

    def __init__(self, *, both: bool) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.side = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)
        self.both = both

    def forward(self, values: Tensor) -> Tensor:
        first = torch.relu(self.one(values))
        side = self.side(first) if self.both else first
        result: Tensor = self.head(torch.relu(self.two(first) + side).mean((2, 3)))
        return result


def test_site_when_behind_a_residual_add_ends_behind_its_relu() -> None:
    graph, sites = sites_of(Residual(both=False))
    site = sites["two"]
    assert site.residual
    assert (maker(graph, site.inner), maker(graph, site.outer)) == ("Conv", "Relu")
    first = sites["one"]
    assert first.inner == first.outer
    assert not first.residual


def test_sum_when_of_two_layers_belongs_to_one_of_them() -> None:
    graph, sites = sites_of(Residual(both=True))
    residual = [path for path, site in sites.items() if site.residual]
    assert len(residual) == 1
    [other] = {"two", "side"} - set(residual)
    assert maker(graph, sites[other].outer) == "Conv"
    assert sites[other].inner == sites[other].outer
