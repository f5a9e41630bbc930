from pathlib import Path

import pytest
from study_fixtures import baseline_entry, make_cost, make_settings, model_entry

from hwsearch.hardware.targets import load_profile
from hwsearch.report.stored import BaselineEntry, FrontFile, ModelEntry, read_front
from hwsearch.retarget.front import Asked, Scored, repriced_front
from hwsearch.retarget.pricing import Priced

TARGET = "jetson-nano"


def asked(*budgets: str, same: bool = False) -> Asked:
    settings = make_settings(target=TARGET, budget_texts=budgets or ("10ms",))
    return Asked(
        settings=settings, profile=load_profile(TARGET), quantities=settings.quantities,
        searched_for="round", same=same,
    )  # fmt: skip


def scored(entry: ModelEntry | BaselineEntry, latency_ms: float, **about: int) -> Scored:
    """An entry at another latency than the one that it was searched at."""
    cost = make_cost(latency_ms, sigma_log=0.05)
    return Scored(entry=entry, priced=Priced(cost=cost, refusal=None, **about))


def left_out(entry: ModelEntry | BaselineEntry, refusal: str) -> Scored:
    return Scored(entry=entry, priced=Priced(cost=None, refusal=refusal))


@pytest.fixture
def searched(made_run: Path) -> FrontFile:
    return read_front(made_run)


def test_front_goes_by_the_new_costs(searched: FrontFile) -> None:
    # There trial 1 was faster than trial 2; here it is slower and less accurate.
    found = repriced_front(
        searched,
        [scored(model_entry(1, 0.8, 1.0), 4.0), scored(model_entry(2, 0.9, 2.0), 3.0)],
        asked(), [],
    )  # fmt: skip
    assert [model.trial for model in found.front] == [2]
    assert found.pick == 2
    assert found.notes[-1] == "trial 1 is not offered: another model of the front is better"
    assert found.front[0].latency_ms.value == pytest.approx(3.0)
    assert found.front[0].accuracy == 0.9


def test_front_holds_the_budgets_at_the_confidence(searched: FrontFile) -> None:
    models = [model_entry(1, 0.8, 1.0), model_entry(2, 0.9, 1.0), model_entry(3, 0.7, 1.0)]
    costs = (9.0, 9.9, 8.0)  # 9.9 is below 10 by its median, and not at 90 %
    found = repriced_front(
        searched, [scored(m, cost) for m, cost in zip(models, costs, strict=True)], asked(), []
    )
    assert [model.trial for model in found.front] == [3, 1]
    assert all(model.meets_budget_probability >= 0.9 for model in found.front)


def test_front_when_a_baseline_is_better_gives_that(searched: FrontFile) -> None:
    found = repriced_front(
        searched,
        [scored(model_entry(1, 0.8, 1.0), 4.0), scored(baseline_entry(0.9, 2.0), 3.0)],
        asked(), [],
    )  # fmt: skip
    assert (found.front, found.pick, found.baseline_pick) == ((), None, 0)
    assert found.pick_reason.startswith("no searched model is better than the baselines; use dense")


def test_front_when_a_baseline_misses_the_budget_is_not_left_to_it(searched: FrontFile) -> None:
    found = repriced_front(
        searched,
        [scored(model_entry(1, 0.8, 1.0), 14.0), scored(baseline_entry(0.9, 2.0), 13.0)],
        asked(), [],
    )  # fmt: skip
    assert found.baseline_pick is None
    assert found.closest is not None
    assert found.closest.trial == 1


def test_notes_count_what_is_left_out_by_reason(searched: FrontFile) -> None:
    models = [left_out(model_entry(n, 0.8, 1.0), "it does not run fp16") for n in range(8)]
    base = left_out(baseline_entry(0.9, 1.0), "it does not run fp32")
    found = repriced_front(
        searched, [scored(model_entry(20, 0.9, 1.0), 2.0), *models, base], asked(), ["more"]
    )
    assert found.notes[1:4] == (
        "8 trials left out (0, 1, 2, 3, 4, 5 and others): it does not run fp16",
        f"1 baseline left out (dense-fp32 of {base.entry.backbone}): it does not run fp32",
        "more",
    )
    assert found.baselines == ()


def test_notes_say_what_suits_the_other_device(searched: FrontFile) -> None:
    one = scored(model_entry(1, 0.9, 1.0), 2.0, odd_layers=3, odd_groups=2, groups=5)
    found = repriced_front(searched, [one], asked(), [])
    assert any(
        note.startswith("bits were chosen by what they save on round; jetson-nano gains nothing")
        and note.endswith("trial 1 (3 layers)")
        for note in found.notes
    )
    assert any("blocks of 2, which these groups of trial 1 (2 of 5)" in n for n in found.notes)


def test_notes_for_the_same_profile_are_those_of_a_run(searched: FrontFile) -> None:
    found = repriced_front(searched, [scored(model_entry(1, 0.9, 1.0), 9.0)], asked(same=True), [])
    assert found.notes == ("these are the predicted costs of the run, made for jetson-nano",)
