# ruff: noqa: ANN401 - fakes take whatever the real function is given
import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from filelock import FileLock
from study_fixtures import BUDGETS, make_candidate, make_checked
from tiny_network import OWN, PX

from hwsearch.accuracy.ladder import inherit
from hwsearch.errors import (
    BackboneError,
    NothingFitsError,
    RunError,
    RunInterrupted,
    RunLockedError,
    TrialsFailedError,
)
from hwsearch.report.stored import read_run, read_run_file
from hwsearch.space.candidate import Candidate
from hwsearch.study.asked.admission import admission
from hwsearch.study.asked.settings import SamplerName
from hwsearch.study.clock import Clock
from hwsearch.study.coordinator import Run, Shipped
from hwsearch.study.finals.evidence import EvidenceFile, read_evidence
from hwsearch.study.jobs import trial as trial_work
from hwsearch.study.trials.progress import Silent
from hwsearch.study.trials.records import Record
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

    def trial(
        self, record: Record, *, done: int, planned: int | None, left_s: float | None
    ) -> None:
        self.trials.append(record.trial)

    def note(self, text: str) -> None:
        self.notes.append(text)


def make_run(folder: Path, watcher: Silent | None = None, **changes: Any) -> Run:
    folder.mkdir(exist_ok=True)
    checked = make_checked(**changes)
    return Run(
        checked=checked,
        folder=folder,
        command="hwsearch run",
        watcher=watcher or Silent(),
        clock=Clock(checked.settings.time_limit_s),
    )


def ship_nothing(*_: Any) -> Shipped:
    """No file is made or timed."""
    return Shipped(measured_ms={}, refused=None)


def execute(run: Run) -> None:
    run.execute(ship_nothing)


def rows(folder: Path) -> list[dict[str, str]]:
    """The trials, without their times."""
    with (folder / "trials.csv").open(newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k != "train_s"} for row in csv.DictReader(file)]


def unnumbered(folder: Path) -> list[dict[str, str]]:
    """The trials without their numbers: a proposal that was interrupted leaves a gap."""
    numbers = ("trial", "reason", "original")
    return [{k: v for k, v in row.items() if k not in numbers} for row in rows(folder)]


def interrupt_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Interrupt when the network of this trial is about to be trained."""
    calls = itertools.count()

    def interrupted(*arguments: Any, **more: Any) -> Any:
        if next(calls) == number:
            raise KeyboardInterrupt
        return inherit(*arguments, **more)

    monkeypatch.setattr(trial_work, "inherit", interrupted)


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
    execute(make_run(tmp_path / "run", listener))
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
        execute(make_run(tmp_path / name))
    assert rows(tmp_path / "one") == rows(tmp_path / "two")
    assert read_evidence(tmp_path / "one") == read_evidence(tmp_path / "two")
    execute(make_run(tmp_path / "other", seed=1))
    assert rows(tmp_path / "other") != rows(tmp_path / "one")


@pytest.mark.slow
def test_execute_when_interrupted_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(make_run(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        with pytest.raises(
            RunInterrupted, match=r"after 3 trials; continue with: hwsearch run --resume"
        ):
            execute(make_run(tmp_path / "parts"))
    before = rows(tmp_path / "parts")
    unfinished = json.loads((tmp_path / "parts" / "run.json").read_text(encoding="utf-8"))
    assert len(before) == 3
    assert unfinished["finished"] is None
    listener = Listener()
    execute(make_run(tmp_path / "parts", listener))
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
    execute(make_run(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        with pytest.raises(RunInterrupted):
            execute(make_run(tmp_path / "parts"))
    execute(make_run(tmp_path / "parts"))
    assert unnumbered(tmp_path / "parts") == unnumbered(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_execute_when_resumed_late_proposes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: SamplerName
) -> None:
    changes: dict[str, Any] = {"sampler": sampler, "trials": 12}
    execute(make_run(tmp_path / "whole", **changes))
    with monkeypatch.context() as patch:
        interrupt_at(patch, 9)
        with pytest.raises(RunInterrupted):
            execute(make_run(tmp_path / "parts", **changes))
    execute(make_run(tmp_path / "parts", **changes))
    assert unnumbered(tmp_path / "parts") == unnumbered(tmp_path / "whole")
    assert read_run_file(tmp_path / "whole").sampler == SAMPLERS[sampler]


@pytest.mark.slow
def test_execute_when_resumed_after_its_end_trains_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(make_run(tmp_path / "run"))
    before = read_evidence(tmp_path / "run")
    interrupt_at(monkeypatch, 0)
    execute(make_run(tmp_path / "run"))
    assert read_evidence(tmp_path / "run") == before


@pytest.mark.slow
def test_execute_when_resumed_with_other_settings(tmp_path: Path) -> None:
    execute(make_run(tmp_path / "run", trials=2))
    with pytest.raises(RunError, match="other settings, data or profile"):
        execute(make_run(tmp_path / "run", seed=5))
    execute(make_run(tmp_path / "run", trials=3))
    assert len(rows(tmp_path / "run")) == 3


def test_execute_when_another_holds_the_folder(tmp_path: Path) -> None:
    work = make_run(tmp_path / "run")
    with (
        FileLock(tmp_path / "run" / ".lock"),
        pytest.raises(RunLockedError, match="another process works on"),
    ):
        execute(work)
    assert not (tmp_path / "run" / "trials.csv").exists()


def test_execute_when_the_folder_is_gone(tmp_path: Path) -> None:
    work = make_run(tmp_path / "run")
    (tmp_path / "run").rmdir()
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunError, match=r"cannot be written .*give another --out"):
        execute(work)


def test_execute_when_nothing_can_meet_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, 0)  # no trial is run at all
    with pytest.raises(NothingFitsError, match=r"meets 1us on round.*the least that is reachable"):
        execute(make_run(tmp_path / "run", budget_texts=("1us",)))
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
    def fail(*_: Any, **__: Any) -> None:
        raise BackboneError("it broke")

    monkeypatch.setattr(trial_work, "inherit", fail)
    with pytest.raises(
        TrialsFailedError, match=r"4 of \d trials failed, the last one with: it broke"
    ):
        execute(make_run(tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("limit_s", [1.0, 15.0])
def test_execute_when_a_time_limit_ends_it_has_evidence(tmp_path: Path, limit_s: float) -> None:
    listener = Listener()
    execute(make_run(tmp_path / "run", listener, time_limit_s=limit_s, trials=None))
    assert rows(tmp_path / "run")
    names = {network.name for network in read_evidence(tmp_path / "run").networks}
    assert names >= {"dense-fp32", "uniform-int8"}
    assert listener.notes[0].startswith("plan (")
    assert "left of the limit): " in listener.notes[0]
    assert len(listener.deadlines) == 1


# -- searching on after files were shipped --------------------------------------------------------


class FakeClock(Clock):
    """A limit that leaves this much."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(limit_s, now=lambda: 0.0)
        self.left = limit_s

    @property
    def left_s(self) -> float:
        return self.left


def rounds_of_search(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ship: Callable[[int], Shipped],
    *,
    new: bool = True,
    rounds: int = 2,
) -> list[str]:
    """What a run does whose limit leaves time for so many rounds after the first."""
    done: list[str] = []
    run = make_run(tmp_path / "run", trials=None, time_limit_s=100.0)
    run.clock = FakeClock(100.0)

    def search(_: Run) -> None:
        done.append("search")

    def go_on(_: Run, shipped: Shipped) -> bool:
        done.append(f"go on with {len(shipped.measured_ms)} files")
        return new

    def shipping(*_: Any) -> Shipped:
        done.append("ship")
        count = done.count("ship")
        if count > rounds:
            run.clock.left = 0.0  # type: ignore[attr-defined]
        return ship(count)

    monkeypatch.setattr(Run, "_search_and_finalize", search)
    monkeypatch.setattr(Run, "_go_on", go_on)
    try:
        run.execute(shipping)
    except NothingFitsError as error:
        done.append(str(error))
    return done


TIMED = {make_candidate(): 1.5}


def test_run_searches_on_while_time_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = rounds_of_search(
        tmp_path, monkeypatch, lambda _: Shipped(measured_ms=TIMED, refused=None)
    )
    assert done == ["search", "ship", *["go on with 1 files", "ship"] * 2]


def test_run_does_not_go_on_where_nothing_was_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rounds_of_search(tmp_path, monkeypatch, ship_nothing) == ["search", "ship"]


@pytest.mark.parametrize("refused", [None, NothingFitsError("nothing fits")])
def test_run_ends_where_nothing_new_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: NothingFitsError | None
) -> None:
    done = rounds_of_search(
        tmp_path, monkeypatch, lambda _: Shipped(measured_ms=TIMED, refused=refused), new=False
    )
    assert done == ["search", "ship", "go on with 1 files", *(["nothing fits"] if refused else [])]


def test_run_whose_last_files_fit_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ship(count: int) -> Shipped:
        refused = NothingFitsError("nothing fits") if count < 3 else None
        return Shipped(measured_ms=TIMED, refused=refused)

    assert rounds_of_search(tmp_path, monkeypatch, ship)[-1] == "ship"
