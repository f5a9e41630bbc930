"""How pictures are divided into train, validation and test.

Nothing here imports torch or numpy before it has to: counting is part of the cheap check.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from hwsearch.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from hwsearch.accuracy.data.dataset import Split

    Indices = npt.NDArray[np.int64]

#: "all" are pictures that came without a split.
Part = Literal["all", "train", "validation", "test"]

#: The fewest pictures that a class may have in a part, and why; of the others one is enough.
_LEAST: Final[Mapping[Part, tuple[int, str]]] = {
    "all": (3, " (one each for train, validation and test)"),
    "train": (2, " (one may be held out for validation)"),
}

#: Share of all pictures for each of validation and test, when one lot is divided in three.
HELD_OUT_SHARE: Final = 0.15

#: Share of the train pictures that become the validation split, when a test split is given.
VALIDATION_SHARE: Final = 0.15


def require_counts(counts: Mapping[Part, Mapping[str, int]], *, where: str) -> None:
    """Check that every class has pictures enough for the split that is going to be made.

    Args:
        counts: pictures of each class in each part that was given.
        where: the folder or the data set, for the message.

    Raises:
        DataError: fewer than two classes, or a class with too few pictures, with its count.
    """
    for part, by_class in counts.items():
        if len(by_class) < 2:
            raise DataError(
                f"{where} has {len(by_class)} class{'' if len(by_class) == 1 else 'es'}; at least "
                "2 are needed, each in a folder of its own"
            )
        least, why = _LEAST.get(part, (1, ""))
        for name, count in by_class.items():
            if count < least:
                raise DataError(
                    f"class '{name}' has {count} picture{'' if count == 1 else 's'} in "
                    f"{where if part == 'all' else f'{part} of {where}'}; at least {least} "
                    f"{'is' if least == 1 else 'are'} needed{why}; add pictures or remove the class"
                )


def stratified(labels: "Indices", shares: tuple[float, ...], *, seed: int) -> tuple["Indices", ...]:
    """Divide indices so that every class is held out in the same shares.

    Of scikit-learn's ``train_test_split`` a class of three pictures may get none held out, and one
    that leaves fewer held-out pictures than there are classes is an error.

    Args:
        labels: (N,) class of each picture.
        shares: of the parts that are held out; what remains is the last part returned. A class
            gives ``n * share`` pictures to each, rounded half up and at least one.
        seed: of the choice within each class.

    Returns:
        One array of ascending indices for each share, and one for the rest.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    parts: list[list[Indices]] = [[] for _ in range(len(shares) + 1)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        start = 0
        for part, share in zip(parts, shares, strict=False):
            count = max(1, int(len(members) * share + 0.5))
            part.append(members[start : start + count])
            start += count
        parts[-1].append(members[start:])
    return tuple(np.sort(np.concatenate(part)) for part in parts)


def interleaved(labels: "Indices", *, seed: int) -> "Indices":
    """An order in which the classes take turns, so that any first n pictures are a fair sample.

    Within a class the order is random. Returns a permutation of ``arange(N)``.
    """
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = labels[order]
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(shuffled == label)
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.asarray(order[np.lexsort((shuffled, position))], dtype=np.int64)


def make_splits(
    parts: Mapping[Part, tuple["Tensor", "Tensor"]],
    class_names: tuple[str, ...],
    *,
    where: str,
    seed: int,
    held_out_share: float = HELD_OUT_SHARE,
) -> tuple[tuple["Split", "Split", "Split"], str]:
    """Make train, validation and test out of the parts that were given.

    Args:
        parts: images (uint8, (N, 3, S, S)) and labels (int64, (N,)): either "all", or "train" and
            "test", or all three. A held-out split is never mixed with the others.
        class_names: of the labels.
        where: the folder or the data set, for messages.
        seed: of the division and of the order.
        held_out_share: of each of validation and test, where only "all" was given.

    Returns:
        The splits, and a sentence for people.

    Raises:
        DataError: a class has too few pictures.
    """
    import numpy as np
    import torch

    from hwsearch.accuracy.data.dataset import Split

    numbers = {part: labels.numpy() for part, (_, labels) in parts.items()}
    counts: dict[Part, dict[str, int]] = {}
    for part, labels in numbers.items():
        of_class = np.bincount(labels, minlength=len(class_names)).tolist()
        counts[part] = dict(zip(class_names, of_class, strict=True))
    require_counts(counts, where=where)
    whole: dict[Part, Indices] = {part: np.arange(len(labels)) for part, labels in numbers.items()}
    chosen: tuple[tuple[Part, Indices], ...]
    if "all" in numbers:
        test, validation, train = stratified(numbers["all"], (held_out_share,) * 2, seed=seed)
        chosen = (("all", train), ("all", validation), ("all", test))
        percent = f"{held_out_share * 100:g} %"
        how = (
            f"no split was given: {percent} of each class for validation and {percent} for test, "
            f"drawn with seed {seed}"
        )
    elif "validation" in numbers:
        chosen = tuple((part, whole[part]) for part in ("train", "validation", "test"))
        how = "train, validation and test as given"
    else:
        validation, train = stratified(numbers["train"], (VALIDATION_SHARE,), seed=seed)
        chosen = (("train", train), ("train", validation), ("test", whole["test"]))
        how = (
            f"test as given; {VALIDATION_SHARE * 100:g} % of each class of train for validation, "
            f"drawn with seed {seed}"
        )

    def take(part: Part, indices: "Indices") -> Split:
        images, labels = parts[part]
        order = torch.from_numpy(indices[interleaved(numbers[part][indices], seed=seed)])
        return Split(images=images[order], labels=labels[order])

    first, second, third = (take(part, indices) for part, indices in chosen)
    return (first, second, third), how
