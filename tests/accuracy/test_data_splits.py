"""Splits are tested against their definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwsearch.accuracy.data.splits import (
    Part,
    interleaved,
    make_splits,
    require_counts,
    stratified,
)
from hwsearch.errors import DataError

CLASSES = ("a", "b", "c")


def numbered(labels: list[int], start: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures that carry their number in their pixels, so that they can be followed."""
    images = torch.zeros((len(labels), 3, 2, 2), dtype=torch.uint8)
    images[:, 0] = torch.arange(start, start + len(labels), dtype=torch.uint8)[:, None, None]
    return images, torch.tensor(labels)


def numbers(images: Tensor) -> list[int]:
    return [int(n) for n in images[:, 0, 0, 0]]


@given(st.lists(st.integers(3, 40), min_size=2, max_size=6), st.integers(0, 5), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_stratified_parts_cover_everything_once_in_the_shares(
    counts: list[int], order_seed: int, seed: int
) -> None:
    labels = np.random.default_rng(order_seed).permutation(np.repeat(range(len(counts)), counts))
    parts = stratified(labels, (0.15, 0.15), seed=seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for label, count in enumerate(counts):
        held_out, other, rest = (int((labels[part] == label).sum()) for part in parts)
        assert held_out == other
        assert held_out >= 1
        assert rest >= 1
        assert held_out == 1 or abs(held_out - 0.15 * count) <= 0.5


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_interleaved_is_a_permutation_whose_starts_are_fair(counts: list[int], seed: int) -> None:
    labels = np.repeat(range(len(counts)), counts)
    order = interleaved(labels, seed=seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    for length in range(1, len(labels) + 1):
        seen = np.bincount(labels[order[:length]], minlength=len(counts))
        fair = length * np.array(counts) / len(labels)
        assert np.abs(seen - fair).max() <= len(counts)


def test_interleaved_is_random_within_a_class() -> None:
    labels = np.zeros(50, dtype=np.int64)
    assert interleaved(labels, seed=0).tolist() != list(range(50))
    assert interleaved(labels, seed=0).tolist() != interleaved(labels, seed=1).tolist()


def test_all_is_divided_in_three_and_pictures_keep_their_labels() -> None:
    labels = [0] * 20 + [1] * 20 + [2] * 60
    splits, how = make_splits({"all": numbered(labels)}, CLASSES, where="x", seed=3)
    train, validation, test = splits
    assert (len(train), len(validation), len(test)) == (70, 15, 15)
    assert torch.bincount(test.labels).tolist() == [3, 3, 9]
    assert torch.bincount(validation.labels).tolist() == [3, 3, 9]
    together = [n for split in splits for n in numbers(split.images)]
    assert sorted(together) == list(range(100))
    for split in splits:
        assert [labels[n] for n in numbers(split.images)] == split.labels.tolist()
    assert how == (
        "no split was given: 15 % of each class for validation and 15 % for test, drawn with seed 3"
    )


def test_class_that_is_missing_is_named_with_its_count() -> None:
    with pytest.raises(DataError) as caught:
        make_splits({"all": numbered([0] * 5 + [1] * 5)}, CLASSES, where="'pets'", seed=0)
    assert str(caught.value) == (
        "class 'c' has 0 pictures in 'pets'; at least 3 are needed (one each for train, "
        "validation and test); add pictures or remove the class"
    )


@pytest.mark.parametrize("part", ["all", "train", "test"])
def test_one_class_is_not_enough(part: Part) -> None:
    with pytest.raises(DataError, match="x has 1 class; at least 2 are needed, each in a folder"):
        require_counts({part: {"a": 100}}, where="x")


@pytest.mark.parametrize(("part", "least"), [("all", 3), ("train", 2), ("validation", 1)])
def test_least_counts_pass_and_one_less_does_not(part: Part, least: int) -> None:
    require_counts({part: {"a": least, "b": least}}, where="x")
    with pytest.raises(DataError, match=f"class 'b' has {least - 1} picture"):
        require_counts({part: {"a": least, "b": least - 1}}, where="x")
