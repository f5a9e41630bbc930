import dataclasses
import itertools
import math
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsearch.space.channel_allocator import ChannelGroup, allocate_channels, block

SPREADS = (0.0, 0.25, 0.5, 1.0)
RATIOS = tuple(step / 20 for step in range(19))


def group(
    name: str = "g",
    channels: int = 64,
    importance: Iterable[float] | None = None,
    stage: int = 1,
    granularity: int = 8,
    minimum: int = 1,
) -> ChannelGroup:
    return ChannelGroup(
        name=name,
        stage=stage,
        channels=channels,
        importance=tuple(importance) if importance is not None else (1.0,) * channels,
        granularity=granularity,
        minimum=minimum,
    )


@st.composite
def groups(draw: st.DrawFn, smallest: int = 1, largest: int = 96) -> list[ChannelGroup]:
    made = []
    for number in range(draw(st.integers(1, 4))):
        channels = draw(st.integers(smallest, largest))
        seed = draw(st.randoms(use_true_random=False))
        made.append(
            group(
                f"g{number}",
                channels,
                [seed.choice((0.0, 0.5, seed.random(), 3.0)) for _ in range(channels)],
                stage=draw(st.integers(1, 2)),
                granularity=draw(st.sampled_from([1, 2, 4, 8, 16, 32])),
                minimum=draw(st.integers(1, channels)) if draw(st.booleans()) else 1,
            )
        )
    return made


def even(ratio: float) -> tuple[float, ...]:
    return (ratio,) * 4


# --- properties of every allocation


@settings(max_examples=150, deadline=None, derandomize=True)
@given(groups(), st.sampled_from(RATIOS), st.sampled_from(SPREADS))
def test_counts_are_in_bounds_and_in_blocks(
    made: list[ChannelGroup], ratio: float, spread: float
) -> None:
    kept = allocate_channels(made, even(ratio), spread)
    assert list(kept) == [member.name for member in made]
    for member in made:
        count = kept[member.name]
        assert max(1, member.minimum) <= count <= member.channels
        assert count == member.channels or count % block(member) == 0


@settings(max_examples=80, deadline=None, derandomize=True)
@given(groups(), st.sampled_from(SPREADS))
def test_higher_ratio_never_keeps_more_in_any_group(
    made: list[ChannelGroup], spread: float
) -> None:
    counts = [allocate_channels(made, even(ratio), spread) for ratio in RATIOS]
    for low, high in itertools.pairwise(counts):
        assert all(high[name] <= low[name] for name in low)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(groups(smallest=40), st.sampled_from([0.1, 0.25, 0.5, 0.75]), st.sampled_from(SPREADS[1:]))
def test_stage_loses_about_its_ratio(made: list[ChannelGroup], ratio: float, spread: float) -> None:
    free = [dataclasses.replace(member, minimum=1, granularity=4) for member in made]
    kept = allocate_channels(free, even(ratio), spread)
    for stage in (1, 2):
        members = [member for member in free if member.stage == stage]
        wanted = ratio * sum(member.channels for member in members)
        removed = sum(member.channels - kept[member.name] for member in members)
        # Each group is snapped by at most half a block.
        assert abs(removed - wanted) <= sum(block(member) / 2 for member in members) + 1e-6


@settings(max_examples=60, deadline=None, derandomize=True)
@given(groups(), st.sampled_from(RATIOS), st.sampled_from(SPREADS))
def test_scale_of_a_groups_importances_does_not_matter(
    made: list[ChannelGroup], ratio: float, spread: float
) -> None:
    scaled = [
        dataclasses.replace(member, importance=tuple(4.0 * value for value in member.importance))
        for member in made
    ]
    assert allocate_channels(scaled, even(ratio), spread) == allocate_channels(
        made, even(ratio), spread
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(groups(), st.sampled_from(RATIOS), st.sampled_from(SPREADS))
def test_order_of_a_groups_channels_does_not_matter(
    made: list[ChannelGroup], ratio: float, spread: float
) -> None:
    turned = [dataclasses.replace(member, importance=member.importance[::-1]) for member in made]
    assert allocate_channels(turned, even(ratio), spread) == allocate_channels(
        made, even(ratio), spread
    )


# --- a spread of 0


@pytest.mark.parametrize(
    ("channels", "ratio", "kept"),
    [
        (64, 0.25, 48),
        (64, 0.3, 48),  # 44.8
        (64, 0.5, 32),
        (64, 0.9, 8),  # 6.4: never 0
        (64, 0.01, 56),  # 63.4: at least one block goes
        (16, 0.1, 8),
        (24, 0.5, 16),  # 12 is as near to 8: the larger
        (20, 0.1, 16),  # 18 is as near to 16 as to 20, but a block must go
        (12, 0.1, 10),  # less than two blocks of 8: blocks of 2, 10.8
        (12, 0.05, 12),  # 11.4, and nothing must go
        (12, 0.3, 8),
        (3, 0.5, 2),
        (1, 0.9, 1),
    ],
)
def test_even_spread_rounds_to_blocks(channels: int, ratio: float, kept: int) -> None:
    assert allocate_channels([group(channels=channels)], even(ratio), 0.0) == {"g": kept}


def test_each_stage_has_its_own_ratio() -> None:
    made = [group(f"s{stage}", stage=stage) for stage in (4, 2, 1, 3)]
    kept = allocate_channels(made, (0.0, 0.25, 0.5, 0.75), 0.0)
    assert kept == {"s1": 64, "s2": 48, "s3": 32, "s4": 16}


# --- a spread of 1


def threshold_counts(made: list[ChannelGroup], ratio: float) -> dict[str, int]:
    """The definition: the least important of all channels go, without bounds or blocks."""
    ranked = sorted(
        (value / (sum(member.importance) / member.channels), member.name)
        for member in made
        for value in member.importance
    )
    gone = [name for _, name in ranked[: round(ratio * len(ranked))]]
    return {member.name: member.channels - gone.count(member.name) for member in made}


@pytest.mark.parametrize("ratio", [0.1, 0.2, 0.4])
def test_full_spread_is_one_threshold_over_the_stage(ratio: float) -> None:
    made = [
        group("first", 40, [50.0 + rank for rank in range(40)], granularity=1),
        group("second", 60, [30.3 + rank for rank in range(60)], granularity=1),
        group("third", 50, [70.7 + 2 * rank for rank in range(50)], granularity=1),
    ]
    expected = threshold_counts(made, ratio)
    assert len({expected[member.name] / member.channels for member in made}) == 3
    # No group is near the bound of twice the ratio, which the definition does not have.
    assert all(expected[member.name] > member.channels * (1 - 2 * ratio) for member in made)
    assert allocate_channels(made, even(ratio), 1.0) == expected


def test_full_spread_takes_the_unimportant_first() -> None:
    made = [
        group("uneven", 64, [0.01] * 32 + [2.0] * 32),
        group("even", 64, [1.0] * 64),
    ]
    assert allocate_channels(made, even(0.25), 1.0) == {"uneven": 32, "even": 64}
    assert allocate_channels(made, even(0.25), 0.5) == {"uneven": 40, "even": 56}


def test_full_spread_takes_at_most_twice_the_ratio() -> None:
    made = [
        group("uneven", 128, [0.01] * 120 + [99.0] * 8),
        *(group(name, 128, [1.0] * 128) for name in ("one", "other")),
    ]
    # A quarter of all three is 96; the uneven one would lose all of it.
    expected = {"uneven": 64, "one": 112, "other": 112}
    assert allocate_channels(made, even(0.25), 1.0) == expected


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0, 1e-320, 1e300])
def test_equal_importances_lose_equal_shares(value: float) -> None:
    made = [group("a", 64, [value] * 64), group("b", 96, [0.3] * 96)]
    assert allocate_channels(made, even(0.5), 1.0) == {"a": 32, "b": 48}


# --- blocks


@settings(deadline=None, derandomize=True)
@given(st.integers(4, 500), st.integers(1, 64))
def test_small_block_gives_at_least_four_levels(channels: int, granularity: int) -> None:
    size = block(group(channels=channels, granularity=granularity))
    assert size <= granularity
    assert size == granularity or channels // size >= 4


# --- refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage": 5}, "group g: stages are 1 to 4"),
        ({"granularity": 0}, "granularity at least 1"),
        ({"minimum": 0}, r"minimum 0 is not in 1 to 64"),
        ({"minimum": 65}, r"minimum 65 is not in 1 to 64"),
        ({"importance": [1.0]}, "64 channels and 1 importances"),
        ({"importance": [-1.0] * 64}, "finite and not negative"),
        ({"importance": [math.nan] * 64}, "finite and not negative"),
        ({"importance": [math.inf] * 64}, "finite and not negative"),
    ],
)
def test_odd_group_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group(**change)


@pytest.mark.parametrize(
    ("made", "ratios", "spread", "message"),
    [
        ([group()], (0.5,), 0.0, "not four numbers"),
        ([group()], even(0.95), 0.0, "from 0 to 0.9"),
        ([group()], even(0.5), 1.5, "spread 1.5 is not a share"),
        ([group(), group()], even(0.5), 0.0, "two groups have one name"),
    ],
)
def test_odd_call_is_refused(
    made: list[ChannelGroup], ratios: tuple[float, ...], spread: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        allocate_channels(made, ratios, spread)
