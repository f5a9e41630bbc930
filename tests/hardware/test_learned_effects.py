import math
from collections.abc import Mapping

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize

from hwsearch.hardware.kernel_table import Floats
from hwsearch.hardware.learned.effects import Curvature, Learned, factors, learn, prior_draw
from hwsearch.hardware.learned.terms import Effect, TermMatrix, design, distinct

ALL, OVERHEAD = Effect("all", 0.3), Effect("overhead", 0.8)
COMPUTE, CONV, MEMORY = Effect("compute", 0.5), Effect("compute/conv", 0.4), Effect("memory", 0.4)
UNSEEN = Effect("compute/softmax", 0.4)
COLUMNS = ((ALL, OVERHEAD), (ALL, COMPUTE), (ALL, COMPUTE, CONV), (ALL, MEMORY))
NAMES = [effect.name for effect in distinct(COLUMNS)]
SIGMAS = np.array([effect.sigma for effect in distinct(COLUMNS)])
Z90 = 1.645


def random_terms(networks: int, seed: int) -> TermMatrix:
    """An overhead of 1 ms and three terms of very different sizes."""
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(size=(networks, len(COLUMNS))) + np.array([0.0, 1.0, 0.0, 1.0]))
    values[:, 0] = 1.0
    return TermMatrix(values=values, effects=COLUMNS)


def random_truth(seed: int) -> dict[str, float]:
    """Effects drawn from their prior."""
    rng = np.random.default_rng(1000 + seed)
    return dict(zip(NAMES, SIGMAS * rng.standard_normal(len(NAMES)), strict=True))


def truth_of(terms: TermMatrix, effects: Mapping[str, float]) -> Floats:
    """What the networks take, in plain loops."""
    totals = [
        sum(
            value * math.exp(sum(effects[effect.name] for effect in column))
            for value, column in zip(row, terms.effects, strict=True)
        )
        for row in terms.values
    ]
    return np.array(totals)


def predicted(terms: TermMatrix, learned: Learned) -> Floats:
    """The most probable case and the samples, (networks, 1 + samples)."""
    return terms.values @ factors(learned.effects, terms.effects)


def spread_of(terms: TermMatrix, learned: Learned) -> Floats:
    logs = np.log(predicted(terms, learned))
    found: Floats = np.sqrt(((logs[:, 1:] - logs[:, :1]) ** 2).mean(axis=1))
    return found


def best_of(learned: Learned) -> dict[str, float]:
    return {name: values[0] for name, values in learned.effects.items()}


def noisy(values: Floats, noise: float, seed: int) -> Floats:
    found: Floats = values * np.exp(
        noise * np.random.default_rng(seed).standard_normal(values.shape)
    )
    return found


# -- the optimum ----------------------------------------------------------------------------------


@pytest.mark.parametrize("networks", [3, 8, 30])
@pytest.mark.parametrize("start", [None, {"compute": 0.7, "memory": -0.5}])
def test_best_effects_when_compared_with_a_general_optimizer(
    networks: int, start: dict[str, float] | None
) -> None:
    terms = random_terms(networks, seed=networks)
    # Uniform noise has no outliers, so that the problem is one of plain least squares.
    noise = np.random.default_rng(7).uniform(-0.1, 0.1, networks)
    measured = truth_of(terms, random_truth(networks)) * np.exp(noise)
    learned = learn(terms, measured, seed=0, samples=0, start=start)
    means = np.array([(start or {}).get(name, 0.0) for name in NAMES])
    sigmas = learned.prior_scale * SIGMAS
    matrix = design(COLUMNS, NAMES)

    def objective(effects: Floats) -> float:
        residual = np.log(terms.values @ np.exp(matrix @ effects)) - np.log(measured)
        return float(
            (residual**2).sum() / learned.noise**2 + (((effects - means) / sigmas) ** 2).sum()
        )

    reference = minimize(objective, means, method="BFGS", options={"gtol": 1e-6})
    found = np.array([best_of(learned)[name] for name in NAMES])
    assert objective(found) == pytest.approx(reference.fun, rel=0.01)
    assert terms.values @ np.exp(matrix @ found) == pytest.approx(
        terms.values @ np.exp(matrix @ reference.x), rel=0.01
    )
    slope = approx_fprime(found, objective, 1e-6)
    assert np.abs(slope).max() < 0.02 * np.abs(approx_fprime(means, objective, 1e-6)).max()


def test_posterior_when_there_is_one_effect_then_known_in_closed_form() -> None:
    column = ((Effect("one", 0.5),),)
    measured = np.exp(np.random.default_rng(3).uniform(0.6, 0.8, 9))
    terms = TermMatrix(values=np.ones((9, 1)), effects=column)
    learned = learn(terms, measured, seed=1, samples=400)
    best, *samples = learned.effects["one"]
    precision = 9 / learned.noise**2 + 1 / 0.5**2
    expected = np.log(measured).sum() / learned.noise**2 / precision
    assert best == pytest.approx(expected, rel=1e-3)
    assert np.mean(samples) == pytest.approx(best, abs=4 / math.sqrt(400 * precision))
    assert np.std(samples) == pytest.approx(1 / math.sqrt(precision), rel=0.12)


def test_best_effects_when_the_order_of_columns_changes() -> None:
    terms = random_terms(12, seed=2)
    measured = noisy(truth_of(terms, random_truth(2)), 0.05, 3)
    reversed_terms = TermMatrix(values=terms.values[:, ::-1], effects=COLUMNS[::-1])
    first = learn(terms, measured, seed=5)
    second = learn(reversed_terms, measured, seed=5)
    for name in NAMES:
        # The samples too: a draw is made from the name of its effect, not from its position.
        assert second.effects[name] == pytest.approx(first.effects[name], abs=1e-2)


@pytest.mark.parametrize("networks", [1, 4, 9, 30])
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_steps_when_compared_with_the_system_written_out(networks: int, damping: float) -> None:
    rng = np.random.default_rng(networks)
    parts, matrix = rng.normal(size=(networks, 5)), rng.integers(0, 2, (5, 9)).astype(float)
    jacobian, precision = parts @ matrix, rng.uniform(0.1, 9, 9)
    whole = jacobian.T @ jacobian + np.diag(precision)
    right = rng.normal(size=9)
    expected = np.linalg.solve(whole + damping * np.diag(np.diag(whole)), right)
    curvature = Curvature(parts, matrix, precision)
    assert curvature.solve(right, damping) == pytest.approx(expected, rel=1e-9)
    both = curvature.solve(np.stack((right, 2 * right), axis=1), damping)
    assert both == pytest.approx(np.stack((expected, 2 * expected), axis=1), rel=1e-9)
    pulls = np.diag(jacobian @ np.linalg.inv(whole) @ jacobian.T)
    assert curvature.leverage() == pytest.approx(pulls, rel=1e-9)
    residual = rng.normal(size=networks)
    assert curvature.pull(residual) == pytest.approx(jacobian.T @ residual)


def test_learned_when_there_are_terms_that_no_network_has_then_the_same() -> None:
    # Twelve networks are more than the effects, and fewer than these with thirty others.
    terms = random_terms(12, seed=4)
    measured = noisy(truth_of(terms, random_truth(4)), 0.05, 5)
    others = tuple((ALL, Effect(f"other{number}", 0.4)) for number in range(30))
    padded = TermMatrix(
        values=np.hstack((terms.values, np.zeros((12, len(others))))), effects=COLUMNS + others
    )
    plain, more = (learn(one, measured, seed=0) for one in (terms, padded))
    assert more.prior_scale == plain.prior_scale
    assert more.noise == pytest.approx(plain.noise, rel=1e-6)
    for name in NAMES:
        assert more.effects[name] == pytest.approx(plain.effects[name], abs=1e-6), name
    for number, column in enumerate(others):
        drawn = plain.prior_scale * prior_draw(column[1], 0)
        assert more.effects[f"other{number}"][:2] == pytest.approx((0, drawn), abs=1e-9)


# -- the truth recovered --------------------------------------------------------------------------


def test_error_when_more_networks_are_measured_then_smaller() -> None:
    fresh = random_terms(60, seed=99)
    errors = []
    for networks in (4, 16, 64):
        squares = []
        for seed in range(8):
            truth, terms = random_truth(seed), random_terms(networks, seed)
            learned = learn(terms, noisy(truth_of(terms, truth), 0.05, seed), seed=0, samples=0)
            ratio = predicted(fresh, learned)[:, 0] / truth_of(fresh, truth)
            squares.append(float((np.log(ratio) ** 2).mean()))
        errors.append(math.sqrt(np.mean(squares)))
    assert errors[0] > 1.5 * errors[1] > 1.5 * 1.3 * errors[2]
    assert errors[2] < 0.03, "far below the noise of one measurement"


@pytest.mark.parametrize("networks", [5, 30])
def test_intervals_when_the_truth_comes_from_the_prior_then_they_cover(networks: int) -> None:
    inside = []
    for seed in range(30):
        truth = random_truth(seed)
        terms, fresh = random_terms(networks, seed), random_terms(30, 500 + seed)
        learned = learn(terms, noisy(truth_of(terms, truth), 0.1, seed), seed=seed)
        error = np.log(predicted(fresh, learned)[:, 0] / noisy(truth_of(fresh, truth), 0.1, 77))
        sigma = np.hypot(spread_of(fresh, learned), learned.interval_noise)
        inside.append(float((np.abs(error) < Z90 * sigma).mean()))
    assert 0.85 <= np.mean(inside) <= 0.95


def test_noise_when_estimated() -> None:
    truth, found = random_truth(4), []
    for true_noise in (0.02, 0.1, 0.25):
        terms = random_terms(150, seed=4)
        measured = noisy(truth_of(terms, truth), true_noise, 9)
        found.append(learn(terms, measured, seed=0, samples=0).noise / true_noise)
    assert found == pytest.approx([1.0, 1.0, 1.0], rel=0.3)


def test_noise_when_effects_pass_through_every_measurement_then_as_before_them() -> None:
    # As many effects as networks: nothing is left over, whatever the noise was.
    own = tuple((ALL, Effect(f"own{at}", 3.0)) for at in range(12))
    terms = TermMatrix(values=np.eye(12), effects=own)
    learned = learn(terms, noisy(np.ones(12), 0.4, 3), seed=0, samples=0, prior_scale=1.0)
    assert 0.1 < learned.noise < 0.2, "that of the prior, 0.14"
    # Known from little more than the two measurements that the prior is worth.
    assert learned.interval_noise > 1.5 * learned.noise


# -- what was never measured ----------------------------------------------------------------------


def test_factor_when_an_effect_was_never_measured_then_its_prior_is_left() -> None:
    terms = random_terms(40, seed=6)
    learned = learn(terms, noisy(truth_of(terms, random_truth(6)), 0.05, 6), seed=0, samples=500)
    known, unknown = factors(learned.effects, ((ALL, COMPUTE, CONV), (ALL, COMPUTE, CONV, UNSEEN)))
    assert unknown[0] == pytest.approx(known[0]), "its mean is 0"
    widths = np.log(known[1:]).std(), np.log(unknown[1:]).std()
    assert widths[1] == pytest.approx(math.hypot(widths[0], UNSEEN.sigma), rel=0.15)
    assert widths[0] < 0.5 * UNSEEN.sigma


def test_prior_scale_when_smaller_then_nearer_to_the_prior() -> None:
    terms = random_terms(4, seed=9)
    measured = 3 * terms.values.sum(1)
    sizes = [
        sum(value**2 for value in best_of(learn(terms, measured, seed=0, prior_scale=s)).values())
        for s in (0.1, 0.4, 1.0)
    ]
    assert sizes == sorted(sizes)
    some = {"all": (0.0,) * 201}
    wide, narrow = (
        np.log(factors(some, ((ALL, UNSEEN),), prior_scale=s)[0]).std() for s in (1.0, 0.5)
    )
    assert narrow == pytest.approx(0.5 * wide)


# -- samples --------------------------------------------------------------------------------------


def test_samples_when_seeds_are_equal_or_not() -> None:
    terms = random_terms(8, seed=10)
    measured = noisy(truth_of(terms, random_truth(10)), 0.1, 10)
    first, same, other = (learn(terms, measured, seed=seed) for seed in (1, 1, 2))
    assert same == first
    assert best_of(other) == best_of(first)
    assert other.effects["all"][1:] != first.effects["all"][1:]


def test_prior_draws_when_compared_with_their_distribution() -> None:
    draws = np.array(
        [[prior_draw(Effect(f"effect{n}", 0.4), at) for at in range(30)] for n in range(60)]
    )
    assert draws.mean() == pytest.approx(0, abs=4 * 0.4 / math.sqrt(draws.size))
    assert draws.std() == pytest.approx(0.4, rel=0.08)
    between = np.corrcoef(draws)[np.triu_indices(60, 1)]
    assert abs(between.mean()) < 0.02, "effects are drawn for themselves"


# -- starting from a relative ---------------------------------------------------------------------


def test_start_when_it_knows_effects_that_were_not_measured_then_they_are_kept() -> None:
    terms = random_terms(6, seed=12)
    learned = learn(terms, terms.values.sum(1), seed=0, start={UNSEEN.name: 0.9}, samples=100)
    best, *samples = learned.effects[UNSEEN.name]
    assert best == 0.9
    assert np.mean(samples) == pytest.approx(0.9, abs=0.15)
    assert np.std(samples) > 0.1, "not as sure as if it had been measured here"


# -- invariances and odd rows ---------------------------------------------------------------------


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_predictions_when_one_row_is_odd_then_hardly_moved(factor: float) -> None:
    terms, fresh = random_terms(40, seed=17), random_terms(20, seed=18)
    measured = noisy(truth_of(terms, random_truth(17)), 0.03, 17)
    clean = learn(terms, measured, seed=0, samples=0)
    odd = measured.copy()
    odd[7] *= factor
    found = learn(terms, odd, seed=0, samples=0)
    moved = np.abs(np.log(predicted(fresh, found) / predicted(fresh, clean)))
    assert moved.mean() < 0.025, "the row itself is off by a factor of ten"
    assert moved.max() < 0.08


def test_factors_when_effects_are_added_up_by_hand() -> None:
    effects = {"all": (0.1, 0.2, -1.0), "compute": (0.5, -0.4, 0.0), "memory": (9.0, 9.0, 9.0)}
    found = factors(effects, ((ALL, COMPUTE), (ALL,)))
    assert found.shape == (2, 3)
    assert found[0] == pytest.approx(np.exp([0.6, -0.2, -1.0]))
    assert found[1] == pytest.approx(np.exp([0.1, 0.2, -1.0]))


@pytest.mark.parametrize("value", [1e6, -1e6])
def test_factors_when_effects_are_extreme_then_positive_and_finite(value: float) -> None:
    found = factors({"all": (value, value)}, ((ALL,),))
    assert (np.isfinite(found) & (found > 0)).all()


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_learn_when_a_measurement_is_not_positive_and_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="a measurement is not positive and finite"):
        learn(random_terms(3, seed=0), np.array([1.0, bad, 1.0]), seed=0)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_learn_when_numbers_do_not_match(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} measurements for 3 networks"):
        learn(random_terms(3, seed=0), np.ones(count), seed=0)


def test_samples_when_measurements_are_many_then_a_linear_step_is_as_good() -> None:
    terms = random_terms(600, seed=23)
    measured = noisy(truth_of(terms, random_truth(23)), 0.05, 23)
    many = learn(terms, measured, seed=3, samples=60, prior_scale=1.0)
    few = learn(terms.of(slice(0, 499)), measured[:499], seed=3, samples=60, prior_scale=1.0)
    fresh = random_terms(20, seed=24)
    # A fifth more measurements: a little surer, by the same measure.
    ratio = spread_of(fresh, many) / spread_of(fresh, few)
    assert 0.75 < ratio.mean() < 1.05
    for name in NAMES:
        assert np.std(many.effects[name][1:]) == pytest.approx(
            np.std(few.effects[name][1:]), rel=0.5
        )
