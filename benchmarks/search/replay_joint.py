"""A joint space searched again: trials until a search has most of the true front.

::

    python benchmarks/search/replay_joint.py TRUTH.csv [--seeds 10] [--backbone NAME] [--quick]

``joint_truth.py`` trained every candidate of two backbones x pruning x bits in three stages and
wrote the table. Accuracy there, on all pictures that were not trained on, is searched against a
cost that is known before a trial: size in bytes, or the latency predicted for ``bitfusion``, a
simulated chip that is faster at 4 bits than at 8. With ``--backbone`` the networks of one backbone
are searched, and only they have to be in the table.

Counted are the trials until 95 % and 98 % of the volume under the true front are reached, between
its ideal and its nadir point, with the logarithm of the cost: fp32 costs up to 16 times as much,
and on a linear axis one well-placed network has 95 % already. ``reached`` is the share of seeds
that got there within the limit, and the others count as the limit. Ours sees the features that the
tool gives it (``hwsearch.study.candidates.pricing.network_features``).
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from joint_truth import (
    BACKBONES,
    BITS,
    RATIOS,
    bench_of,
    bit_operations,
    candidate_of,
    choices,
    read_rows,
)
from methods import Method, methods, replay
from predictor_room import Options, Row, Spread, show, spread
from problem import Problem, Truth
from regret_plot import plot_regret
from scipy.stats import kendalltau

from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.sampler.priced import Floats
from hwsearch.study.candidates.pricing import network_features

_ROOT: Final = Path(__file__).resolve().parents[2]
COSTS: Final = ("size_bytes", "bitfusion_latency_ms")
SHARES_PERCENT: Final = (95, 98)
MOST_TRIALS: Final = 200
#: GPSampler takes 20 s for a search of so many trials, and 200 would take an hour a seed.
GP_TRIALS: Final = 60
#: What Optuna ships.
STOCK: Final = ("random", "NSGA-II", "TPE multivariate", "GPSampler")
_QUICK: Final = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("truth", type=Path, help="as joint_truth.py wrote it")
    parser.add_argument("--seeds", type=int, default=10, help="repetitions (default 10)")
    parser.add_argument("--backbone", choices=BACKBONES, help="search those of this one only")
    parser.add_argument("--trials", type=int, default=MOST_TRIALS, help="of a search, at most")
    parser.add_argument("--quick", action="store_true", help="a small part, to see that it runs")
    parser.add_argument("--out", type=Path, default=_ROOT / "results" / "published")
    given = parser.parse_args()
    options = Options(data=given.truth, seeds=given.seeds, quick=given.quick, out=given.out)
    conditions = f"{given.truth.stem.removeprefix('search_joint-truth_')}-{options.size}"
    if given.backbone is not None:
        conditions = f"{given.backbone}-{conditions}"
    backbones = BACKBONES if given.backbone is None else (given.backbone,)
    most = _QUICK if given.quick else given.trials
    rows: list[Row] = []
    for cost, problem in problems(given.truth, backbones).items():
        found, curves = table(problem, cost, options, most)
        rows += found
        path = given.out.parent / f"search_joint-{cost.replace('_', '-')}_{conditions}.png"
        print(f"plotted in {plot_regret(curves, path)}", flush=True)
    show(rows, options, "joint", conditions, room="search")
    for cost in COSTS:
        for share in SHARES_PERCENT:
            print(told(rows, cost, share))
    for line in rankings(read_rows(given.truth)):
        print(line)


def problems(
    truth: Path, backbones: Sequence[str] = BACKBONES, *, partly: bool = False
) -> dict[str, Problem]:
    """The search against each cost, among the networks of some backbones.

    Args:
        truth: the table.
        backbones: whose networks are searched.
        partly: search those that the table has, in its order.

    Raises:
        ValueError: the table is not complete, or of other networks.
    """
    trained = {row["candidate"]: row for row in read_rows(truth)}
    bench = bench_of("digits", 0)
    pairs = [(one, candidate_of(one, bench)) for one in choices() if one.backbone in backbones]
    if partly:
        by_id = {candidate.id: (choice, candidate) for choice, candidate in pairs}
        pairs = [by_id[name] for name in trained]
    found, candidates = [choice for choice, _ in pairs], [candidate for _, candidate in pairs]
    missing = {one.id for one in candidates} - set(trained)
    if missing:
        raise ValueError(f"{truth} lacks {len(missing)} networks; go on with joint_truth.py")
    rows = [trained[one.id] for one in candidates]
    networks = [bench.pricing.backbones.describe(one) for one in candidates]
    if [str(bit_operations(network)) for network in networks] != [
        r["bit_operations"] for r in rows
    ]:
        raise ValueError(f"{truth} was made of other networks; delete it and train them again")
    stages = range(1, 4)
    options: dict[str, tuple[str | float, ...]] = {
        "backbone": tuple(dict.fromkeys(choice.backbone for choice in found)),
        **{f"ratio{stage}": RATIOS for stage in stages},
        **{f"bits{stage}": tuple(BITS) for stage in stages},
    }
    chosen = [(choice.backbone, *choice.ratios, *choice.bits) for choice in found]
    places = [
        [one.index(value) for one, value in zip(options.values(), values, strict=True)]
        for values in chosen
    ]
    right = np.array([int(r["final_correct"]) + int(r["held_out_correct"]) for r in rows])
    total = np.array([int(r["validation"]) + int(r["held_out"]) for r in rows])
    features = np.array([network_features(network) for network in networks])
    by_cost = {
        "size_bytes": [float(network.size_bytes) for network in networks],
        "bitfusion_latency_ms": latencies_ms(networks),
    }
    made = {}
    for cost in COSTS:
        costs = np.log2(by_cost[cost])[:, None]
        made[cost] = Problem(
            choices=options,
            places=np.array(places),
            accuracy_percent=100.0 * right / total,
            costs=costs,
            known_costs=costs,
            features=(features - features.mean(axis=0)) / features.std(axis=0),
            allowed=np.ones(len(rows), dtype=bool),
            objectives=True,
        )
    return made


def latencies_ms(networks: Sequence[NetworkDesc]) -> list[float]:
    """Predicted on ``bitfusion``, which is simulated."""
    bench = bench_of("digits", 0, target="bitfusion")
    return [cost.latency_ms.value for cost in bench.pricing.predictor.predict_all(networks)]


def table(
    problem: Problem, cost: str, given: Options, most: int
) -> tuple[list[Row], dict[str, Floats]]:
    """Trials to each share of the volume for every method, over seeds, and the curves."""
    truth = Truth.of(problem)
    rows: list[Row] = []
    curves: dict[str, Floats] = {}
    for method in methods():
        gp = method.name == "GPSampler"
        trials = min(most, GP_TRIALS if gp else method.most_trials or most)
        regrets = np.array(
            [regrets_of(problem, truth, method, trials, seed) for seed in range(given.seeds)]
        )
        counts = [trials_to(regrets, share) for share in SHARES_PERCENT]
        for share, needed in zip(SHARES_PERCENT, counts, strict=True):
            rows.append(
                {
                    "cost": cost,
                    "share_percent": share,
                    "method": method.name,
                    "seeds": given.seeds,
                    "most_trials": trials,
                    "reached": float(np.isfinite(needed).mean()),
                    "trials": spread(np.minimum(needed, trials).tolist()),
                    "regret_percent_at_50": spread(regrets[:, min(50, trials) - 1].tolist()),
                }
            )
        at = np.unique(np.linspace(10, trials, 40).astype(int))
        quartiles = np.quantile(regrets[:, at - 1], (0.25, 0.5, 0.75), axis=0)
        curves[method.name] = np.column_stack([at, quartiles.T])
        print(f"{cost}: {method.name} done", flush=True)
    return rows, curves


def regrets_of(
    problem: Problem, truth: Truth, method: Method, trials: int, seed: int
) -> list[float]:
    """Volume missed, in percent, after each trial of one search."""
    run = replay(problem, method, trials, seed)
    found = [truth.regret_percent(problem, run[: count + 1]) for count in range(len(run))]
    return found + found[-1:] * (trials - len(found))


def trials_to(regrets: Floats, share_percent: float) -> Floats:
    """Trials until a share of the volume is reached, for each row; infinite where it never is."""
    reached = regrets <= 100.0 - share_percent
    first: Floats = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf)
    return first


def told(rows: Sequence[Row], cost: str, share_percent: int) -> str:
    """Trials of ours beside the best sampler of Optuna; a median at the limit is a lower bound."""
    trials = {
        str(row["method"]): row["trials"].median
        for row in rows
        if row["cost"] == cost
        and row["share_percent"] == share_percent
        and isinstance(row["trials"], Spread)
    }
    best = min(STOCK, key=lambda name: trials[name])
    return (
        f"{cost}, {share_percent} %: ours {trials['ours']:.0f} trials, {best} {trials[best]:.0f}, "
        f"{trials[best] / trials['ours']:.1f} x as many"
    )


def rankings(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """How well short scores rank full ones: Kendall's tau, of all networks and of each backbone.

    Short scores are on validation pictures, full ones on held-out pictures, so they share none.
    """
    backbones = list(dict.fromkeys(row["backbone"] for row in rows))
    told_of = {"all": backbones, **{backbone: [backbone] for backbone in backbones}}
    lines = []
    for name, members in told_of.items():
        own = [row for row in rows if row["backbone"] in members]
        truth = [int(row["held_out_correct"]) for row in own]
        taus = [
            float(kendalltau([int(row[score]) for row in own], truth)[0])
            for score in ("rung0_correct", "rung1_correct", "final_correct")
        ]
        lines.append(
            f"{name}, {len(own)} networks: Kendall's tau with the held-out accuracy is "
            f"{taus[0]:.2f} at rung 0, {taus[1]:.2f} at rung 1, {taus[2]:.2f} of the full "
            "fine-tuning's own validation accuracy"
        )
    return lines


if __name__ == "__main__":
    main()
