from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from study_fixtures import make_cost, make_knobs, make_record, make_space

from hwsearch.errors import HostError, RunError
from hwsearch.report.stored import TrialState as RecordState
from hwsearch.sampler import Priced, Pricer
from hwsearch.sampler.priced import Parameters
from hwsearch.space.knobs import Knobs
from hwsearch.study.written.storage import STUDY_FILE, StudyStore, read_records
from hwsearch.units import Quantity

WITHIN: dict[Quantity, float] = {"latency": -0.5}
OVER: dict[Quantity, float] = {"latency": 0.5}


def price(candidates: Sequence[Parameters]) -> Priced:
    """As ``play`` tells it."""
    return Priced(costs=np.array([[1.0 - 0.5 * float(one["saving"])] for one in candidates]))


#: TPE, and the sampler of known costs.
PRICERS = pytest.mark.parametrize("pricer", [None, price], ids=["tpe", "known-cost"])


def make_store(
    folder: Path, *, seed: int = 0, fingerprint: str = "f", pricer: Pricer | None = None
) -> StudyStore:
    return StudyStore(
        folder,
        space=make_space(input_px=[16, 24, 32]),
        quantities=("latency",),
        seed=seed,
        fingerprint=fingerprint,
        pricer=pricer,
    )


def stored(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="hwsearch", storage=f"sqlite:///{folder / STUDY_FILE}")


def play(store: StudyStore, count: int) -> list[Knobs]:
    """Ask and tell; what is told follows from the knobs, so that samplers can be compared."""
    asked = []
    for _ in range(count):
        trial, knobs = store.ask()
        cost = make_cost(1.0 - 0.5 * knobs.saving)
        record = make_record(trial.number, knobs=knobs, cost=cost)
        store.tell(trial, record, (sum(knobs.prune) / 4, cost.latency_ms.value), WITHIN)
        asked.append(knobs)
    return asked


def test_tell_when_within_the_budget_stores_values_and_constraints(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    trial, knobs = store.ask()
    record = make_record(trial.number, knobs=knobs)
    store.tell(trial, record, (0.8, 0.5), WITHIN)
    (kept,) = stored(tmp_path).trials
    assert kept.state is TrialState.COMPLETE
    assert kept.values == [0.8, 0.5]
    assert kept.constraints == WITHIN
    assert store.records() == make_store(tmp_path).records() == [record]


def test_tell_when_over_the_budget_teaches_no_values(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    trial, knobs = store.ask()
    store.tell(trial, make_record(0, "over_budget", knobs=knobs, scores=()), None, OVER)
    (kept,) = stored(tmp_path).trials
    assert kept.state is TrialState.PRUNED
    assert kept.values is None
    assert kept.constraints == OVER
    assert [record.state for record in store.records()] == ["over_budget"]


def test_tell_when_the_trial_failed_keeps_the_record(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    trial, knobs = store.ask()
    store.tell(trial, make_record(0, "failed", knobs=knobs, scores=()), None, WITHIN)
    assert stored(tmp_path).trials[0].state is TrialState.FAIL
    assert [record.state for record in store.records()] == ["failed"]


@PRICERS
def test_ask_when_the_seed_is_the_same(tmp_path: Path, pricer: Pricer | None) -> None:
    runs = []
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        runs.append(play(make_store(tmp_path / name, seed=seed, pricer=pricer), 13))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert len(set(runs[0])) > 8  # not one proposal again and again


@PRICERS
def test_ask_when_opened_again_goes_on_as_it_would_have(
    tmp_path: Path, pricer: Pricer | None
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole = play(make_store(tmp_path / "one", pricer=pricer), 14)
    parts = play(make_store(tmp_path / "two", pricer=pricer), 11) + play(
        make_store(tmp_path / "two", pricer=pricer), 3
    )
    assert parts == whole


@PRICERS
def test_ask_when_a_trial_was_interrupted_asks_it_first_again(
    tmp_path: Path, pricer: Pricer | None
) -> None:
    store = make_store(tmp_path, pricer=pricer)
    play(store, 2)
    _, interrupted = store.ask()
    again = make_store(tmp_path, pricer=pricer)
    assert len(again.records()) == 2
    assert stored(tmp_path).trials[2].state is TrialState.FAIL
    trial, knobs = again.ask()
    assert knobs == interrupted
    again.tell(trial, make_record(trial.number, knobs=knobs), (0.5, 0.5), WITHIN)
    assert len(again.records()) == 3
    assert again.ask()[1] != interrupted


@PRICERS
def test_ask_when_a_trial_was_interrupted_later_proposals_stay(
    tmp_path: Path, pricer: Pricer | None
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole = play(make_store(tmp_path / "one", pricer=pricer), 6)
    store = make_store(tmp_path / "two", pricer=pricer)
    before = play(store, 2)
    store.ask()
    assert before + play(make_store(tmp_path / "two", pricer=pricer), 4) == whole


@pytest.mark.parametrize("after", range(9))
def test_ask_when_interrupted_among_enqueued_keeps_their_order(tmp_path: Path, after: int) -> None:
    queue = [make_knobs(saving=share) for share in (0.0, 0.25, 0.5, 0.75)]
    store = make_store(tmp_path)
    store.enqueue(queue)
    before = play(store, after)
    store.ask()
    again = make_store(tmp_path)
    again.enqueue(queue)
    assert (before + play(again, 9 - after))[1::2] == queue


def test_ask_when_killed_between_enqueueing_and_asking(tmp_path: Path) -> None:
    queue = [make_knobs(saving=share) for share in (0.0, 0.25, 0.5)]
    store = make_store(tmp_path)
    store.enqueue(queue)
    play(store, 1)
    stored(tmp_path).enqueue_trial(stored(tmp_path).user_attrs["queue"][0])
    assert play(make_store(tmp_path), 5)[::2] == queue


def test_enqueue_when_something_was_tried_does_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    first = make_knobs(saving=1.0, prune=(0.0, 0.5, 0.25, 0.0), protect_edges=False)
    store.enqueue([first])
    assert play(store, 2)[1] == first
    store.enqueue([make_knobs(saving=0.5)])
    states = [trial.state for trial in stored(tmp_path).trials]
    assert states == [TrialState.COMPLETE] * 2


def test_store_when_the_fingerprint_changed(tmp_path: Path) -> None:
    make_store(tmp_path, fingerprint="before")
    make_store(tmp_path, fingerprint="before")
    with pytest.raises(RunError, match="other settings, data or profile"):
        make_store(tmp_path, fingerprint="after")


def test_store_when_the_file_is_no_study(tmp_path: Path) -> None:
    (tmp_path / STUDY_FILE).write_bytes(b"not a database, but long enough to be read as one" * 40)
    with pytest.raises(HostError, match=r"study\.db cannot be opened as a study"):
        make_store(tmp_path)


def test_finals_when_opened_again(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    assert store.finals() == {}
    store.set_final("abc", '{"x":1}')
    store.set_final("def", "2")
    assert make_store(tmp_path).finals() == {"abc": '{"x":1}', "def": "2"}


def test_read_records_when_a_run_is_stored_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "a run #1 %20"
    folder.mkdir()
    store = make_store(folder)
    asked = play(store, 3)
    store.ask()  # a trial that has not ended
    before = (folder / STUDY_FILE).read_bytes()
    records = read_records(folder)
    assert [record.knobs for record in records] == asked
    assert records == store.records()
    assert (folder / STUDY_FILE).read_bytes() == before


def test_read_records_when_there_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"has no study.db, which holds the channels"):
        read_records(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_read_records_when_the_study_is_spoilt(tmp_path: Path) -> None:
    (tmp_path / STUDY_FILE).write_bytes(b"no database" * 100)
    with pytest.raises(HostError, match=r"cannot be opened as a study .*check disk and file"):
        read_records(tmp_path)


@pytest.mark.parametrize("state", ["over_budget", "failed"])
def test_ask_when_a_trial_had_no_result_does_not_repeat_it(
    tmp_path: Path, state: RecordState
) -> None:
    store = make_store(tmp_path, pricer=price)
    play(store, 6)
    asked = []
    for _ in range(5):
        trial, knobs = store.ask()
        record = make_record(trial.number, state, knobs=knobs, scores=())
        store.tell(trial, record, None, OVER)
        asked.append(knobs)
    assert len(set(asked)) == 5


def test_ask_when_some_are_queued_takes_every_second_trial_from_them(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    queue = [make_knobs(saving=saving) for saving in (0.125, 0.25, 0.375)]
    store.enqueue(queue)
    proposed = []
    for _ in range(7):
        trial, knobs = store.ask()
        store.tell(trial, make_record(trial.number, knobs=knobs), (0.5, 0.5), WITHIN)
        proposed.append(knobs)
    assert proposed[1:6:2] == queue
    assert not any(knobs in queue for knobs in proposed[::2])


def test_bases_when_opened_again_are_those_that_were_stored(tmp_path: Path) -> None:
    assert make_store(tmp_path).bases() is None
    make_store(tmp_path).set_bases({"one {} 16": "0123"}, ["other is not searched"])
    assert make_store(tmp_path).bases() == ({"one {} 16": "0123"}, ("other is not searched",))
