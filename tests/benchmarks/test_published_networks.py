import csv
import dataclasses
import gzip
import itertools

import pytest
import timm
import torch
from bitfusion_ops import bitfusion_op
from mobilenets import mobilenet
from named_nets import edge_network
from nasbench201_nets import (
    EDGES,
    OPERATIONS,
    is_constant,
    live_operations,
    nasbench201,
    parse_cell,
    unfolded_params,
)
from published import DATA, NEEDS_DATA
from torch import nn

from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.hardware.kernels import KernelDesc, KernelKind, NetworkDesc
from hwsearch.nets.trace import trace


def traced(model: nn.Module, px: int) -> NetworkDesc:
    recorded = trace(model.eval(), px)
    return recorded.describe("traced", recorded.out_channels())


def alike(network: NetworkDesc) -> list[KernelDesc]:
    """The kernels without what only a tracer knows; padding as a copy is TensorFlow's alone.

    Which activation was fused has no price on the boards of the published tables.
    """
    return [
        dataclasses.replace(kernel, name="", stage=1, curved=False)
        for kernel in network.kernels
        if kernel.kind is not KernelKind.COPY
    ]


@pytest.mark.parametrize(
    ("name", "family", "variant", "width", "px"),
    [
        ("mobilenetv1_125", "mobilenet_v1", "", 1.25, 160),
        ("mobilenetv2_035", "mobilenet_v2", "", 0.35, 96),
        ("mobilenetv2_140", "mobilenet_v2", "", 1.4, 224),
        ("mobilenetv3_large_075", "mobilenet_v3", "large", 0.75, 128),
        ("mobilenetv3_small_100", "mobilenet_v3", "small", 1.0, 224),
    ],
)
def test_mobilenet_when_timm_has_it(
    name: str, family: str, variant: str, width: float, px: int
) -> None:
    with torch.device("meta"):
        expected = traced(timm.create_model(name), px)
    assert alike(mobilenet(family, variant, width, px, FP32, 1000)) == alike(expected)


@pytest.mark.parametrize(
    ("width", "px", "mega_macs"),
    # The table of slim/nets/mobilenet/README.md, which truncates.
    [(1.4, 224, 582), (1.3, 224, 509), (0.75, 192, 153), (0.5, 160, 50), (0.35, 96, 11)],
)
def test_mobilenet_v2_when_compared_with_published_macs(
    width: float, px: int, mega_macs: int
) -> None:
    assert int(mobilenet("mobilenet_v2", "", width, px, FP32).macs / 1e6) == mega_macs


def all_cells() -> list[tuple[str, ...]]:
    return list(itertools.product(OPERATIONS, repeat=6))


def test_live_operations_when_compared_with_all_paths() -> None:
    paths = [((0, 3),), ((0, 1), (1, 3)), ((0, 2), (2, 3)), ((0, 1), (1, 2), (2, 3))]
    for operations in all_cells():
        there = {e for e, name in zip(EDGES, operations, strict=True) if name != "none"}
        live = {edge for path in paths if set(path) <= there for edge in path}
        expected = tuple(n for e, n in zip(EDGES, operations, strict=True) if e in live)
        assert live_operations(operations) == expected
        assert is_constant(operations) == (not live)


@NEEDS_DATA
def test_nasbench201_when_compared_with_published_counts() -> None:
    with gzip.open(DATA / "nasbench201.csv.gz", "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({parse_cell(row["arch_str"]) for row in rows}) == len(all_cells()) == 15_625
    for row in rows[::25]:
        network = nasbench201(row["arch_str"], FP32, removed="nothing")
        assert network.macs == int(row["macs"])
        assert unfolded_params(network) == int(row["params"])


def test_bitfusion_op_when_counted_by_hand() -> None:
    (pointwise,) = bitfusion_op("(96, 456, 14, 1, 1, 0, 1)-W4A6").kernels
    assert (pointwise.kind, pointwise.bits) == (KernelKind.CONV, LayerBits(4, 6))
    assert pointwise.macs == 96 * 456 * 14 * 14
    assert pointwise.weight_elements == 96 * 456 + 456
    (depthwise,) = bitfusion_op("(40, 40, 28, 5, 2, 2, 40)-W8A8").kernels
    assert depthwise.kind is KernelKind.DEPTHWISE
    assert (depthwise.in_size, depthwise.out_size) == ((28, 28), (14, 14))
    assert depthwise.macs == 40 * 25 * 14 * 14


@pytest.mark.parametrize(
    ("name", "px", "macs"),
    [
        ("mobilenet_v1_0.25", 224, 41e6),
        ("mobilenet_v3_large_minimalistic", 224, 209e6),
        ("mobilenet_v3_large_0.75", 224, 155e6),
        ("mobilenet_v1_0.25 (VWW)", 96, 7.5e6),
        ("resnet50", 224, 4.09e9),
    ],
)
def test_edge_network_when_its_macs_are_published(name: str, px: int, macs: float) -> None:
    network = edge_network(name, px, INT8)
    assert network.macs == pytest.approx(macs, rel=0.03)
    assert {kernel.bits for kernel in network.kernels} == {INT8}
