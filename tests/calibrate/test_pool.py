from collections import Counter

import pytest
from calibrate_fixtures import SMALL, small_pool

from hwsearch.bits import FP32, INT8
from hwsearch.calibrate.pool import FAMILIES, Blueprints, draw_pool
from hwsearch.hardware.kernels import KernelKind


def test_the_pool_is_the_same_for_the_same_seed() -> None:
    again = draw_pool(
        12, widths=(INT8,), granularity=8, seed=3, blueprints=Blueprints(), families=SMALL
    )
    assert tuple(again) == small_pool()[:12]
    other = draw_pool(
        12, widths=(INT8,), granularity=8, seed=4, blueprints=Blueprints(), families=SMALL
    )
    assert [net.recipe for net in other] != [net.recipe for net in again]


def test_all_nets_differ_and_the_families_take_turns() -> None:
    pool = small_pool()
    assert len({net.recipe for net in pool}) == len(pool) == 60
    per_family = Counter((net.recipe.backbone, net.recipe.arguments) for net in pool)
    assert len(per_family) == len(SMALL)
    assert min(per_family.values()) >= 10


def test_channels_are_pruned_unevenly_in_whole_blocks() -> None:
    blueprints = Blueprints()
    uneven = 0
    for net in small_pool():
        blueprint = blueprints.of(net.recipe.ref, net.recipe.input_px)
        dense = [group.channels for group in blueprint.graph.groups]
        kept = net.recipe.kept_channels
        assert all(0 < now <= before for now, before in zip(kept, dense, strict=True))
        assert all(now % 8 == 0 or now == all_ for now, all_ in zip(kept, dense, strict=True))
        shares = {round(now / before, 3) for now, before in zip(kept, dense, strict=True)}
        uneven += len(shares) > 1
    assert uneven >= len(small_pool()) / 4


def test_bits_are_mixed_in_part_of_the_nets() -> None:
    sorts = Counter(frozenset(net.recipe.layer_bits) for net in small_pool())
    assert set(sorts) == {frozenset({FP32}), frozenset({INT8}), frozenset({FP32, INT8})}
    assert sorts[frozenset({FP32, INT8})] >= 15


def test_more_nets_than_there_are_is_refused() -> None:
    # One group of 16 channels in blocks of 16, one width: a handful of nets.
    with pytest.raises(ValueError, match=r"only \d+ of 400 nets differ; ask for fewer"):
        draw_pool(
            400, widths=(), granularity=256, seed=0, blueprints=Blueprints(), families=SMALL[1:2]
        )


@pytest.mark.slow
def test_the_whole_pool_is_drawn_and_covers_every_kind_but_few() -> None:
    pool = draw_pool(
        2 * len(FAMILIES), widths=(INT8,), granularity=8, seed=0, blueprints=Blueprints()
    )
    kinds = {kernel.kind for net in pool for kernel in net.network.kernels}
    assert kinds == set(KernelKind)
