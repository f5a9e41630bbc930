"""What the sum over kernels leaves unexplained, as boosted trees over features of the network.

Worth it only with hundreds of measured networks; the fit tries it and keeps it if networks that
were left out are predicted better. Stored as plain numbers: no pickle, and no scikit-learn where a
profile is used.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from hwsearch.hardware.kernel_table import Floats
from hwsearch.hardware.kernels import KernelKind
from hwsearch.hardware.learned.model import Tree
from hwsearch.hardware.learned.terms import ClassifiedRows

_TREES: Final = 160
_DEPTH: Final = 4
_LEARNING_RATE: Final = 0.15
#: Channel counts that runtimes like: multiples of these.
_BLOCKS: Final = (8, 32, 64)
#: Median of the absolute value of a standard normal variable.
_NORMAL_MEDIAN: Final = 0.6745
#: No network is corrected by more than this, in the logarithm.
_LARGEST: Final = 0.5
_VARIANTS: Final = (
    "conv.stem", "conv.pointwise", "conv.spatial",
    *(kind.value for kind in KernelKind if kind is not KernelKind.CONV),
)  # fmt: skip


def features_of(rows: ClassifiedRows, predicted: Floats) -> Floats:
    """Features of some networks, (networks, features).

    Args:
        rows: their kernels.
        predicted: what the terms predict, (networks,).
    """
    table = rows.table
    macs = table.per_network(table.macs)
    share = table.macs / np.maximum(macs, 1.0)[table.network]
    variant_of_class = np.array([_VARIANTS.index(one.variant) for one in rows.classes])
    variant = variant_of_class[rows.of_row]
    pixels = table.output_elements / table.out_channels
    columns = [
        np.log(predicted),
        np.log(np.maximum(macs, 1.0)),
        np.log(table.per_network(table.input_elements + table.output_elements)),
        np.log1p(table.per_network(table.weight_elements)),
        table.per_network(np.ones(len(table))),
        table.per_network(share * np.log2(table.in_channels)),
        table.per_network(share * np.log2(table.out_channels)),
        table.per_network(share * np.log2(pixels)),
        table.per_network(share * table.window),
        table.per_network(share * (table.stride > 1)),
        *(table.per_network(share * (table.out_channels % block == 0)) for block in _BLOCKS),
        *(table.per_network(share * (table.in_channels % block == 0)) for block in _BLOCKS),
        *(table.per_network(share * (variant == at)) for at in range(len(_VARIANTS))),
        *(table.per_network((variant == at).astype(float)) for at in range(len(_VARIANTS))),
    ]
    return np.stack(columns, axis=1)


#: Names of the columns of ``features_of``; a stored tree counts them from 0.
FEATURES: Final = (
    "log_predicted", "log_macs", "log_activations", "log_weights", "kernels",
    "log2_in_channels", "log2_out_channels", "log2_pixels", "window", "strided",
    *(f"out_channels_by_{block}" for block in _BLOCKS),
    *(f"in_channels_by_{block}" for block in _BLOCKS),
    *(f"mac_share_{name}" for name in _VARIANTS),
    *(f"count_{name}" for name in _VARIANTS),
)  # fmt: skip


def fit_trees(features: Floats, log_ratio: Floats, *, seed: int) -> tuple[Tree, ...]:
    """Boosted trees for log(measured / predicted).

    Args:
        features: (n, features).
        log_ratio: (n,).
        seed: of the subsampling.
    """
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=_TREES, learning_rate=_LEARNING_RATE,
        max_depth=_DEPTH, subsample=0.5, max_features=0.4, min_samples_leaf=8,
        init="zero", random_state=seed,
    )  # fmt: skip
    # Odd rows are pulled in rather than chased.
    limit = 4 * float(np.median(np.abs(log_ratio))) / _NORMAL_MEDIAN
    model.fit(features, np.clip(log_ratio, -limit, limit))
    return tuple(_plain(one.tree_) for one in model.estimators_[:, 0])


def correction(trees: Sequence[Tree], features: Floats) -> Floats:
    """The logarithm to add to each prediction, (n,)."""
    total: Floats = sum((tree.predict(features) for tree in trees), np.zeros(len(features)))
    return np.clip(total, -_LARGEST, _LARGEST)


def _plain(tree: Any) -> Tree:  # noqa: ANN401 - scikit-learn has no types
    leaf = tree.children_left < 0
    value = tree.value[:, 0, 0] * _LEARNING_RATE
    return Tree(
        feature=tuple(int(one) for one in np.where(leaf, -1, tree.feature)),
        threshold=tuple(float(f"{one:.5g}") for one in np.where(leaf, value, tree.threshold)),
        left=tuple(int(one) for one in np.where(leaf, 0, tree.children_left)),
        right=tuple(int(one) for one in np.where(leaf, 0, tree.children_right)),
    )
