import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_fixtures import leaf
from pydantic import ValidationError

from hwsearch.hardware.learned.trees import FEATURES, Tree, predict

STUMP = {"feature": (0, -1, -1), "threshold": (0.5, 1.0, 2.0)}


def random_tree(seed: int, splits: int) -> Tree:
    """A tree with some splits, each side of a split taking a random part of the rest."""
    rng = np.random.default_rng(seed)
    feature: list[int] = []
    threshold: list[float] = []

    def grow(left: int) -> None:
        threshold.append(float(round(rng.normal(), 1)))
        feature.append(int(rng.integers(4)) if left else -1)
        if left:
            before = int(rng.integers(left))
            grow(before)
            grow(left - 1 - before)

    grow(splits)
    return Tree(feature=tuple(feature), threshold=tuple(threshold))


def walk(tree: Tree, row: list[float]) -> float:
    """The definition: read from the start, skipping the left side where a row goes right."""
    node = 0
    while tree.feature[node] >= 0:
        lower = row[tree.feature[node]] <= tree.threshold[node]
        node += 1 if lower else 1 + size(tree, node + 1)
    return tree.threshold[node]


def size(tree: Tree, node: int) -> int:
    """Nodes of the part of a tree that starts at one."""
    if tree.feature[node] < 0:
        return 1
    left = size(tree, node + 1)
    return 1 + left + size(tree, node + 1 + left)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), splits=st.lists(st.integers(0, 20), min_size=1, max_size=6))
def test_trees_when_walked_one_row_and_one_tree_at_a_time(seed: int, splits: list[int]) -> None:
    trees = [random_tree(seed + at, count) for at, count in enumerate(splits)]
    # Rounded as the thresholds are, so that ties come up.
    rows = np.round(np.random.default_rng(seed + 1).normal(size=(25, 4)), 1)
    expected = [sum(walk(tree, row) for tree in trees) for row in rows.tolist()]
    assert predict(trees, rows) == pytest.approx(expected, abs=1e-12)


def test_trees_when_rows_are_more_than_are_walked_at_once() -> None:
    trees = [random_tree(seed, 9) for seed in range(3)]
    rows = np.random.default_rng(0).normal(size=(700, 4))
    apart = [float(predict(trees, row[None, :])[0]) for row in rows]
    assert predict(trees, rows).tolist() == apart


def test_trees_when_there_are_none_or_no_rows() -> None:
    assert predict([], np.zeros((3, 2))).tolist() == [0.0] * 3
    assert predict([leaf(0.1)], np.zeros((0, 2))).tolist() == []


def test_tree_when_a_value_is_the_threshold_then_left() -> None:
    tree = Tree.model_validate(STUMP)
    found = predict([tree], np.array([[0.5], [0.5000001], [-9.0]]))
    assert found.tolist() == [1.0, 2.0, 1.0]


# -- text -----------------------------------------------------------------------------------------


def text_of(tree: Tree) -> object:
    """What a profile file holds."""
    return tree.model_dump(mode="json")


def test_tree_when_written_as_text() -> None:
    assert text_of(Tree.model_validate(STUMP)) == "0:0.5 1.0 2.0"
    assert Tree.model_validate("0:0.5 1 2") == Tree.model_validate(STUMP)
    assert text_of(leaf(-1e-05)) == "-1e-05"


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), splits=st.integers(0, 20))
def test_tree_when_read_back_from_text_then_equal(seed: int, splits: int) -> None:
    tree = random_tree(seed, splits)
    assert Tree.model_validate(text_of(tree)) == tree


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least 1 item"),
        ("0:0.5 1.0", "lacks 1 of its leaves"),
        ("0:0.5 1:0.1 1.0", "lacks 2 of its leaves"),
        ("0.5 1.0", "nodes behind its last leaf"),
        ("0:0.5 1.0 2.0 3.0", "nodes behind its last leaf"),
        ("0:0.5 1.0 two", "'two' is no node of a tree; write feature:threshold, or a leaf's value"),
        ("x:0.5 1.0 2.0", "'x:0.5' is no node of a tree"),
        ("0:0.5 nan 2.0", "finite"),
        ("0:inf 1.0 2.0", "finite"),
        (f"{len(FEATURES)}:0.5 1.0 2.0", f"by feature {len(FEATURES)}; there are {len(FEATURES)}"),
        ("-2:0.5 1.0 2.0", "by feature -2"),
    ],
)
def test_tree_when_text_is_not_one(text: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Tree.model_validate(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature": (-1, -1, 0)}, "behind its last leaf"),
        ({"feature": (0, -1)}, "differ in length"),
        ({"threshold": (0.5, 1.0, 2.0, 3.0)}, "differ in length"),
        ({"feature": ()}, "at least 1 item"),
        ({"threshold": (math.nan, 1.0, 2.0)}, "finite"),
        ({"threshold": (0.5, math.inf, 2.0)}, "finite"),
        ({"left": (1, 0, 0)}, "Extra inputs"),
    ],
)
def test_tree_when_it_is_not_one(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Tree.model_validate(STUMP | changes)
