import csv
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import table_budget
from network_builder import NetworkBuilder
from peers import (
    Line,
    Method,
    OperatorSum,
    Ours,
    Transferred,
    held_out,
    held_out_each,
    measured,
)
from published import DATA, NEEDS_DATA
from scipy.stats import norm, spearmanr
from scores import (
    Forecast,
    Spread,
    coverage_percent,
    mape_percent,
    rmspe_percent,
    spearman,
    spread,
)
from table_output import Cell, Options, Row, write_csv

from hwsearch.bits import FP32, LayerBits
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.targets import load_profile

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results" / "published"


def network(
    name: str, channels: int, *, px: int = 16, layers: int = 2, bits: LayerBits = FP32
) -> NetworkDesc:
    """A stem, pointwise and depthwise layers in turn, and a linear layer."""
    build = NetworkBuilder(bits)
    build.conv(3, channels, px, 3)
    for _ in range(layers):
        build.conv(channels, channels, px, 3, groups=channels)
        build.conv(channels, channels, px)
    build.linear(channels, 10)
    return build.network(name, px)


def networks(
    count: int, *, seed: int = 0, bits: Sequence[LayerBits] = (FP32,)
) -> list[NetworkDesc]:
    rng = np.random.default_rng(seed)
    return [
        network(
            f"net{number}",
            4 * int(rng.integers(2, 24)),
            px=int(rng.choice([8, 12, 16, 24])),
            layers=int(rng.integers(1, 6)),
            bits=bits[number % len(bits)],
        )
        for number in range(count)
    ]


def rows_of(
    described: Sequence[NetworkDesc], latency_ms: Callable[[NetworkDesc], float]
) -> list[Measurement]:
    return [
        Measurement(network=one, latency_ms=latency_ms(one), energy_mj=3 * latency_ms(one))
        for one in described
    ]


def operators_ms(one: NetworkDesc) -> float:
    """Depthwise MACs cost ten times the others: no line over sums can say so."""
    rates = {"depthwise": 5e-6}
    return 0.1 + sum(rates.get(kernel.kind, 5e-7) * kernel.macs + 0.02 for kernel in one.kernels)


def worst_percent(
    method: Method, train: Sequence[Measurement], test: Sequence[Measurement]
) -> float:
    found = method.fit(train, "latency").predict([row.network for row in test])
    return float(100 * np.abs(found.value / measured(test, "latency") - 1).max())


def test_errors_are_those_of_their_definition() -> None:
    truth, guess = np.array([1.0, 2.0, 4.0]), np.array([1.1, 1.0, 4.0])
    relative = [0.1, -0.5, 0.0]
    assert mape_percent(truth, guess) == pytest.approx(100 * (0.1 + 0.5) / 3)
    expected = 100 * (sum(one**2 for one in relative) / 3) ** 0.5
    assert rmspe_percent(truth, guess) == pytest.approx(expected)


def test_spearman_is_scipys_with_ties_too() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        first, second = rng.integers(1, 6, 30).astype(float), rng.integers(1, 6, 30).astype(float)
        assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)


def test_coverage_counts_the_measurements_between_the_ends() -> None:
    rng = np.random.default_rng(3)
    value, sigma = rng.uniform(1, 9, 200), rng.uniform(0.05, 0.3, 200)
    truth = value * np.exp(0.1 * rng.standard_normal(200))
    low, high = (value * np.exp(norm.ppf(one) * sigma) for one in (0.05, 0.95))
    inside = sum(a <= t <= b for a, t, b in zip(low, truth, high, strict=True))
    forecast = Forecast(value=value, sigma_log=sigma)
    assert coverage_percent(truth, forecast) == inside / 2
    assert forecast.upper(0.95) == pytest.approx(high)


def test_spread_is_the_median_with_quartiles_without_nan() -> None:
    found = spread([4.0, float("nan"), 1.0, 2.0, 3.0, 5.0])
    assert (found.q1, found.median, found.q3) == (2.0, 3.0, 4.0)
    assert np.isnan(spread([float("nan")]).median)


def test_operator_sums_find_what_no_line_can() -> None:
    rows = rows_of(networks(80), operators_ms)
    assert worst_percent(OperatorSum(), rows[:50], rows[50:]) < 1
    assert worst_percent(Line(name="line", sums=("macs",)), rows[:50], rows[50:]) > 20


def test_a_transferred_method_follows_a_scaled_device() -> None:
    rows = rows_of(networks(80), operators_ms)
    source = OperatorSum().fit(rows[:50], "latency")
    slower = rows_of([row.network for row in rows[50:]], lambda one: 3 * operators_ms(one))
    assert worst_percent(Transferred(source=source, name="moved"), slower[:10], slower[10:]) < 2


class Spy:
    """Remembers what it was fitted to and predicts a constant."""

    name = "spy"

    def __init__(self) -> None:
        self.seen: list[set[str]] = []

    def fit(self, train: Sequence[Measurement], quantity: str) -> "Spy":
        self.seen.append({row.network.name for row in train})
        return self

    def predict(self, networks: Sequence[NetworkDesc]) -> Forecast:
        assert not self.seen[-1] & {one.name for one in networks}
        return Forecast(value=np.array([float(one.macs) for one in networks]))


def test_held_out_never_shows_a_fold_to_its_own_fit() -> None:
    rows = rows_of(networks(12), operators_ms)
    spy = Spy()
    folds = np.array([-1, -1, -1, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    truth, forecast = held_out(rows, folds, spy, "latency")
    assert [len(seen) for seen in spy.seen] == [9, 9, 9]
    assert truth.tolist() == [row.latency_ms for row in rows[3:]]
    assert forecast.value.tolist() == [row.network.macs for row in rows[3:]]


def test_both_quantities_from_one_fit_are_those_of_their_own_fits() -> None:
    rows = rows_of(networks(30), operators_ms)
    folds = np.arange(30) % 3 - 1
    method = Ours(profile=load_profile("raspberry-pi-4"))
    both = held_out_each(rows, folds, method, ["latency", "energy"])
    assert list(both) == ["latency", "energy"]
    for quantity, (truth, forecast) in both.items():
        own_truth, own = held_out(rows, folds, method, quantity)
        assert truth.tolist() == own_truth.tolist()
        assert forecast.value.tolist() == own.value.tolist()
        assert forecast.sigma_log is not None
        assert own.sigma_log is not None
        assert forecast.sigma_log.tolist() == own.sigma_log.tolist()


def test_csv_spells_a_spread_in_three_columns(tmp_path: Path) -> None:
    cells: list[Cell] = [Spread(median=2.5, q1=2.0, q3=3.0), None]
    rows: list[Row] = [{"method": "ours", "mape_percent": cell} for cell in cells]
    given = Options(data=tmp_path, seeds=2, quick=True, out=tmp_path / "new")
    path = write_csv(rows, given, "made", given.size)
    assert path.name.startswith("predictor_made_seeds2-quick_20")
    with path.open(encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert first == {
        "method": "ours", "mape_percent": "2.5", "mape_percent_q1": "2", "mape_percent_q3": "3",
    }  # fmt: skip
    assert second["mape_percent_q3"] == ""


@pytest.mark.parametrize("seed", range(5))
def test_a_choice_is_the_best_by_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(1, 9, 15)
    believed = truth * np.exp(0.3 * rng.standard_normal(15))
    accuracy = rng.uniform(50, 99, 15)
    budget = float(np.quantile(truth, 0.5))
    allowed = [at for at in range(15) if believed[at] <= budget]
    best = max(allowed, key=lambda at: accuracy[at])
    oracle = max(accuracy[at] for at in range(15) if truth[at] <= budget)
    found = table_budget.choose(believed, truth, accuracy, budget)
    assert found.broken == (truth[best] > budget)
    assert found.used == pytest.approx(truth[best] / budget)
    assert found.price_points == pytest.approx(oracle - accuracy[best])


def test_a_summary_of_choices_counts_them() -> None:
    choice = table_budget.Choice
    found = table_budget.summary(
        [
            choice(broken=True, used=1.2, price_points=-3.0),
            choice(broken=False, used=0.8, price_points=1.0),
            choice(broken=False, used=0.6, price_points=2.0),
            choice(broken=None, used=None, price_points=None),
        ]
    )
    assert found == {
        "choices": 4,
        "nothing_chosen_percent": 25.0,
        "broken_percent": pytest.approx(100 / 3),
        "over_when_broken_percent": pytest.approx(20),
        "budget_used_when_kept_percent": pytest.approx(70),
        "accuracy_below_oracle_points": 1.5,
    }


@NEEDS_DATA
@pytest.mark.slow
@pytest.mark.benchmark
@pytest.mark.parametrize("name", ["nano", "bitfusion", "nasbench201", "budget", "mlperf"])
def test_small_form_of_a_published_table_has_its_columns_and_methods(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["table", str(DATA), "--seeds", "1", "--quick", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", given)
    importlib.import_module(f"table_{name}").main()
    read = []
    for folder in (tmp_path, PUBLISHED):
        [path] = folder.glob(f"predictor_{name}_*.csv")
        with path.open(encoding="utf-8") as file:
            reader = csv.DictReader(file)
            read.append((reader.fieldnames, {row["method"] for row in reader}))
    assert read[0] == read[1]
