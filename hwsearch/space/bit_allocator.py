"""From one knob, the saving, to the bits of every layer.

Each layer offers options with a cost and a sensitivity (how much accuracy it loses). Wanted: the
least total sensitivity whose total cost is low enough, a multiple-choice knapsack. The greedy walk
along the lower convex hull of each layer's options (Sinha and Zoltners 1979, doi
10.1287/opre.27.3.503) solves its relaxation, so it is optimal wherever it lands exactly on the
saving, and elsewhere worse by less than its last step. What that step saves too much is then given
back, which keeps the result monotone in the saving.
"""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hwsearch.bits import LayerBits

#: Totals are compared with this slack, relative to the reachable saving: sums of floats differ in
#: their last digits with the order of the layers.
_SLACK: Final = 1e-9


@dataclass(frozen=True, kw_only=True)
class BitOption:
    """What a layer may run in.

    Attributes:
        cost: what the device pays, in any unit that all layers share (ms, mJ or bytes).
        sensitivity: what accuracy pays, in any unit that all layers share.

    Raises:
        ValueError: a cost that is negative, or a number that is not finite.
    """

    bits: LayerBits
    cost: float
    sensitivity: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cost) and math.isfinite(self.sensitivity)) or self.cost < 0:
            raise ValueError(
                f"{self.bits}: cost {self.cost} and sensitivity {self.sensitivity} must be finite, "
                "and the cost not negative"
            )


@dataclass(frozen=True, kw_only=True)
class _Move:
    """A layer's change from one option to another; numbers are differences, both as gains."""

    layer: int
    option: BitOption
    saving: float
    sensitivity: float


def allocate_bits(
    options: Mapping[str, Sequence[BitOption]],
    saving: float,
    protected: Collection[str] = (),
) -> dict[str, LayerBits]:
    """Choose one option for each layer, deterministically.

    The reference is every layer at its widest bits. An option that costs as much as the widest or
    more is never taken. Ties go by the order of the layers, then to fewer bits.

    Args:
        options: by layer, at least one each, no bits twice.
        saving: share of the reachable saving (of the layers that are not protected) to deliver;
            0 gives the reference, 1 each layer's cheapest option (the least sensitive on a tie).
        protected: layers that stay at their widest bits.

    Returns:
        Bits by layer, in the order of ``options``.

    Raises:
        ValueError: a saving outside [0, 1], a layer without options or with the same bits twice,
            or a protected layer that is not in ``options``.
    """
    check_options(options, saving, protected)
    chosen = [max(offered, key=lambda option: option.bits) for offered in options.values()]
    paths = [
        [widest] if layer in protected else _hull(widest, offered)
        for (layer, offered), widest in zip(options.items(), chosen, strict=True)
    ]
    reachable = math.fsum(path[0].cost - path[-1].cost for path in paths)
    if saving == 1.0:
        chosen = [path[-1] for path in paths]
    elif reachable > 0.0:
        excess = _walk(paths, chosen, saving * reachable, _SLACK * reachable)
        for move in _give_back(paths, list(options.values()), chosen, excess):
            chosen[move.layer] = move.option
    return {layer: option.bits for layer, option in zip(options, chosen, strict=True)}


def check_options(
    options: Mapping[str, Sequence[BitOption]], saving: float, protected: Collection[str]
) -> None:
    """Raise what ``allocate_bits`` says."""
    if not 0.0 <= saving <= 1.0:
        raise ValueError(f"saving {saving} is not a share from 0 to 1")
    unknown = sorted(set(protected) - set(options))
    if unknown:
        raise ValueError(f"protected layers {unknown} are not among the layers")
    for layer, offered in options.items():
        if not offered or len({option.bits for option in offered}) != len(offered):
            raise ValueError(f"layer {layer} needs options, each with other bits")


def _hull(widest: BitOption, offered: Sequence[BitOption]) -> list[BitOption]:
    """The options from the widest to the cheapest on the lower convex hull of sensitivity.

    Slopes (sensitivity for each cost saved) do not fall along it.
    """
    hull = [widest]
    ascending = sorted(
        (option for option in offered if option.cost < widest.cost),
        key=lambda option: (-option.cost, option.sensitivity, option.bits),
    )
    for option in ascending:
        if option.cost == hull[-1].cost:
            continue  # the same saving with more sensitivity, or with more bits
        while len(hull) > 1 and _slope(hull[-1], option) < _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(option)
    return hull


def _slope(start: BitOption, end: BitOption) -> float:
    return (end.sensitivity - start.sensitivity) / (start.cost - end.cost)


def _walk(
    paths: Sequence[Sequence[BitOption]], chosen: list[BitOption], target: float, slack: float
) -> float:
    """Take steps of all paths by ascending slope until the target is met.

    Returns:
        What was saved beyond the target, at least ``-slack``.
    """
    steps = sorted(
        (
            (_slope(start, end), layer, start, end)
            for layer, path in enumerate(paths)
            for start, end in itertools.pairwise(path)
        ),
        # The steps of a layer are in order already, and sorting keeps the order of equals.
        key=lambda step: step[:2],
    )
    saved = 0.0
    for _, layer, start, end in steps:
        if saved >= target - slack:
            break
        chosen[layer] = end
        saved += start.cost - end.cost
    return saved - target


def _give_back(
    paths: Sequence[Sequence[BitOption]],
    options: Sequence[Sequence[BitOption]],
    chosen: Sequence[BitOption],
    excess: float,
) -> list[_Move]:
    """Undo what the target does not need: the moves that regain the most sensitivity.

    Tried are each single move of one layer to any less sensitive option, or none, followed by
    the smallest steps backwards that still fit. With the first move fixed, a larger excess only
    adds moves, so the best over all first moves never regains less from a larger excess.
    """
    firsts = [
        move
        for layer, offered in enumerate(options)
        for move in (_move(layer, chosen[layer], option) for option in offered)
        if move.option.cost < paths[layer][0].cost or move.option is paths[layer][0]
        if 0.0 < move.saving <= excess and move.sensitivity > 0.0
    ]
    best = _smallest_steps(paths, chosen, excess, without=None)
    for first in firsts:
        rest = _smallest_steps(paths, chosen, excess - first.saving, without=first.layer)
        if _regained([first, *rest]) > _regained(best):
            best = [first, *rest]
    return best


def _smallest_steps(
    paths: Sequence[Sequence[BitOption]],
    chosen: Sequence[BitOption],
    room: float,
    without: int | None,
) -> list[_Move]:
    """Steps backwards along the hulls, the smallest saving first, while they fit."""
    at = {layer: path.index(chosen[layer]) for layer, path in enumerate(paths) if layer != without}
    moves: list[_Move] = []
    while True:
        available = [
            _move(layer, paths[layer][place], paths[layer][place - 1])
            for layer, place in at.items()
            if place > 0
        ]
        useful = [move for move in available if move.sensitivity > 0.0]
        smallest = min(useful, key=lambda move: move.saving, default=None)
        if smallest is None or smallest.saving > room:
            return moves
        moves.append(smallest)
        room -= smallest.saving
        at[smallest.layer] -= 1


def _move(layer: int, start: BitOption, end: BitOption) -> _Move:
    return _Move(
        layer=layer,
        option=end,
        saving=end.cost - start.cost,
        sensitivity=start.sensitivity - end.sensitivity,
    )


def _regained(moves: Sequence[_Move]) -> float:
    return math.fsum(move.sensitivity for move in moves)
