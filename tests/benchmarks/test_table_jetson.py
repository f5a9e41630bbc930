"""The table of published Jetson rows: what is left out, gains of narrower bits, power modes."""

from pathlib import Path

import table_jetson
from network_builder import NetworkBuilder
from published import DATA, NEEDS_DATA
from table_output import Options

from hwsearch.bits import FP16
from hwsearch.hardware.kernels import NetworkDesc

QUICK = Options(data=DATA, seeds=1, quick=True, out=Path())


def convolutions(channels: int, px: int = 56) -> NetworkDesc:
    """Eight dense convolutions and a linear layer."""
    build = NetworkBuilder(FP16)
    build.conv(3, channels, px, window=3)
    for _ in range(8):
        build.conv(channels, channels, px, window=3)
    build.linear(channels, 10)
    return build.network(f"convolutions{channels}", px)


def test_gains_when_on_orin_then_both_steps_of_every_network_are_listed() -> None:
    networks = [convolutions(64), convolutions(256)]
    rows = [
        row for row in table_jetson.gains(networks) if row["target"] not in table_jetson.NO_INT8
    ]
    assert len(rows) == len(table_jetson.ORINS) * 2 * 2
    for row in rows:
        gain, low, high = row["gain"], row["published_low"], row["published_high"]
        assert isinstance(gain, float)
        assert isinstance(low, float)
        assert isinstance(high, float)
        assert gain > 1
        assert row["inside"] == ("yes" if low <= gain <= high else "no")


def test_modes_when_a_clock_is_faster_then_never_slower() -> None:
    rows = table_jetson.modes([convolutions(32), convolutions(256)])
    assert {row["slower_but_faster"] for row in rows} == {"none"}
    by_target = {str(row["target"]): row["latency_ms"] for row in rows}
    fast, slow = by_target["jetson-agx-orin@MAXN"], by_target["jetson-agx-orin@15W"]
    assert isinstance(fast, float)
    assert isinstance(slow, float)
    assert 2 < slow / fast < 9, "clock, units and memory all fall"


@NEEDS_DATA
def test_published_rows_when_read_then_four_tables_without_densenets() -> None:
    found = table_jetson.published(QUICK)
    assert {name: len(rows) for name, rows in found.items()} == {
        "jetson-agx-xavier": 23,
        "jetson-orin-nano-super": 15,
        "jetson-orin-nx": 15,
        "jetson-orin-nano": 6,
    }
