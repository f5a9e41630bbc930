import dataclasses
import random
from pathlib import Path

import pytest
from bench import Bench
from study_fixtures import (
    CONFIDENCE,
    make_bench,
    make_knobs,
    make_profile,
    make_settings,
    make_space,
)
from tiny_network import OWN, PX, make_data

from hwsearch.bits import FP32, INT8
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.space.knobs import SAVINGS, SPREADS, Knobs
from hwsearch.study.candidates.pricing_context import BASELINES

RATIOS = (0.0, 0.25, 0.5)
CHANNELS = {16, 32}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path))


@pytest.fixture
def bench() -> Bench:
    return make_bench()


def random_knobs(count: int) -> list[Knobs]:
    draw = random.Random(0)
    return [
        make_knobs(
            prune=tuple(draw.choice(RATIOS) for _ in range(4)),
            saving=draw.choice(SAVINGS),
            protect_edges=draw.random() < 0.5,
            spread=draw.choice(SPREADS),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("budgets", [("1ms",), ("1ms", "1MB"), ("1ms", "1mJ")], ids=str)
def test_cheapest_when_held_against_random_candidates_is_a_lower_bound(
    budgets: tuple[str, ...],
) -> None:
    bench = make_bench(budget_texts=budgets)
    least, network = bench.pricing.cheapest(make_knobs())
    assert network.input_px == PX
    for knobs in random_knobs(25):
        values = bench.pricing.values(bench.pricing.price(bench.expand(knobs)))
        assert values[0] >= least.latency_ms.value * (1 - 1e-9)
        assert sum(values) >= sum(bench.pricing.values(least)) * (1 - 1e-9)


def test_cheapest_when_asked_trains_nothing() -> None:
    bench = make_bench()
    cost, _ = bench.pricing.cheapest(make_knobs())
    dense = bench.pricing.price(bench.pricing.backbones.uniform(make_knobs(), FP32))
    assert cost.latency_ms.value < dense.latency_ms.value
    assert cost.size_bytes < dense.size_bytes
    assert not bench.bases


def test_expand_when_done_twice_and_on_another_bench(bench: Bench) -> None:
    for knobs in random_knobs(6):
        first = bench.expand(knobs)
        assert bench.expand(knobs) == first
    assert make_bench().expand(knobs) == first


def test_expand_when_nothing_is_saved_keeps_the_widest(bench: Bench) -> None:
    candidate = bench.expand(make_knobs(saving=0.0, protect_edges=False))
    network = bench.pricing.backbones.describe(candidate)
    for kernel in network.weighted:
        assert kernel.bits == max(bench.profile.legal_bits(kernel.kind))


def test_expand_when_more_is_saved_never_costs_more(bench: Bench) -> None:
    latencies = [
        bench.pricing.price(
            bench.expand(make_knobs(saving=saving, protect_edges=False))
        ).latency_ms.value
        for saving in (0.0, 1.0)
    ]
    assert latencies[1] < latencies[0]
    pruned = [
        bench.pricing.price(bench.expand(make_knobs(prune=(ratio,) * 4))).size_bytes
        for ratio in RATIOS
    ]
    assert pruned[0] > pruned[1] > pruned[2]


def test_expand_when_edges_are_protected(bench: Bench) -> None:
    protected = bench.expand(make_knobs(saving=1.0, protect_edges=True)).layer_bits
    free = bench.expand(make_knobs(saving=1.0, protect_edges=False)).layer_bits
    layers = [
        kernel.name
        for kernel in bench.pricing.backbones.blueprint(make_knobs()).describe({}).weighted
    ]
    edges = {layers[0], bench.pricing.backbones.blueprint(make_knobs()).trace.classifier}
    assert len(edges) == 2
    for layer in edges:
        assert protected[layer] == FP32
    assert any(free[layer] != FP32 for layer in edges)
    assert any(protected[layer] != FP32 for layer in set(layers) - edges)


@pytest.mark.parametrize("granularity", [4, 8])
def test_expand_when_channels_are_snapped(granularity: int) -> None:
    profile = make_profile(channel_granularity=granularity)
    bench = Bench(make_settings(), profile, make_data())
    for knobs in random_knobs(12):
        for kept in bench.expand(knobs).channel_counts.values():
            assert kept % granularity == 0


def test_expand_when_the_ratio_is_zero_keeps_all(bench: Bench) -> None:
    candidate = bench.expand(make_knobs(spread=1.0))
    assert set(candidate.channel_counts.values()) == CHANNELS
    assert not any(bench.plan(candidate).removed.values())


def test_expand_when_the_space_narrows_the_bits() -> None:
    bench = make_bench(space=make_space(weight_bits=[8], activation_bits=[8]))
    for kernel in bench.pricing.backbones.describe(bench.expand(make_knobs())).weighted:
        if INT8 in bench.profile.legal_bits(kernel.kind):
            assert kernel.bits == INT8


def test_plan_when_made_removes_what_the_candidate_lacks(bench: Bench) -> None:
    candidate = bench.expand(make_knobs(prune=(0.5,) * 4))
    plan = bench.plan(candidate)
    dense = {group.name: group.channels for group in plan.blueprint.graph.groups}
    for name, kept in candidate.channel_counts.items():
        removed = plan.removed.get(name, ())
        assert len(set(removed)) == len(removed) == dense[name] - kept
        assert all(0 <= channel < dense[name] for channel in removed)
    assert plan.px == PX
    assert plan.bits == candidate.layer_bits


def test_baseline_when_made_has_one_width(bench: Bench) -> None:
    for _, bits in BASELINES:
        candidate = bench.pricing.backbones.uniform(make_knobs(), bits)
        assert set(candidate.layer_bits.values()) == {bits}
        assert bench.pricing.price(candidate).latency_ms.confidence == CONFIDENCE
    assert [name for name, _ in BASELINES] == ["dense-fp32", "uniform-int8"]


def test_ref_when_depth_and_width_are_given() -> None:
    choices = {"argument": "layers", "choices": [[1, 1], [2, 2]]}
    width = {"argument": "breadth", "choices": [0.5, 1.0]}
    space = make_space(backbones=[{"name": OWN, "depth": choices, "width": width}])
    ref = make_bench(space=space).pricing.backbones.ref(make_knobs(depth="[2,2]", width="0.5"))
    assert ref.arguments == '{"breadth":0.5,"layers":[2,2]}'
    assert (ref.name, ref.classes) == (OWN, 3)


def test_values_when_a_quantity_is_added(bench: Bench) -> None:
    cost = bench.pricing.price(bench.pricing.backbones.uniform(make_knobs(), FP32))
    assert bench.pricing.values(cost) == (cost.latency_ms.value, float(cost.size_bytes))
    bigger = dataclasses.replace(cost, size_bytes=cost.size_bytes + 1)
    assert bench.pricing.values(bigger)[1] == bench.pricing.values(cost)[1] + 1


def test_expand_when_narrow_bits_are_hardly_slower_saves_size_unless_latency_alone_counts() -> None:
    data = make_profile().model_dump(mode="json")
    data["kernels"]["floor_us"] = 100.0
    data["memory"]["bandwidth_gb_per_s"] = 1e6
    for bits, rate in data["compute"]["by_bits"].items():
        rate["peak_gmac_per_s"] = 1000.0 if bits == "W32A32" else 900.0
    flat = HardwareProfile.model_validate(data)
    found = {}
    for objectives in (("latency", "size"), ("latency",)):
        bench = Bench(
            make_settings(budget_texts=("50ms",), objectives=objectives), flat, make_data()
        )
        candidate = bench.expand(make_knobs(saving=1.0))
        found[objectives] = bench.pricing.price(candidate).size_bytes
    assert found["latency", "size"] < 0.5 * found["latency",]


def test_options_when_a_quantity_has_no_budget_are_shares_of_the_widest_network() -> None:
    bench = make_bench(budget_texts=("1ms",), objectives=("size",))
    network = bench.pricing.backbones.describe(bench.pricing.backbones.uniform(make_knobs(), FP32))
    options = bench.pricing.bit_costs.options(network, None)
    cost = bench.pricing.price(bench.pricing.backbones.uniform(make_knobs(), FP32))
    inside = sum(kernel.latency_ms for kernel in bench.pricing.predictor.kernels(network))
    widest = sum(next(o.cost for o in choices if o.bits == FP32) for choices in options.values())
    weights = sum(kernel.weight_bytes for kernel in network.kernels) / cost.size_bytes
    assert widest == pytest.approx(inside / 1.0 + weights)


def test_base_when_sizes_share_shapes_is_one() -> None:
    backbones = make_bench(space=make_space(input_px=[PX, 24])).pricing.backbones
    large, small = (backbones.base_of(make_knobs(input_px=px)) for px in (24, PX))
    assert large == small
    assert small[1] == PX
