import numpy as np
import pytest
from methods import methods, replay
from optuna._hypervolume import compute_hypervolume
from problem import Problem, Truth, dominated
from published import DATA, NEEDS_DATA
from replay_nasbench201 import CHECKPOINTS, SETTINGS, Cells

METHODS = {method.name: method for method in methods()}


def make_problem(*, objectives: bool = True, limit: float = np.inf, holes: int = 0) -> Problem:
    """Two digits of eight: the sum costs, and the first one pays more."""
    places = np.array([(a, b) for a in range(8) for b in range(8)])[holes:]
    costs = places.sum(axis=1).astype(np.float64)[:, None]
    accuracy = 10 * np.sqrt(places[:, 0]) + np.sqrt(places[:, 1])
    digits = tuple(f"w{digit}" for digit in range(8))
    return Problem(
        choices={"first": digits, "second": digits},
        places=places,
        accuracy_percent=accuracy,
        costs=costs,
        known_costs=costs,
        features=(places - 3.5) / 2.3,
        allowed=costs[:, 0] <= limit,
        objectives=objectives,
    )


def test_dominated_area_agrees_with_optuna() -> None:
    generator = np.random.default_rng(0)
    accuracy, cost = generator.uniform(0, 1, 40), generator.uniform(0, 1, 40)
    found = dominated(accuracy, cost, 0.2, 0.9)
    points = np.column_stack([-accuracy, cost])
    reference = np.array([-0.2, 0.9])
    inside = points[(points < reference).all(axis=1)]
    assert found == pytest.approx(compute_hypervolume(inside, reference))
    order = generator.permutation(40)
    assert dominated(accuracy[order], cost[order], 0.2, 0.9) == pytest.approx(found)
    assert dominated(accuracy, cost, 2.0, 0.9) == 0.0


def test_regret_is_nothing_with_all_candidates_and_everything_with_a_corner() -> None:
    problem = make_problem()
    truth = Truth.of(problem)
    assert truth.regret_percent(problem, range(64)) == pytest.approx(0.0)
    assert truth.regret_percent(problem, [0]) == 100.0
    some = [truth.regret_percent(problem, range(count)) for count in range(1, 64)]
    assert (np.diff(some) <= 1e-9).all()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_replay_evaluates_each_candidate_once_and_repeats_with_its_seed(name: str) -> None:
    problem = make_problem()
    runs = [replay(problem, METHODS[name], 12, seed) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]
    assert len(set(runs[0])) == len(runs[0]) == 12


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"GPSampler"}))
@pytest.mark.parametrize("objectives", [True, False])
def test_replay_spends_no_trial_over_the_budget_or_outside_the_table(
    name: str, objectives: bool
) -> None:
    problem = make_problem(objectives=objectives, limit=5.0, holes=3)
    run = replay(problem, METHODS[name], 100, 0)
    assert sorted(run) == np.flatnonzero(problem.allowed).tolist()


@NEEDS_DATA
def test_true_fronts_of_the_table_are_those_known() -> None:
    cells = Cells(DATA)
    assert len(cells.places) == 15_625
    assert len(cells.latency_ms) == 9
    assert cells.features.shape == (15_625, 7)
    assert cells.accuracy_percent.max() == pytest.approx(73.5133, abs=1e-3)
    for setting in SETTINGS:
        problem = cells.problem(setting)
        truth = Truth.of(problem)
        assert truth.volume > 0
        assert truth.regret_percent(problem, range(15_625)) == pytest.approx(0.0, abs=1e-9)
    limited = cells.problem(SETTINGS[0], budget_ms=5.0)
    assert 0 < limited.allowed.sum() < 15_625
    assert CHECKPOINTS == (50, 100, 200, 500)


@NEEDS_DATA
def test_ours_meets_its_goal_after_fifty_trials_of_one_replay() -> None:
    problem = Cells(DATA).problem("silver_4114")
    run = replay(problem, METHODS["ours"], 50, 0)
    assert Truth.of(problem).regret_percent(problem, run) < 5.0
