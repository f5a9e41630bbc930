from dataclasses import replace
from typing import Any

import pytest
from evidence_fixtures import about, stored_network, verified
from study_fixtures import make_cost, make_settings

from hwsearch.hardware.targets import load_profile
from hwsearch.retarget.front import Asked, Scored, repriced_front
from hwsearch.retarget.pricing import Priced
from hwsearch.study.finals.evidence import FileState

TARGET = "jetson-nano"


def asked(*budgets: str, same: bool = False) -> Asked:
    settings = make_settings(target=TARGET, budget_texts=budgets or ("10ms",))
    return Asked(
        settings=settings, profile=load_profile(TARGET),
        searched_for="round", same=same,
    )  # fmt: skip


def file(accuracy: float) -> FileState:
    """Of the run, timed on its own target."""
    return FileState(artefact="models/x/model.onnx", verified=verified(accuracy, 0.5))


def trial(number: int, accuracy: float, latency_ms: float, **fit: Any) -> Scored:  # noqa: ANN401
    """A trial at another latency than the one that it was searched at."""
    cost = make_cost(latency_ms, sigma_log=0.05)
    return Scored(
        network=stored_network(number, None, 1.0), file=file(accuracy),
        priced=Priced(cost=cost, **fit),
    )  # fmt: skip


def baseline(accuracy: float, latency_ms: float) -> Scored:
    cost = make_cost(latency_ms, sigma_log=0.05)
    return Scored(
        network=stored_network(None, "dense-fp32", 1.0), file=file(accuracy),
        priced=Priced(cost=cost),
    )  # fmt: skip


def left_out(one: Scored, refusal: str) -> Scored:
    return replace(one, priced=Priced(cost=None, refusal=refusal))


SEARCHED = about()


def test_front_goes_by_the_new_costs() -> None:
    # There trial 1 was faster than trial 2; here it is slower and less accurate.
    found = repriced_front(
        SEARCHED,
        [trial(1, 0.8, 4.0), trial(2, 0.9, 3.0)],
        asked(), [],
    )  # fmt: skip
    assert [model.trial for model in found.front] == [2]
    assert found.pick == 2
    assert found.notes[-1] == "trial 1 is not on the front: another model of the front is better"
    assert found.front[0].latency_ms.value == pytest.approx(3.0)
    assert found.front[0].accuracy == 0.9


def test_notes_count_what_is_left_out_by_reason() -> None:
    models = [left_out(trial(n, 0.8, 1.0), "it does not run fp16") for n in range(8)]
    base = left_out(baseline(0.9, 1.0), "it does not run fp32")
    found = repriced_front(SEARCHED, [trial(20, 0.9, 2.0), *models, base], asked(), ["more"])
    assert found.notes[1:4] == (
        "8 trials left out (0, 1, 2, 3, 4, 5 and others): it does not run fp16",
        "1 baseline left out (dense-fp32 of net): it does not run fp32",
        "more",
    )
    assert found.baselines == ()


def test_notes_say_what_suits_the_other_device() -> None:
    one = trial(1, 0.9, 2.0, odd_layers=3, odd_groups=2, groups=5)
    found = repriced_front(SEARCHED, [one], asked(), [])
    assert any(
        note.startswith("bits were chosen by what they save on round; jetson-nano gains nothing")
        and note.endswith("trial 1 (3 layers)")
        for note in found.notes
    )
    assert any("blocks of 2, which these groups of trial 1 (2 of 5)" in n for n in found.notes)
