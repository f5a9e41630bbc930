import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from own_place import fill

from hwsearch import api
from hwsearch.errors import HwsearchError, RunError, UnitError
from hwsearch.study.asked.preflight import Checked, check
from hwsearch.study.trials.progress import Silent
from hwsearch.study.trials.records import Record


class Remembers(Silent):
    """A watcher that keeps what it was told."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.records: list[Record] = []
        self.planned: set[int | None] = set()
        self.steps = 0

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def step(self, done: int, total: int) -> None:
        assert 0 < done <= total
        self.steps += 1

    def trial(
        self, record: Record, *, done: int, planned: int | None, left_s: float | None
    ) -> None:
        assert left_s is None or left_s >= 0
        self.records.append(record)
        self.planned.add(planned)

    def note(self, text: str) -> None:
        assert text


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a backbone, a space of it and forty pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HWSEARCH_CONFIG", str(tmp_path / "configuration"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield fill(tmp_path)
    # The module lies in this test's folder, so the next test must not find it.
    sys.modules.pop("own_backbone", None)


@pytest.fixture
def checked() -> Checked:
    return check(
        target="jetson", budgets=("10ms",), data="digits", space="tiny", trials=2, time_limit=None,
        confidence=0.9, seed=3, download=False, settings={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": "10"}, "budget '10' has no unit"),
        ({"target": "jetsn"}, "Did you mean 'jetson'"),
        ({"confidence": 90}, "confidence 90 is not between 0 and 1"),
        ({"settings": {"input_pixels": "32"}}, "--set has no key 'input_pixels'"),
    ],
)
def test_search_when_given_what_cannot_be_used_says_so(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"target": "jetson", "budget": "10ms", "out": tmp_path / "out"}
    with pytest.raises(ValueError, match=message) as raised:
        api.search(**(arguments | changes))
    assert isinstance(raised.value, HwsearchError)
    assert not (tmp_path / "out").exists()


def test_folder_when_made_is_named_after_its_conditions(checked: Checked, tmp_path: Path) -> None:
    folder = api.new_folder(checked, tmp_path / "results")
    assert folder.is_dir()
    assert folder.parent == tmp_path / "results"
    assert folder.name.endswith("_jetson-orin-nano_10ms_seed3")


def test_folder_when_one_is_there_gets_another_name(
    checked: Checked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Stopped":
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(api, "datetime", Stopped)
    names = [api.new_folder(checked, tmp_path).name for _ in range(3)]
    first = "2026-01-02_030405_jetson-orin-nano_10ms_seed3"
    assert names == [first, f"{first}_1", f"{first}_2"]
    for number in range(3, 100):
        (tmp_path / f"{first}_{number}").mkdir()
    with pytest.raises(RunError, match="holds a hundred runs of this second; give another --out"):
        api.new_folder(checked, tmp_path)


def test_folder_when_it_cannot_be_made_says_why(checked: Checked, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be made \(Not a directory\); give another --out"):
        api.new_folder(checked, tmp_path / "file")


def test_resume_when_the_folder_holds_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no run \(run\.json is missing\)"):
        api.resume(tmp_path)


def test_resume_when_a_limit_is_unreadable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"schema_version": 1}))
    with pytest.raises(UnitError, match="duration '5' is not a number with a unit"):
        api.resume(tmp_path, time_limit="5")


@pytest.mark.slow
def test_search_when_it_ends_returns_a_pick_of_its_front(place: Path) -> None:
    watcher = Remembers()
    result = api.search(
        target="jetson", budget="50ms", data="pictures", space="own.yaml", watcher=watcher
    )
    assert result.folder.parent == Path("results")
    assert result.pick is not None
    assert result.pick in result.front.front
    assert result.pick.latency_ms.value < 50
    assert sorted(record.trial for record in watcher.records) == list(range(8))
    assert watcher.planned == {8}
    assert watcher.steps > 0
    assert watcher.phases[0] == "reading pictures"
    written = json.loads((place / result.folder / "front.json").read_text(encoding="utf-8"))
    assert written["pick"] == result.pick.trial


@pytest.mark.slow
def test_search_when_repeated_finds_the_same_and_when_resumed_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for cache in ("first", "second"):  # so that the base network is trained again as well
        monkeypatch.setenv("HWSEARCH_CACHE", str(place / cache))
        found.append(
            api.search(
                target="jetson",
                budget=["50ms", "1MB"],
                data="pictures",
                space="own.yaml",
                seed=5,
                workers=1,
            )
        )
    first, second = found
    assert first.folder != second.folder
    assert first.front.front == second.front.front
    watcher = Remembers()
    longer = api.resume(second.folder, trials=10, workers=1, watcher=watcher)
    assert longer.folder == second.folder
    assert [record.trial for record in watcher.records] == [8, 9]
    assert longer.pick in longer.front.front
