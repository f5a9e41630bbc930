"""MLPerf boards: widths, input sizes and bits never measured there, and boards with ten rows.

::

    python benchmarks/predictor/table_mlperf.py ../shared/data [--seeds 5] [--quick]

MobileNet v1, v2 and v3 on CPUs and GPUs. Of the rounds of one board, runtime and backend the
newest with energy counts, else the newest. Each profile is held out by width, by input size, and
fitted to fp32 to be asked for int8. With ten rows of a board, everything else of it is predicted,
with and without the fit of another board to start from; peers get the same ten rows, and what they
predict for the other board moved by a line in the logarithm. Scores spread over profiles (and
seeds).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from peers import (
    Boosting,
    Fitted,
    FittedProfile,
    Method,
    OperatorSum,
    Ours,
    Transferred,
    fitted_each,
    held_out_each,
    peers,
)
from scores import Scores, score, spread_columns
from table_output import Options, Row, options, show
from tables import ANOMALOUS_PROFILE, Setup, mlperf
from tables import Row as MobilenetRow

from hwsearch.hardware.kernel_table import Ints
from hwsearch.hardware.learned.fit import Quantity
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import load_profile

QUANTITIES: Final[tuple[Quantity, ...]] = ("latency", "energy")
FEW: Final = 10
_LEAST_ROWS: Final = 60
_QUICK_SETUPS: Final = 2
_NEW_BOARD: Final = f"new board, {FEW} rows"
_STARTED: Final = "ours, started from it"

#: Profile of a device, runtime and backend: what says the rates before anything was measured. The
#: Firefly has none of its own; its cores are those of the Khadas at another clock.
PROFILES: Final = {
    ("rpi4", "tflite"): "raspberry-pi-4",
    ("rpi4", "armnn"): "raspberry-pi-4-armnn",
    ("odroid_n2plus", "tflite"): "odroid-n2",
    ("odroid_n2plus", "armnn"): "odroid-n2",
    ("khadas_vim4", "tflite"): "khadas-vim4",
    ("khadas_vim4", "armnn"): "khadas-vim4",
    ("firefly_rk3588s", "tflite"): "rk3588s",
    ("firefly_rk3588s", "armnn"): "rk3588s",
    ("jetson_agx_orin", "tflite"): "jetson-agx-orin-cpu",
    ("jetson_agx_orin", "armnn"): "jetson-agx-orin-cpu",
}
_GPU_PROFILE: Final = "khadas-vim4-gpu"


@dataclass(frozen=True, kw_only=True)
class Board:
    """One set-up with its rows and the profile that is its prior."""

    setup: Setup
    rows: tuple[MobilenetRow, ...]
    profile: HardwareProfile

    @property
    def device(self) -> str:
        """Name of the board in the table."""
        return self.setup[0]

    @property
    def kind(self) -> tuple[str, str]:
        """Runtime and backend."""
        return self.setup[1:3]

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Of every row."""
        return tuple(row.measurement for row in self.rows)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """Those measured on every row."""
        with_energy = all(one.energy_mj is not None for one in self.measurements)
        return QUANTITIES if with_energy else QUANTITIES[:1]


#: Scores by quantity, split and method.
_Found = dict[tuple[Quantity, str, str], list[Scores]]
_Folds = Callable[[Sequence[MobilenetRow]], Ints]


def main() -> None:
    given = options(__doc__, seeds=5)
    chosen = boards(given)
    rows = [*within_boards(chosen), *new_boards(chosen, given.seeds)]
    show(rows, given, "mlperf", f"mobilenets-{given.size}")


def boards(given: Options) -> list[Board]:
    """The newest round of every board, runtime and backend that has a profile."""
    newest: dict[tuple[str, str, str], Board] = {}
    for setup, rows in sorted(mlperf(given.data).items(), key=lambda item: item[0][3]):
        name = PROFILES.get(setup[:2])
        if name is None or len(rows) < _LEAST_ROWS or setup[3] == ANOMALOUS_PROFILE:
            continue
        name = _GPU_PROFILE if setup[2] == "opencl" else name
        board = Board(setup=setup, rows=tuple(rows), profile=load_profile(name))
        before = newest.get(setup[:3])
        if before is None or len(board.quantities) >= len(before.quantities):
            newest[setup[:3]] = board
    found = [newest[setup] for setup in sorted(newest)]
    return found[:_QUICK_SETUPS] if given.quick else found


def within_boards(chosen: Sequence[Board]) -> list[Row]:
    """Scores of the splits inside each board, spread over boards."""
    found: _Found = {}
    for split, folds_of in _SPLITS.items():
        for board in chosen:
            for method in (*peers(0), Ours(profile=board.profile)):
                _add(found, split, board, folds_of(board.rows), method, board.quantities)
    return _rows(found)


def new_boards(chosen: Sequence[Board], seeds: int) -> list[Row]:
    """Scores with ten rows of a board and the rest held out, spread over boards and seeds.

    Each seed draws its ten rows and takes another of the other boards to start from.
    """
    found: _Found = {}
    relatives = {board.setup: _Relative.of(board) for board in chosen}
    for board in chosen:
        for seed in range(seeds):
            folds = few_folds(len(board.rows), seed)
            for method in (*peers(seed), Ours(profile=board.profile, seed=seed)):
                _add(found, _NEW_BOARD, board, folds, method, board.quantities)
            for other, quantities in _others(board, chosen, seed).items():
                relative = relatives[other]
                for quantity in quantities:
                    for moved in relative.moved(quantity):
                        _add(found, _NEW_BOARD, board, folds, moved, [quantity])
                started = Ours(
                    profile=board.profile, start=relative.start, seed=seed, name=_STARTED
                )
                _add(found, _NEW_BOARD, board, folds, started, quantities)
    return _rows(found)


def _others(board: Board, chosen: Sequence[Board], seed: int) -> dict[Setup, list[Quantity]]:
    """The boards to start from with this seed, and for which quantities each."""
    found: dict[Setup, list[Quantity]] = {}
    for quantity in board.quantities:
        others = nearest_first(board, [one for one in chosen if quantity in one.quantities])
        if others:
            found.setdefault(others[seed % len(others)].setup, []).append(quantity)
    return found


def nearest_first(board: Board, known: Sequence[Board]) -> list[Board]:
    """Boards other than this device: those of its runtime and backend first."""
    others = [other for other in known if other.device != board.device]
    return sorted(others, key=lambda other: (other.kind != board.kind, other.setup))


def few_folds(count: int, seed: int) -> Ints:
    """Ten networks to fit to, all others in one fold."""
    folds = np.zeros(count, dtype=np.int64)
    folds[np.random.default_rng(seed).choice(count, size=FEW, replace=False)] = -1
    return folds


@dataclass(frozen=True, kw_only=True)
class _Relative:
    """What was fitted to all rows of another board."""

    ours: Mapping[Quantity, Fitted]
    boosting: Mapping[Quantity, Fitted]
    operators: Mapping[Quantity, Fitted]

    @classmethod
    def of(cls, board: Board) -> "_Relative":
        rows, quantities = board.measurements, board.quantities
        return cls(
            ours=fitted_each(Ours(profile=board.profile), rows, quantities),
            boosting=fitted_each(Boosting(seed=0), rows, quantities),
            operators=fitted_each(OperatorSum(), rows, quantities),
        )

    @property
    def start(self) -> HardwareProfile:
        """The fitted profile of the board."""
        fitted = self.ours["latency"]
        assert isinstance(fitted, FittedProfile)
        return fitted.profile

    def moved(self, quantity: Quantity) -> list[Method]:
        """What was fitted there, moved by a line in the logarithm."""
        sources = {
            "gradient boosting": self.boosting, "per-operator sum": self.operators,
            "ours": self.ours,
        }  # fmt: skip
        return [
            Transferred(source=source[quantity], name=f"{name} of another board, moved")
            for name, source in sources.items()
        ]


def _add(
    found: _Found,
    split: str,
    board: Board,
    folds: Ints,
    method: Method,
    quantities: Sequence[Quantity],
) -> None:
    """Add the scores of a method under a split of a board."""
    each = held_out_each(board.measurements, folds, method, quantities)
    for quantity, (truth, forecast) in each.items():
        found.setdefault((quantity, split, method.name), []).append(score(truth, forecast))


def _by_value(value: Callable[[MobilenetRow], float]) -> _Folds:
    def folds_of(rows: Sequence[MobilenetRow]) -> Ints:
        values = [value(row) for row in rows]
        numbers = {one: number for number, one in enumerate(sorted(set(values)))}
        return np.array([numbers[one] for one in values])

    return folds_of


def _int8_out(rows: Sequence[MobilenetRow]) -> Ints:
    return np.array([0 if row.precision == "int8" else -1 for row in rows])


_SPLITS: Final[dict[str, _Folds]] = {
    "width held out": _by_value(lambda row: row.width),
    "input size held out": _by_value(lambda row: row.input_px),
    "fp32 to int8": _int8_out,
}


def _rows(found: _Found) -> list[Row]:
    """The rows of latency, then those of energy; otherwise as they were found."""
    ordered = sorted(found.items(), key=lambda item: QUANTITIES.index(item[0][0]))
    return [
        {
            "quantity": quantity,
            "split": split,
            "cases": len(scores),
            "method": name,
            **spread_columns(scores),
        }
        for (quantity, split, name), scores in ordered
    ]


if __name__ == "__main__":
    main()
