import numpy as np
import pytest
from scipy import stats

from hwsearch.sampler.fidelity import LEAST_PAIRS, Line


def test_interval_is_that_of_simple_linear_regression() -> None:
    """By scipy's regression and the textbook's formula for one more observation."""
    generator = np.random.default_rng(0)
    low = generator.uniform(0.2, 0.6, 12)
    high = 0.3 + 0.5 * low + generator.normal(0, 0.02, 12)
    line = Line.fit(low.tolist(), high.tolist())
    assert line is not None
    fitted = stats.linregress(low, high)
    assert line.slope == pytest.approx(fitted.slope)
    assert line.intercept == pytest.approx(fitted.intercept)
    # The slope's standard error is s / sqrt(Sxx).
    assert line.residual / line.spread**0.5 == pytest.approx(fitted.stderr)
    forecast = line.foretell(0.5)
    apart = (0.5 - low.mean()) ** 2 / ((low - low.mean()) ** 2).sum()
    assert forecast.mean == pytest.approx(fitted.intercept + 0.5 * fitted.slope)
    assert forecast.scale == pytest.approx(line.residual * (1 + 1 / 12 + apart) ** 0.5)
    student = stats.t(10, forecast.mean, forecast.scale)
    assert forecast.deviation == pytest.approx(student.std())
    assert forecast.probability_above(0.56) == pytest.approx(student.sf(0.56))


def test_interval_holds_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(2000):
        low = generator.uniform(0, 1, LEAST_PAIRS + 1)
        high = 0.2 + 0.7 * low + generator.normal(0, 0.1, len(low))
        line = Line.fit(low[1:].tolist(), high[1:].tolist())
        assert line is not None
        inside += line.foretell(float(low[0])).probability_above(float(high[0])) < 0.95
    assert 0.93 < inside / 2000 < 0.97


def test_far_from_the_pairs_less_is_foretold() -> None:
    low = [0.4, 0.41, 0.42, 0.43, 0.44, 0.45]
    line = Line.fit(low, [0.5, 0.52, 0.51, 0.53, 0.52, 0.54])
    assert line is not None
    assert line.foretell(0.1).deviation > 5 * line.foretell(0.42).deviation


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ([0.1] * LEAST_PAIRS, list(np.linspace(0, 1, LEAST_PAIRS))),
        (list(np.linspace(0, 1, LEAST_PAIRS)), [0.5] * LEAST_PAIRS),
        (list(np.linspace(0, 1, LEAST_PAIRS - 1)), list(np.linspace(0, 1, LEAST_PAIRS - 1))),
        ([], []),
    ],
    ids=["one low score", "no residual", "few pairs", "none"],
)
def test_where_nothing_can_be_learned_there_is_no_line(low: list[float], high: list[float]) -> None:
    assert Line.fit(low, high) is None


def test_scores_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="2 low scores for 1 high ones"):
        Line.fit([0.1, 0.2], [0.3])
