"""How long a run without a time limit trains, and how a time limit is shared out."""

from dataclasses import dataclass
from typing import Final, Literal

Effort = Literal["quick", "standard", "thorough"]


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Lengths of a run that no clock ends; one seed gives the same run again.

    Attributes:
        base_passes: over the training pictures, of a base network.
        final_passes: the same of a finalist.
        finalists: at most.
        trials: for one trial that the space plans.
    """

    base_passes: int
    final_passes: int
    finalists: int
    trials: float


LENGTHS: Final[dict[Effort, Lengths]] = {
    "quick": Lengths(base_passes=16, final_passes=6, finalists=4, trials=0.5),
    "standard": Lengths(base_passes=40, final_passes=12, finalists=8, trials=1.0),
    "thorough": Lengths(base_passes=150, final_passes=30, finalists=12, trials=2.0),
}

#: Of the time that a limit leaves when the pictures are read, what base networks get; of what is
#: left then, what trials get. The rest goes to finalists and their files.
BASE_SHARE: Final = 0.5
TRIAL_SHARE: Final = 0.2
#: Finalists under a time limit: at most so many; a few where each of more would see the pictures
#: fewer times than is good, and fewer, but not below the least, where each would see them fewer
#: times than the least. In 8 minutes on CIFAR-10 with 4 passes for each of eleven, pruned networks
#: lost 3 points to those of a plain script that got 25; in 20 minutes with 15 passes for each of
#: eight, the narrow ones were 1.5 points behind those that ModelOpt trained for 200 s.
MOST_FINALISTS: Final = 8
GOOD_FINAL_PASSES: Final = 30
FEW_FINALISTS: Final = 5
LEAST_FINAL_PASSES: Final = 12
LEAST_FINALISTS: Final = 3
#: A base network that saw the pictures fewer times is far from what it could be: on CIFAR-10 the
#: same recipe gives 57.5 % after 12 passes and 67 % after 69.
LEAST_BASE_PASSES: Final = 20


def full_steps(least: int, pictures: int, batch_size: int, *, passes: int) -> int:
    """Optimizer steps for training that sees the data some times, whatever its size.

    Args:
        least: what the search space says.
        pictures: of the training split.
        batch_size: pictures in each step.
        passes: over the data.
    """
    return max(least, -(-passes * pictures // batch_size))
