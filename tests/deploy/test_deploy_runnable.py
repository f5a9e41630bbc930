import pytest
from deploy_fixtures import NETS, network, weighted
from torch import Tensor, nn

from hwsearch.deploy import runnable
from hwsearch.deploy.runnable import layers_without_int8


@pytest.mark.parametrize("name", ["lcnet_050", "test_vit"])
def test_every_layer_of_these_backbones_runs_in_int8(name: str) -> None:
    model = network(name)
    assert layers_without_int8(model, NETS[name], weighted(model), "affine") == frozenset()


def test_symmetric_grids_behind_a_relu_do_not_fuse() -> None:
    # Saturation cuts at -128 there and not at 0, so the ReLU stays, and the convolution is fp32.
    model = network("resnet10t")
    found = layers_without_int8(model, 32, weighted(model), "symmetric")
    assert "conv1.0" in found
    assert "fc" not in found


class Odd(nn.Module):
    """Its second layer's output is compared, which is done in floating point."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
        self.head = nn.Linear(8, 4)

    def forward(self, values: Tensor) -> Tensor:
        inner = self.first(values).relu()
        result: Tensor = self.head(self.second(inner).relu().mean((2, 3)))
        return result


def test_layers_that_fall_back_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without ranges ONNX Runtime runs a convolution in integers only if one reads its output.
    monkeypatch.setattr(runnable, "observe_output_ranges", lambda *_: {})
    found = layers_without_int8(Odd().eval(), 16, ["first", "second", "head"], "affine")
    assert found == {"second"}
    # Of those that were asked for.
    assert layers_without_int8(Odd().eval(), 16, ["first", "head"], "affine") == {"first"}
