import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, milp

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.space import bit_allocator
from hwsearch.space.bit_allocator import Arrivals, BitOption, allocate_bits

Options = dict[str, list[BitOption]]
Steps = dict[str, Arrivals]

W4A8 = LayerBits(4, 8)
WIDTHS = (FP32, FP16, INT8, W4A8)
SAVINGS = tuple(step / 16 for step in range(17))


def option(bits: LayerBits, cost: float, sensitivity: float = 0.0) -> BitOption:
    return BitOption(bits=bits, cost=cost, sensitivity=sensitivity)


@st.composite
def chains(
    draw: st.DrawFn, lowest_sensitivity: int = 0, *, arrive: bool | None = None
) -> tuple[Options, Steps]:
    """Up to five layers on a grid, with ties, dearer options and conversions between all widths."""
    options: Options = {}
    steps: Steps = {}
    arrive = draw(st.booleans()) if arrive is None else arrive
    for layer in range(draw(st.integers(1, 5))):
        offered = [option(FP32, draw(st.integers(0, 12)))]
        for bits in WIDTHS[1 : draw(st.integers(1, 3))]:
            sensitivity = draw(st.integers(lowest_sensitivity, 12))
            offered.append(option(bits, draw(st.integers(0, 12)), sensitivity))
        options[f"layer{layer}"] = offered
        if arrive:
            pairs = itertools.permutations(WIDTHS[:3], 2)
            steps[f"layer{layer}"] = {pair: draw(st.integers(0, 6)) for pair in pairs}
    return options, steps


def network(seed: int, layers: int, *, arrive: bool) -> tuple[Options, Steps]:
    """A network of many layers, without ties."""
    draw = random.Random(seed)
    options: Options = {}
    steps: Steps = {}
    for layer in range(layers):
        cost, touchy = draw.lognormvariate(-3, 1), draw.lognormvariate(0, 1)
        options[f"layer{layer}"] = [
            option(FP32, cost),
            option(FP16, cost * draw.uniform(0.5, 1.05), touchy * 0.01),
            option(INT8, cost * draw.uniform(0.3, 1.05), touchy * draw.uniform(0.1, 0.3)),
            option(W4A8, cost * draw.uniform(0.2, 0.5), touchy),
        ]
        pairs = itertools.permutations(WIDTHS, 2)
        steps[f"layer{layer}"] = {pair: cost * draw.uniform(0.05, 0.5) for pair in pairs}
    return options, steps if arrive else {}


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
    """The totals of every allocation there is, of cheaper options only where nothing arrives."""
    layers = [
        [one.bits for one in offered if steps or one is offered[0] or one.cost < offered[0].cost]
        for offered in options.values()
    ]
    return [
        totals(options, steps, dict(zip(options, picked, strict=True)))
        for picked in itertools.product(*layers)
    ]


def widest_cost(options: Options) -> float:
    return math.fsum(offered[0].cost for offered in options.values())


def optimum_by_milp(options: Options, steps: Steps, limit: float) -> float:
    """The least sensitivity at a limit of cost: a shortest path with one knapsack row."""
    names = list(options)
    arcs = [
        (at, before, after)
        for at, name in enumerate(names)
        for before in (options[names[at - 1]] if at else [None])
        for after in options[name]
    ]
    harm = np.array([after.sensitivity for _, _, after in arcs])
    cost = np.array(
        [
            after.cost
            + (
                0.0
                if before is None
                else steps.get(names[at], {}).get((before.bits, after.bits), 0.0)
            )
            for at, before, after in arcs
        ]
    )
    rows = [np.array([float(at == 0) for at, _, _ in arcs])]
    bounds = [1.0]
    for at in range(len(names) - 1):
        for one in options[names[at]]:
            flow = [
                float(to == at and after is one) - float(to == at + 1 and before is one)
                for to, before, after in arcs
            ]
            rows.append(np.array(flow))
            bounds.append(0.0)
    found = milp(
        harm,
        integrality=np.ones(len(arcs)),
        bounds=(0, 1),
        constraints=[
            LinearConstraint(np.array(rows), bounds, bounds),
            LinearConstraint(cost[None], -np.inf, limit),
        ],
        options={"mip_rel_gap": 0.0},
    )
    assert found.success, found.message
    return float(found.fun)


# --- the optimum


@settings(max_examples=200, deadline=None, derandomize=True)
@given(chains(lowest_sensitivity=-4), st.sampled_from(SAVINGS[1:]))
def test_result_when_every_allocation_is_tried_is_the_best(
    drawn: tuple[Options, Steps], saving: float
) -> None:
    options, steps = drawn
    every, start = everything(options, steps), widest_cost(options)
    reachable = start - min(cost for cost, _ in every)
    cost, sensitivity = totals(options, steps, allocate_bits(options, saving, (), steps))
    assert start - cost >= saving * reachable - 1e-6
    if reachable > 0:
        needed = saving * reachable - 1e-6
        assert sensitivity == min(s for c, s in every if start - c >= needed)
    else:
        assert sensitivity == 0, "nothing saves: the reference"


@pytest.mark.parametrize("arrive", [False, True])
@pytest.mark.parametrize("saving", [0.2, 0.6, 0.9])
def test_result_when_judged_by_an_integer_program(arrive: bool, saving: float) -> None:
    options, steps = network(7, 30, arrive=arrive)
    least, _ = totals(options, steps, allocate_bits(options, 1.0, (), steps))
    start = widest_cost(options)
    cost, found = totals(options, steps, allocate_bits(options, saving, (), steps))
    limit = start - saving * (start - least)
    assert cost <= limit + 1e-9
    # The solver counts as feasible what breaks a row by a millionth.
    assert found <= optimum_by_milp(options, steps, limit - 2e-6) + 1e-9


def test_result_when_chains_are_left_out_is_near_the_optimum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Options that all save at one rate: any number of partial chains is as good as another.
    monkeypatch.setattr(bit_allocator, "_MOST_CHAINS", 20)
    draw = random.Random(1)
    costs = {f"layer{layer}": draw.uniform(0.1, 1) for layer in range(60)}
    options = {
        name: [option(FP32, cost), option(INT8, cost / 4, cost * 3 / 4)]
        for name, cost in costs.items()
    }
    cost, sensitivity = totals(options, {}, allocate_bits(options, 0.5))
    needed = 0.5 * 0.75 * sum(costs.values())
    assert cost <= sum(costs.values()) - needed + 1e-6
    assert needed - 1e-6 <= sensitivity <= needed + 0.75


# --- invariances


@settings(max_examples=100, deadline=None, derandomize=True)
@given(chains())
def test_sensitivity_when_the_saving_grows_does_not_fall(drawn: tuple[Options, Steps]) -> None:
    options, steps = drawn
    found = [totals(options, steps, allocate_bits(options, s, (), steps))[1] for s in SAVINGS]
    assert found == sorted(found)


@pytest.mark.parametrize("arrive", [False, True])
def test_steps_when_the_network_is_large_are_many(arrive: bool) -> None:
    options, steps = network(3, 40, arrive=arrive)
    shares = [step / 60 for step in range(61)]
    found = [totals(options, steps, allocate_bits(options, s, (), steps))[1] for s in shares]
    assert found == sorted(found)
    assert len(set(found)) > 50


@settings(max_examples=60, deadline=None, derandomize=True)
@given(chains(), st.sampled_from(SAVINGS), st.sampled_from([0.25, 8.0, 1024.0]))
def test_bits_when_units_change_stay(
    drawn: tuple[Options, Steps], saving: float, scale: float
) -> None:
    options, steps = drawn
    dearer = {
        n: [option(e.bits, e.cost * scale, e.sensitivity) for e in own]
        for n, own in options.items()
    }
    touchier = {
        n: [option(e.bits, e.cost, e.sensitivity * scale) for e in own]
        for n, own in options.items()
    }
    further = {n: {pair: cost * scale for pair, cost in own.items()} for n, own in steps.items()}
    plain = totals(options, steps, allocate_bits(options, saving, (), steps))
    assert totals(options, steps, allocate_bits(dearer, saving, (), further)) == plain
    assert totals(options, steps, allocate_bits(touchier, saving, (), steps)) == plain


@pytest.mark.parametrize("saving", SAVINGS)
def test_bits_when_layers_and_options_change_their_order_stay(saving: float) -> None:
    options, _ = network(5, 20, arrive=False)
    turned = {layer: options[layer][::-1] for layer in sorted(options, reverse=True)}
    assert allocate_bits(turned, saving) == allocate_bits(options, saving)


# --- the ends, ties and odd options


@settings(max_examples=60, deadline=None, derandomize=True)
@given(chains(lowest_sensitivity=-4))
def test_bits_when_nothing_is_to_be_saved_are_the_widest(drawn: tuple[Options, Steps]) -> None:
    options, steps = drawn
    assert set(allocate_bits(options, 0.0, (), steps).values()) == {FP32}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(chains(lowest_sensitivity=-4, arrive=False), st.sampled_from(SAVINGS))
def test_option_when_it_saves_nothing_is_never_taken(
    drawn: tuple[Options, Steps], saving: float
) -> None:
    options, _ = drawn
    for layer, bits in allocate_bits(options, saving).items():
        taken = next(entry for entry in options[layer] if entry.bits == bits)
        assert bits == FP32 or taken.cost < options[layer][0].cost


def test_layer_when_it_has_one_option_keeps_it() -> None:
    options = {"a": [option(INT8, 4)], "b": [option(FP32, 4), option(INT8, 2, 1)]}
    assert allocate_bits(options, 1.0) == {"a": INT8, "b": INT8}


def test_layer_when_protected_stays_wide_and_is_not_counted() -> None:
    options = {name: [option(FP32, 4), option(INT8, 2, 1)] for name in ("a", "b", "c")}
    for saving, count in ((0.5, 1), (1.0, 2)):
        bits = allocate_bits(options, saving, protected={"a"})
        assert bits["a"] == FP32
        assert list(bits.values()).count(INT8) == count


def test_network_when_nothing_saves_or_nothing_is_there() -> None:
    options = {"a": [option(FP32, 1), option(INT8, 3, 1)]}
    assert allocate_bits(options, 1.0) == allocate_bits(options, 0.5) == {"a": FP32}
    assert allocate_bits({}, 0.5) == {}


# --- conversions


def depthwise_chain() -> tuple[Options, Steps]:
    """Pointwise layers that int8 makes faster, around a depthwise one that it makes slower."""
    fast = [option(FP32, 10), option(INT8, 4, 1)]
    slow = [option(FP32, 3), option(INT8, 5, 1)]
    convert = {(FP32, INT8): 4.0, (INT8, FP32): 4.0}
    options = {"first": fast, "depthwise": slow, "last": fast}
    return options, dict.fromkeys(options, convert)


def test_a_slower_layer_in_int8_between_two_faster_ones() -> None:
    options, steps = depthwise_chain()
    bits = allocate_bits(options, 1.0, (), steps)
    assert set(bits.values()) == {INT8}
    assert totals(options, steps, bits)[0] == 13
    # Taken alone it stays in fp32, at 4 + 4 + 3 + 4 + 4 = 19 with the conversions.
    alone = allocate_bits(options, 1.0)
    assert totals(options, steps, alone)[0] == 19


def test_conversions_that_cost_more_than_int8_saves_are_not_paid() -> None:
    options, steps = depthwise_chain()
    dear = {layer: dict.fromkeys(pairs, 50.0) for layer, pairs in steps.items()}
    lonely = {**options, "depthwise": [option(FP32, 3)]}
    assert set(allocate_bits(lonely, 1.0, (), dear).values()) == {FP32}


def test_protected_layers_stay_and_pay() -> None:
    options, steps = depthwise_chain()
    bits = allocate_bits(options, 1.0, ("first",), steps)
    assert bits["first"] == FP32
    # Converting once, before the depthwise layer or behind it, costs 4: 10 + 3 + 4 + 4 = 21.
    assert totals(options, steps, bits)[0] == 21


# --- refused


@pytest.mark.parametrize("saving", [-0.1, 1.1, math.nan])
def test_saving_out_of_range_is_refused(saving: float) -> None:
    with pytest.raises(ValueError, match="is not a share from 0 to 1"):
        allocate_bits({"a": [option(FP32, 1)]}, saving)


@pytest.mark.parametrize("offered", [[], [option(FP32, 1), option(FP32, 2)]])
def test_layer_without_distinct_options_is_refused(offered: list[BitOption]) -> None:
    with pytest.raises(ValueError, match="layer a needs options, each with other bits"):
        allocate_bits({"a": offered}, 0.5)


def test_names_that_are_unknown_are_refused() -> None:
    options = {"a": [option(FP32, 1)]}
    with pytest.raises(ValueError, match=r"protected layers \['z'\] are not among the layers"):
        allocate_bits(options, 0.5, protected=["z"])
    with pytest.raises(ValueError, match=r"arrivals of \['b'\], which are not among the layers"):
        allocate_bits(options, 0.5, (), {"b": {}})


@pytest.mark.parametrize(
    ("cost", "sensitivity"), [(-1, 0), (math.inf, 0), (math.nan, 0), (1, math.nan), (1, math.inf)]
)
def test_option_with_odd_numbers_is_refused(cost: float, sensitivity: float) -> None:
    with pytest.raises(ValueError, match=r"W8A8: cost .* must be finite"):
        option(INT8, cost, sensitivity)
