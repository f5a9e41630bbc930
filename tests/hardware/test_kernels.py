import dataclasses

import pytest

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.hardware.kernels import WEIGHTED_KINDS, KernelDesc, KernelKind, NetworkDesc


def kernel(name: str, kind: KernelKind = KernelKind.CONV, **changes: object) -> KernelDesc:
    plain = KernelDesc(
        name=name,
        kind=kind,
        in_channels=8,
        out_channels=16,
        macs=1000 if kind in WEIGHTED_KINDS else 0,
        input_elements=100,
        output_elements=200,
        weight_elements=50 if kind in WEIGHTED_KINDS else 0,
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def network(*kernels: KernelDesc) -> NetworkDesc:
    return NetworkDesc(name="net", input_px=32, kernels=kernels)


def test_bytes_when_widths_differ() -> None:
    mixed = kernel("a", bits=LayerBits(4, 8))
    assert mixed.weight_bytes == 25
    assert mixed.activation_bytes == 300
    assert mixed.bytes == 325


def test_totals_when_several_kernels() -> None:
    net = network(
        kernel("a", weight_elements=3, bits=LayerBits(4, 8)),
        kernel("p", KernelKind.POOLING),
        kernel("b", weight_elements=5, macs=7, bits=FP16),
    )
    assert net.macs == 1007
    assert net.weight_elements == 8
    assert [k.name for k in net.weighted] == ["a", "b"]
    assert net.size_bytes == 12  # 1.5 + 10, rounded up


def test_with_bits_when_kernels_without_weights_follow() -> None:
    net = network(
        kernel("first", KernelKind.COPY),
        kernel("a"),
        kernel("p", KernelKind.POOLING),
        kernel("b"),
        kernel("s", KernelKind.SOFTMAX),
    )
    mixed = net.with_bits({"a": LayerBits(4, 8), "b": FP16})
    assert [k.bits for k in mixed.kernels] == [INT8, LayerBits(4, 8), INT8, FP16, FP16]
    assert all(k.bits == FP32 for k in net.kernels), "the original is left as it was"
    assert mixed.macs == net.macs


def test_with_bits_when_no_kernel_has_weights() -> None:
    net = network(kernel("p", KernelKind.POOLING))
    assert net.with_bits({}) == net


@pytest.mark.parametrize("names", [{"a"}, {"a", "b", "c"}, {"a", "p", "b"}])
def test_with_bits_when_names_differ(names: set[str]) -> None:
    net = network(kernel("a"), kernel("p", KernelKind.POOLING), kernel("b"))
    with pytest.raises(ValueError, match="exactly the weighted kernels; odd: "):
        net.with_bits(dict.fromkeys(names, INT8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 0}, "kernel a: channels and groups are at least 1"),
        ({"groups": 0}, "kernel a: channels and groups are at least 1"),
        ({"macs": -1}, "kernel a: counts are not negative"),
        ({"weight_elements": -1}, "kernel a: counts are not negative"),
        ({"output_elements": 0}, "kernel a: a kernel reads and writes something"),
    ],
)
def test_kernel_when_counts_are_wrong(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(kernel("a"), **changes)  # type: ignore[arg-type]


def test_network_when_empty_or_ambiguous() -> None:
    with pytest.raises(ValueError, match="net has no kernels"):
        network()
    with pytest.raises(ValueError, match="two kernels of one name"):
        network(kernel("a"), kernel("a"))


def test_rows_when_asked_for_twice_then_made_once_and_not_writable() -> None:
    net = network(kernel("a"), kernel("b", KernelKind.POOLING, stride=(2, 1)))
    assert net.rows is net.rows
    assert net.rows.tolist() == [
        [0, 1, 1, 0, 8, 16, 1, 1000, 100, 200, 50, 32, 32],
        [7, 1, 2, 0, 8, 16, 1, 0, 100, 200, 0, 32, 32],
    ]
    with pytest.raises(ValueError, match="read-only"):
        net.rows[0, 0] = 1


def test_rows_when_bits_change_then_those_of_the_new_network() -> None:
    net = network(kernel("a"))
    assert net.rows[0, -2:].tolist() == [32, 32]
    assert net.with_bits({"a": LayerBits(4, 8)}).rows[0, -2:].tolist() == [4, 8]


def test_numbers_of_kinds_when_a_kind_is_added_then_the_others_keep_theirs() -> None:
    # Stored trees and profiles name kinds, but packed classes of one process count on the order.
    assert [kind.number for kind in KernelKind] == list(range(len(KernelKind)))
    assert KernelKind.CONV.number == 0
