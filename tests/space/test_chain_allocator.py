import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.space.bit_allocator import BitOption, allocate_bits
from hwsearch.space.chain_allocator import Arrivals, allocate_chain

Options = dict[str, list[BitOption]]
Steps = dict[str, Arrivals]
WIDTHS = (FP32, FP16, INT8)
SAVINGS = tuple(step / 16 for step in range(17))


def option(bits: LayerBits, cost: float, sensitivity: float = 0.0) -> BitOption:
    return BitOption(bits=bits, cost=cost, sensitivity=sensitivity)


@st.composite
def chains(draw: st.DrawFn, lowest_sensitivity: int = 0) -> tuple[Options, Steps]:
    """Up to five layers on a grid, with ties, dearer options and conversions between all widths."""
    options: Options = {}
    steps: Steps = {}
    for layer in range(draw(st.integers(1, 5))):
        offered = [option(FP32, draw(st.integers(0, 12)))]
        for bits in WIDTHS[1 : draw(st.integers(1, 3))]:
            sensitivity = draw(st.integers(lowest_sensitivity, 12))
            offered.append(option(bits, draw(st.integers(0, 12)), sensitivity))
        options[f"layer{layer}"] = offered
        pairs = itertools.permutations(WIDTHS, 2)
        steps[f"layer{layer}"] = {pair: draw(st.integers(0, 6)) for pair in pairs}
    return options, steps


def totals(options: Options, steps: Steps, bits: dict[str, LayerBits]) -> tuple[float, float]:
    """(cost, sensitivity) of an allocation, by going through it."""
    cost = sensitivity = 0.0
    before: LayerBits | None = None
    for layer, offered in options.items():
        picked = next(entry for entry in offered if entry.bits == bits[layer])
        cost += picked.cost
        sensitivity += picked.sensitivity
        if before is not None and before != picked.bits:
            cost += steps.get(layer, {}).get((before, picked.bits), 0.0)
        before = picked.bits
    return cost, sensitivity


def everything(options: Options, steps: Steps) -> list[tuple[float, float]]:
    """The totals of every allocation there is."""
    return [
        totals(options, steps, dict(zip(options, picked, strict=True)))
        for picked in itertools.product(
            *([e.bits for e in offered] for offered in options.values())
        )
    ]


def reference(options: Options, steps: Steps) -> tuple[float, float]:
    return totals(options, steps, {name: max(e.bits for e in own) for name, own in options.items()})


# --- against brute force


@settings(max_examples=150, deadline=None, derandomize=True)
@given(chains())
def test_cheapest_chain_is_the_cheapest_of_all(drawn: tuple[Options, Steps]) -> None:
    options, steps = drawn
    cost, sensitivity = totals(options, steps, allocate_chain(options, steps, 1.0))
    least = min(cost for cost, _ in everything(options, steps))
    assert cost == least
    start = reference(options, steps)
    if cost < start[0]:
        assert sensitivity == min(s for c, s in everything(options, steps) if c == least)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(chains(lowest_sensitivity=-4), st.sampled_from(SAVINGS))
def test_saving_is_met(drawn: tuple[Options, Steps], saving: float) -> None:
    options, steps = drawn
    start = reference(options, steps)[0]
    reachable = start - min(cost for cost, _ in everything(options, steps))
    cost, _ = totals(options, steps, allocate_chain(options, steps, saving))
    assert start - cost >= saving * reachable - 1e-6


@settings(max_examples=150, deadline=None, derandomize=True)
@given(chains(), st.integers(1, 40))
def test_chains_of_the_hull_are_exact(drawn: tuple[Options, Steps], step: int) -> None:
    # What is best of all at a price that ties nothing lies on the hull, and is what its own
    # saving must give.
    options, steps = drawn
    price = step / 8 + 0.0123
    start = reference(options, steps)[0]
    cost, sensitivity = min(everything(options, steps), key=lambda t: t[1] + price * t[0])
    reachable = start - min(c for c, _ in everything(options, steps))
    if reachable > 0 and cost < start:
        saving = (start - cost) / reachable
        found = totals(options, steps, allocate_chain(options, steps, saving))
        assert found == (cost, sensitivity)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(chains())
def test_sensitivity_grows_with_the_saving(drawn: tuple[Options, Steps]) -> None:
    options, steps = drawn
    found = [totals(options, steps, allocate_chain(options, steps, share))[1] for share in SAVINGS]
    assert all(low <= high + 1e-9 for low, high in itertools.pairwise(found))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(chains(), st.sampled_from(SAVINGS))
def test_without_conversions_no_worse_than_a_step_from_the_sum(
    drawn: tuple[Options, Steps], saving: float
) -> None:
    options, _ = drawn
    plain = totals(options, {}, allocate_bits(options, saving))
    chain = totals(options, {}, allocate_chain(options, {}, saving))
    largest = max(e.sensitivity for own in options.values() for e in own)
    assert abs(plain[1] - chain[1]) <= 2 * largest + 1e-9


# --- what it is for


def depthwise_chain() -> tuple[Options, Steps]:
    """Pointwise layers that int8 makes faster, around a depthwise one that it makes slower."""
    fast = [option(FP32, 10), option(INT8, 4, 1)]
    slow = [option(FP32, 3), option(INT8, 5, 1)]
    convert = {(FP32, INT8): 4.0, (INT8, FP32): 4.0}
    options = {"first": fast, "depthwise": slow, "last": fast}
    return options, dict.fromkeys(options, convert)


def test_a_slower_layer_in_int8_between_two_faster_ones() -> None:
    options, steps = depthwise_chain()
    assert set(allocate_chain(options, steps, 1.0).values()) == {INT8}
    # Taken alone it would stay in fp32, at 4 + 4 + 3 + 4 + 4 = 19 instead of 13.
    alone = allocate_bits(options, 1.0)
    assert alone["depthwise"] == FP32
    assert totals(options, steps, alone)[0] == 19
    assert totals(options, steps, allocate_chain(options, steps, 1.0))[0] == 13


def test_conversions_that_cost_more_than_int8_saves_are_not_paid() -> None:
    options, steps = depthwise_chain()
    dear = {layer: dict.fromkeys(pairs, 50.0) for layer, pairs in steps.items()}
    lonely = {**options, "depthwise": [option(FP32, 3)]}
    assert set(allocate_chain(lonely, dear, 1.0).values()) == {FP32}


def test_protected_layers_stay_and_pay() -> None:
    options, steps = depthwise_chain()
    bits = allocate_chain(options, steps, 1.0, protected=("first",))
    assert bits["first"] == FP32
    # Converting once, before the depthwise layer or behind it, costs 4: 10 + 3 + 4 + 4 = 21.
    assert totals(options, steps, bits)[0] == 21


def test_no_saving_is_the_reference_even_where_fewer_bits_help() -> None:
    options = {"a": [option(FP32, 10), option(INT8, 4, -1)]}
    assert allocate_chain(options, {}, 0.0) == {"a": FP32}


def test_a_long_network_has_many_steps() -> None:
    draw = random.Random(3)
    options: Options = {}
    for layer in range(60):
        cost = draw.uniform(1, 10)
        narrow = option(INT8, cost * draw.uniform(0.2, 1.1), draw.uniform(0, 1))
        options[f"l{layer}"] = [option(FP32, cost), narrow]
    convert = {(FP32, INT8): 0.3, (INT8, FP32): 0.3}
    steps: Steps = dict.fromkeys(options, convert)
    shares = [step / 100 for step in range(101)]
    found = [totals(options, steps, allocate_chain(options, steps, share)) for share in shares]
    assert len(set(found)) > 25
    assert all(a[0] >= b[0] and a[1] <= b[1] for a, b in itertools.pairwise(found))


# --- errors


@pytest.mark.parametrize("saving", [-0.1, 1.1, math.nan])
def test_a_saving_that_is_no_share(saving: float) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        allocate_chain({"a": [option(FP32, 1)]}, {}, saving)


def test_names_that_are_unknown() -> None:
    options = {"a": [option(FP32, 1)]}
    with pytest.raises(ValueError, match=r"arrivals of \['b'\]"):
        allocate_chain(options, {"b": {}}, 0.5)
    with pytest.raises(ValueError, match=r"protected layers \['b'\]"):
        allocate_chain(options, {}, 0.5, protected=("b",))
