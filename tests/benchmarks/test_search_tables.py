import numpy as np
import pytest
from ask_time import ask_times_ms, made_up
from replay_mlperf import Limits, optima, problem_of, trials_to_optimum
from table_mlperf import Board
from tables import Row as MobilenetRow

from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.targets import load_profile


def make_board(*, energy: float | None = 1.0) -> Board:
    """Three widths in two precisions; the wider the slower and the better.

    Energy is latency to the power of ``energy``, or was not measured.
    """
    from mobilenets import mobilenet

    from hwsearch.bits import FP32, INT8

    rows = []
    for at, width in enumerate((0.25, 0.5, 1.0)):
        for precision, bits in (("fp32", FP32), ("int8", INT8)):
            cost = (at + 1) * (2.0 if precision == "fp32" else 1.0)
            rows.append(
                MobilenetRow(
                    measurement=Measurement(
                        network=mobilenet("mobilenet_v1", "", width, 128, bits),
                        latency_ms=cost,
                        energy_mj=None if energy is None else 10 * cost**energy,
                        group="",
                    ),
                    family="mobilenet_v1",
                    variant="",
                    width=width,
                    input_px=128,
                    precision=precision,
                    top1_percent=40.0 + 10 * at + (precision == "fp32"),
                )
            )
    setup = ("board", "tflite", "cpu", "round")
    return Board(setup=setup, rows=tuple(rows), profile=load_profile("raspberry-pi-4"))


def test_problem_of_a_board_holds_its_budgets() -> None:
    problem = problem_of(make_board(), Limits(latency=50))
    assert problem is not None
    # Latencies 2, 1, 4, 2, 6, 3: half of them are at most 2.5.
    assert problem.costs[problem.allowed, 0].tolist() == [2.0, 1.0, 2.0]
    assert optima(problem) == {3}  # width 0.5 in int8: 50 % beats 41 %
    both = problem_of(make_board(), Limits(latency=50, energy=20))
    assert both is not None
    assert both.costs.shape == (6, 2)
    # Energies 20, 10, 40, 20, 60, 30: a fifth of them is at most 20.
    assert both.costs[both.allowed, 1].tolist() == [20.0, 10.0, 20.0]


@pytest.mark.parametrize("method", ["random", "local search", "TPE multivariate", "ours"])
def test_trials_to_optimum_count_from_one_to_all_allowed(method: str) -> None:
    problem = problem_of(make_board(), Limits(latency=50))
    assert problem is not None
    counts = {trials_to_optimum(problem, method, seed) for seed in range(4)}
    assert counts <= {1, 2, 3}


def test_ask_times_are_one_first_and_ten_more() -> None:
    problem = made_up()
    assert len(problem.places) == 5**6
    assert np.isfinite(problem.features).all()
    times = ask_times_ms(problem, 20, 0)
    assert len(times) == 11
    assert min(times) > 0
