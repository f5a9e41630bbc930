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

from collections.abc import Callable, Sequence
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
    held_out,
    peers,
)
from scores import Scores, score, spread_columns
from table_output import Options, Row, options, show
from tables import ANOMALOUS_PROFILE, Setup, mlperf
from tables import Row as MobilenetRow

from hwsearch.hardware.kernel_table import Ints
from hwsearch.hardware.learned.fit import Quantity
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import load_profile

QUANTITIES: Final[tuple[Quantity, ...]] = ("latency", "energy")
FEW: Final = 10
_LEAST_ROWS: Final = 60
_QUICK_SETUPS: Final = 2

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

    def with_quantity(self, quantity: Quantity) -> tuple[MobilenetRow, ...]:
        """The rows in which the quantity was measured."""
        return tuple(
            row
            for row in self.rows
            if quantity == "latency" or row.measurement.energy_mj is not None
        )


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
        if before is None or board.with_quantity("energy") or not before.with_quantity("energy"):
            newest[setup[:3]] = board
    found = [newest[setup] for setup in sorted(newest)]
    return found[:_QUICK_SETUPS] if given.quick else found


def within_boards(chosen: Sequence[Board]) -> list[Row]:
    """Scores of the splits inside each board, spread over boards."""
    rows: list[Row] = []
    for quantity in QUANTITIES:
        for split, folds_of in _SPLITS.items():
            found: dict[str, list[Scores]] = {}
            for board in chosen:
                known = board.with_quantity(quantity)
                if len(known) < _LEAST_ROWS:
                    continue
                measurements, folds = [row.measurement for row in known], folds_of(known)
                for method in (*peers(0), Ours(profile=board.profile)):
                    scored = score(*held_out(measurements, folds, method, quantity))
                    found.setdefault(method.name, []).append(scored)
            rows += _rows(quantity, split, found)
    return rows


def new_boards(chosen: Sequence[Board], seeds: int) -> list[Row]:
    """Scores with ten rows of a board and the rest held out, spread over boards and seeds.

    Each seed draws its ten rows and takes another of the other boards to start from.
    """
    rows: list[Row] = []
    for quantity in QUANTITIES:
        known = [board for board in chosen if len(board.with_quantity(quantity)) >= _LEAST_ROWS]
        relatives = {board.setup: _Relative.of(board, quantity) for board in known}
        found: dict[str, list[Scores]] = {}
        for board in known:
            others = [relatives[other.setup] for other in nearest_first(board, known)]
            measurements = [row.measurement for row in board.with_quantity(quantity)]
            for seed in range(seeds):
                folds = few_folds(len(measurements), seed)
                methods: list[Method] = [*peers(seed), Ours(profile=board.profile, seed=seed)]
                if others:
                    methods += others[seed % len(others)].methods(board.profile, seed)
                for method in methods:
                    scored = score(*held_out(measurements, folds, method, quantity))
                    found.setdefault(method.name, []).append(scored)
        rows += _rows(quantity, f"new board, {FEW} rows", found)
    return rows


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

    ours: FittedProfile
    boosting: Fitted
    operators: Fitted

    @classmethod
    def of(cls, board: Board, quantity: Quantity) -> "_Relative":
        rows = [row.measurement for row in board.with_quantity(quantity)]
        return cls(
            ours=Ours(profile=board.profile).fit(rows, quantity),
            boosting=Boosting(seed=0).fit(rows, quantity),
            operators=OperatorSum().fit(rows, quantity),
        )

    def methods(self, profile: HardwareProfile, seed: int) -> list[Method]:
        """Those that start from this board."""
        return [
            Transferred(source=self.boosting, name="gradient boosting of another board, moved"),
            Transferred(source=self.operators, name="per-operator sum of another board, moved"),
            Transferred(source=self.ours, name="ours of another board, moved"),
            Ours(profile=profile, start=self.ours.profile, seed=seed, name="ours, started from it"),
        ]


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


def _rows(quantity: Quantity, split: str, found: dict[str, list[Scores]]) -> list[Row]:
    return [
        {
            "quantity": quantity,
            "split": split,
            "cases": len(scores),
            "method": name,
            **spread_columns(scores),
        }
        for name, scores in found.items()
    ]


if __name__ == "__main__":
    main()
