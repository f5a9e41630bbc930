"""Kernels that a runtime does not fuse, and channel blocks within the groups of a convolution."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_fixtures import padding, random_networks
from test_predictor import conv, net, profile

from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.hardware.kernel_table import kernel_table
from hwsearch.hardware.kernels import KernelDesc, KernelKind, NetworkDesc
from hwsearch.hardware.learned.terms import classify, latency_terms, sum_terms
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.rates import TERMS, separate

FUSING = profile()
APART = FUSING.model_copy(
    update={"kernels": FUSING.kernels.model_copy(update={"fuses_clips_only": True})}
)
FLOOR_US = APART.kernels.floor_us
US_PER_BYTE = 1e-3 / (APART.memory.bandwidth_gb_per_s * APART.kernels.bandwidth_fraction)


def chain(*layers: tuple[LayerBits, bool]) -> NetworkDesc:
    """Convolutions in a row, each with its bits and whether its activation is curved."""
    return net(*(conv(bits=bits, curved=curved) for bits, curved in layers))


def apart_of(network: NetworkDesc, target: HardwareProfile = APART) -> list[tuple[int, float]]:
    """Kernels and bytes apart, one pair per row, kernel by kernel and without any array."""
    rates = target.kernels.by_kind
    found, arrives = [], 4.0
    for kernel in network.kernels:
        own = (rates[kernel.kind][kernel.bits].runs_as or kernel.bits).activation_bits / 8
        count, traffic = 0, 0.0
        if arrives != own:  # one kernel reads what arrives and writes what is read
            count, traffic = 1, kernel.input_elements * (arrives + own)
        arrives = own
        if kernel.curved:
            if own <= 1:  # int8 is read, fp32 written
                count, traffic = count + 1, traffic + kernel.output_elements * (own + 4.0)
                arrives = 4.0
            count, traffic = count + 1, traffic + kernel.output_elements * 2 * arrives
        found.append((count, traffic))
    return found


@st.composite
def networks(draw: st.DrawFn) -> NetworkDesc:
    kinds = st.sampled_from([KernelKind.CONV, KernelKind.DEPTHWISE, KernelKind.LINEAR])
    kernels = [
        conv(kind=draw(kinds), bits=draw(st.sampled_from([FP32, INT8])), curved=draw(st.booleans()))
        for _ in range(draw(st.integers(1, 6)))
    ]
    return net(*kernels)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.lists(networks(), min_size=1, max_size=3))
def test_rows_when_gone_through_by_hand(several: list[NetworkDesc]) -> None:
    rows = classify(APART, kernel_table(several))
    plain = classify(FUSING, kernel_table(several))
    by_hand = [pair for network in several for pair in apart_of(network)]
    slowdowns = rows.priced.values[:, 0] / (FLOOR_US / 1e3)
    extra_us = [count * FLOOR_US + traffic * US_PER_BYTE for count, traffic in by_hand]
    assert rows.priced.values[:, 6:].sum(1) == pytest.approx(np.array(extra_us) * slowdowns / 1e3)
    assert rows.priced.bytes[:, 3:].sum(1) == pytest.approx([traffic for _, traffic in by_hand])
    assert rows.priced.values[:, :6].tolist() == plain.priced.values[:, :6].tolist()
    assert not plain.priced.values[:, 6:].any()


def test_one_layer_in_int8_between_floats_pays_twice() -> None:
    converted = [count for count, _ in apart_of(chain((FP32, False), (INT8, False), (FP32, False)))]
    assert converted == [0, 1, 1]
    whole = [count for count, _ in apart_of(chain((INT8, False), (INT8, False), (INT8, False)))]
    assert whole == [1, 0, 0], "the picture is in floats"


def test_an_activation_behind_integers_leaves_floats() -> None:
    clipped, curved = (
        separate(APART, kernel_table([chain((INT8, is_curved), (INT8, False))]), np.array([1, 1.0]))
        for is_curved in (False, True)
    )
    assert clipped.kernels.tolist() == [[1, 0], [0, 0]]
    # Dequantized and applied, and the next layer quantizes again.
    assert curved.kernels.tolist() == [[1, 2], [1, 0]]


def test_no_network_starts_where_another_ended() -> None:
    first, second = chain((INT8, False)), chain((INT8, False), (FP32, False))
    both = classify(APART, kernel_table([first, second])).priced.values
    alone = [classify(APART, kernel_table([one])).priced.values for one in (first, second)]
    assert both.tolist() == np.concatenate(alone).tolist()
    assert classify(APART, kernel_table([])).priced.values.shape == (0, len(TERMS))


def test_terms_when_everything_is_fused_have_no_columns_for_it() -> None:
    several = random_networks(4, seed=1, bits=(FP32, INT8))
    several = [
        dataclasses.replace(
            one, kernels=tuple(dataclasses.replace(k, curved=True) for k in one.kernels)
        )
        for one in several
    ]

    def names(target: HardwareProfile) -> set[str]:
        rows = classify(target, kernel_table(several))
        matrix = sum_terms(rows, *latency_terms(target, rows))
        return {effect.name for column in matrix.effects for effect in column}

    assert not {"conversion", "activation"} & names(FUSING)
    assert {"conversion", "activation"} <= names(APART)


# -- blocks within groups -------------------------------------------------------------------------


def grouped(width_in: int, width_out: int, groups: int) -> KernelDesc:
    return conv(
        kind=KernelKind.GROUPED,
        in_channels=width_in * groups,
        out_channels=width_out * groups,
        groups=groups,
        macs=1000,
    )


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    st.integers(2, 70),
    st.integers(1, 70),
    st.integers(2, 9),
    st.sampled_from([1, 8, 16]),
    st.booleans(),
)
def test_padded_macs_when_groups_are_filled_up_apart_or_together(
    width_in: int, width_out: int, groups: int, block: int, by_group: bool
) -> None:
    content = FUSING.model_dump(mode="json")
    content["compute"]["by_bits"]["W32A32"]["channel_block"] = block
    content["kernels"]["blocks_within_groups"] = by_group
    target = HardwareProfile.model_validate(content)
    kernels = [grouped(width_in, width_out, groups), conv(), conv(kind=KernelKind.MATMUL)]
    found = classify(target, kernel_table([net(*kernels)])).priced.padded_macs
    expected = [kernel.macs * padding(kernel, block, by_group=by_group) for kernel in kernels]
    assert found == pytest.approx(expected)
