"""Networks by name, by function and by file, with the bits that were asked for."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from onnx_files import GRID, floats, node, pair, write_onnx
from onnx_files import quantized as stored_in_integers

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.errors import BackboneError, UserError
from hwsearch.hardware.kernels import KernelKind
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.describe import CLASSES, describe, read_bits
from hwsearch.nets.trace import trace

OWN = """
from torch import nn


def tiny(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module of the user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "described_backbone.py").write_text(OWN)
    yield tmp_path
    # The module lies in this test's folder, so the next test must not find it.
    sys.modules.pop("described_backbone", None)


def write_net(path: Path, *, quantized: bool = False) -> Path:
    """A convolution of 4 channels over 8 x 8 pixels, a pooling and a linear layer."""
    weight, stored = stored_in_integers("w", (4, 3, 1, 1))
    nodes = [
        *([weight, *pair("x", "xd")] if quantized else []),
        node("Conv", "xd w" if quantized else "x stem.weight", "c"),
        node("GlobalAveragePool", "c", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f head.weight", "y", transB=1),
    ]
    first = stored | GRID if quantized else {"stem.weight": floats(4, 3, 1, 1)}
    return write_onnx(path, nodes, first | {"head.weight": floats(5, 4)})


# -- bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("8", INT8),
        ("int8", INT8),
        ("W8A8", INT8),
        ("16", FP16),
        ("fp16", FP16),
        ("32", FP32),
        ("fp32", FP32),
        ("4", LayerBits(4, 4)),
        ("W4A8", LayerBits(4, 8)),
    ],
)
def test_bits_when_written_in_any_form_are_read(text: str, bits: LayerBits) -> None:
    assert read_bits(text) == bits


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("9", "9 bits is not a width"),
        ("0", "0 bits is not a width"),
        ("-8", "'-8' is not of the form W8A8"),
        ("", "'' is not of the form W8A8"),
        ("int4", "'int4' is not of the form W8A8"),
        ("W32A8", "weights of 32 bits go with activations of the same width"),
    ],
)
def test_bits_when_unreadable_say_what_can_be_given(text: str, why: str) -> None:
    with pytest.raises(UserError, match=rf"bits '{text}' cannot be used: .*{why}") as raised:
        read_bits(text)
    assert "Give one of 2, 3, 4, 5, 6, 7, 8, 16, 32, or widths of" in str(raised.value)


# -- timm ------------------------------------------------------------------------------------------


def test_name_when_without_size_takes_the_pretrained_one() -> None:
    network = describe("resnet18")
    assert (network.name, network.input_px) == ("resnet18", 224)
    # 1.814 GMAC and 11.69 M parameters are what torchvision publishes of it.
    assert network.macs == pytest.approx(1.814e9, rel=1e-3)
    assert network.weight_elements == pytest.approx(11.69e6, rel=1e-3)
    assert network.kernels[-1].out_channels == 1000
    assert {kernel.bits for kernel in network.kernels} == {FP32}


def test_name_when_given_a_size_and_a_tag_is_the_traced_network() -> None:
    found = describe("resnet18.a1_in1k", input_px=64)
    traced = trace(build(BackboneRef(name="resnet18", classes=1000), 64, device="meta"), 64)
    assert found.kernels == traced.describe("resnet18", traced.out_channels()).kernels
    assert found.name == "resnet18.a1_in1k"


def test_name_when_of_a_network_with_a_fixed_size_is_built_for_it() -> None:
    assert describe("test_vit").input_px == 160
    smaller = describe("test_vit", input_px=64)
    # 16 patches and a class token.
    assert {k.in_size for k in smaller.weighted if k.name == "blocks.0.attn.qkv"} == {(17, 1)}


def test_name_when_its_classifier_was_left_out_gets_one() -> None:
    network = describe("vit_tiny_patch16_224.augreg_in21k", input_px=32)
    assert network.kernels[-1].out_channels in {CLASSES, 21843}
    assert network.kernels[-1].kind is KernelKind.LINEAR


def test_name_when_unknown_suggests_the_nearest() -> None:
    with pytest.raises(BackboneError, match=r"no model 'resnet81'\. Did you mean 'resnet18'"):
        describe("resnet81")
    with pytest.raises(BackboneError, match=r"timm has no weights 'resnet18\.nonsense'"):
        describe("resnet18.nonsense")


def test_name_when_the_network_does_not_run_at_that_size_says_so() -> None:
    with pytest.raises(BackboneError, match="a picture of 0 px is none"):
        describe("resnet18", input_px=0)
    with pytest.raises(BackboneError, match="does not run on a 1 px input"):
        describe("densenet121", input_px=1)


def test_bits_when_given_hold_for_every_kernel() -> None:
    network = describe("test_efficientnet", input_px=64, bits=LayerBits(4, 8))
    for kernel in network.kernels:
        weighted = kernel in network.weighted
        assert kernel.bits == (LayerBits(4, 8) if weighted else INT8)
    assert network.size_bytes == -(-network.weight_elements // 2)


# -- own functions ---------------------------------------------------------------------------------


def test_function_when_named_is_called_and_traced(place: Path) -> None:
    network = describe("described_backbone:tiny", input_px=32, bits=INT8)
    assert network.name == "described_backbone:tiny"
    assert [kernel.kind.value for kernel in network.kernels] == ["conv", "pooling", "linear"]
    assert network.macs == 16 * 16 * 8 * 27 + 8 * CLASSES
    assert {kernel.bits for kernel in network.kernels} == {INT8}


def test_function_when_without_size_asks_for_one(place: Path) -> None:
    with pytest.raises(BackboneError, match="does not say the size of its picture; give --px 224"):
        describe("described_backbone:tiny")


def test_function_when_missing_is_named(place: Path) -> None:
    with pytest.raises(BackboneError, match="'described_backbone' has no function 'tinny'"):
        describe("described_backbone:tinny", input_px=32)


# -- files -----------------------------------------------------------------------------------------


def test_file_when_read_has_the_name_that_was_given(tmp_path: Path) -> None:
    path = write_net(tmp_path / "net.onnx")
    network = describe(str(path))
    assert (network.name, network.input_px) == (str(path), 8)
    assert network.macs == 8 * 8 * 12 + 20
    assert [kernel.name for kernel in network.weighted] == ["stem", "head"]


def test_file_when_of_fp32_takes_bits(tmp_path: Path) -> None:
    network = describe(str(write_net(tmp_path / "net.onnx")), bits=INT8)
    assert [kernel.bits for kernel in network.kernels] == [INT8] * 3
    assert network.size_bytes == 12 + 20


def test_file_when_quantized_has_its_own_bits(tmp_path: Path) -> None:
    path = str(write_net(tmp_path / "net.onnx", quantized=True))
    assert [kernel.bits for kernel in describe(path).weighted] == [INT8, FP32]
    with pytest.raises(BackboneError, match=r"says itself .* \(W8A8\); leave --bits out"):
        describe(path, bits=INT8)


def test_file_when_missing_suggests_the_nearest(tmp_path: Path) -> None:
    write_net(tmp_path / "resnet.onnx")
    with pytest.raises(
        BackboneError, match=r"no file .*resnte\.onnx\. Did you mean 'resnet\.onnx'"
    ):
        describe(str(tmp_path / "resnte.onnx"))
    with pytest.raises(BackboneError, match=r"no file .*none/net\.onnx\. Give the path of an ONNX"):
        describe(str(tmp_path / "none" / "net.onnx"))
