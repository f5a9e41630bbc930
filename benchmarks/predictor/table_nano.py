"""Jetson Nano in fp32: 5-fold by network, and the splits that leave a sort of network out.

::

    python benchmarks/predictor/table_nano.py ../shared/data [--seeds 1] [--quick]

Networks are synthetic stacks of one layer (10,028). "dense to separable" is fitted to networks
without a depthwise kernel and asked for those with; "one window to two" likewise for networks
that alternate two windows. Energy is that of the whole board.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from peers import Method, Ours, held_out_each, peers
from scores import Scores, score, spread_columns
from table_output import Options, Row, options, show
from tables import nano

from hwsearch.hardware.kernel_table import Ints
from hwsearch.hardware.learned.fit import Quantity, random_folds
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.targets import load_profile

QUANTITIES: Final[tuple[Quantity, ...]] = ("latency", "energy")
_QUICK_NETWORKS: Final = 150
_SPLITS: Final[dict[str, Callable[[Measurement], bool]]] = {
    "dense to separable": lambda row: row.group.startswith("separable"),
    "one window to two": lambda row: row.group.endswith("mixed"),
}


def main() -> None:
    given = options(__doc__, seeds=1)
    rows = table(given)
    show(rows, given, "nano", f"jetson-nano-fp32-{given.size}")


def table(given: Options) -> list[Row]:
    """The scores of every method, by split and quantity."""
    networks = nano(given.data)
    if given.quick:
        chosen = np.random.default_rng(0).choice(len(networks), _QUICK_NETWORKS, replace=False)
        networks = [networks[at] for at in chosen]
    found: dict[tuple[Quantity, str, str], list[Scores]] = {}
    for split in ("5-fold by network", *_SPLITS):
        for seed in range(given.seeds):
            folds = _folds(networks, split, seed)
            for method in _methods(seed):
                each = held_out_each(networks, folds, method, QUANTITIES)
                for quantity, (truth, forecast) in each.items():
                    scored = score(truth, forecast)
                    found.setdefault((quantity, split, method.name), []).append(scored)
    ordered = sorted(found.items(), key=lambda item: QUANTITIES.index(item[0][0]))
    return [
        {
            "quantity": quantity,
            "split": split,
            "held_out": int((_folds(networks, split, 0) >= 0).sum()),
            "method": name,
            **spread_columns(scores),
        }
        for (quantity, split, name), scores in ordered
    ]


def _folds(rows: Sequence[Measurement], split: str, seed: int) -> Ints:
    if split in _SPLITS:
        return np.array([0 if _SPLITS[split](row) else -1 for row in rows])
    return random_folds(len(rows), seed)


def _methods(seed: int) -> tuple[Method, ...]:
    return (*peers(seed), Ours(profile=load_profile("jetson-nano"), seed=seed))


if __name__ == "__main__":
    main()
