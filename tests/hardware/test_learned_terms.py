from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from learned_fixtures import plain_terms, random_networks
from test_predictor import conv, net, profile

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.hardware.kernel_table import kernel_table
from hwsearch.hardware.kernels import KernelDesc, KernelKind, NetworkDesc
from hwsearch.hardware.learned.terms import (
    ClassifiedRows,
    KernelClass,
    TermMatrix,
    classify,
    effects_of,
    latency_terms,
    overhead_effects,
    sum_terms,
)
from hwsearch.hardware.rates import TERMS, Term

TARGET = profile()
ALL_BITS = (FP32, FP16, INT8)
#: Terms of the kernel itself. What runs apart from it does not know the window and the bits of it.
OWN_TERMS = tuple(term for term in TERMS if term not in {"conversion", "activation"})
WINDOWED = {KernelKind.CONV, KernelKind.DEPTHWISE, KernelKind.GROUPED}


def classified(*networks: NetworkDesc) -> ClassifiedRows:
    return classify(TARGET, kernel_table(networks))


def matrix_of(*networks: NetworkDesc) -> TermMatrix:
    rows = classified(*networks)
    return sum_terms(rows, *latency_terms(TARGET, rows))


def every_kind() -> list[KernelDesc]:
    """A kernel of each kind in each width, of odd channel counts."""
    return [
        conv(kind=kind, bits=bits, in_channels=channels, out_channels=channels + 3)
        for kind in KernelKind
        for bits in ALL_BITS
        for channels in (3, 4, 31, 64)
    ]


def of_class(**changes: object) -> KernelClass:
    plain = KernelClass(kind=KernelKind.CONV, stem=False, window=3, strided=False, bits=FP32)
    return plain._replace(**changes)  # type: ignore[arg-type]


# -- rows -----------------------------------------------------------------------------------------


def test_rows_when_every_kernel_is_priced_by_hand() -> None:
    desc = net(*every_kind())
    rows = classified(desc)
    terms, overhead_ms = latency_terms(TARGET, rows)
    assert terms.shape == (len(desc.kernels), len(TERMS))
    assert overhead_ms.tolist() == [TARGET.kernels.network_overhead_us / 1e3]
    for row, kernel in enumerate(desc.kernels):
        expected = plain_terms(TARGET, kernel)
        found = dict(zip(TERMS, terms[row], strict=True))
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-15), kernel


def test_bytes_when_bits_are_priced_as_others() -> None:
    linear = conv(kind=KernelKind.LINEAR, bits=INT8)
    (found,) = classified(net(linear)).priced.bytes
    assert found.tolist() == [2 * 4096, 2 * 2048, 2 * 18464, 0, 0], "int8 runs as fp16 here"
    (as_conv,) = classified(net(conv(bits=INT8))).priced.bytes
    assert as_conv.sum() == conv(bits=INT8).bytes


# -- classes --------------------------------------------------------------------------------------


def priced_bits(kernel: KernelDesc) -> LayerBits:
    """What a kernel runs in, by the profile."""
    return TARGET.kernels.by_kind[kernel.kind][kernel.bits].runs_as or kernel.bits


def test_classes_when_bits_run_as_others_then_one_class() -> None:
    eight, sixteen = (conv(kind=KernelKind.LINEAR, bits=bits) for bits in (INT8, FP16))
    rate = TARGET.kernels.by_kind[KernelKind.LINEAR][INT8]
    assert rate.runs_as == FP16
    rows = classify(TARGET, kernel_table([net(eight), net(sixteen)]))
    assert [one.bits for one in rows.classes] == [FP16]
    assert rows.priced.values[0] == pytest.approx(rate.slowdown * rows.priced.values[1])
    assert rows.priced.bytes[0].tolist() == rows.priced.bytes[1].tolist()


def test_classes_when_read_back_from_the_rows() -> None:
    kernels = [
        *every_kind(),
        *(conv(kernel_size=(k, k), stride=(s, s)) for k in (1, 2, 5, 7, 11) for s in (1, 2, 4)),
        conv(kind=KernelKind.DEPTHWISE, kernel_size=(5, 3), stride=(1, 2)),
    ]
    rows = classified(net(*kernels))
    assert len(set(rows.classes)) == len(rows.classes)
    for kernel, at in zip(kernels, rows.of_row, strict=True):
        found = rows.classes[at]
        assert (found.kind, found.bits) == (kernel.kind, priced_bits(kernel))
        assert found.stem == (kernel.kind is KernelKind.CONV and kernel.in_channels <= 4)
        if kernel.kind in WINDOWED:
            assert found.window == max(kernel.kernel_size)
            assert found.strided == (max(kernel.stride) > 1)


def test_classes_when_only_sizes_differ_then_shared() -> None:
    rows = classified(net(conv(), conv(out_channels=77, macs=5), conv(in_channels=9)))
    assert len(rows.classes) == 1


def test_classes_when_a_kind_has_no_window_then_it_does_not_split() -> None:
    pools = [conv(kind=KernelKind.POOLING, kernel_size=(k, k), stride=(k, k)) for k in (1, 2, 7)]
    assert len(classified(net(*pools)).classes) == 1


def test_classes_when_windows_are_huge_then_shared() -> None:
    # Large windows are rare, and their factor is that of the largest class.
    rows = classified(net(conv(kernel_size=(31, 31)), conv(kernel_size=(51, 51))))
    assert len(rows.classes) == 1
    assert rows.classes[0].variant == "conv.spatial"


@pytest.mark.parametrize(
    ("changes", "variant"),
    [
        ({"in_channels": 3}, "conv.stem"),
        ({"in_channels": 3, "kernel_size": (1, 1)}, "conv.stem"),
        ({"kernel_size": (1, 1)}, "conv.pointwise"),
        ({"kernel_size": (1, 3)}, "conv.spatial"),
        ({"kind": KernelKind.DEPTHWISE}, "depthwise"),
        ({"kind": KernelKind.LINEAR, "in_channels": 2}, "linear"),
    ],
)
def test_variant_when_named(changes: dict[str, object], variant: str) -> None:
    (found,) = classified(net(conv(**changes))).classes
    assert found.variant == variant


# -- sums -----------------------------------------------------------------------------------------


def test_sums_when_added_up_in_plain_loops() -> None:
    networks = [*random_networks(6, seed=2, bits=ALL_BITS), net(*every_kind())]
    sums: dict[tuple[object, ...], list[float]] = defaultdict(lambda: [0.0] * len(networks))
    for at, network in enumerate(networks):
        for kernel in network.kernels:
            stem = kernel.kind is KernelKind.CONV and kernel.in_channels <= 4
            windowed = kernel.kind in WINDOWED
            window = max(kernel.kernel_size) if windowed else 1
            strided = windowed and max(kernel.stride) > 1
            for term, value in plain_terms(TARGET, kernel).items():
                sums[term, kernel.kind, stem, window, strided, priced_bits(kernel)][at] += value
    matrix = matrix_of(*networks)
    expected = sorted(column for column in sums.values() if any(column))
    found = sorted(matrix.values[:, 1:].T.tolist())
    assert len(found) == len(expected)
    assert np.array(found) == pytest.approx(np.array(expected), rel=1e-12)
    assert matrix.values[:, 0].tolist() == [0.1] * len(networks), "the first is the overhead"
    assert len(matrix.effects) == matrix.values.shape[1]


def test_sums_when_a_column_would_be_zero_then_left_out() -> None:
    matrix = matrix_of(net(conv(kind=KernelKind.POOLING, macs=0, weight_elements=0)))
    assert (matrix.values > 0).all()
    assert matrix.values.shape == (1, 4), "overhead, floor, input and output"


# -- effects --------------------------------------------------------------------------------------

CLASSES = [
    of_class(kind=kind, window=window, strided=strided, bits=bits)
    for kind in KernelKind
    for window in ((1, 3, 5) if kind in WINDOWED else (1,))
    for strided in ((False, True) if kind in WINDOWED else (False,))
    for bits in ALL_BITS
] + [of_class(stem=True)]
COLUMNS = [overhead_effects(), *(effects_of(term, one) for one in CLASSES for term in OWN_TERMS)]


def test_effects_when_one_name_has_one_spread() -> None:
    sigmas: dict[str, set[float]] = defaultdict(set)
    for effect in (effect for column in COLUMNS for effect in column):
        sigmas[effect.name].add(effect.sigma)
        assert effect.sigma > 0
    assert all(len(found) == 1 for found in sigmas.values())


def test_effects_when_classes_differ_then_columns_differ() -> None:
    names = [frozenset(effect.name for effect in column) for column in COLUMNS]
    assert len(set(names)) == len(names)
    assert all(len(found) == len(column) for found, column in zip(names, COLUMNS, strict=True))


def test_effects_when_from_the_general_to_the_particular() -> None:
    users: dict[str, int] = defaultdict(int)
    for effect in (effect for column in COLUMNS for effect in column):
        users[effect.name] += 1
    shared = set.intersection(*({effect.name for effect in column} for column in COLUMNS))
    assert len(shared) == 1, "one effect for the speed of the whole device"
    for column in COLUMNS:
        assert {column[0].name} == shared
    for term in OWN_TERMS:
        names = [effect.name for effect in effects_of(term, of_class())]
        paths = [name for name in names if "/" in name and "@" not in name]
        assert len(paths) >= 3
        assert all(users[first] > users[second] for first, second in pairwise(paths))


@pytest.mark.parametrize("term", ["conversion", "activation"])
def test_effects_when_apart_from_the_kernel_are_of_the_kind(term: Term) -> None:
    here = [effect.name for effect in effects_of(term, of_class())]
    assert here == ["all", term, f"{term}/conv"]
    for same in (of_class(bits=INT8), of_class(window=1), of_class(strided=True)):
        assert effects_of(term, same) == effects_of(term, of_class())
    other = [effect.name for effect in effects_of(term, of_class(kind=KernelKind.LINEAR))]
    assert other == ["all", term, f"{term}/linear"]
