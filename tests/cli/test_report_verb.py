import json
from pathlib import Path

import pytest
from own_place import Hwsearch


@pytest.fixture
def folder(finished_copy: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of a finished run, to be changed."""
    return finished_copy[1].rename(tmp_path / "run")


@pytest.mark.slow
def test_report_when_made_again_is_the_same_without_torch(
    there: Hwsearch, folder: Path, tmp_path: Path
) -> None:
    stored = ("front.json", "front.csv", "run.json", "trials.csv")
    before = [(folder / name).read_bytes() for name in stored]
    # The first report of a run cannot know how long it took itself; all later ones are equal.
    there(tmp_path, "report", "run", torch=False)
    report = (folder / "report.md").read_bytes()
    for name in ("report.md", "front.csv", "pareto.svg", "pareto.png"):
        (folder / name).unlink()
    ended = there(tmp_path, "report", "run", torch=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (folder / "report.md").read_bytes() == report
    assert [(folder / name).read_bytes() for name in stored] == before
    assert (folder / "pareto.svg").is_file()
    assert (folder / "pareto.png").is_file()
    assert "Report: run/report.md" in ended.stdout
    as_json = there(tmp_path, "report", "run", "--json", torch=False)
    assert as_json.stdout == (folder / "front.json").read_text(encoding="utf-8")


@pytest.mark.slow
def test_report_when_a_result_was_spoilt_names_the_file(hwsearch: Hwsearch, folder: Path) -> None:
    front = json.loads((folder / "front.json").read_text(encoding="utf-8"))
    del front["target"]
    (folder / "front.json").write_text(json.dumps(front))
    ended = hwsearch("report", "run")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "front.json" in ended.stderr
    assert "target" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("make", [True, False])
def test_report_when_there_is_no_run_is_refused(
    make: bool, hwsearch: Hwsearch, tmp_path: Path
) -> None:
    if make:
        (tmp_path / "run").mkdir()
    ended = hwsearch("report", "run")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("hwsearch: ")
    assert ended.stderr.count("\n") == 1
    assert "run" in ended.stderr
    assert (tmp_path / "run").exists() == make


@pytest.mark.slow
def test_report_for_another_target_prints_and_writes_its_front(
    there: Hwsearch, folder: Path, filled: Path
) -> None:
    # In the folder that holds the user's backbone, which is traced again.
    assert (filled / "own_backbone.py").is_file()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    arguments = ("report", "run", "--target", "jetson-nano", "--budget", "500ms")
    shown = there(filled, *arguments)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Report: run/targets/jetson-nano_500ms/report.md" in shown.stdout
    assert "Latencies are predicted from profile jetson-nano" in shown.stdout
    written = there(filled, *arguments, "--json")
    front = json.loads(written.stdout)
    assert front["target"] == "jetson-nano"
    assert front["budgets"][0]["limit"] == 500.0
    assert front == json.loads((folder / "targets/jetson-nano_500ms/front.json").read_text())
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.slow
def test_report_for_another_target_when_nothing_fits_has_its_exit_code(
    there: Hwsearch, folder: Path, filled: Path
) -> None:
    ended = there(filled, "report", "run", "--target", "jetson-nano", "--budget", "1us")
    assert ended.returncode == 1
    assert "Closest: own_backbone:tiny" in ended.stdout
    assert ended.stderr == "hwsearch: no network of run meets the budget on jetson-nano\n"
    assert (folder / "targets" / "jetson-nano_1us" / "report.md").is_file()


@pytest.mark.slow
def test_report_for_another_target_when_the_backbone_is_not_found(
    there: Hwsearch, folder: Path
) -> None:
    ended = there(folder.parent, "report", "run", "--target", "jetson-nano")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "module 'own_backbone' of backbone 'own_backbone:tiny' is not found" in ended.stderr
    assert not (folder / "targets").exists()
