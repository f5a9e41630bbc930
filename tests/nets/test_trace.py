import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from hwsearch.errors import BackboneError
from hwsearch.hardware.kernel_templates import Channels, Trace
from hwsearch.hardware.kernels import KernelDesc, KernelKind
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.trace import trace

PX = 64


class Small(nn.Module):
    """Convolutions and a classifier around whatever a test puts between them."""

    def __init__(self, middle: nn.Module, channels: int = 8, features: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, 2, 1)
        self.middle = middle
        self.head = nn.Linear(features, 10)

    def forward(self, picture: Tensor) -> Tensor:
        values = self.middle(self.stem(picture))
        result: Tensor = self.head(values.mean((2, 3)) if values.dim() == 4 else values.mean(1))
        return result


class Applied(nn.Module):
    """A module of one function without weights."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Tensor:
        assert callable(self.function)
        result: Tensor = self.function(values)
        return result


class Attention(nn.Module):
    """Two heads over the positions of a picture with 8 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)

    def forward(self, values: Tensor) -> Tensor:
        tokens = values.flatten(2).transpose(1, 2)
        batch, count, _ = tokens.shape
        parts = self.qkv(tokens).reshape(batch, count, 3, 2, 4).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, count, 8))
        return result


def traced(model: nn.Module, px: int = PX) -> Trace:
    return trace(model.to("meta"), px)


def kernels(model: nn.Module, px: int = PX) -> list[KernelDesc]:
    result = traced(model, px)
    return list(result.describe("network", result.out_channels()).kernels)


def counted_macs(model: nn.Module, px: int) -> float:
    """Multiply-accumulates by torch's own counter."""
    picture = torch.empty(1, 3, px, px, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(picture)
    return float(counter.get_total_flops()) / 2


def folded_weights(model: nn.Module) -> int:
    """Parameters after folding: a normalization leaves its shift, as a bias, and no factor."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)]
    return sum(p.numel() for p in model.parameters()) - sum(m.weight.numel() for m in norms)


def test_macs_and_weights_when_backbone_is_shipped(shipped: BackboneRef) -> None:
    model = build(shipped, PX, device="meta")
    network = traced(model)
    found = network.describe(shipped.name, network.out_channels())
    assert found.macs == pytest.approx(counted_macs(model, PX), rel=0.01)
    assert found.weight_elements == pytest.approx(folded_weights(model), rel=0.01)


def test_layers_when_backbone_is_shipped(shipped: BackboneRef) -> None:
    model = build(shipped, PX, device="meta")
    network = traced(model)
    layers = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    weighted = {kernel.name for kernel in network.kernels if kernel.weighted}
    assert weighted == layers
    assert network.classifier in layers
    found = {kernel.stage for kernel in network.kernels}
    assert found <= {1, 2, 3, 4}
    assert len(found) >= 3


def test_attention_backbone_when_from_timm() -> None:
    ref = BackboneRef(name="vit_tiny_patch16_224", classes=10)
    model = build(ref, 32, device="meta")
    network = traced(model, 32)
    found = network.describe(ref.name, network.out_channels())
    assert found.macs == pytest.approx(counted_macs(model, 32), rel=0.01)
    # The position embedding is added in a kernel of its own, the class token is copied.
    assert found.weight_elements == pytest.approx(folded_weights(model), rel=0.01)
    assert {"blocks.0.attn.qkv", "blocks.11.attn.qkv"} <= network.pinned
    assert {kernel.stage for kernel in network.kernels} == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("activation", "curved"), [(nn.ReLU6(), False), (nn.SiLU(), True), (nn.Hardswish(), True)]
)
def test_activation_when_fused_is_a_clip_or_curved(activation: nn.Module, curved: bool) -> None:
    layer = kernels(Small(nn.Sequential(nn.Conv2d(8, 8, 1), activation)))[1]
    assert (layer.name, layer.curved) == ("middle.0", curved)


def test_convolution_when_depthwise_or_grouped() -> None:
    depthwise = kernels(Small(nn.Conv2d(8, 8, 3, 1, 1, groups=8)))[1]
    grouped = kernels(Small(nn.Conv2d(8, 8, 3, 1, 1, groups=2)))[1]
    assert (depthwise.kind, depthwise.macs) == (KernelKind.DEPTHWISE, 32 * 32 * 8 * 9)
    assert (grouped.kind, grouped.macs) == (KernelKind.GROUPED, 32 * 32 * 8 * 4 * 9)


def test_concatenation_when_two_branches_meet() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(8, 4, 1)
            self.two = nn.Conv2d(8, 12, 1)

        def forward(self, values: Tensor) -> Tensor:
            return torch.cat([self.one(values), self.two(values)], 1)

    network = traced(Small(Branches(), features=16))
    copy = next(k for k in network.kernels if k.kind is KernelKind.COPY)
    assert copy.reads == copy.writes == Channels(layers=("middle.one", "middle.two"))
    pruned = network.describe("n", {"stem": 8, "middle.one": 2, "middle.two": 12, "head": 10})
    assert pruned.kernels[-1].in_channels == 14


def test_attention_when_functional() -> None:
    network = traced(Small(Attention()))
    products = [k for k in network.kernels if k.kind is KernelKind.MATMUL]
    assert "middle.qkv" in network.pinned
    # Scores and mixture of 2 heads with 4 channels over 32 * 32 positions.
    assert [kernel.macs for kernel in products] == [2 * 4 * 1024**2] * 2
    assert KernelKind.SOFTMAX in {kernel.kind for kernel in network.kernels}


def test_channels_when_split_are_pinned() -> None:
    halves = Small(Applied(lambda values: values.chunk(2, 1)[0] * values.chunk(2, 1)[1]), 8, 4)
    assert traced(halves).pinned == {"stem"}


def test_stages_when_resolution_falls() -> None:
    layers = [nn.Conv2d(8, 8, 3, 2, 1) for _ in range(4)]
    found = traced(Small(nn.Sequential(*layers)))
    stages = [kernel.stage for kernel in found.kernels if kernel.weighted]
    assert stages == [1, 1, 2, 3, 4, 4]


def test_operation_when_unknown_is_refused() -> None:
    model = Small(Applied(lambda values: torch.fft.fft2(values).real))
    with pytest.raises(BackboneError, match=r"operation '_fft\w*' in 'middle' has no cost model"):
        traced(model)


@pytest.mark.parametrize("layer", [nn.LSTM(8, 8), nn.GRU(8, 8), nn.RNNCell(8, 8)])
def test_layer_when_recurrent_is_refused(layer: nn.Module) -> None:
    said = rf"the layer 'middle.0' is recurrent \({type(layer).__name__}\), which has no cost model"
    with pytest.raises(BackboneError, match=said):
        traced(Small(nn.Sequential(layer)))


def test_layer_when_run_twice_is_refused() -> None:
    layer = nn.Conv2d(8, 8, 1)
    with pytest.raises(BackboneError, match=r"layer 'middle.0' runs twice"):
        traced(Small(nn.Sequential(layer, nn.ReLU(), layer)))


def test_weight_when_shared_by_two_layers_is_refused() -> None:
    layers = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)).to("meta")
    layers[1].weight = layers[0].weight
    with pytest.raises(BackboneError, match=r"layer 'middle.0' runs twice"):
        traced(Small(layers))


def test_weight_when_of_no_layer_is_refused() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.ones(8, 8, 1, 1))

        def forward(self, values: Tensor) -> Tensor:
            return functional.conv2d(values, self.matrix)

    with pytest.raises(BackboneError, match="'middle' has no weight of its own"):
        traced(Small(Bare()))


def test_convolution_when_not_over_pictures_is_refused() -> None:
    rows = nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 8, 3), nn.Unflatten(2, (1, -1)))
    with pytest.raises(BackboneError, match=r"'middle.1' is not a 2-d convolution"):
        traced(Small(rows))


def test_network_when_it_ends_in_a_pooling_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(BackboneError, match="must end in a linear layer or convolution"):
        traced(model)


@pytest.mark.parametrize("bias", [False, True])
def test_weights_when_constants_are_added_to_a_layer(bias: bool) -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 1, bias=bias)
            self.shift = nn.Parameter(torch.zeros(1))
            self.shifts = nn.Parameter(torch.zeros(8, 1, 1))

        def forward(self, values: Tensor) -> Tensor:
            result: Tensor = self.conv(values) + self.shift + self.shifts
            return result

    network = traced(Small(Shifted(), features=8))
    dense = network.describe("n", network.out_channels()).kernels[1]
    pruned = network.describe("n", {"stem": 8, "middle.conv": 4, "head": 10}).kernels[1]
    assert dense.weight_elements == 8 * 8 + 8 * bias + 1 + 8
    assert pruned.weight_elements == 8 * 4 + 4 * bias + 1 + 4
