import pytest
from study_fixtures import make_knobs, make_space
from tiny_network import OWN, PX

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.errors import BackboneError
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.targets import load_profile
from hwsearch.retarget.pricing import Priced, price
from hwsearch.space.candidate import Candidate
from hwsearch.study.candidates.backbones import Backbones

CLASSES = 3


@pytest.fixture(scope="module")
def backbones() -> Backbones:
    return Backbones(space=make_space(), classes=CLASSES)


def priced(backbones: Backbones, candidate: Candidate, target: str) -> Priced:
    macs = backbones.describe(candidate).macs
    return price(candidate, macs, backbones, CostPredictor(load_profile(target)))


def with_channels(backbones: Backbones, **kept: int) -> Candidate:
    """int8 throughout, with these channels in place of the dense ones, by position of the group."""
    dense = backbones.uniform(make_knobs(), INT8)
    names = [group.name for group in backbones.blueprint(dense).graph.groups]
    changed = {names[int(at[1:])]: count for at, count in kept.items()}
    channels = {**dense.channel_counts, **changed}
    return Candidate.build(
        backbone=OWN, input_px=PX, channels=channels, bits=dense.layer_bits, pruning=(0.5,) * 4
    )


@pytest.mark.parametrize(
    ("bits", "target", "refusal"),
    [
        (FP16, "raspberry-pi-4", "raspberry-pi-4 does not run fp16"),
        (LayerBits(4, 8), "jetson-orin-nano", "jetson-orin-nano does not run W4A8"),
        # It would be run in int8, at another accuracy than the one that was measured.
        (FP32, "coral-edge-tpu", "coral-edge-tpu does not run fp32"),
    ],
)
def test_price_when_bits_do_not_run_says_which(
    bits: LayerBits, target: str, refusal: str, backbones: Backbones
) -> None:
    found = priced(backbones, backbones.uniform(make_knobs(), bits), target)
    assert (found.cost, found.refusal) == (None, refusal)


def test_price_when_bits_run_in_wider_ones_counts_layers_that_gain_nothing(
    backbones: Backbones,
) -> None:
    dense = backbones.uniform(make_knobs(), INT8)
    found = priced(backbones, dense, "jetson-nano")
    assert found.cost is not None
    assert found.odd_layers == len(dense.bits)
    assert priced(backbones, dense, "jetson-orin-nano").odd_layers == 0


def test_price_is_that_of_the_predictor(backbones: Backbones) -> None:
    candidate = with_channels(backbones, g0=8)
    predictor = CostPredictor(load_profile("jetson-nano"))
    found = priced(backbones, candidate, "jetson-nano")
    assert found.cost == predictor.predict(backbones.describe(candidate))


def test_price_counts_pruned_groups_that_fill_no_block(backbones: Backbones) -> None:
    uneven = priced(backbones, with_channels(backbones, g0=10, g1=24), "jetson-orin-nano")
    assert (uneven.odd_groups, uneven.groups) == (1, 2)
    small = priced(backbones, with_channels(backbones, g0=10, g1=24), "jetson-nano")
    assert (small.odd_groups, small.groups) == (0, 2)


def test_price_when_macs_differ_is_refused(backbones: Backbones) -> None:
    candidate = backbones.uniform(make_knobs(), INT8)
    macs = backbones.describe(candidate).macs
    with pytest.raises(BackboneError, match=f"'{OWN}' is another network than when the run was"):
        price(candidate, macs + 1, backbones, CostPredictor(load_profile("jetson-nano")))
