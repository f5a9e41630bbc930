import pytest

from hwsearch.bits import FP32
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import Blueprint, make_blueprint
from hwsearch.nets.trace import trace

REF = BackboneRef(name="mobilenetv3_small_050", classes=7, stem_stride=1)


@pytest.fixture(scope="module")
def blueprint() -> Blueprint:
    return make_blueprint(REF, 32)


def test_blueprint_when_nothing_is_pruned_is_the_trace(blueprint: Blueprint) -> None:
    alone = trace(build(REF, 32, device="meta"), 32)
    assert blueprint.describe({}) == alone.describe(REF.name, alone.out_channels())
    assert {kernel.bits for kernel in blueprint.describe({}).kernels} == {FP32}
    assert blueprint.describe({}).kernels[-1].out_channels == 7


def test_blueprint_when_one_channel_goes_everything_shrinks_or_stays(blueprint: Blueprint) -> None:
    dense = blueprint.describe({})
    for group in blueprint.graph.groups:
        smaller = blueprint.describe({group.name: group.channels - 1})
        assert smaller.macs < dense.macs
        assert smaller.weight_elements < dense.weight_elements
        for before, after in zip(dense.kernels, smaller.kernels, strict=True):
            assert after.macs <= before.macs
            assert after.input_elements <= before.input_elements
            assert after.output_elements <= before.output_elements


def test_blueprint_when_input_grows_weights_stay(blueprint: Blueprint) -> None:
    larger = make_blueprint(REF, 64)
    assert larger.graph == blueprint.graph
    assert larger.describe({}).weight_elements == blueprint.describe({}).weight_elements
    assert larger.describe({}).macs > 3 * blueprint.describe({}).macs
