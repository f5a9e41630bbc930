"""What the ladder saves: seconds until most of the true front is found, beside full training only.

::

    python benchmarks/search/replay_ladder.py SHORT.csv FULL.csv [--seeds 10]

Both tables are of ``joint_truth.py``, of the same networks: ``FULL.csv`` after a full fine-tuning,
``SHORT.csv`` after the steps of the tool's highest short rung (40), which stand for that rung. The
networks of ``FULL.csv`` are searched, which may be drawn from the space::

    python benchmarks/search/joint_truth.py PICTURES --steps 160 --drawn --most 240 --out FOLDER

Each sampler searches twice. With full training only, every trial is a full fine-tuning. On the
ladder a trial climbs the rungs as long as the tool's rule lets it, and when the search ends the
tool's finalists are fine-tuned fully, in the tool's order. Samplers see validation accuracies; what
counts is the accuracy on held-out pictures of networks that were fine-tuned fully. Compare the two
ways of one sampler: that some networks of the space are not in the table is told to ours alone.

A search may end after any trial, and its finalization after any finalist; its seconds are the least
after which its front has the share of the volume under the true front (between its ideal and its
nadir point, logarithm of the cost). Seconds are those of the tables, of one core: of
``FULL.csv`` for the rungs, in which the highest short rung takes as much more as it has more steps.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Final

import numpy as np
import optuna
from joint_truth import read_rows
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from predictor_room import Options, Row, Spread, show, spread
from problem import Problem, Truth
from replay_joint import COSTS, problems

from hwsearch.accuracy.agreement import agreement
from hwsearch.accuracy.training import Score
from hwsearch.sampler import KnownCostSampler
from hwsearch.study.asked.effort import MOST_FINALISTS
from hwsearch.study.finals.finalists import gain_order, outer_layers
from hwsearch.study.trials.promotion import Climb, stop_reason

_ROOT: Final = Path(__file__).resolve().parents[2]
SHARES_PERCENT: Final = (90, 95)
MOST_TRIALS: Final = 120
_SCORES: Final = "scores"
#: Optimizer steps of the tool's two short rungs.
_RUNG_STEPS: Final = (12, 40)
#: Proposals in a row that were evaluated before, after which another candidate is drawn.
_PATIENCE: Final = 40
_GUESSING: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What is known of one network.

    Attributes:
        scores: on validation pictures, one for each short rung.
        seconds: until each of them, from the start.
        full: on validation pictures, after full fine-tuning, which takes ``full_s``.
        held_out: accuracy on the other pictures after full fine-tuning.
    """

    scores: tuple[Score, ...]
    seconds: tuple[float, ...]
    full: Score
    full_s: float
    held_out: float


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to search: a sampler, on the ladder or with full training only."""

    sampler: str
    ladder: bool

    @property
    def name(self) -> str:
        """As the table has it."""
        return f"{self.sampler}, {'ladder' if self.ladder else 'full training'}"


@dataclass(frozen=True, kw_only=True)
class End:
    """Where a search may end.

    Attributes:
        regret: of what was trained fully by then, in percent of the volume.
        stopped_percent: of the trials.
    """

    trials: int
    trained_fully: int
    seconds: float
    regret: float
    stopped_percent: float = 0.0


SAMPLERS: Final[dict[str, Callable[[Problem, int], BaseSampler]]] = {
    "random": lambda _, seed: RandomSampler(seed=seed),
    "TPE multivariate": lambda _, seed: TPESampler(
        multivariate=True, n_startup_trials=10, seed=seed
    ),
    "ours": lambda problem, seed: KnownCostSampler(
        problem.price, space=problem.space, seed=seed, scores=_scores
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("short", type=Path, help="as joint_truth.py wrote it")
    parser.add_argument("full", type=Path, help="the same after more steps, of some networks")
    parser.add_argument("--seeds", type=int, default=10, help="repetitions (default 10)")
    parser.add_argument("--trials", type=int, default=MOST_TRIALS, help="of a search, at most")
    parser.add_argument("--quick", action="store_true", help="a small part, to see that it runs")
    parser.add_argument("--out", type=Path, default=_ROOT / "results" / "published")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = Options(data=given.full, seeds=given.seeds, quick=given.quick, out=given.out)
    trained = networks(given.short, given.full)
    most = 20 if given.quick else given.trials
    rows: list[Row] = []
    for cost, problem in problems(given.full, partly=True).items():
        rows += table(problem, trained, cost, options.seeds, most)
    conditions = f"{given.full.stem.removeprefix('search_joint-truth_')}-networks{len(trained)}"
    show(rows, options, "replay-ladder", f"{conditions}-{options.size}", room="search")
    print("\n".join([*told(rows), *rankings(trained)]))


def networks(short: Path, full: Path) -> list[Trained]:
    """The networks of the full table, in its order.

    Raises:
        ValueError: the short table lacks one of them.
    """
    tops = {row["candidate"]: row for row in read_rows(short)}
    found = []
    for row in read_rows(full):
        if row["candidate"] not in tops:
            raise ValueError(f"{short} lacks network {row['candidate']} of {full}")
        total = int(row["validation"])
        top = tops[row["candidate"]]["final_correct"]
        first_s, second_s = float(row["rung0_s"]), float(row["rung1_s"])
        step_s = (second_s - first_s) / _RUNG_STEPS[0]
        found.append(
            Trained(
                scores=tuple(
                    Score(correct=int(correct), total=total)
                    for correct in (row["rung0_correct"], row["rung1_correct"], top)
                ),
                seconds=(
                    first_s, second_s, second_s + step_s * (_RUNG_STEPS[1] - _RUNG_STEPS[0])
                ),
                full=Score(correct=int(row["final_correct"]), total=total),
                full_s=float(row["final_s"]),
                held_out=int(row["held_out_correct"]) / int(row["held_out"]),
            )
        )  # fmt: skip
    return found


def table(
    problem: Problem, trained: Sequence[Trained], cost: str, seeds: int, most: int
) -> list[Row]:
    """Seconds to each share of the volume for every way, over seeds."""
    problem = replace(problem, accuracy_percent=np.array([100.0 * t.held_out for t in trained]))
    truth = Truth.of(problem)
    rows: list[Row] = []
    for sampler in SAMPLERS:
        for ladder in (False, True):
            way = Way(sampler=sampler, ladder=ladder)
            runs = [list(search(way, problem, trained, truth, seed, most)) for seed in range(seeds)]
            for share in SHARES_PERCENT:
                needed = [until(run, share) for run in runs]
                reached = [one for one in needed if one is not None]
                counted = [one or run[-1] for one, run in zip(needed, runs, strict=True)]
                rows.append(
                    {
                        "cost": cost,
                        "share_percent": share,
                        "sampler": sampler,
                        "training": "ladder" if ladder else "full",
                        "seeds": seeds,
                        "reached": len(reached) / seeds,
                        "trials": spread([float(end.trials) for end in counted]),
                        "trained_fully": spread([float(end.trained_fully) for end in counted]),
                        "seconds": spread([end.seconds for end in counted]),
                        "stopped_percent": spread([end.stopped_percent for end in counted]),
                    }
                )
            print(f"{cost}: {way.name} done", flush=True)
    return rows


def search(
    way: Way,
    problem: Problem,
    trained: Sequence[Trained],
    truth: Truth,
    seed: int,
    most: int,
) -> Iterator[End]:
    """The ends that a search may have, in the order of its trials."""
    study = optuna.create_study(
        directions=[StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE],
        sampler=SAMPLERS[way.sampler](problem, seed),
    )
    climbs: dict[int, Climb] = {}
    spent_s = 0.0
    spare = np.random.default_rng(seed).permutation(len(trained)).tolist()
    for _ in range(min(most, len(trained))):
        candidate, trial = _next(study, problem, climbs, spare)
        known = trained[candidate]
        costs = tuple(problem.known_costs[candidate].tolist())
        if way.ladder:
            climb = _climb(len(climbs), costs, known, list(climbs.values()))
            spent_s += known.seconds[len(climb.scores) - 1]
        else:
            climb = Climb(trial=len(climbs), costs=costs, scores=(known.full,))
            spent_s += known.full_s
        climbs[candidate] = climb
        _tell(study, problem, candidate, climb, trial)
        if not way.ladder:
            regret = truth.regret_percent(problem, list(climbs))
            yield End(trials=len(climbs), trained_fully=len(climbs), seconds=spent_s, regret=regret)
            continue
        stopped = fmean(len(climb.scores) < len(_RUNG_STEPS) + 1 for climb in climbs.values())
        finalists = _finalists(climbs)
        seconds = spent_s
        for count, finalist in enumerate(finalists, start=1):
            seconds += trained[finalist].full_s
            yield End(
                trials=len(climbs),
                trained_fully=count,
                seconds=seconds,
                regret=truth.regret_percent(problem, finalists[:count]),
                stopped_percent=100 * stopped,
            )


def _next(
    study: optuna.Study, problem: Problem, known: dict[int, Climb], spare: Sequence[int]
) -> tuple[int, optuna.Trial | None]:
    """A candidate that was not evaluated, with the trial that proposed it.

    Repeats and candidates outside the table cost nothing; after too many in a row one is drawn.
    """
    for _ in range(_PATIENCE):
        trial = study.ask(problem.space)
        candidate = problem.find_parameters(trial.params)
        if candidate is not None and candidate not in known:
            return candidate, trial
        if candidate is None:
            study.tell(trial, state=TrialState.FAIL)
        else:
            _tell(study, problem, candidate, known[candidate], trial)
    return next(one for one in spare if one not in known), None


def _tell(
    study: optuna.Study,
    problem: Problem,
    candidate: int,
    climb: Climb,
    trial: optuna.Trial | None,
) -> None:
    """Tell how far a candidate came: in answer to a trial, or as one of its own."""
    values = [climb.scores[-1].accuracy, *climb.costs]
    accuracies = [score.accuracy for score in climb.scores]
    if trial is not None:
        trial.set_user_attr(_SCORES, accuracies)
        study.tell(trial, values)
        return
    study.add_trial(
        optuna.create_trial(
            params=problem.parameters(candidate),
            distributions=problem.space,
            values=values,
            user_attrs={_SCORES: accuracies},
        )
    )


def _climb(number: int, costs: tuple[float, ...], known: Trained, others: Sequence[Climb]) -> Climb:
    """One trial on the ladder, by the tool's own rule."""
    climb = Climb(trial=number, costs=costs, scores=known.scores[:1])
    while len(climb.scores) < len(known.scores):
        if stop_reason(climb, others, len(known.scores)) is not None:
            break
        climb = replace(climb, scores=known.scores[: len(climb.scores) + 1])
    return climb


def _finalists(climbs: dict[int, Climb]) -> list[int]:
    """The candidates that the tool fine-tunes fully if the search ends now, in its order."""
    completed = [at for at, climb in climbs.items() if len(climb.scores) == len(_RUNG_STEPS) + 1]
    # Costs are logarithms, which the order takes itself.
    points = [
        (1.0 - climbs[at].scores[-1].accuracy, 2.0 ** climbs[at].costs[0]) for at in completed
    ]
    chosen = outer_layers(points, MOST_FINALISTS)
    ordered = gain_order([points[at] for at in chosen], _GUESSING)
    return [completed[chosen[at]] for at in ordered]


def until(run: Sequence[End], share_percent: float) -> End | None:
    """The end with that share of the volume that takes the least time; None if none has it."""
    ends = [end for end in run if end.regret <= 100.0 - share_percent]
    return min(ends, key=lambda end: end.seconds, default=None)


def _scores(trial: FrozenTrial) -> Sequence[float]:
    scores: Sequence[float] = trial.user_attrs[_SCORES]
    return scores


def rankings(trained: Sequence[Trained]) -> list[str]:
    """How well each rung ranks the networks, and what it costs.

    Kendall's tau with the held-out accuracy after full fine-tuning, with its 90 % interval; a score
    on validation pictures shares none with it. Cost is the median share of a full fine-tuning.
    """
    truth = [one.held_out for one in trained]
    scores = {
        f"rung {at}": (
            [one.scores[at].accuracy for one in trained],
            median(one.seconds[at] / one.full_s for one in trained),
        )
        for at in range(len(_RUNG_STEPS) + 1)
    }
    scores["full fine-tuning"] = ([one.full.accuracy for one in trained], 1.0)
    lines = []
    for name, (accuracies, share) in scores.items():
        agreed = agreement(accuracies, truth)
        assert agreed is not None
        lines.append(
            f"{len(trained)} networks, {name}: tau {agreed.tau:.2f} ({agreed.low:.2f} to "
            f"{agreed.high:.2f}) at {100 * share:.0f} % of a full fine-tuning"
        )
    return lines


def told(rows: Sequence[Row]) -> list[str]:
    """What each sampler takes either way, where most of the seeds get there."""
    lines = []
    for cost in COSTS:
        for share in SHARES_PERCENT:
            for sampler in SAMPLERS:
                own = {
                    row["training"]: row
                    for row in rows
                    if (row["cost"], row["share_percent"], row["sampler"]) == (cost, share, sampler)
                }
                full, ladder = (_told_s(own[training]) for training in ("full", "ladder"))
                text = f"{cost}, {share} %, {sampler}: {full[0]} with full training only, "
                text += f"{ladder[0]} on the ladder"
                if full[1] is not None and ladder[1] is not None:
                    text += f", {full[1] / ladder[1]:.1f} x"
                lines.append(text)
    return lines


def _told_s(row: Row) -> tuple[str, float | None]:
    reached, seconds = row["reached"], row["seconds"]
    assert isinstance(reached, float)
    assert isinstance(seconds, Spread)
    if reached > 0.5:
        return f"{seconds.median:.0f} s", seconds.median
    return f"not reached by {100 * (1 - reached):.0f} % of the seeds", None


if __name__ == "__main__":
    main()
