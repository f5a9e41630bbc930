import dataclasses

import numpy as np
import pytest
from learned_fixtures import random_networks
from test_predictor import conv, net

from hwsearch.bits import FP32, INT8
from hwsearch.hardware.kernel_table import KIND_NUMBERS, KernelTable, kernel_table

PLAIN_COLUMNS = (
    "in_channels", "out_channels", "macs", "input_elements", "output_elements", "weight_elements",
)  # fmt: skip


def rows_of(table: KernelTable) -> list[tuple[float, ...]]:
    """The rows in the order of their networks, those of a network in its own order."""
    order = np.argsort(table.network, kind="stable")
    columns = [
        getattr(table, field.name)[order]
        for field in dataclasses.fields(table)
        if field.name != "networks"
    ]
    return [tuple(float(value) for value in row) for row in zip(*columns, strict=True)]


def test_table_when_compared_with_every_kernel() -> None:
    networks = random_networks(5, seed=1, bits=(FP32, INT8))
    table = kernel_table(networks)
    kernels = [(at, kernel) for at, one in enumerate(networks) for kernel in one.kernels]
    assert len(table) == len(kernels)
    assert table.networks == 5
    for row, (at, kernel) in enumerate(kernels):
        assert table.network[row] == at
        assert table.kind[row] == KIND_NUMBERS[kernel.kind]
        assert table.weight_bits[row] == kernel.bits.weight_bits
        assert table.activation_bits[row] == kernel.bits.activation_bits
        for name in PLAIN_COLUMNS:
            assert getattr(table, name)[row] == getattr(kernel, name), name


def test_table_when_windows_are_not_square() -> None:
    table = kernel_table([net(conv(kernel_size=(1, 7), stride=(2, 1)))])
    assert (table.window[0], table.stride[0]) == (7, 2)


def test_table_when_numbers_are_large_then_exact() -> None:
    # 2^53 is the last whole number before floats have gaps.
    table = kernel_table([net(conv(macs=2**53, weight_elements=2**40 + 1))])
    assert (int(table.macs[0]), int(table.weight_elements[0])) == (2**53, 2**40 + 1)


def test_per_network_when_summed_by_hand() -> None:
    networks = random_networks(4, seed=2)
    table = kernel_table(networks)
    sums = table.per_network(table.macs)
    assert sums.shape == (4,)
    assert sums.tolist() == [network.macs for network in networks]
    counts = table.per_network(np.ones(len(table)))
    assert counts.tolist() == [len(network.kernels) for network in networks]


@pytest.mark.parametrize("chosen", [[0], [3, 1], [5, 4, 3, 2, 1, 0], [2, 5, 0], [0, 1, 2, 3, 4, 5]])
def test_of_when_networks_are_selected_and_numbered_again(chosen: list[int]) -> None:
    networks = random_networks(6, seed=4, bits=(FP32, INT8))
    table = kernel_table(networks)
    expected = kernel_table([networks[at] for at in chosen])
    for selection in (chosen, np.array(chosen)):
        selected = table.of(selection)
        assert selected.networks == len(chosen)
        assert rows_of(selected) == rows_of(expected)
        assert selected.per_network(selected.macs).tolist() == [networks[at].macs for at in chosen]


def test_of_when_nothing_is_selected() -> None:
    nothing = kernel_table(random_networks(2, seed=7)).of(np.array([], dtype=np.int64))
    assert (nothing.networks, len(nothing)) == (0, 0)
    assert nothing.per_network(nothing.macs).shape == (0,)


def test_of_when_a_network_has_no_row() -> None:
    table = kernel_table(random_networks(2, seed=8))
    sparse = dataclasses.replace(table, networks=3, network=2 * table.network)
    selected = sparse.of([1, 2, 1])
    assert selected.networks == 3
    assert set(selected.network.tolist()) == {1}


def test_table_when_there_is_no_network() -> None:
    table = kernel_table([])
    assert (table.networks, len(table)) == (0, 0)
    assert table.per_network(table.macs).shape == (0,)
