"""From a pruning ratio for each stage to the channels that each group of layers keeps.

A group is the set of layers whose channels depend on each other and are removed together. Counts
are multiples of the runtime's block wherever possible: 62 channels cost 1.7 times what 64 cost.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hwsearch.space.candidate import STAGES, check_ratios

#: Most of a group that may be removed, whatever the ratio.
_MOST: Final = 0.9


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """Channels that are removed together, as they are before pruning.

    Attributes:
        stage: 1 to 4.
        importance: one value for each channel, not negative; only ratios within the group count.
        granularity: channels are kept in multiples of it, of a smaller one in small groups.
        minimum: channels that must stay.

    Raises:
        ValueError: a count out of range, or importances that are missing, negative or not finite.
    """

    name: str
    stage: int
    channels: int
    importance: tuple[float, ...]
    granularity: int = 8
    minimum: int = 1

    def __post_init__(self) -> None:
        if self.stage not in STAGES or self.granularity < 1:
            raise ValueError(f"group {self.name}: stages are 1 to 4, the granularity at least 1")
        if not 1 <= self.minimum <= self.channels:
            raise ValueError(
                f"group {self.name}: the minimum {self.minimum} is not in 1 to {self.channels}"
            )
        if len(self.importance) != self.channels:
            raise ValueError(
                f"group {self.name} has {self.channels} channels and {len(self.importance)} "
                "importances; give one for each"
            )
        if not all(0.0 <= value < math.inf for value in self.importance):
            raise ValueError(f"group {self.name}: importances must be finite and not negative")


def allocate_channels(
    groups: Sequence[ChannelGroup], ratios: tuple[float, ...], spread: float
) -> dict[str, int]:
    """Channels to keep in each group.

    Each stage loses about its ratio of channels. With a spread of 0 every group loses that share,
    and at least one block where it has two; with 1 the least important channels of the stage go,
    importance being relative to the mean of its group, and no group loses more than twice the
    ratio. Between, the two counts are mixed. A higher ratio never keeps more channels in a group.

    Args:
        groups: names must differ; a stage without groups loses nothing.
        ratios: one from 0 to 0.9 for each of stages 1 to 4.
        spread: from 0 to 1.

    Returns:
        Kept channels by group, in the order of ``groups``.

    Raises:
        ValueError: a ratio or spread out of range, or two groups of one name.
    """
    check_ratios(ratios)
    if not 0.0 <= spread <= 1.0:
        raise ValueError(f"spread {spread} is not a share from 0 to 1")
    if len({group.name for group in groups}) != len(groups):
        raise ValueError("two groups have one name")
    kept: dict[str, int] = {}
    for stage, ratio in zip(STAGES, ratios, strict=True):
        members = [group for group in groups if group.stage == stage]
        ranked = _removed_by_importance(members, ratio)
        for group, by_importance in zip(members, ranked, strict=True):
            removed = (1.0 - spread) * ratio * group.channels + spread * by_importance
            kept[group.name] = _snapped(group, removed, at_least_a_block=spread == 0.0 < ratio)
    return {group.name: kept[group.name] for group in groups}


def block(group: ChannelGroup) -> int:
    """The channels that are removed together in this group.

    Its granularity; for less than two blocks of that, the largest power of two with at least four
    blocks, or 1.
    """
    if group.channels >= 2 * group.granularity:
        return group.granularity
    return 1 << max(0, (group.channels // 4).bit_length() - 1)


def _removed_by_importance(groups: Sequence[ChannelGroup], ratio: float) -> list[float]:
    """Channels removed from each group below one threshold of the whole stage.

    Counts are fractions, which snapping rounds: rounded here, a higher ratio could remove less
    from a group whose neighbours' bounds grew.
    """
    room = ratio * sum(group.channels for group in groups)
    removed = [0.0] * len(groups)
    bounds = [
        min(min(_MOST, 2.0 * ratio) * group.channels, group.channels - _least(group))
        for group in groups
    ]
    for _, _, member in sorted(
        (importance, share, member)
        for member, group in enumerate(groups)
        for importance, share in _ranked_channels(group)
    ):
        amount = max(0.0, min(1.0, bounds[member] - removed[member], room))
        removed[member] += amount
        room -= amount
    return removed


def _ranked_channels(group: ChannelGroup) -> list[tuple[float, float]]:
    """(importance relative to the group's mean, rank as a share of the group), ascending.

    The share breaks ties between groups, so that groups of equal importances lose equal shares.
    """
    # Divided by the largest first: sums of very large or small values leave the range of floats.
    largest = max(group.importance)
    shares = [value / largest if largest > 0.0 else 1.0 for value in group.importance]
    mean = math.fsum(shares) / group.channels
    # Rounded, so that equal importances tie with those of another group.
    relative = sorted(round(share / mean, 12) for share in shares)
    return [(value, (rank + 0.5) / group.channels) for rank, value in enumerate(relative)]


def _least(group: ChannelGroup) -> int:
    """The smallest count that the group may keep: whole blocks, at least one, or all channels."""
    step = block(group)
    return min(group.channels, -(-group.minimum // step) * step)


def _snapped(group: ChannelGroup, removed: float, *, at_least_a_block: bool) -> int:
    """The nearest allowed count, the larger on a tie."""
    levels: list[int] = [*range(_least(group), group.channels, block(group)), group.channels]
    # The digits past the ninth are the rounding of sums, and must not decide a tie.
    wish = round(group.channels - removed, 9)
    kept = min(levels, key=lambda level: (abs(level - wish), -level))
    if at_least_a_block and kept == group.channels >= 2 * group.granularity and len(levels) > 1:
        return levels[-2]
    return kept
