# ruff: noqa: ANN401 - fakes take whatever the real function is given
import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
from study_fixtures import (
    CONFIDENCE,
    make_bench,
    make_knobs,
    make_profile,
    make_settings,
    make_space,
)
from tiny_network import OWN, PX, make_data

from hwsearch.accuracy.base_weights import Source, base_network
from hwsearch.bits import FP32, INT8
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.space.knobs import SAVINGS, SPREADS, Knobs
from hwsearch.study.candidates import workbench as workbench_module
from hwsearch.study.candidates.workbench import BASELINES, Bases, Workbench

RATIOS = (0.0, 0.25, 0.5)
CHANNELS = {16, 32}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path))


@pytest.fixture
def bench() -> Workbench:
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
    least, network = bench.cheapest(make_knobs())
    assert network.input_px == PX
    for knobs in random_knobs(25):
        values = bench.values(bench.price(bench.expand(knobs)))
        assert values[0] >= least.latency_ms.value * (1 - 1e-9)
        assert sum(values) >= sum(bench.values(least)) * (1 - 1e-9)


def test_cheapest_when_asked_trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a price needs no weights")

    monkeypatch.setattr(workbench_module, "base_network", refuse)
    bench = make_bench()
    cost, _ = bench.cheapest(make_knobs())
    dense = bench.price(bench.baseline(make_knobs(), FP32))
    assert cost.latency_ms.value < dense.latency_ms.value
    assert cost.size_bytes < dense.size_bytes


def test_expand_when_done_twice_and_on_another_bench(bench: Workbench) -> None:
    for knobs in random_knobs(6):
        first = bench.expand(knobs)
        assert bench.expand(knobs) == first
    assert make_bench().expand(knobs) == first


def test_expand_when_nothing_is_saved_keeps_the_widest(bench: Workbench) -> None:
    candidate = bench.expand(make_knobs(saving=0.0, protect_edges=False))
    network = bench.describe(candidate)
    for kernel in network.weighted:
        assert kernel.bits == max(bench.profile.legal_bits(kernel.kind))


def test_expand_when_more_is_saved_never_costs_more(bench: Workbench) -> None:
    latencies = [
        bench.price(bench.expand(make_knobs(saving=saving, protect_edges=False))).latency_ms.value
        for saving in (0.0, 1.0)
    ]
    assert latencies[1] < latencies[0]
    pruned = [
        bench.price(bench.expand(make_knobs(prune=(ratio,) * 4))).size_bytes for ratio in RATIOS
    ]
    assert pruned[0] > pruned[1] > pruned[2]


def test_expand_when_edges_are_protected(bench: Workbench) -> None:
    protected = bench.expand(make_knobs(saving=1.0, protect_edges=True)).layer_bits
    free = bench.expand(make_knobs(saving=1.0, protect_edges=False)).layer_bits
    layers = [kernel.name for kernel in bench.blueprint(make_knobs()).describe({}).weighted]
    edges = {layers[0], bench.blueprint(make_knobs()).trace.classifier}
    assert len(edges) == 2
    for layer in edges:
        assert protected[layer] == FP32
    assert any(free[layer] != FP32 for layer in edges)
    assert any(protected[layer] != FP32 for layer in set(layers) - edges)


@pytest.mark.parametrize("granularity", [4, 8])
def test_expand_when_channels_are_snapped(granularity: int) -> None:
    bench = make_bench()
    bench.profile = make_profile(channel_granularity=granularity)
    for knobs in random_knobs(12):
        for kept in bench.expand(knobs).channel_counts.values():
            assert kept % granularity == 0


def test_expand_when_the_ratio_is_zero_keeps_all(bench: Workbench) -> None:
    candidate = bench.expand(make_knobs(spread=1.0))
    assert set(candidate.channel_counts.values()) == CHANNELS
    assert not any(bench.plan(candidate).removed.values())


def test_expand_when_the_space_narrows_the_bits() -> None:
    bench = make_bench(space=make_space(weight_bits=[8], activation_bits=[8]))
    for kernel in bench.describe(bench.expand(make_knobs())).weighted:
        if INT8 in bench.profile.legal_bits(kernel.kind):
            assert kernel.bits == INT8


def test_plan_when_made_removes_what_the_candidate_lacks(bench: Workbench) -> None:
    candidate = bench.expand(make_knobs(prune=(0.5,) * 4))
    plan = bench.plan(candidate)
    dense = {group.name: group.channels for group in plan.blueprint.graph.groups}
    for name, kept in candidate.channel_counts.items():
        removed = plan.removed.get(name, ())
        assert len(set(removed)) == len(removed) == dense[name] - kept
        assert all(0 <= channel < dense[name] for channel in removed)
    assert plan.px == PX
    assert plan.bits == candidate.layer_bits


def test_baseline_when_made_has_one_width(bench: Workbench) -> None:
    for _, bits in BASELINES:
        candidate = bench.baseline(make_knobs(), bits)
        assert set(candidate.layer_bits.values()) == {bits}
        assert bench.price(candidate).latency_ms.confidence == CONFIDENCE
    assert [name for name, _ in BASELINES] == ["dense-fp32", "uniform-int8"]


def test_prepared_when_sizes_share_shapes_trains_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = []
    plain = base_network

    def listen(ref: Any, data: Any, px: int, recipe: Any, **more: Any) -> Any:
        sides.append(px)
        return plain(ref, data, px, recipe, **more)

    monkeypatch.setattr(workbench_module, "base_network", listen)
    bench = make_bench(space=make_space(input_px=[PX, 24]))
    large = bench.prepared(make_knobs(input_px=24))
    assert bench.prepared(make_knobs()) is large
    assert sides == [PX]


def test_ref_when_depth_and_width_are_given() -> None:
    choices = {"argument": "layers", "choices": [[1, 1], [2, 2]]}
    width = {"argument": "breadth", "choices": [0.5, 1.0]}
    space = make_space(backbones=[{"name": OWN, "depth": choices, "width": width}])
    ref = make_bench(space=space).ref(make_knobs(depth="[2,2]", width="0.5"))
    assert ref.arguments == '{"breadth":0.5,"layers":[2,2]}'
    assert (ref.name, ref.classes) == (OWN, 3)


def test_timed_when_a_phase_runs_twice_adds_up(bench: Workbench) -> None:
    for _ in range(2):
        with bench.timed("work"):
            pass
    first = bench.wall_s["work"]
    with pytest.raises(RuntimeError, match="no"), bench.timed("work"):
        raise RuntimeError("no")
    assert bench.wall_s["work"] > first > 0


def test_values_when_a_quantity_is_added(bench: Workbench) -> None:
    cost = bench.price(bench.baseline(make_knobs(), FP32))
    assert bench.values(cost) == (cost.latency_ms.value, float(cost.size_bytes))
    bigger = dataclasses.replace(cost, size_bytes=cost.size_bytes + 1)
    assert bench.values(bigger)[1] == bench.values(cost)[1] + 1


def test_expand_when_narrow_bits_are_hardly_slower_saves_size_unless_latency_alone_counts() -> None:
    data = make_profile().model_dump(mode="json")
    data["kernels"]["floor_us"] = 100.0
    data["memory"]["bandwidth_gb_per_s"] = 1e6
    for bits, rate in data["compute"]["by_bits"].items():
        rate["peak_gmac_per_s"] = 1000.0 if bits == "W32A32" else 900.0
    flat = HardwareProfile.model_validate(data)
    found = {}
    for objectives in (("latency", "size"), ("latency",)):
        bench = Workbench(
            make_settings(budget_texts=("50ms",), objectives=objectives),
            flat,
            make_data(),
            on_phase=lambda _: None,
            on_step=lambda _done, _total: None,
        )
        candidate = bench.expand(make_knobs(saving=1.0))
        found[objectives] = bench.price(candidate).size_bytes
    assert found["latency", "size"] < 0.5 * found["latency",]


def test_options_when_a_quantity_has_no_budget_are_shares_of_the_widest_network() -> None:
    bench = make_bench(budget_texts=("1ms",), objectives=("size",))
    network = bench.describe(bench.baseline(make_knobs(), FP32))
    options = bench.bit_costs.options(network, None)
    cost = bench.price(bench.baseline(make_knobs(), FP32))
    inside = sum(kernel.latency_ms for kernel in bench.predictor.kernels(network))
    widest = sum(next(o.cost for o in choices if o.bits == FP32) for choices in options.values())
    weights = sum(kernel.weight_bytes for kernel in network.kernels) / cost.size_bytes
    assert widest == pytest.approx(inside / 1.0 + weights)


def test_int8_when_the_runtime_cannot_fuse_it_is_not_offered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def unfused(_model: object, px: int, layers: list[str], _scheme: str) -> frozenset[str]:
        asked.append(px)
        return frozenset(layers[1:2])

    monkeypatch.setattr(workbench_module, "layers_without_int8", unfused)
    profile = make_profile(runtime="ONNX Runtime")
    bench = Workbench(
        make_settings(),
        profile,
        make_data(),
        on_phase=lambda _: None,
        on_step=lambda _done, _total: None,
    )
    for _ in range(2):
        bits = bench.expand(make_knobs(saving=1.0, protect_edges=False)).layer_bits
    layers = list(bits)
    odd = bench.blueprint(make_knobs()).describe({}).weighted[1].name
    assert bits[odd] != INT8
    assert {bits[layer] for layer in layers if layer != odd} == {INT8}
    assert asked == [PX]


def test_int8_when_the_runtime_is_another_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        workbench_module, "layers_without_int8", lambda _m, _p, layers, _s: frozenset(layers)
    )
    bits = make_bench().expand(make_knobs(saving=1.0, protect_edges=False)).layer_bits
    assert INT8 in bits.values()


@pytest.mark.parametrize(
    ("source", "rate"), [("trained", 0.02), ("pretrained", 0.01), ("file", 0.01)]
)
def test_fine_tuning_rate_is_gentle_where_weights_were_pretrained(
    source: Source, rate: float
) -> None:
    bench = make_bench()
    candidate = bench.baseline(make_knobs(), FP32)
    prepared = bench.prepared(candidate)
    prepared.base = dataclasses.replace(prepared.base, source=source)
    assert bench.fine_tuning_rate(candidate) == rate


def test_bases_are_read_when_one_is_needed_and_once() -> None:
    bench, other = make_bench(), make_bench()
    base = other.prepared(make_knobs()).base
    calls: list[int] = []

    def make() -> Bases:
        calls.append(1)
        return {bench.base_of(make_knobs()): base}

    bench.adopt_when_needed(make)
    bench.price(bench.baseline(make_knobs(), FP32))
    assert not calls, "a price needs no weights"
    assert bench.prepared(make_knobs()).base is base
    assert bench.prepared(make_knobs()).base is base
    assert len(calls) == 1
