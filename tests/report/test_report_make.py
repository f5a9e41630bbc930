import json
from pathlib import Path

import pytest
from stored_results import Json, empty_front, front, write_run

from hwsearch.errors import RunError
from hwsearch.report.make import make_report

REPORTS = ["front.csv", "report.md", "pareto.svg", "pareto.png"]


@pytest.mark.parametrize("content", [front(), front(1), empty_front()])
def test_make_report_writes_all_and_touches_nothing_else(tmp_path: Path, content: Json) -> None:
    folder = write_run(tmp_path / "run", content)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    paths = make_report(folder)
    assert [path.name for path in paths] == REPORTS
    assert all(path.stat().st_size > 0 for path in paths)
    assert {path.name for path in folder.iterdir()} == {*before, *REPORTS}
    assert all((folder / name).read_bytes() == old for name, old in before.items())


def test_make_report_again_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    first = [path.read_bytes() for path in make_report(folder)]
    assert first == [path.read_bytes() for path in make_report(folder)]


def test_make_report_of_a_damaged_run_keeps_the_older_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    make_report(folder)
    older = (folder / "report.md").read_bytes()
    (folder / "front.json").write_text(json.dumps({"schema_version": 1}), encoding="utf-8")
    with pytest.raises(RunError, match=r"front\.json: target: Field required"):
        make_report(folder)
    assert (folder / "report.md").read_bytes() == older
