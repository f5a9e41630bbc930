"""Base networks, recipes, and what base networks say about their layers."""

from dataclasses import replace
from pathlib import Path

import pytest
from bench import Bench
from study_fixtures import make_bench, make_knobs, make_profile, make_settings
from tiny_network import PX, make_data

from hwsearch.accuracy.base_weights import Source
from hwsearch.bits import INT8
from hwsearch.errors import HostError
from hwsearch.files import cache_folder
from hwsearch.study.candidates.training_context import TrainingContext
from hwsearch.study.jobs import layers as layers_module


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path))


def test_network_when_another_process_trained_it_is_read_from_the_cache() -> None:
    bench = make_bench()
    base = bench.base_of(make_knobs())
    other = TrainingContext(bench.settings, bench.profile, bench.data)
    ours, theirs = (one.network(base).model.state_dict() for one in (bench.training, other))
    assert all((ours[name] == theirs[name]).all() for name in ours)
    importance = other.importance(base)
    assert importance.keys() == bench.training.importance(base).keys()


def test_network_when_it_is_gone_says_what_to_do() -> None:
    bench = make_bench()
    base = bench.base_of(make_knobs())
    for path in (cache_folder() / "base").iterdir():
        path.unlink()
    other = TrainingContext(bench.settings, bench.profile, bench.data)
    with pytest.raises(HostError, match=r"is gone from the cache; .* --resume"):
        other.network(base)


@pytest.mark.parametrize(
    ("source", "rate"), [("trained", 0.02), ("pretrained", 0.01), ("file", 0.01)]
)
def test_recipe_is_gentle_where_weights_were_pretrained(source: Source, rate: float) -> None:
    bench = make_bench()
    base = replace(bench.base_of(make_knobs()), source=source)
    assert bench.training.recipe(base, 3, "x").learning_rate == rate
    assert bench.training.recipe(base, 3, "x") != bench.training.recipe(base, 3, "y")


def test_int8_when_the_runtime_cannot_fuse_it_is_not_offered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def unfused(_model: object, px: int, layers: list[str], _scheme: str) -> frozenset[str]:
        asked.append(px)
        return frozenset(layers[1:2])

    monkeypatch.setattr(layers_module, "layers_without_int8", unfused)
    bench = Bench(make_settings(), make_profile(runtime="ONNX Runtime"), make_data())
    for _ in range(2):
        bits = bench.expand(make_knobs(saving=1.0, protect_edges=False)).layer_bits
    odd = bench.pricing.backbones.blueprint(make_knobs()).describe({}).weighted[1].name
    assert bits[odd] != INT8
    assert {bits[layer] for layer in bits if layer != odd} == {INT8}
    assert asked == [PX]


def test_int8_when_the_runtime_is_another_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        layers_module, "layers_without_int8", lambda _m, _p, layers, _s: frozenset(layers)
    )
    bits = make_bench().expand(make_knobs(saving=1.0, protect_edges=False)).layer_bits
    assert INT8 in bits.values()
