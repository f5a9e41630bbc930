import csv
import dataclasses
import gzip
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import table_bitfusion
import table_budget
import table_mlperf
import table_nano
import table_nasbench201
import tables
from mobilenets import mobilenet
from network_builder import NetworkBuilder
from peers import (
    Boosting,
    FittedProfile,
    Line,
    Method,
    OperatorSum,
    Ours,
    Transferred,
    fitted_each,
    held_out,
    held_out_each,
    measured,
    peers,
)
from scipy.stats import norm, spearmanr
from scores import (
    Forecast,
    Spread,
    coverage_percent,
    joined,
    mape_percent,
    rmspe_percent,
    score,
    spearman,
    spread,
    spread_columns,
)
from table_output import Cell, Options, Row, markdown, options, write_csv

from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.targets import load_profile

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
NEEDS_DATA = pytest.mark.skipif(not DATA.is_dir(), reason="the published tables are not here")

QUICK = Options(data=DATA, seeds=1, quick=True, out=Path())


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


def line_ms(one: NetworkDesc) -> float:
    """What a line over MACs, weights and kernels can say."""
    return 0.2 + 2e-7 * one.macs + 1e-5 * one.weight_elements + 0.05 * len(one.kernels)


def operators_ms(one: NetworkDesc) -> float:
    """Depthwise MACs cost ten times the others: no line over sums can say so."""
    rates = {"depthwise": 5e-6}
    return 0.1 + sum(rates.get(kernel.kind, 5e-7) * kernel.macs + 0.02 for kernel in one.kernels)


def worst_percent(
    method: Method, train: Sequence[Measurement], test: Sequence[Measurement]
) -> float:
    found = method.fit(train, "latency").predict([row.network for row in test])
    return float(100 * np.abs(found.value / measured(test, "latency") - 1).max())


# -- scores ---------------------------------------------------------------------------------------


def test_errors_are_those_of_their_definition() -> None:
    truth, guess = np.array([1.0, 2.0, 4.0]), np.array([1.1, 1.0, 4.0])
    relative = [0.1, -0.5, 0.0]
    assert mape_percent(truth, guess) == pytest.approx(100 * (0.1 + 0.5) / 3)
    expected = 100 * (sum(one**2 for one in relative) / 3) ** 0.5
    assert rmspe_percent(truth, guess) == pytest.approx(expected)


def test_errors_do_not_depend_on_the_unit() -> None:
    rng = np.random.default_rng(0)
    truth, guess = rng.uniform(1, 9, 50), rng.uniform(1, 9, 50)
    for scores in (mape_percent, rmspe_percent, spearman):
        assert scores(1e3 * truth, 1e3 * guess) == pytest.approx(scores(truth, guess))


def test_spearman_is_scipys_with_ties_too() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        first, second = rng.integers(1, 6, 30).astype(float), rng.integers(1, 6, 30).astype(float)
        assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)


def test_spearman_counts_pairs_when_nothing_is_tied() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.permutation(12).astype(float), rng.permutation(12).astype(float)
    # 1 - 6 sum d^2 / (n (n^2 - 1))
    squares = float(((first - second) ** 2).sum())
    assert spearman(first, second) == pytest.approx(1 - 6 * squares / (12 * (144 - 1)))


def test_spearman_is_nan_when_a_side_is_constant() -> None:
    assert np.isnan(spearman(np.array([1.0, 2.0]), np.array([3.0, 3.0])))


def test_scores_refuse_other_lengths_and_nothing() -> None:
    with pytest.raises(ValueError, match="2 predictions for 3 measurements"):
        mape_percent(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="0 predictions for 0 measurements"):
        rmspe_percent(np.ones(0), np.ones(0))


def test_coverage_counts_the_measurements_between_the_ends() -> None:
    rng = np.random.default_rng(3)
    value, sigma = rng.uniform(1, 9, 200), rng.uniform(0.05, 0.3, 200)
    truth = value * np.exp(0.1 * rng.standard_normal(200))
    low, high = (value * np.exp(norm.ppf(one) * sigma) for one in (0.05, 0.95))
    inside = sum(a <= t <= b for a, t, b in zip(low, truth, high, strict=True))
    assert coverage_percent(truth, Forecast(value=value, sigma_log=sigma)) == inside / 2


def test_coverage_is_nine_tenths_when_sigma_is_true() -> None:
    rng = np.random.default_rng(4)
    value = np.full(20_000, 5.0)
    truth = value * np.exp(0.2 * rng.standard_normal(len(value)))
    found = coverage_percent(truth, Forecast(value=value, sigma_log=np.full(len(value), 0.2)))
    assert found == pytest.approx(90, abs=1)


def test_a_forecast_without_sigma_has_no_coverage_and_bounds_nothing() -> None:
    forecast = Forecast(value=np.array([2.0, 3.0]))
    assert score(np.array([2.0, 3.1]), forecast).coverage_percent is None
    assert (forecast.upper(0.95) == forecast.value).all()


def test_a_bound_is_the_quantile_of_the_lognormal() -> None:
    forecast = Forecast(value=np.array([2.0]), sigma_log=np.array([0.5]))
    assert forecast.upper(0.95)[0] == pytest.approx(2 * np.exp(0.5 * norm.ppf(0.95)))
    assert forecast.upper(0.5)[0] == pytest.approx(2)


def test_joining_keeps_sigma_only_when_all_have_one() -> None:
    sure = Forecast(value=np.array([1.0]), sigma_log=np.array([0.1]))
    bare = Forecast(value=np.array([2.0]))
    both = joined([sure, sure]).sigma_log
    assert both is not None
    assert both.tolist() == [0.1, 0.1]
    assert joined([sure, bare]).sigma_log is None
    assert joined([sure, bare]).value.tolist() == [1.0, 2.0]


def test_spread_is_the_median_with_quartiles_without_nan() -> None:
    found = spread([4.0, float("nan"), 1.0, 2.0, 3.0, 5.0])
    assert (found.q1, found.median, found.q3) == (2.0, 3.0, 4.0)
    assert np.isnan(spread([float("nan")]).median)


def test_a_spread_reads_as_its_median_alone_when_nothing_spreads() -> None:
    assert str(Spread(median=12.34, q1=12.34, q3=12.34)) == "12.3"
    assert str(Spread(median=12.34, q1=10.0, q3=15.55)) == "12.3 (10.0-15.6)"
    assert str(Spread(median=0.9541, q1=0.95, q3=0.9601)) == "0.954 (0.950-0.960)"


def test_spread_columns_have_a_unit_and_none_without_intervals() -> None:
    scores = [score(np.array([1.0, 2.0]), Forecast(value=np.array([1.0, one]))) for one in (2.2, 3)]
    found = spread_columns(scores)
    assert list(found) == ["mape_percent", "rmspe_percent", "spearman", "coverage_percent"]
    assert found["coverage_percent"] is None
    mape = found["mape_percent"]
    assert mape is not None
    assert (mape.q1, mape.median, mape.q3) == pytest.approx((10, 15, 20))


# -- peers ----------------------------------------------------------------------------------------


def test_a_line_finds_a_line() -> None:
    rows = rows_of(networks(60), line_ms)
    line = Line(name="line", sums=("macs", "weights", "kernels"))
    assert worst_percent(line, rows[:30], rows[30:]) < 0.1


def test_a_line_prices_each_pair_of_widths_on_its_own() -> None:
    def latency_ms(one: NetworkDesc) -> float:
        return one.macs * (1e-7 if one.kernels[0].bits == INT8 else 4e-7) + 0.5

    rows = rows_of(networks(60, bits=(FP32, INT8)), latency_ms)
    assert worst_percent(Line(name="line", sums=("macs",)), rows[:30], rows[30:]) < 0.1


def test_operator_sums_find_what_no_line_can() -> None:
    rows = rows_of(networks(80), operators_ms)
    assert worst_percent(OperatorSum(), rows[:50], rows[50:]) < 1
    assert worst_percent(Line(name="line", sums=("macs",)), rows[:50], rows[50:]) > 20


def test_operator_sums_price_unseen_bits_like_the_kind_in_others() -> None:
    rows = rows_of(networks(50), operators_ms)
    asked = rows_of(networks(20, seed=1, bits=(INT8,)), operators_ms)
    assert worst_percent(OperatorSum(), rows, asked) < 1


def test_sums_never_leave_nothing() -> None:
    # Decreasing in MACs: coefficients that are not negative can only be a constant.
    rows = rows_of(networks(30), lambda one: 1e9 / one.macs)
    found = Line(name="line", sums=("macs",)).fit(rows, "latency")
    value = found.predict([network("large", 4096), network("small", 4, px=8)]).value
    assert (value >= 0.1 * measured(rows, "latency").min()).all()


def test_boosting_learns_and_repeats_with_its_seed() -> None:
    rows = rows_of(networks(300), operators_ms)
    test = [row.network for row in rows[250:]]
    first = Boosting(seed=3).fit(rows[:250], "latency").predict(test)
    again = Boosting(seed=3).fit(rows[:250], "latency").predict(test)
    assert (first.value == again.value).all()
    assert mape_percent(measured(rows[250:], "latency"), first.value) < 8


def test_boosting_is_blind_to_the_order_of_networks() -> None:
    rows = rows_of(networks(60), operators_ms)
    fitted = Boosting(seed=0).fit(rows[:40], "latency")
    test = [row.network for row in rows[40:]]
    assert fitted.predict(test).value[::-1] == pytest.approx(fitted.predict(test[::-1]).value)


def test_ours_has_intervals_and_predicts_energy() -> None:
    rows = rows_of(networks(45), operators_ms)
    forecast = (
        Ours(profile=load_profile("raspberry-pi-4"))
        .fit(rows[:30], "energy")
        .predict([row.network for row in rows[30:]])
    )
    assert forecast.sigma_log is not None
    assert (forecast.sigma_log > 0).all()
    assert mape_percent(measured(rows[30:], "energy"), forecast.value) < 10


def test_ours_fits_latency_when_the_profile_has_no_energy() -> None:
    bare = load_profile("raspberry-pi-4").model_copy(update={"energy": None, "fit": None})
    rows = rows_of(networks(20), operators_ms)
    assert worst_percent(Ours(profile=bare), rows[:15], rows[15:]) < 60


def test_a_transferred_method_follows_a_scaled_device() -> None:
    rows = rows_of(networks(80), operators_ms)
    source = OperatorSum().fit(rows[:50], "latency")
    slower = rows_of([row.network for row in rows[50:]], lambda one: 3 * operators_ms(one))
    assert worst_percent(Transferred(source=source, name="moved"), slower[:10], slower[10:]) < 2


def test_measured_refuses_a_row_without_energy() -> None:
    row = Measurement(network=network("one", 8), latency_ms=2.0)
    assert measured([row], "latency").tolist() == [2.0]
    with pytest.raises(ValueError, match="a row has no energy; leave it out before"):
        measured([row], "energy")


def test_peers_are_the_four_of_the_tables() -> None:
    names = [method.name for method in peers(0)]
    assert names == [
        "MACs line", "MACs+params+layers line", "gradient boosting", "per-operator sum",
    ]  # fmt: skip


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


def test_ours_is_fitted_once_for_both_quantities_and_peers_for_each() -> None:
    rows = rows_of(networks(12), operators_ms)
    fits = fitted_each(Ours(profile=load_profile("raspberry-pi-4")), rows, ["latency", "energy"])
    latency, energy = fits["latency"], fits["energy"]
    assert isinstance(latency, FittedProfile)
    assert isinstance(energy, FittedProfile)
    assert latency.profile is energy.profile
    assert (latency.quantity, energy.quantity) == ("latency", "energy")
    spy = Spy()
    fitted_each(spy, rows, ["latency", "energy"])
    assert len(spy.seen) == 2


# -- tables ---------------------------------------------------------------------------------------


def test_markdown_has_the_columns_of_the_rows() -> None:
    rows: list[Row] = [
        {"method": "ours", "mape_percent": Spread(median=2.5, q1=2.0, q3=3.0), "networks": 3},
        {"method": "line", "mape_percent": None, "networks": 12},
    ]
    assert markdown(rows).splitlines() == [
        "| method | mape_percent | networks |",
        "| --- | --- | --- |",
        "| ours | 2.5 (2.0-3.0) | 3 |",
        "| line | - | 12 |",
    ]


def test_markdown_refuses_no_rows_and_other_columns() -> None:
    with pytest.raises(ValueError, match="the table has no rows"):
        markdown([])
    with pytest.raises(ValueError, match=r"a row has the columns \['b'\], the first one has"):
        markdown([{"a": 1}, {"b": 2}])


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


def test_options_refuse_no_seeds_and_a_folder_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert options("What.", seeds=4, arguments=[str(tmp_path)]).seeds == 4
    for arguments, message in (
        ([str(tmp_path), "--seeds", "0"], "--seeds 0: give 1 or more"),
        ([str(tmp_path / "none")], "is no folder; give the one that holds the published tables"),
    ):
        with pytest.raises(SystemExit) as stopped:
            options("What.", seeds=4, arguments=arguments)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


def test_results_go_where_files_are_versioned() -> None:
    root = Path(__file__).resolve().parents[2]
    where = options("What.", seeds=1, arguments=[str(root)]).out
    assert where == root / "results" / "published"
    assert "!/results/published/" in (root / ".gitignore").read_text("utf-8").splitlines()


@pytest.mark.parametrize("seed", range(20))
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


def test_the_oracle_breaks_no_budget_and_pays_nothing() -> None:
    rng = np.random.default_rng(0)
    truth, accuracy = rng.uniform(1, 9, 40), rng.uniform(50, 99, 40)
    for share in table_budget.SHARES:
        budget = float(np.quantile(truth, share))
        found = table_budget.choose(truth, truth, accuracy, budget)
        assert (found.broken, found.price_points) == (False, 0)


def test_nothing_is_chosen_when_nothing_is_believed_to_fit() -> None:
    found = table_budget.choose(np.full(3, 9.0), np.ones(3), np.ones(3), 2.0)
    assert (found.broken, found.used, found.price_points) == (None, None, None)


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


def test_few_folds_fit_to_the_pool_and_score_always_the_same() -> None:
    first, second = (table_nasbench201.few_folds(900, 20, seed) for seed in (0, 1))
    for folds in (first, second):
        assert (folds == -1).sum() == 20
    assert ((first == 0) == (second == 0)).all()
    assert ((first == -1) != (second == -1)).any()


def test_ten_rows_of_a_new_board_are_fitted_to_and_all_others_scored() -> None:
    folds = table_mlperf.few_folds(84, 0)
    assert ((folds == -1).sum(), (folds == 0).sum()) == (10, 74)


# -- a table of boards, made up -------------------------------------------------------------------

HEADER = (
    "profile", "device", "runtime", "backend", "mlperf_round", "family", "variant", "width",
    "input_px", "precision", "top1_percent", "latency_p90_ms", "energy_mj", "power_w",
)  # fmt: skip
WIDTHS, SIZES_PX = (0.25, 0.5, 0.75, 1.0), (96, 128, 160, 192)


def board(
    profile: str, device: str, runtime: str, backend: str, speed: float, power_w: str = "4"
) -> list[list[str]]:
    """64 rows: MobileNet v1 and v2 in four widths, four sizes and both precisions."""
    rows = []
    for family, width, px, precision in itertools.product(
        ("mobilenet_v1", "mobilenet_v2"), WIDTHS, SIZES_PX, ("fp32", "int8")
    ):
        if family == "mobilenet_v2" and width == 0.25:
            width = 0.35
        described = mobilenet(family, "", width, px, FP32)
        latency_ms = speed * operators_ms(described) / 100 * (1 if precision == "fp32" else 0.4)
        energy_mj = f"{4 * latency_ms:.9g}" if power_w else ""
        top1_percent = f"{40 + 20 * width + px / 20:.3f}"
        key = (profile, device, runtime, backend, "v9", family, "", str(width), str(px), precision)
        rows.append([*key, top1_percent, f"{latency_ms:.9g}", energy_mj, power_w])
    return rows


@pytest.fixture
def made_up(tmp_path: Path) -> Options:
    """Two boards in two rounds each; the newer round of the first has no energy."""
    rows = [
        *board("v1/me/pi", "rpi4", "tflite", "ruy", 1.0),
        *board("v2/me/pi", "rpi4", "tflite", "ruy", 1.1, power_w=""),
        *board("v1/me/khadas", "khadas_vim4", "tflite", "ruy", 0.5),
        *board("v2/me/khadas", "khadas_vim4", "tflite", "ruy", 0.45),
        *board("v1/me/unknown", "toaster", "tflite", "ruy", 9.0),
    ]
    with gzip.open(tmp_path / "mlperf_edge_cpu_gpu.csv.gz", "wt", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([HEADER, *rows])
    return Options(data=tmp_path, seeds=1, quick=True, out=tmp_path)


def test_boards_are_the_newest_round_with_energy(made_up: Options) -> None:
    found = table_mlperf.boards(made_up)
    assert [one.setup[3] for one in found] == ["v2/me/khadas", "v1/me/pi"]
    assert [one.profile.name for one in found] == ["khadas-vim4", "raspberry-pi-4"]
    assert [one.quantities for one in found] == [("latency", "energy")] * 2


def test_a_board_with_one_row_without_energy_counts_for_latency_alone(made_up: Options) -> None:
    one, _ = table_mlperf.boards(made_up)
    first = dataclasses.replace(
        one.rows[0], measurement=dataclasses.replace(one.rows[0].measurement, energy_mj=None)
    )
    lacking = dataclasses.replace(one, rows=(first, *one.rows[1:]))
    assert lacking.quantities == ("latency",)


def test_a_board_starts_from_another_device(made_up: Options) -> None:
    khadas, pi = table_mlperf.boards(made_up)
    assert table_mlperf.nearest_first(pi, [pi, khadas]) == [khadas]


@pytest.mark.slow
@pytest.mark.benchmark
def test_the_table_of_boards_has_every_split_and_method(made_up: Options) -> None:
    boards = table_mlperf.boards(made_up)
    within = table_mlperf.within_boards(boards)
    splits = {str(row["split"]) for row in within}
    assert splits == {"width held out", "input size held out", "fp32 to int8"}
    assert len(within) == 2 * 3 * 5
    new = table_mlperf.new_boards(boards, 1)
    by_method = {row["method"]: row["mape_percent"] for row in new if row["quantity"] == "latency"}
    assert len(by_method) == 9
    started, alone = by_method["ours, started from it"], by_method["ours"]
    assert isinstance(started, Spread)
    assert isinstance(alone, Spread)
    # The boards differ by a factor alone, so the other one knows everything else.
    assert started.median < alone.median


# -- on the published tables, where they are ------------------------------------------------------


def shown(rows: Sequence[Row], method: str, **conditions: Cell) -> Row:
    """The row of a method under conditions."""
    wanted = {"method": method, **conditions}
    [found] = [row for row in rows if wanted.items() <= row.items()]
    return found


def median(row: Row, column: str) -> float:
    cell = row[column]
    assert isinstance(cell, Spread)
    return cell.median


@NEEDS_DATA
@pytest.mark.slow
@pytest.mark.benchmark
def test_the_nano_table_puts_ours_before_the_lines() -> None:
    rows = table_nano.table(QUICK)
    assert len(rows) == 2 * 3 * 5
    for quantity in ("latency", "energy"):
        errors = {
            method: median(
                shown(rows, method, quantity=quantity, split="5-fold by network"), "mape_percent"
            )
            for method in ("ours", "MACs line", "MACs+params+layers line", "gradient boosting")
        }
        assert min(errors, key=lambda method: errors[method]) == "ours"


@NEEDS_DATA
@pytest.mark.slow
@pytest.mark.benchmark
def test_the_bitfusion_table_leaves_shapes_out_whole() -> None:
    layers = tables.bitfusion(DATA)
    folds = table_bitfusion.shape_folds(layers, 0)
    of_shape: dict[str, set[int]] = {}
    for layer, fold in zip(layers, folds, strict=True):
        of_shape.setdefault(layer.network.name.rsplit("-", 1)[0], set()).add(int(fold))
    assert all(len(found) == 1 for found in of_shape.values())
    assert {fold for found in of_shape.values() for fold in found} == set(range(5))
    rows = table_bitfusion.table(QUICK)
    assert median(shown(rows, "ours", quantity="latency"), "mape_percent") < 15


@NEEDS_DATA
@pytest.mark.slow
@pytest.mark.benchmark
def test_the_nasbench_table_has_both_sizes_and_groups() -> None:
    rows = table_nasbench201.table(QUICK)
    assert {row["measured_cells"] for row in rows} == set(table_nasbench201.SIZES)
    few = shown(rows, "ours", measured_cells=20, settings="all nine")
    assert median(few, "spearman") > 0.85
    assert all(
        measurement.group != "constant" for measurement in table_nasbench201.load(QUICK)["1080ti_1"]
    )


@NEEDS_DATA
@pytest.mark.slow
@pytest.mark.benchmark
def test_the_budget_table_breaks_less_with_the_bound_than_with_the_median() -> None:
    rows = table_budget.table(QUICK)
    assert {row["candidates"] for row in rows} == {"NAS-Bench-201", "MLPerf"}
    for candidates in ("NAS-Bench-201", "MLPerf"):
        bound, point = (
            shown(rows, method, candidates=candidates)["broken_percent"]
            for method in ("ours, bound of 0.95", "ours, point")
        )
        assert isinstance(bound, float)
        assert isinstance(point, float)
        assert bound <= point


@NEEDS_DATA
def test_priors_of_nasbench_settings_know_their_class_alone() -> None:
    gpu, cpu = (table_nasbench201.prior(setting) for setting in ("2080ti_1", "raspi4"))
    assert gpu.compute.by_bits[FP32].peak_gmac_per_s > cpu.compute.by_bits[FP32].peak_gmac_per_s
    assert gpu.fit is None
    assert cpu.fit is None
    assert cpu == table_nasbench201.prior("silver_4114")
