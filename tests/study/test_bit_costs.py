import itertools
import random
from functools import cache
from pathlib import Path

import pytest
from study_fixtures import make_profile, make_settings

from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.files import read_model
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.nets.backbone import BackboneRef
from hwsearch.nets.blueprint import make_blueprint
from hwsearch.study.candidates.bit_costs import BitCosts, _without_int8

ROOT = Path(__file__).resolve().parents[2]
#: ReLU throughout; hard-swish, squeeze and excitation; SiLU and depthwise layers; attention.
BACKBONES = ("test_resnet", "mobilenetv3_small_050", "test_efficientnet", "test_vit")


@cache
def network_of(backbone: str) -> NetworkDesc:
    return make_blueprint(BackboneRef(name=backbone, classes=10), 32).describe({})


@cache
def profile_of(name: str) -> HardwareProfile:
    """One that fuses clips only: declared rates, or with a fit."""
    path = {
        "declared": ROOT / "benchmarks" / "predictor" / "host_prior.yaml",
        "fitted": ROOT / "hw_profiles" / "host.yaml",
    }[name]
    return read_model(path, HardwareProfile)


def costs_on(profile: HardwareProfile, **changes: object) -> BitCosts:
    settings = make_settings(**{"budget_texts": ("1ms",), "objectives": ("latency",), **changes})
    return BitCosts(settings=settings, predictor=CostPredictor(profile))


def inside_ms(predictor: CostPredictor, network: NetworkDesc) -> float:
    return sum(kernel.latency_ms for kernel in predictor.kernels(network))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("profile", ["declared", "fitted"])
def test_neighbours_add_up_to_the_whole_network_in_any_bits(backbone: str, profile: str) -> None:
    costs = costs_on(profile_of(profile))
    network = network_of(backbone)
    options = costs.options(network, None)
    arrivals = costs.arrivals(network, options)
    draw = random.Random(5)
    for _ in range(12):
        bits = {name: draw.choice(several).bits for name, several in options.items()}
        total, before = 0.0, None
        for name, several in options.items():
            total += next(one.cost for one in several if one.bits == bits[name])
            if before is not None:
                total += arrivals[name].get((before, bits[name]), 0.0)
            before = bits[name]
        # The budget is 1 ms, so that shares are milliseconds.
        assert total == pytest.approx(inside_ms(costs.predictor, network.with_bits(bits)), rel=1e-6)


def test_every_layer_is_cheapest_in_int8_between_layers_in_int8() -> None:
    costs = costs_on(profile_of("fitted"))
    network = network_of("mobilenetv3_small_050")
    chosen = costs.allocate(network, 1.0)
    best_ms = inside_ms(costs.predictor, network.with_bits(chosen))
    draw = random.Random(6)
    for _ in range(40):
        other = {name: draw.choice((FP32, INT8)) for name in chosen}
        assert inside_ms(costs.predictor, network.with_bits(other)) >= best_ms - 1e-9
    # No layer changed alone is cheaper either.
    for name, flipped in itertools.product(chosen, (FP32, INT8)):
        other = {**chosen, name: flipped}
        assert inside_ms(costs.predictor, network.with_bits(other)) >= best_ms - 1e-9


def test_a_runtime_that_fuses_conversions_needs_no_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> dict[str, LayerBits]:
        raise AssertionError("asked for a chain")

    monkeypatch.setattr("hwsearch.study.candidates.bit_costs.BitCosts.arrivals", refuse)
    network = network_of("test_resnet")
    found = costs_on(make_profile()).allocate(network, 1.0)
    assert set(found) == {kernel.name for kernel in network.weighted}
    with pytest.raises(AssertionError, match="asked for a chain"):
        costs_on(profile_of("declared")).allocate(network, 1.0)


def test_protected_and_unfused_layers_keep_floats() -> None:
    costs = costs_on(profile_of("declared"))
    network = network_of("test_resnet")
    first, second, last = (network.weighted[at].name for at in (0, 1, -1))
    bits = costs.allocate(network, 1.0, unfused=frozenset({second}), protected={first, last})
    assert {bits[first], bits[second], bits[last]} == {FP32}
    assert INT8 in bits.values()


@pytest.mark.parametrize(
    ("options", "refused", "left"),
    [
        ((FP32, INT8), False, (FP32, INT8)),
        ((FP32, INT8), True, (FP32,)),
        ((FP32, LayerBits(8, 16), INT8, LayerBits(4, 4)), True, (FP32, LayerBits(8, 16))),
        # A space that admits nothing else gets what it asks for.
        ((INT8,), True, (INT8,)),
    ],
)
def test_options_when_integers_are_refused(
    options: tuple[LayerBits, ...], refused: bool, left: tuple[LayerBits, ...]
) -> None:
    assert _without_int8(options, refused) == left
