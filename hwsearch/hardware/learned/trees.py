"""Regression trees as a line of text each, and the features that they split by.

A tree is written in preorder: a node that splits is ``feature:threshold``, a leaf is its value, so
``4:12.5 0.02 0:8.1 -0.01 0.03`` says where each node's children are without naming them. A profile
holds hundreds of trees, and as lists of children they were four fifths of its file.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Final, Self

import numpy as np
from pydantic import Field, field_validator, model_serializer, model_validator

from hwsearch.hardware.file_model import FileModel, Finite
from hwsearch.hardware.kernel_table import Floats, Ints
from hwsearch.hardware.kernels import KernelKind

#: What sorts of kernels features tell apart: the kinds, convolutions by their window and input.
VARIANTS: Final = (
    "conv.stem", "conv.pointwise", "conv.spatial",
    *(kind.value for kind in KernelKind if kind is not KernelKind.CONV),
)  # fmt: skip
#: Tiles that kernels work in, by channels and by pixels along a side.
CHANNEL_TILES: Final = (8, 32, 64, 128)
SIDE_TILES: Final = (4, 8, 16, 32)
#: Names of the columns of ``residual.features_of``; a stored tree counts them from 0.
FEATURES: Final = (
    "log_predicted", "log_macs", "log_activations", "log_weights", "log_intensity", "kernels",
    "log2_in_channels", "log2_out_channels", "log2_pixels", "window", "strided",
    *(f"out_channels_to_{tile}" for tile in CHANNEL_TILES),
    *(f"in_channels_to_{tile}" for tile in CHANNEL_TILES),
    *(f"side_to_{tile}" for tile in SIDE_TILES),
    *(f"mac_share_{name}" for name in VARIANTS),
    *(f"count_{name}" for name in VARIANTS),
)  # fmt: skip

_LEAF: Final = -1
#: All trees are walked at once, for as many rows as fit into a cache.
_ROWS_AT_ONCE: Final = 256


class Tree(FileModel):
    """A regression tree in preorder: a node, all of its left side, all of its right side.

    Attributes:
        feature: of each node what it splits by; -1 is a leaf.
        threshold: values up to it go left; the value of a leaf.
    """

    feature: tuple[int, ...] = Field(min_length=1)
    threshold: tuple[Finite, ...]

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: object) -> object:
        if not isinstance(data, str):
            return data
        feature, threshold = [], []
        for word in data.split():
            split, separator, value = word.rpartition(":")
            try:
                feature.append(int(split) if separator else _LEAF)
                threshold.append(float(value))
            except ValueError:
                raise ValueError(
                    f"'{word}' is no node of a tree; write feature:threshold, or a leaf's value"
                ) from None
        return {"feature": feature, "threshold": threshold}

    @field_validator("feature")
    @classmethod
    def _known_features(cls, feature: tuple[int, ...]) -> tuple[int, ...]:
        for one in feature:
            if not _LEAF <= one < len(FEATURES):
                raise ValueError(f"a tree splits by feature {one}; there are {len(FEATURES)}")
        return feature

    @model_validator(mode="after")
    def _well_formed(self) -> Self:
        if len(self.feature) != len(self.threshold):
            raise ValueError("the columns of a tree differ in length")
        # Nodes that are still to come: a split takes its own place and opens two, a leaf takes one.
        open_nodes = 1
        for feature in self.feature:
            if open_nodes == 0:
                raise ValueError("a tree has nodes behind its last leaf")
            open_nodes += 1 if feature != _LEAF else -1
        if open_nodes:
            raise ValueError(f"a tree lacks {open_nodes} of its leaves")
        return self

    @model_serializer
    def _as_text(self) -> str:
        nodes = zip(self.feature, self.threshold, strict=True)
        return " ".join(
            f"{value!r}" if feature == _LEAF else f"{feature}:{value!r}" for feature, value in nodes
        )

    @cached_property
    def columns(self) -> tuple[Ints, Floats, Ints]:
        """Feature, threshold, and how far the right child lies ahead; the left one is the next."""
        ahead = np.zeros(len(self.feature), dtype=np.int64)
        waiting: list[int] = []
        for node, feature in enumerate(self.feature):
            if feature != _LEAF:
                waiting.append(node)
            elif waiting:
                split = waiting.pop()
                ahead[split] = node + 1 - split
        return np.array(self.feature), np.array(self.threshold), ahead


def predict(trees: Sequence[Tree], features: Floats) -> Floats:
    """The sum of the leaves that each row of (n, features) falls into, (n,)."""
    total = np.zeros(len(features))
    if not trees:
        return total
    columns = [tree.columns for tree in trees]
    feature, threshold, ahead = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    sizes = [len(tree.feature) for tree in trees]
    roots = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    for start in range(0, len(features), _ROWS_AT_ONCE):
        some = features[start : start + _ROWS_AT_ONCE]
        rows = np.arange(len(some))[:, None]
        node = np.broadcast_to(roots, (len(some), len(trees)))
        while (inner := (split := feature[node]) != _LEAF).any():
            # A leaf reads some feature or other, and stays where it is.
            step = np.where(some[rows, split] <= threshold[node], 1, ahead[node])
            node = node + np.where(inner, step, 0)
        total[start : start + len(some)] = threshold[node].sum(1)
    return total
