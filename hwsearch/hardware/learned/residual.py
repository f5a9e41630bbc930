"""What the sum over kernels leaves unexplained, as boosted trees over features of the network.

Worth it only with hundreds of measured networks; the fit tries it and keeps it if networks that
were left out are predicted better. Stored as plain numbers: no pickle, and no scikit-learn where a
profile is used.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from hwsearch.hardware.kernel_table import Floats, KernelTable
from hwsearch.hardware.learned.terms import ClassifiedRows
from hwsearch.hardware.learned.trees import CHANNEL_TILES, SIDE_TILES, VARIANTS, Tree, predict

_TREES: Final = 60
_LEAVES: Final = 31
_LEARNING_RATE: Final = 0.27
#: No network is corrected by more than this, in the logarithm.
_LARGEST: Final = 0.5


def features_of(rows: ClassifiedRows, predicted: Floats) -> Floats:
    """Features of some networks, (networks, features), in the order of ``trees.FEATURES``.

    Args:
        rows: their kernels.
        predicted: what the terms predict, (networks,).
    """
    table = rows.table
    macs = table.per_network(table.macs)
    share = table.macs / np.maximum(macs, 1.0)[table.network]
    variant_of_class = np.array([VARIANTS.index(one.variant) for one in rows.classes])
    variant = variant_of_class[rows.of_row]
    pixels = table.output_elements / table.out_channels
    activations = table.per_network(table.input_elements + table.output_elements)
    weights = table.per_network(table.weight_elements)
    columns = [
        np.log(predicted),
        np.log(np.maximum(macs, 1.0)),
        np.log(activations),
        np.log1p(weights),
        np.log(np.maximum(macs, 1.0) / (activations + weights)),
        table.per_network(np.ones(len(table))),
        table.per_network(share * np.log2(table.in_channels)),
        table.per_network(share * np.log2(table.out_channels)),
        table.per_network(share * np.log2(pixels)),
        table.per_network(share * table.window),
        table.per_network(share * (table.stride > 1)),
        *(_padded(table, share, table.out_channels, tile) for tile in CHANNEL_TILES),
        *(_padded(table, share, table.in_channels, tile) for tile in CHANNEL_TILES),
        *(_padded(table, share, np.sqrt(pixels), tile) for tile in SIDE_TILES),
        *(table.per_network(share * (variant == at)) for at in range(len(VARIANTS))),
        *(table.per_network((variant == at).astype(float)) for at in range(len(VARIANTS))),
    ]
    return np.stack(columns, axis=1)


def _padded(table: KernelTable, share: Floats, values: Floats, tile: int) -> Floats:
    """Mean logarithm of what rounding up to whole tiles adds, (networks,)."""
    return table.per_network(share * np.log(np.ceil(values / tile) * tile / values))


def fit_trees(features: Floats, log_ratio: Floats, *, seed: int) -> tuple[Tree, ...]:
    """Boosted trees for log(measured / predicted).

    Args:
        features: (n, features).
        log_ratio: (n,).
        seed: of the subsampling.
    """
    from sklearn.ensemble import GradientBoostingRegressor

    # Absolute errors, so that odd rows are not chased; the leaf that gains the most is split first.
    # On the Jetson Nano 70 trees of 31 leaves leave 3.15 %, 150 leave 3.06 and double the file;
    # 160 of depth 5 with squared errors leave 3.3.
    model = GradientBoostingRegressor(
        loss="absolute_error", n_estimators=_TREES, learning_rate=_LEARNING_RATE,
        max_depth=None, max_leaf_nodes=_LEAVES, subsample=0.7, max_features=0.4,
        min_samples_leaf=8, init="zero", random_state=seed,
    )  # fmt: skip
    model.fit(features, log_ratio)
    return tuple(_plain(one.tree_) for one in model.estimators_[:, 0])


def correction(trees: Sequence[Tree], features: Floats) -> Floats:
    """The logarithm to add to each prediction, (n,)."""
    return np.clip(predict(trees, features), -_LARGEST, _LARGEST)


def _plain(tree: Any) -> Tree:  # noqa: ANN401 - scikit-learn has no types
    feature: list[int] = []
    threshold: list[float] = []
    waiting = [0]
    while waiting:
        node = waiting.pop()
        left, right = int(tree.children_left[node]), int(tree.children_right[node])
        if left < 0:
            value = float(tree.value[node, 0, 0]) * _LEARNING_RATE
            feature.append(-1)
        else:
            value = float(tree.threshold[node])
            feature.append(int(tree.feature[node]))
            waiting += [right, left]
        # A leaf needs five digits, to add up with others; where a split lies, four are plenty.
        threshold.append(float(f"{value:.5g}" if left < 0 else f"{value:.4g}"))
    return Tree(feature=tuple(feature), threshold=tuple(threshold))
