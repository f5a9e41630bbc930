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
from own_place import Finished, Hwsearch

from hwsearch.cli import run_verb
from hwsearch.report import stored

SCHEMA = Path(stored.__file__).with_name("front.schema.json")
RUN = "run --target jetson --data pictures --space own.yaml"


def test_setting_when_its_value_has_an_equals_sign_keeps_it() -> None:
    assert run_verb._settings(("data_root=a=b",)) == {"data_root": "a=b"}


def test_polite_kill_when_received_is_an_interrupt() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        run_verb._terminate_like_interrupt()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_run_when_finished_leaves_every_file_and_prints_the_valid_front(finished: Finished) -> None:
    place, ended = finished
    assert ended.returncode == 0, ended.stderr
    front = json.loads(ended.stdout)
    jsonschema.validate(front, json.loads(SCHEMA.read_text(encoding="utf-8")))
    (folder,) = (place / "results").iterdir()
    assert ended.stdout == (folder / "front.json").read_text(encoding="utf-8")
    assert front["pick"] in [model["trial"] for model in front["front"]]
    assert {model["backbone"] for model in front["front"]} == {"own_backbone:tiny"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d{6}_jetson-orin-nano_50ms_seed0", folder.name)
    names = {path.name for path in folder.iterdir()}
    wanted = {"front.json", "front.csv", "report.md", "pareto.svg", "pareto.png", "trials.csv"}
    assert wanted | {"run.json", "models"} <= names
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 8
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert run["command"].startswith("hwsearch run --target jetson --budget 50ms --data pictures")
    lines = ended.stderr.splitlines()
    assert any(line.endswith("'jetson' means jetson-orin-nano") for line in lines)
    assert any("base weights of own_backbone:tiny" in line for line in lines)
    assert any("trial 0 (1 of 8): own_backbone:tiny 16 px, " in line for line in lines)
    assert all(line.startswith("[") for line in lines), lines


@pytest.mark.slow
def test_run_when_nothing_fits_says_what_is_reachable_and_reports(
    there: Hwsearch, filled: Path
) -> None:
    ended = there(filled, *RUN.split(), "--budget", "1us")
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
    assert "base weights of" not in ended.stderr, "nothing was trained"


@pytest.mark.slow
def test_run_when_interrupted_names_the_command_that_finishes_it(
    there: Hwsearch,
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
    while "(2 of 5000)" not in (filled / "err.txt").read_text():
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
    ended = there(filled, *found[2].split(), "--trials", str(before + 1))
    assert ended.returncode == 0, ended.stderr
    (folder,) = (filled / "results").iterdir()
    assert f"Report: {folder.relative_to(filled)}/report.md" in ended.stdout
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == before + 1
