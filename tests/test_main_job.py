"""The main job on the shipped space, data and profile, as a user runs it; nothing is replaced."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hwsearch import load
from hwsearch.accuracy.data.sources import load_data
from hwsearch.accuracy.ladder import held_out_score

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow

#: Beside little effort, few rungs and one size: the same course in half a minute.
SHORT = ("base_steps=40", "rung_steps=4,12", "final_steps=30", "input_px=32")


def hwsearch(*arguments: str, cache: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from hwsearch.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HWSEARCH_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of ten short trials."""
    home = tmp_path_factory.mktemp("main_job")
    settings = [part for pair in SHORT for part in ("--set", pair)]
    done = hwsearch(
        "run", "--target", "jetson", "--budget", "10ms", "--trials", "10", "--effort", "quick",
        *settings,
        cache=home / "cache", folder=home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Pick: trial" in done.stdout
    (folder,) = (home / "results").iterdir()
    return folder


@pytest.fixture(scope="module")
def front(finished: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((finished / "front.json").read_text(encoding="utf-8"))
    return content


def test_run_folder_when_finished_holds_the_files_of_the_contract(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {
        "run.json", "study.db", "trials.csv", "front.json", "front.csv", "report.md",
        "pareto.svg", "pareto.png", "constraints.txt", "models",
    } <= names  # fmt: skip
    assert finished.name.endswith("_jetson-orin-nano_10ms_seed0")
    for name in ("front", "run"):
        schema = json.loads((ROOT / "hwsearch" / "report" / f"{name}.schema.json").read_text())
        jsonschema.validate(json.loads((finished / f"{name}.json").read_text()), schema)


def test_counts_when_finished_are_those_of_the_table(finished: Path) -> None:
    counts = json.loads((finished / "run.json").read_text())["counts"]
    with (finished / "trials.csv").open(newline="") as file:
        states = [row["state"] for row in csv.DictReader(file)]
    assert counts["priced"] == len(states) == 10
    assert counts["stopped"] == states.count("stopped")
    assert counts["duplicates"] == states.count("duplicate")
    assert counts["completed"] == states.count("completed") + states.count("finalized")


def test_front_when_finished_is_never_worse_than_a_baseline(front: dict[str, Any]) -> None:
    assert {baseline["name"] for baseline in front["baselines"]} == {"dense-fp32", "uniform-int8"}
    for model in front["front"]:
        assert model["meets_budget_probability"] >= 0.9
        for baseline in front["baselines"]:
            slower = model["latency_ms"]["value"] > baseline["latency_ms"]["value"]
            assert not (slower and model["accuracy"] < baseline["accuracy"])


def test_layers_when_finished_add_up_to_the_model(finished: Path, front: dict[str, Any]) -> None:
    for model in [*front["front"], *front["baselines"]]:
        with (finished / model["layers"]).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert sum(int(row["macs"]) for row in rows) == model["macs"]
        size = sum(float(row["weight_bytes"]) for row in rows)
        assert size == pytest.approx(model["size_bytes"], abs=1.0)
        bits = {row["layer"]: int(row["weight_bits"]) for row in rows}
        assert all(bits[layer] == width for layer, width in model["weight_bits"].items())


def test_weights_when_loaded_again_score_what_the_front_says(
    finished: Path, front: dict[str, Any]
) -> None:
    data = load_data("digits", px=32)
    for model in front["baselines"]:
        folder = (finished / model["layers"]).parent
        score = held_out_score(load(finished, folder.name), data, model["input_px"])
        assert score.accuracy == pytest.approx(model["accuracy"], abs=1.5 / score.total)


def test_resume_when_finished_evaluates_nothing_again(finished: Path, tmp_path: Path) -> None:
    before = (finished / "trials.csv").read_bytes()
    again = hwsearch("run", "--resume", str(finished), cache=tmp_path, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (finished / "trials.csv").read_bytes() == before
    assert not list(tmp_path.rglob("*.safetensors")), "no base network was trained"
