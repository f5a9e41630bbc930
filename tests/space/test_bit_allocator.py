import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.space.bit_allocator import BitOption, allocate_bits

Options = dict[str, list[BitOption]]

W4A8 = LayerBits(4, 8)
W4A4 = LayerBits(4, 4)
WIDTHS = (FP32, FP16, INT8, W4A8, W4A4)
SAVINGS = tuple(step / 16 for step in range(17))


def option(bits: LayerBits, cost: float, sensitivity: float) -> BitOption:
    return BitOption(bits=bits, cost=cost, sensitivity=sensitivity)


@st.composite
def layers(draw: st.DrawFn, most: int = 4, lowest_sensitivity: int = 0) -> Options:
    """Small instances on a grid, with ties, dearer options and layers of one option."""
    options = {}
    for layer in range(draw(st.integers(1, most))):
        widths = draw(st.integers(1, 4))
        offered = [option(FP32, draw(st.integers(0, 12)), 0.0)]
        for bits in WIDTHS[1:widths]:
            sensitivity = draw(st.integers(lowest_sensitivity, 12))
            offered.append(option(bits, draw(st.integers(0, 12)), sensitivity))
        options[f"layer{layer}"] = offered
    return options


def totals(options: Options, bits: dict[str, LayerBits]) -> tuple[float, float]:
    """(saving against the widest bits, sensitivity) of an allocation."""
    picked = [
        next(entry for entry in offered if entry.bits == bits[layer])
        for layer, offered in options.items()
    ]
    widest = [max(offered, key=lambda entry: entry.bits) for offered in options.values()]
    saved = sum(was.cost - now.cost for was, now in zip(widest, picked, strict=True))
    return saved, math.fsum(entry.sensitivity for entry in picked)


def reachable(options: Options) -> float:
    return totals(
        options,
        {layer: min(offered, key=lambda e: e.cost).bits for layer, offered in options.items()},
    )[0]


def optimum(options: Options, needed: float) -> float:
    """The least sensitivity that saves enough, by trying every allocation."""
    best = math.inf
    for picked in itertools.product(*options.values()):
        bits = {layer: entry.bits for layer, entry in zip(options, picked, strict=True)}
        saved, sensitivity = totals(options, bits)
        if saved >= needed - 1e-9:
            best = min(best, sensitivity)
    return best


def largest_increment(options: Options) -> float:
    return max(
        abs(left.sensitivity - right.sensitivity)
        for offered in options.values()
        for left, right in itertools.product(offered, offered)
    )


# --- against brute force


@settings(max_examples=150, deadline=None, derandomize=True)
@given(layers(), st.sampled_from(SAVINGS))
def test_saving_is_met_near_the_optimum(options: Options, saving: float) -> None:
    needed = saving * reachable(options)
    saved, sensitivity = totals(options, allocate_bits(options, saving))
    assert saved >= needed - 1e-9
    best = optimum(options, needed)
    assert best <= sensitivity <= best + largest_increment(options)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(layers(lowest_sensitivity=-4), st.sampled_from(SAVINGS))
def test_saving_is_met_when_fewer_bits_help(options: Options, saving: float) -> None:
    saved, _ = totals(options, allocate_bits(options, saving))
    assert saved >= saving * reachable(options) - 1e-9


@settings(max_examples=100, deadline=None, derandomize=True)
@given(layers(), st.integers(0, 40))
def test_vertices_of_the_hull_are_exact(options: Options, step: int) -> None:
    # At a price for each cost, every layer alone takes what is cheapest for it: the totals that
    # arise so are the vertices. Slopes are fractions of small integers: this price ties none.
    price = step / 8 + 0.0123
    alone = {
        layer: min(offered, key=lambda entry: entry.sensitivity + price * entry.cost).bits
        for layer, offered in options.items()
    }
    saved, sensitivity = totals(options, alone)
    if reachable(options) > 0:
        bits = allocate_bits(options, saved / reachable(options))
        assert totals(options, bits)[1] == sensitivity == optimum(options, saved)


def test_walk_is_exact_at_each_step_of_two_layers() -> None:
    options = {
        "a": [option(FP32, 8, 0), option(INT8, 4, 1), option(W4A8, 2, 4)],
        "b": [option(FP32, 8, 0), option(INT8, 4, 2), option(W4A8, 2, 3.5)],
    }
    # Slopes: a 1/4, b 1/2, b 3/4, a 3/2.
    expected = [(0, "W32A32", "W32A32"), (4, "W8A8", "W32A32"), (8, "W8A8", "W8A8")]
    expected += [(10, "W8A8", "W4A8"), (12, "W4A8", "W4A8")]
    for saved, first, second in expected:
        bits = allocate_bits(options, saved / 12)
        assert (str(bits["a"]), str(bits["b"])) == (first, second)
        assert totals(options, bits)[1] == optimum(options, saved)


# --- invariances


@settings(max_examples=100, deadline=None, derandomize=True)
@given(layers())
def test_sensitivity_grows_with_the_saving(options: Options) -> None:
    sensitivities = [totals(options, allocate_bits(options, share))[1] for share in SAVINGS]
    assert all(low <= high + 1e-9 for low, high in itertools.pairwise(sensitivities))


def test_sensitivity_grows_with_the_saving_in_a_large_network() -> None:
    options = network(seed=3)
    shares = [step / 200 for step in range(201)]
    sensitivities = [totals(options, allocate_bits(options, share))[1] for share in shares]
    assert all(low <= high + 1e-9 for low, high in itertools.pairwise(sensitivities))
    assert len(set(sensitivities)) > 100


@settings(max_examples=100, deadline=None, derandomize=True)
@given(layers(), st.sampled_from(SAVINGS), st.sampled_from([0.25, 8.0, 1024.0]))
def test_scales_of_cost_and_sensitivity_do_not_matter(
    options: Options, saving: float, scale: float
) -> None:
    dearer = {
        layer: [option(e.bits, e.cost * scale, e.sensitivity) for e in offered]
        for layer, offered in options.items()
    }
    touchier = {
        layer: [option(e.bits, e.cost, e.sensitivity * scale) for e in offered]
        for layer, offered in options.items()
    }
    bits = allocate_bits(options, saving)
    assert allocate_bits(dearer, saving) == bits
    assert allocate_bits(touchier, saving) == bits


@pytest.mark.parametrize("saving", SAVINGS)
def test_order_of_layers_and_options_does_not_matter_without_ties(saving: float) -> None:
    options = network(seed=5)
    turned = {layer: options[layer][::-1] for layer in sorted(options, reverse=True)}
    assert allocate_bits(turned, saving) == allocate_bits(options, saving)


def network(seed: int, layer_count: int = 60) -> Options:
    generator = random.Random(seed)
    options = {}
    for layer in range(layer_count):
        cost = generator.uniform(0.01, 1.0)
        touchy = generator.lognormvariate(0, 1)
        options[f"layer{layer}"] = [
            option(FP32, cost, 0.0),
            option(FP16, cost * generator.uniform(0.5, 0.7), touchy * 0.01),
            option(INT8, cost * generator.uniform(0.3, 0.6), touchy * generator.uniform(0.1, 0.3)),
            option(W4A8, cost * generator.uniform(0.2, 0.5), touchy),
        ]
    return options


# --- the ends, ties and odd options


@settings(max_examples=100, deadline=None, derandomize=True)
@given(layers(lowest_sensitivity=-4))
def test_no_saving_is_the_widest_and_all_is_the_cheapest(options: Options) -> None:
    assert set(allocate_bits(options, 0.0).values()) == {FP32}
    for layer, bits in allocate_bits(options, 1.0).items():
        cheapest = min(entry.cost for entry in options[layer])
        best = min(
            (entry for entry in options[layer] if entry.cost == cheapest),
            key=lambda entry: (entry.bits != FP32, entry.sensitivity, entry.bits),
        )
        assert bits == best.bits


@settings(max_examples=100, deadline=None, derandomize=True)
@given(layers(lowest_sensitivity=-4), st.sampled_from(SAVINGS))
def test_option_that_saves_nothing_is_never_taken(options: Options, saving: float) -> None:
    for layer, bits in allocate_bits(options, saving).items():
        taken = next(entry for entry in options[layer] if entry.bits == bits)
        assert bits == FP32 or taken.cost < options[layer][0].cost


def test_step_that_is_not_needed_is_undone() -> None:
    options = {
        "small": [option(FP32, 2, 0), option(INT8, 1, 0.1)],
        "large": [option(FP32, 20, 0), option(INT8, 10, 2)],
    }
    assert allocate_bits(options, 10 / 11) == {"small": FP32, "large": INT8}


def test_undoing_prefers_what_regains_most() -> None:
    options = {
        "a": [option(FP32, 2, 0), option(INT8, 1, 0.1)],
        "b": [option(FP32, 4, 0), option(INT8, 1, 0.9)],
        "c": [option(FP32, 20, 0), option(INT8, 10, 9)],
    }
    # All three are taken for 11 of 14; giving back b (3) is worth more than giving back a (1).
    assert allocate_bits(options, 11 / 14) == {"a": INT8, "b": FP32, "c": INT8}


def test_ties_go_to_the_first_layer_then_to_fewer_bits() -> None:
    options = {
        name: [option(FP32, 4, 0), option(INT8, 2, 1), option(W4A8, 2, 1)] for name in ("b", "a")
    }
    assert allocate_bits(options, 0.5) == {"b": W4A8, "a": FP32}


def test_layer_with_one_option_keeps_it() -> None:
    options = {"a": [option(INT8, 4, 0)], "b": [option(FP32, 4, 0), option(INT8, 2, 1)]}
    assert allocate_bits(options, 1.0) == {"a": INT8, "b": INT8}


def test_protected_layer_stays_wide_and_is_not_counted() -> None:
    options = {name: [option(FP32, 4, 0), option(INT8, 2, 1)] for name in ("a", "b", "c")}
    for saving, narrow in ((0.5, ["b"]), (1.0, ["b", "c"])):
        bits = allocate_bits(options, saving, protected={"a"})
        assert [name for name, width in bits.items() if width == INT8] == narrow


def test_network_where_nothing_saves_stays_wide() -> None:
    options = {"a": [option(FP32, 1, 0), option(INT8, 3, 1)]}
    assert allocate_bits(options, 1.0) == allocate_bits(options, 0.5) == {"a": FP32}


def test_empty_network_has_no_bits() -> None:
    assert allocate_bits({}, 0.5) == {}


# --- refused


@pytest.mark.parametrize("saving", [-0.1, 1.1, math.nan])
def test_saving_out_of_range_is_refused(saving: float) -> None:
    with pytest.raises(ValueError, match="is not a share from 0 to 1"):
        allocate_bits({"a": [option(FP32, 1, 0)]}, saving)


@pytest.mark.parametrize("offered", [[], [option(FP32, 1, 0), option(FP32, 2, 0)]])
def test_layer_without_distinct_options_is_refused(offered: list[BitOption]) -> None:
    with pytest.raises(ValueError, match="layer a needs options, each with other bits"):
        allocate_bits({"a": offered}, 0.5)


def test_unknown_protected_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\['z'\] are not among the layers"):
        allocate_bits({"a": [option(FP32, 1, 0)]}, 0.5, protected=["z"])


@pytest.mark.parametrize(
    ("cost", "sensitivity"), [(-1, 0), (math.inf, 0), (math.nan, 0), (1, math.nan), (1, math.inf)]
)
def test_option_with_odd_numbers_is_refused(cost: float, sensitivity: float) -> None:
    with pytest.raises(ValueError, match=r"W8A8: cost .* must be finite"):
        option(INT8, cost, sensitivity)
