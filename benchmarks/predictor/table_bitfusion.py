"""BitFusion, simulated: operators whose shape was never seen, in any bits.

::

    python benchmarks/predictor/table_bitfusion.py ../shared/data [--seeds 1] [--quick]

5,295 layers in 2 to 9 of the widths 4, 6 and 8. A shape is left out in all its widths at once. A
"network" is a single layer here. Latency and energy have models of their own: the simulator's
energy is not power x time.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from peers import Method, Ours, held_out_each, peers
from scores import Scores, score, spread_columns
from table_output import Options, Row, options, show
from tables import bitfusion

from hwsearch.hardware.kernel_table import Ints
from hwsearch.hardware.learned.fit import Quantity
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.targets import load_profile

QUANTITIES: Final[tuple[Quantity, ...]] = ("latency", "energy")
_FOLDS: Final = 5
_QUICK_LAYERS: Final = 120


def main() -> None:
    given = options(__doc__, seeds=1)
    show(table(given), given, "bitfusion", f"simulated-{given.size}")


def table(given: Options) -> list[Row]:
    """The scores of every method, by quantity."""
    layers = bitfusion(given.data)
    if given.quick:
        layers = layers[:: max(1, len(layers) // _QUICK_LAYERS)]
    found: dict[tuple[Quantity, str], list[Scores]] = {}
    for seed in range(given.seeds):
        folds = shape_folds(layers, seed)
        for method in _methods(seed):
            each = held_out_each(layers, folds, method, QUANTITIES)
            for quantity, (truth, forecast) in each.items():
                found.setdefault((quantity, method.name), []).append(score(truth, forecast))
    ordered = sorted(found.items(), key=lambda item: QUANTITIES.index(item[0][0]))
    return [
        {
            "quantity": quantity,
            "split": "5-fold by shape",
            "held_out": len(layers),
            "method": name,
            **spread_columns(scores),
        }
        for (quantity, name), scores in ordered
    ]


def shape_folds(layers: Sequence[Measurement], seed: int) -> Ints:
    """Five folds of shapes; layers of one shape share a fold, whatever their bits."""
    shapes = [layer.network.name.rsplit("-", 1)[0] for layer in layers]
    distinct = list(dict.fromkeys(shapes))
    drawn = np.random.default_rng(seed).permutation(np.arange(len(distinct)) % _FOLDS)
    fold_of = dict(zip(distinct, drawn, strict=True))
    return np.array([fold_of[shape] for shape in shapes])


def _methods(seed: int) -> tuple[Method, ...]:
    return (*peers(seed), Ours(profile=load_profile("bitfusion"), seed=seed))


if __name__ == "__main__":
    main()
