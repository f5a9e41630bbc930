import csv
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from hwsearch.cli import run_verb
from hwsearch.errors import RunError
from hwsearch.report import stored

Hwsearch = Callable[..., "subprocess.CompletedProcess[str]"]
Finished = tuple[Path, "subprocess.CompletedProcess[str]"]
SCHEMA = Path(stored.__file__).with_name("front.schema.json")
RUN = "run --target jetson --data pictures --space own.yaml"


def test_settings_when_given_are_read_in_order() -> None:
    assert run_verb._settings(("input_px=32,48", "weights=scratch")) == {
        "input_px": "32,48",
        "weights": "scratch",
    }


def test_setting_when_its_value_has_an_equals_sign_keeps_it() -> None:
    assert run_verb._settings(("data_root=a=b",)) == {"data_root": "a=b"}


@pytest.mark.parametrize("text", ["input_px", "=32", "input_px=", ""])
def test_setting_when_no_key_and_value_is_refused(text: str) -> None:
    with pytest.raises(RunError, match=f"--set {text} is not KEY=VALUE"):
        run_verb._settings((text,))


def test_setting_when_given_twice_is_refused() -> None:
    with pytest.raises(RunError, match="--set trials is given twice; keep one"):
        run_verb._settings(("trials=2", "trials=2"))


def test_polite_kill_when_received_is_an_interrupt() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        run_verb._terminate_like_interrupt()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_run_when_json_is_asked_prints_the_valid_front_and_nothing_else(finished: Finished) -> None:
    place, ended = finished
    assert ended.returncode == 0, ended.stderr
    front = json.loads(ended.stdout)
    jsonschema.validate(front, json.loads(SCHEMA.read_text(encoding="utf-8")))
    (folder,) = (place / "results").iterdir()
    assert ended.stdout == (folder / "front.json").read_text(encoding="utf-8")
    assert front["pick"] in [model["trial"] for model in front["front"]]
    assert front["target"] == "jetson-orin-nano"
    assert {model["backbone"] for model in front["front"]} == {"own_backbone:tiny"}


@pytest.mark.slow
def test_run_when_finished_leaves_every_file(finished: Finished) -> None:
    (folder,) = (finished[0] / "results").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d{6}_jetson-orin-nano_50ms_seed0", folder.name)
    names = {path.name for path in folder.iterdir()}
    wanted = {"front.json", "front.csv", "report.md", "pareto.svg", "pareto.png", "trials.csv"}
    assert wanted | {"run.json", "models"} <= names
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 8


@pytest.mark.slow
def test_run_when_not_on_a_terminal_tells_its_course_on_stderr(finished: Finished) -> None:
    lines = finished[1].stderr.splitlines()
    assert any(line.endswith("'jetson' means jetson-orin-nano") for line in lines)
    assert any("trial 0 (1 of 8): own_backbone:tiny 16 px, " in line for line in lines)
    assert all(line.startswith("[") for line in lines), lines


@pytest.mark.slow
def test_run_when_finished_was_started_from_a_command_that_starts_it_again(
    finished: Finished,
) -> None:
    (folder,) = (finished[0] / "results").iterdir()
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert run["command"].startswith("hwsearch run --target jetson --budget 50ms --data pictures")


@pytest.mark.slow
def test_run_when_nothing_fits_says_what_is_reachable_and_reports(
    hwsearch: Hwsearch, filled: Path
) -> None:
    ended = hwsearch(*RUN.split(), "--budget", "1us", torch=True)
    assert ended.returncode == 1
    assert ended.stdout == ""
    last = ended.stderr.splitlines()[-1]
    assert re.search(r"^hwsearch: .*\d ms", last)
    (folder,) = (filled / "results").iterdir()
    assert str(folder.relative_to(filled)) in last
    assert (folder / "report.md").is_file()
    front = json.loads((folder / "front.json").read_text(encoding="utf-8"))
    assert front["front"] == []
    assert front["minimum_reachable"]["latency"]["value"] > 0.001


@pytest.mark.slow
def test_run_when_interrupted_names_the_command_that_finishes_it(
    hwsearch: Hwsearch,
    filled: Path,
    command: Callable[..., list[str]],
    surroundings: dict[str, str],
) -> None:
    with (filled / "err.txt").open("w") as errors:
        process = subprocess.Popen(
            command(*RUN.split(), "--budget", "50ms", "--trials", "5000"),
            cwd=filled,
            env=surroundings,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            # A background job of a shell ignores SIGINT, and hands that on to what it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    deadline = time.monotonic() + 200
    while "trial 1 (2 of 5000)" not in (filled / "err.txt").read_text():
        assert process.poll() is None, (filled / "err.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    last = (filled / "err.txt").read_text().splitlines()[-1]
    found = re.fullmatch(
        r"hwsearch: interrupted after (\d+) trials; continue with: hwsearch (run --resume \S+)",
        last,
    )
    assert found, last
    before = int(found[1])
    assert before >= 2
    ended = hwsearch(*found[2].split(), "--trials", str(before + 1), torch=True)
    assert ended.returncode == 0, ended.stderr
    (folder,) = (filled / "results").iterdir()
    assert f"Report: {folder.relative_to(filled)}/report.md" in ended.stdout
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == before + 1
