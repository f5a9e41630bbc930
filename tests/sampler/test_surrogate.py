import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import multivariate_normal

from hwsearch.sampler.priced import Floats
from hwsearch.sampler.surrogate import (
    Kernel,
    Surrogate,
    _negative_log_posterior,
    _squared_distances,
    fit_kernel,
)


def make_points(count: int, seed: int = 0) -> tuple[list[Floats], Floats]:
    """Values follow the first group alone; the second is noise."""
    generator = np.random.default_rng(seed)
    groups = [generator.uniform(0, 1, (count, 1)), generator.uniform(0, 1, (count, 2))]
    values = np.sin(6 * groups[0][:, 0])
    return groups, (values - values.mean()) / values.std()


def test_gradient_of_the_posterior_is_its_slope() -> None:
    groups, values = make_points(15)
    distances = np.array([_squared_distances(group, group) for group in groups])
    theta = np.array([0.3, -0.4, 0.2, -2.0])
    error = check_grad(
        lambda t: _negative_log_posterior(t, distances, values)[0],
        lambda t: _negative_log_posterior(t, distances, values)[1],
        theta,
    )
    assert error < 1e-4


def test_posterior_is_the_density_of_the_values_and_the_priors() -> None:
    groups, values = make_points(12)
    distances = np.array([_squared_distances(group, group) for group in groups])
    kernel = Kernel(lengths=np.exp([0.7, 0.7]), signal=1.0, noise=float(np.exp(-6.0)))
    covariance = kernel.covariance(groups, groups) + (kernel.noise + 1e-6) * np.eye(12)
    expected = -multivariate_normal(np.zeros(12), covariance).logpdf(values)
    # All parameters at the middle of their priors, which then add nothing.
    found, _ = _negative_log_posterior(np.array([0.7, 0.7, 0.0, -6.0]), distances, values)
    assert found + 6 * np.log(2 * np.pi) == pytest.approx(expected)


def test_fitted_kernel_finds_what_matters() -> None:
    groups, values = make_points(60)
    kernel = fit_kernel(groups, values)
    assert kernel.lengths[0] < 1 < kernel.lengths[1]
    assert kernel.noise < 0.05


def test_surrogate_predicts_what_it_was_not_told() -> None:
    groups, values = make_points(80)
    train = [group[:60] for group in groups]
    surrogate = Surrogate(fit_kernel(train, values[:60]), train, values[:60])
    mean, deviation = surrogate.predict([group[60:] for group in groups])
    assert np.abs(mean - values[60:]).max() < 0.2
    assert (np.abs(mean - values[60:]) < 3 * deviation + 0.05).all()


def test_surrogate_is_sure_where_it_was_told_and_not_far_away() -> None:
    groups, values = make_points(20)
    kernel = Kernel(lengths=np.array([0.3, 0.3]), signal=1.0, noise=1e-4)
    surrogate = Surrogate(kernel, groups, values)
    mean, deviation = surrogate.predict(groups)
    assert mean == pytest.approx(values, abs=0.05)
    assert deviation.max() < 0.05
    mean, deviation = surrogate.predict([group + 50 for group in groups])
    assert mean == pytest.approx(np.zeros(20), abs=1e-6)
    assert deviation == pytest.approx(np.ones(20))
