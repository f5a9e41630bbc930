from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hwsearch.sampler import KnownCostSampler, Priced, Pricer
from hwsearch.sampler.improvement import Front, hypervolume_improvement
from hwsearch.sampler.observations import Candidates, Observed
from hwsearch.sampler.parameters import every_row, to_parameters
from hwsearch.sampler.priced import Floats, Parameters
from hwsearch.sampler.proposal import Proposer

DIGITS = tuple(range(12))
SPACE: dict[str, BaseDistribution] = {
    "a": CategoricalDistribution(DIGITS),
    "b": CategoricalDistribution(DIGITS),
    "kind": CategoricalDistribution(("left", "right")),
}
#: Weakly fewer than the 288 candidates of the space, so that a pool has to be drawn.
DRAWN = 100


def cost_of(parameters: Parameters) -> float:
    return float(parameters["a"] + parameters["b"])


def accuracy_of(parameters: Parameters) -> float:
    """Best at full width; ``a`` pays more than ``b``, and one kind is worse throughout."""
    gain = 3.0 * np.log1p(parameters["a"]) + np.log1p(parameters["b"])
    return float(gain - 2.0 * (parameters["kind"] == "left"))


def price(candidates: Sequence[Parameters]) -> Priced:
    return Priced(costs=np.array([[cost_of(one)] for one in candidates]))


def price_within(limit: float) -> Pricer:
    def within(candidates: Sequence[Parameters]) -> Priced:
        priced = price(candidates)
        return replace(priced, violations=priced.costs / limit - 1)

    return within


def make_study(sampler: KnownCostSampler) -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)


def play(study: optuna.Study, trials: int) -> list[dict[str, Any]]:
    """Ask and tell; returns what was asked."""
    asked = []
    for _ in range(trials):
        trial = study.ask(SPACE)
        study.tell(trial, [accuracy_of(trial.params), cost_of(trial.params)])
        asked.append(trial.params)
    return asked


def volume(study: optuna.Study) -> float:
    """Dominated by what was told, up to accuracy 0 and cost 23."""
    best: dict[float, float] = {}
    for trial in study.get_trials(states=(TrialState.COMPLETE,)):
        best[trial.values[1]] = max(best.get(trial.values[1], 0.0), trial.values[0])
    return sum(
        max(value for cost, value in best.items() if cost <= step)
        for step in range(23)
        if min(best) <= step
    )


def test_front_is_found_sooner_than_by_chance() -> None:
    ours = make_study(KnownCostSampler(price, space=SPACE, pool_size=DRAWN, seed=0))
    play(ours, 20)
    chance = []
    for seed in range(5):
        study = optuna.create_study(
            directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=seed)
        )
        play(study, 20)
        chance.append(volume(study))
    assert volume(ours) > max(chance)


@pytest.mark.parametrize("pool_size", [DRAWN, 1000])
def test_same_seed_asks_the_same_and_another_does_not(pool_size: int) -> None:
    asked = [
        play(make_study(KnownCostSampler(price, space=SPACE, pool_size=pool_size, seed=seed)), 12)
        for seed in (0, 0, 1)
    ]
    assert asked[0] == asked[1]
    assert asked[0] != asked[2]


@pytest.mark.parametrize("fixed_pool", [False, True])
def test_sampler_made_again_goes_on_as_the_old_one_would_have(fixed_pool: bool) -> None:
    def make() -> KnownCostSampler:
        return KnownCostSampler(price, space=SPACE, pool_size=DRAWN, fixed_pool=fixed_pool, seed=7)

    def go(study: optuna.Study, trials: int, *, anew: bool) -> list[dict[str, Any]]:
        asked = []
        for _ in range(trials):
            sampler = make() if anew else study.sampler
            assert isinstance(sampler, KnownCostSampler)
            sampler.reseed(len(study.trials))
            study.sampler = sampler
            asked += play(study, 1)
        return asked

    whole, parts = make_study(make()), make_study(make())
    assert go(whole, 15, anew=False) == go(parts, 15, anew=True)


def test_no_candidate_is_proposed_twice_until_all_are_known() -> None:
    asked = play(make_study(KnownCostSampler(price, space=SPACE, seed=0)), 60)
    assert len({tuple(one.values()) for one in asked}) == 60
    small: dict[str, BaseDistribution] = {"a": CategoricalDistribution((1, 2, 3))}
    study = optuna.create_study(sampler=KnownCostSampler(space=small, seed=0))
    for _ in range(5):
        trial = study.ask(small)
        study.tell(trial, float(trial.params["a"]))
    assert {trial.params["a"] for trial in study.trials[:3]} == {1, 2, 3}


def test_candidates_with_one_key_are_one() -> None:
    def by_sum(candidates: Sequence[Parameters]) -> Priced:
        return replace(price(candidates), keys=[cost_of(one) for one in candidates])

    asked = play(make_study(KnownCostSampler(by_sum, space=SPACE, seed=0)), 20)
    assert len({cost_of(one) for one in asked}) == 20


def test_over_the_budget_nothing_is_proposed() -> None:
    sampler = KnownCostSampler(price_within(6.0), space=SPACE, pool_size=DRAWN, seed=0)
    assert all(cost_of(one) <= 6 for one in play(make_study(sampler), 25))


def test_when_nothing_fits_the_least_violation_is_proposed() -> None:
    def none_fits(candidates: Sequence[Parameters]) -> Priced:
        priced = price(candidates)
        return replace(priced, violations=priced.costs + 1)

    (asked,) = play(make_study(KnownCostSampler(none_fits, space=SPACE, seed=0)), 1)
    assert cost_of(asked) == 0


def test_trials_under_way_are_not_proposed_again() -> None:
    study = make_study(KnownCostSampler(price, space=SPACE, startup_trials=3, seed=0))
    play(study, 6)
    batch = [study.ask(SPACE).params for _ in range(8)]
    assert len({tuple(one.values()) for one in batch}) == 8


def test_stopped_trials_are_not_proposed_again_and_failed_ones_if_given_up() -> None:
    def proposals(state: TrialState, *, given_up: bool) -> int:
        sampler = KnownCostSampler(price, space=SPACE, seed=0, given_up=lambda _: given_up)
        study = make_study(sampler)
        play(study, 6)
        asked = []
        for _ in range(6):
            sampler.reseed(0)
            trial = study.ask(SPACE)
            study.tell(trial, state=state)
            asked.append(tuple(trial.params.values()))
        return len(set(asked))

    assert proposals(TrialState.PRUNED, given_up=False) == 6
    assert proposals(TrialState.FAIL, given_up=True) == 6
    assert proposals(TrialState.FAIL, given_up=False) == 1


def test_front_is_of_feasible_trials_and_of_those_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fronts: list[Front] = []

    def spy(mean: Floats, deviation: Floats, costs: Floats, front: Front) -> Floats:
        fronts.append(front)
        return hypervolume_improvement(mean, deviation, costs, front)

    monkeypatch.setattr("hwsearch.sampler.proposal.hypervolume_improvement", spy)
    study = make_study(KnownCostSampler(price, space=SPACE, startup_trials=1, seed=0))
    feasible, infeasible = study.ask(SPACE), study.ask(SPACE)
    study.tell(feasible, [1.0, cost_of(feasible.params)])
    infeasible.set_constraint("told", 1.0)
    study.tell(infeasible, [100.0, cost_of(infeasible.params)])
    under_way = study.ask(SPACE)
    study.ask(SPACE)
    # What is under way is taken to turn out as predicted, so that a batch spreads.
    expected = [cost_of(trial.params) for trial in (feasible, under_way)]
    assert fronts[-1].costs.ravel().tolist() == expected
    assert fronts[-1].values[0] == 1.0


@pytest.mark.parametrize(
    ("uncertain", "up", "down"), [(1, 1, 1), (0, -1, 1), (0, 1, -1), (1, -1, -1)]
)
def test_directions_and_order_of_objectives_change_nothing(
    uncertain: int, up: int, down: int
) -> None:
    """The same problem told with other signs and places gives the same proposals."""

    def signed(candidates: Sequence[Parameters]) -> Priced:
        return Priced(costs=down * price(candidates).costs)

    ends = (StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE)
    directions = [ends[up > 0], ends[down < 0]]
    order = [0, 1] if uncertain == 0 else [1, 0]
    study = optuna.create_study(
        directions=[directions[at] for at in order],
        sampler=KnownCostSampler(
            signed,
            space=SPACE,
            uncertain=uncertain,
            reference=[[0.0, up * 0.0][0] if at == 0 else down * 30.0 for at in order],
            pool_size=DRAWN,
            seed=3,
        ),
    )
    asked = []
    for _ in range(10):
        trial = study.ask(SPACE)
        values = [up * accuracy_of(trial.params), down * cost_of(trial.params)]
        study.tell(trial, [values[at] for at in order])
        asked.append(trial.params)
    plain = KnownCostSampler(price, space=SPACE, reference=[0.0, 30.0], pool_size=DRAWN, seed=3)
    assert asked == play(make_study(plain), 10)


def test_a_prior_mean_leads_before_much_is_known() -> None:
    def with_prior(candidates: Sequence[Parameters]) -> Priced:
        truth = np.array([accuracy_of(one) for one in candidates])
        return replace(price(candidates), prior_mean=truth)

    def volumes(pricer: Callable[[Sequence[Parameters]], Priced]) -> float:
        # Of several seeds: a proposal may differ with the last digit of a processor.
        studies = [make_study(KnownCostSampler(pricer, space=SPACE, seed=s)) for s in range(4)]
        for study in studies:
            play(study, 10)
        return sum(volume(study) for study in studies)

    assert volumes(with_prior) > volumes(price)


def stopped_study(scores: Callable[[FrozenTrial], Sequence[float]] | None) -> optuna.Study:
    """Trials that reached both rungs, and many good ones that were stopped at a low score.

    The first rung has a tenth of the score of the second, to one digit.
    """
    sampler = KnownCostSampler(price, space=SPACE, pool_size=DRAWN, seed=0, scores=scores)
    study = make_study(sampler)
    for row in to_parameters(SPACE, every_row(SPACE))[::7]:
        top = accuracy_of(row)
        low = round(top, 1) / 10
        stopped = row["kind"] == "right" and row["a"] > 2
        study.add_trial(
            optuna.create_trial(
                params=row,
                distributions=SPACE,
                values=[low if stopped else top, cost_of(row)],
                user_attrs={"scores": [low] if stopped else [low, top]},
            )
        )
    return study


def told_scores(trial: FrozenTrial) -> Sequence[float]:
    """Of trials that ``play`` told nothing of, those of both rungs."""
    value = trial.values[0]
    scores: Sequence[float] = trial.user_attrs.get("scores", [round(value, 1) / 10, value])
    return scores


def test_what_was_stopped_early_counts_as_what_it_foretells() -> None:
    """Told nothing of rungs, the sampler takes the better kind for the worse one."""
    misled = play(stopped_study(None), 6)
    told = play(stopped_study(told_scores), 6)
    kinds = [[one["kind"] for one in asked] for asked in (misled, told)]
    assert kinds[1].count("right") > kinds[0].count("right")
    assert kinds[1].count("right") >= 5


def test_what_is_foretold_is_no_front(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Observed] = []
    best = Proposer.best

    def spy(self: Proposer, observed: Observed, pool: Candidates) -> int:
        seen.append(observed)
        return best(self, observed, pool)

    monkeypatch.setattr(Proposer, "best", spy)
    study = stopped_study(told_scores)
    study.ask(SPACE)
    observed = seen[0]
    assert observed.evaluated is not None
    stopped = [len(told_scores(trial)) == 1 for trial in study.get_trials()[:-1]]
    assert ((observed.deviation > 0) == stopped).all()
    truth = [accuracy_of(trial.params) for trial in study.get_trials()[:-1]]
    assert observed.values == pytest.approx(truth, abs=0.1)


def test_of_two_that_promise_as_much_the_quicker_one_is_tried() -> None:
    def slow_or_quick(candidates: Sequence[Parameters]) -> Priced:
        effort = np.array([100.0 if one["kind"] == "right" else 1.0 for one in candidates])
        return replace(price(candidates), effort=effort)

    def first(pricer: Pricer) -> list[str]:
        study = make_study(KnownCostSampler(pricer, space=SPACE, pool_size=DRAWN, seed=3))
        return [one["kind"] for one in play(study, 12)][5:]

    assert first(price).count("left") < first(slow_or_quick).count("left")


def test_trials_of_another_space_or_without_values_are_left_out() -> None:
    study = make_study(KnownCostSampler(price, space=SPACE, startup_trials=2, seed=0))
    odd = optuna.create_trial(
        params={"x": 0.5}, distributions={"x": FloatDistribution(0, 1)}, values=[1e9, 0.0]
    )
    study.add_trial(odd)
    study.tell(study.ask(SPACE), state=TrialState.FAIL)
    study.tell(study.ask(SPACE), state=TrialState.PRUNED)
    endless = study.ask(SPACE)
    study.tell(endless, [float("inf"), 1.0])
    assert len(play(study, 10)) == 10


def test_several_objectives_without_prices_are_left_to_tpe() -> None:
    study = make_study(KnownCostSampler(seed=0))
    play(study, 15)
    trial = study.ask(SPACE)
    # Multivariate TPE samples the whole space at once.
    assert set(trial.relative_params) == set(SPACE)


def test_parameters_beside_the_space_are_drawn_at_random() -> None:
    study = make_study(KnownCostSampler(price, space=SPACE, seed=0))
    for _ in range(8):
        trial = study.ask(SPACE)
        extra = trial.suggest_float("extra", 0.0, 1.0)
        assert 0.0 <= extra <= 1.0
        study.tell(trial, [accuracy_of(trial.params), cost_of(trial.params)])
    assert len({trial.params["extra"] for trial in study.trials}) == 8


def test_many_trials_are_thinned_and_still_improved_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwsearch.sampler.proposal.MOST_POINTS", 20)
    monkeypatch.setattr("hwsearch.sampler.proposal.MOST_FITTED", 15)
    study = make_study(KnownCostSampler(price, space=SPACE, pool_size=DRAWN, seed=0))
    play(study, 45)
    whole = make_study(KnownCostSampler(price, space=SPACE, pool_size=DRAWN, seed=0))
    for one in to_parameters(SPACE, every_row(SPACE)):
        values = [accuracy_of(one), cost_of(one)]
        whole.add_trial(optuna.create_trial(params=one, distributions=SPACE, values=values))
    assert volume(study) > 0.99 * volume(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"startup_trials": 0}, "startup_trials 0 and pool_size 1000 must be at least 1"),
        ({"pool_size": 0}, "pool_size 0 must be at least 1"),
        ({"uncertain": -1}, "uncertain -1 a position"),
    ],
)
def test_arguments_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KnownCostSampler(price, **changes)


def test_a_study_that_does_not_fit_says_so() -> None:
    with pytest.raises(ValueError, match="uncertain is 2, and the study has 2 objectives"):
        make_study(KnownCostSampler(price, uncertain=2)).ask(SPACE)
    with pytest.raises(ValueError, match="the reference has 1 values for 2 objectives"):
        make_study(KnownCostSampler(price, reference=[0.0])).ask(SPACE)
    three = optuna.create_study(
        directions=["maximize", "minimize", "minimize"],
        sampler=KnownCostSampler(price, space=SPACE),
    )
    with pytest.raises(ValueError, match=r"gave costs of the shape \(288, 1\) for 288 candidates"):
        three.ask(SPACE)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"costs": np.zeros(3)}, r"costs have the shape \(3,\)"),
        ({"costs": np.full((3, 1), np.nan)}, "costs hold a number that is not finite"),
        ({"violations": np.zeros((2, 1))}, r"violations have the shape \(2, 1\) for 3 candidates"),
        ({"features": np.zeros(3)}, r"features have the shape \(3,\) for 3 candidates"),
        ({"prior_mean": np.zeros((3, 1))}, r"prior_mean have the shape \(3, 1\)"),
        ({"keys": ["a"]}, "1 keys for 3 candidates"),
        ({"effort": np.ones(2)}, r"effort have the shape \(2,\) for 3 candidates"),
        ({"effort": np.zeros(3)}, "the least effort is 0.0; it must be above 0"),
    ],
)
def test_prices_that_do_not_fit_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Priced(**({"costs": np.zeros((3, 1))} | wrong))
