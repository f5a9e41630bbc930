# ruff: noqa: ANN401 - fakes take whatever the real function is given
import csv
import itertools
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from filelock import FileLock
from study_fixtures import BUDGETS, make_checked, make_record
from tiny_network import OWN, PX

from hwsearch.errors import (
    NothingFitsError,
    RunError,
    RunInterrupted,
    RunLockedError,
    TrialsFailedError,
)
from hwsearch.report.stored import read_run, read_run_file
from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import Knobs
from hwsearch.study import coordinator
from hwsearch.study.asked.admission import admission
from hwsearch.study.asked.settings import SamplerName
from hwsearch.study.coordinator import Run
from hwsearch.study.finals.evidence import EvidenceFile, read_evidence
from hwsearch.study.trials.progress import Silent
from hwsearch.study.trials.records import Record
from hwsearch.study.trials.trial import Trial
from hwsearch.study.written.storage import SAMPLERS
from hwsearch.units import parse_budgets

TRIALS = 8

pytestmark = pytest.mark.usefixtures("quick")


class Listener(Silent):
    def __init__(self) -> None:
        self.trials: list[int] = []
        self.notes: list[str] = []
        self.deadlines: list[float] = []

    def deadline(self, at_s: float) -> None:
        self.deadlines.append(at_s)

    def trial(self, record: Record, *, planned: int | None, left_s: float | None) -> None:
        self.trials.append(record.trial)

    def note(self, text: str) -> None:
        self.notes.append(text)


def make_run(folder: Path, watcher: Silent | None = None, **changes: Any) -> Run:
    folder.mkdir(exist_ok=True)
    return Run(
        checked=make_checked(**changes),
        folder=folder,
        command="hwsearch run",
        watcher=watcher or Silent(),
    )


def rows(folder: Path) -> list[dict[str, str]]:
    """The trials, without their times."""
    with (folder / "trials.csv").open(newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k != "train_s"} for row in csv.DictReader(file)]


def interrupt_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    plain, calls = Trial.run, itertools.count()

    def run(self: Trial, knobs: Knobs) -> Record:
        if next(calls) == number:
            raise KeyboardInterrupt
        return plain(self, knobs)

    monkeypatch.setattr(Trial, "run", run)


def check_files(folder: Path, evidence: EvidenceFile) -> None:
    for name in ("evidence.json", "run.json", "trials.csv", "study.db"):
        assert (folder / name).stat().st_size > 0
    for network in evidence.networks:
        stored = folder / "models" / network.folder
        assert (stored / "model.safetensors").is_file()
        with (stored / "layers.csv").open(newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        assert sum(int(row["macs"]) for row in table) == network.cost.macs


def test_execute_when_run_from_end_to_end(tmp_path: Path) -> None:
    listener = Listener()
    make_run(tmp_path / "run", listener).execute()
    run, trials = read_run_file(tmp_path / "run"), rows(tmp_path / "run")
    evidence = read_evidence(tmp_path / "run")
    check_files(tmp_path / "run", evidence)
    assert listener.trials == [int(row["trial"]) for row in trials] == list(range(TRIALS))
    baselines = [network for network in evidence.networks if network.trial is None]
    assert {network.name for network in baselines} == {"dense-fp32", "uniform-int8"}
    assert {Candidate.from_json(network.candidate).backbone for network in baselines} == {OWN}
    budgets = parse_budgets(BUDGETS)
    for network in evidence.networks:
        if network.trial is not None:
            assert admission(network.cost.cost(), budgets, 0.9).admitted
    tuned = {int(row["trial"]) for row in trials if row["state"] == "finalized"}
    assert tuned == set(evidence.trials)
    counts = run.counts
    assert run.finished is not None
    assert counts.priced == TRIALS
    assert (
        counts.completed + counts.stopped + counts.over_budget + counts.duplicates + counts.failed
        == TRIALS
    )
    assert run.configuration["seed"] == 0


@pytest.mark.slow
def test_execute_when_the_seed_is_the_same_gives_the_same_trials(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_run(tmp_path / name).execute()
    assert rows(tmp_path / "one") == rows(tmp_path / "two")
    assert read_evidence(tmp_path / "one") == read_evidence(tmp_path / "two")
    make_run(tmp_path / "other", seed=1).execute()
    assert rows(tmp_path / "other") != rows(tmp_path / "one")


@pytest.mark.slow
def test_execute_when_interrupted_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "whole").execute()
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        with pytest.raises(
            RunInterrupted, match=r"after 3 trials; continue with: hwsearch run --resume"
        ):
            make_run(tmp_path / "parts").execute()
    before = rows(tmp_path / "parts")
    unfinished = json.loads((tmp_path / "parts" / "run.json").read_text(encoding="utf-8"))
    assert len(before) == 3
    assert unfinished["finished"] is None
    listener = Listener()
    make_run(tmp_path / "parts", listener).execute()
    whole, parts = rows(tmp_path / "whole"), rows(tmp_path / "parts")
    assert len(listener.trials) == TRIALS - 3
    assert len(parts) == TRIALS
    # The interrupted trial is evaluated as it would have been; its number may be another.
    assert [row["knobs"] for row in parts[:4]] == [row["knobs"] for row in whole[:4]]
    scores = [f"accuracy_rung{rung}" for rung in range(3)]
    for part, uninterrupted in zip(parts[:4], whole[:4], strict=True):
        assert [part[name] for name in scores] == [uninterrupted[name] for name in scores]


@pytest.mark.slow
def test_execute_when_resumed_equals_an_uninterrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "whole").execute()
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        with pytest.raises(RunInterrupted):
            make_run(tmp_path / "parts").execute()
    make_run(tmp_path / "parts").execute()
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_execute_when_resumed_late_proposes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: SamplerName
) -> None:
    changes: dict[str, Any] = {"sampler": sampler, "trials": 12}
    make_run(tmp_path / "whole", **changes).execute()
    with monkeypatch.context() as patch:
        interrupt_at(patch, 9)
        with pytest.raises(RunInterrupted):
            make_run(tmp_path / "parts", **changes).execute()
    make_run(tmp_path / "parts", **changes).execute()
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert read_run_file(tmp_path / "whole").sampler == SAMPLERS[sampler]


@pytest.mark.slow
def test_execute_when_resumed_after_its_end_trains_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "run").execute()
    before = read_evidence(tmp_path / "run")
    interrupt_at(monkeypatch, 0)
    make_run(tmp_path / "run").execute()
    assert read_evidence(tmp_path / "run") == before


@pytest.mark.slow
def test_execute_when_resumed_with_other_settings(tmp_path: Path) -> None:
    make_run(tmp_path / "run", trials=2).execute()
    with pytest.raises(RunError, match="other settings, data or profile"):
        make_run(tmp_path / "run", seed=5).execute()
    make_run(tmp_path / "run", trials=3).execute()
    assert len(rows(tmp_path / "run")) == 3


def test_execute_when_another_holds_the_folder(tmp_path: Path) -> None:
    work = make_run(tmp_path / "run")
    with (
        FileLock(tmp_path / "run" / ".lock"),
        pytest.raises(RunLockedError, match="another process works on"),
    ):
        work.execute()
    assert not (tmp_path / "run" / "trials.csv").exists()


def test_execute_when_the_folder_is_gone(tmp_path: Path) -> None:
    work = make_run(tmp_path / "run")
    (tmp_path / "run").rmdir()
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunError, match=r"cannot be written .*give another --out"):
        work.execute()


def test_execute_when_nothing_can_meet_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, 0)  # no trial is run at all
    with pytest.raises(NothingFitsError, match=r"meets 1us on round.*the least that is reachable"):
        make_run(tmp_path / "run", budget_texts=("1us",)).execute()
    stored = read_run(tmp_path / "run")
    assert not stored.trials
    assert not stored.front.front
    assert stored.front.pick is None
    assert stored.front.closest is not None
    assert stored.front.closest.input_px == PX
    assert stored.front.minimum_reachable is not None
    least = stored.front.minimum_reachable["latency"]
    assert least.value == pytest.approx(stored.front.closest.latency_ms.high, rel=0.5)
    assert least.value > 1e-3
    assert list((tmp_path / "run").glob("*.md"))


def test_execute_when_most_trials_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Trial, knobs: Knobs) -> Record:
        cost, _ = self.bench.cheapest(knobs)
        return make_record(
            self.number, "failed", knobs=knobs, cost=cost, scores=(), reason="it broke"
        )

    monkeypatch.setattr(Trial, "run", fail)
    with pytest.raises(
        TrialsFailedError, match="4 of 4 trials failed, the last one with: it broke"
    ):
        make_run(tmp_path / "run").execute()


@pytest.mark.slow
@pytest.mark.parametrize("limit_s", [1.0, 15.0])
def test_execute_when_a_time_limit_ends_it_has_evidence(tmp_path: Path, limit_s: float) -> None:
    listener = Listener()
    make_run(tmp_path / "run", listener, time_limit_s=limit_s, trials=None).execute()
    assert rows(tmp_path / "run")
    names = {network.name for network in read_evidence(tmp_path / "run").networks}
    assert names >= {"dense-fp32", "uniform-int8"}
    assert listener.notes[0].startswith("plan (")
    assert "left of the limit): " in listener.notes[0]
    assert len(listener.deadlines) == 1


def test_execute_when_the_space_is_exhausted_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def known(self: Trial, knobs: Knobs) -> Record:
        return make_record(self.number, "duplicate", knobs=knobs, original=0)

    monkeypatch.setattr(coordinator, "_EXHAUSTED", 2)
    monkeypatch.setattr(Trial, "run", known)
    listener = Listener()
    with pytest.raises(NothingFitsError, match="no trained candidate meets the budget"):
        make_run(tmp_path / "run", listener).execute()
    assert listener.trials == [0, 1]
    assert listener.notes[1:] == ["the last 2 proposals were known networks; search ended"]
