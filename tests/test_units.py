import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.errors import UnitError
from hwsearch.units import (
    CANONICAL_UNIT,
    Quantity,
    format_duration_s,
    format_quantity,
    parse_budget,
    parse_budgets,
    parse_duration_s,
)

FACTORS = {
    "us": ("latency", 1e-3), "ms": ("latency", 1.0), "s": ("latency", 1e3),
    "uJ": ("energy", 1e-3), "mJ": ("energy", 1.0), "J": ("energy", 1e3),
    "B": ("size", 1.0), "kB": ("size", 1e3), "MB": ("size", 1e6), "GB": ("size", 1e9),
    "KiB": ("size", 2.0**10), "MiB": ("size", 2.0**20), "GiB": ("size", 2.0**30),
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "quantity", "limit", "unit"),
    [
        ("10ms", "latency", 10, "ms"),
        (" 1.5 s ", "latency", 1500, "ms"),
        ("250us", "latency", 0.25, "ms"),
        ("1e1ms", "latency", 10, "ms"),
        (".5ms", "latency", 0.5, "ms"),
        ("5.ms", "latency", 5, "ms"),
        ("+3ms", "latency", 3, "ms"),
        ("30fps", "latency", 1000 / 30, "ms"),
        ("5mJ", "energy", 5, "mJ"),
        ("2J", "energy", 2000, "mJ"),
        ("4MB", "size", 4_000_000, "B"),
        ("4MiB", "size", 4_194_304, "B"),
    ],
)
def test_budget_when_readable(text: str, quantity: str, limit: float, unit: str) -> None:
    budget = parse_budget(text)
    assert (budget.quantity, budget.unit, budget.text) == (quantity, unit, text.strip())
    assert budget.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10", "budget '10' has no unit; give time .* as in 10ms"),
        ("", "budget '' is not a number with a unit"),
        ("ms", "'ms' is not a number with a unit"),
        ("fast", "'fast' is not a number with a unit"),
        ("10 ms 5", "is not a number with a unit"),
        ("nan", "'nan' is not a number with a unit"),
        ("infms", "is not a number with a unit"),
        ("1e999ms", "'1e999ms' is not above zero; give a positive limit"),
        ("-5ms", "'-5ms' is not above zero; give a positive limit"),
        ("0MB", "'0MB' is not above zero"),
        ("10 mb", r"no known unit \(did you mean 10MB\?\)"),
        ("4Mb", r"'Mb' are bits; did you mean 4MB\?"),
        ("4kb", r"'kb' are bits; did you mean 4kB\?"),
        ("5MJ", r"did you mean 5mJ\?"),
        ("30FPS", r"did you mean 30fps\?"),
        ("3parsec", "budget '3parsec' has no known unit; give time"),
    ],
)
def test_budget_when_unreadable_is_refused(text: str, message: str) -> None:
    with pytest.raises(UnitError, match=message) as caught:
        parse_budget(text)
    assert "\n" not in str(caught.value)


@given(
    st.floats(min_value=1e-6, max_value=1e6),
    st.sampled_from(sorted(FACTORS)),
    st.sampled_from(["", " "]),
)
def test_budget_when_written_again_is_the_same(number: float, unit: str, space: str) -> None:
    budget = parse_budget(f"{number!r}{space}{unit}")
    quantity, factor = FACTORS[unit]
    assert budget.quantity == quantity
    assert budget.limit == pytest.approx(number * factor)
    assert parse_budget(f"{budget.limit!r}{budget.unit}").limit == budget.limit


@given(st.text(max_size=12))
def test_budget_when_any_text_is_read_or_refused(text: str) -> None:
    try:
        limit = parse_budget(text).limit
    except UnitError:
        return
    assert limit > 0


@given(st.floats(min_value=1, max_value=1e12), st.sampled_from(["latency", "energy", "size"]))
def test_quantity_when_formatted_reads_back(value: float, quantity: Quantity) -> None:
    again = parse_budget(format_quantity(quantity, value))
    assert again.quantity == quantity
    # Three digits; whole bytes below 1 kB.
    assert again.limit == pytest.approx(value, rel=0.0051, abs=0.5 if quantity == "size" else 0)


@pytest.mark.parametrize(
    ("quantity", "value", "text"),
    [
        ("latency", 8.2149, "8.21 ms"),
        ("latency", 123.4, "123 ms"),
        ("energy", 0.01234, "0.0123 mJ"),
        ("latency", 0.0, "0 ms"),
        ("latency", float("inf"), "inf ms"),
        ("size", 999, "999 B"),
        ("size", 1500, "1.50 kB"),
        ("size", 4_194_304, "4.19 MB"),
        ("size", 2.5e9, "2.50 GB"),
    ],
)
def test_quantity_when_formatted(quantity: Quantity, value: float, text: str) -> None:
    assert format_quantity(quantity, value) == text


def test_budgets_when_several() -> None:
    found = parse_budgets(("10ms", "5mJ", "4MB"))
    assert {budget.quantity for budget in found} == set(CANONICAL_UNIT)
    assert [budget.text for budget in found] == ["10ms", "5mJ", "4MB"]


def test_budgets_when_one_quantity_is_limited_twice() -> None:
    with pytest.raises(UnitError, match="'10ms' and '30fps' both limit latency; keep one"):
        parse_budgets(("10ms", "4MB", "30fps"))


def test_budgets_when_empty() -> None:
    with pytest.raises(UnitError, match="no budget was given; give at least one"):
        parse_budgets(())


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("20m", 1200), ("20min", 1200), ("1.5h", 5400)]
)
def test_duration_when_readable(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("20", "'20' is not a number with a unit"),
        ("20M", "is not a number with a unit"),
        ("", "is not a number with a unit"),
        ("0s", "is not above zero"),
        ("-1h", "is not above zero"),
        ("1e999s", "is not above zero"),
    ],
)
def test_duration_when_unreadable_is_refused(text: str, message: str) -> None:
    with pytest.raises(UnitError, match=f"duration .*{message}"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (500.0, "8m20s")]
)
def test_duration_is_written_in_minutes_and_seconds(seconds: float, text: str) -> None:
    assert format_duration_s(seconds) == text
