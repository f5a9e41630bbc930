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
from safetensors.torch import load_file

from hwsearch.accuracy.data.sources import load_data
from hwsearch.accuracy.ladder import Plan, held_out_score, inherit
from hwsearch.bits import LayerBits
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import make_blueprint
from hwsearch.nets.prune import channel_importance, least_important

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
    assert "2026" in finished.name or finished.name[:2] == "20"
    assert finished.name.endswith("_jetson-orin-nano_10ms_seed0")


@pytest.mark.parametrize("name", ["front", "run"])
def test_json_when_finished_obeys_its_shipped_schema(finished: Path, name: str) -> None:
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
        ref = BackboneRef(
            name=model["backbone"],
            classes=10,
            stem_stride=1 if model["backbone"] == "lcnet_050" else None,
        )
        blueprint = make_blueprint(ref, model["input_px"])
        base = build(ref, model["input_px"], seed=99)
        kept = {group.name: group.channels for group in blueprint.graph.groups}
        importance = channel_importance(base, blueprint.trace, blueprint.graph)
        plan = Plan(
            base=base,
            blueprint=blueprint,
            removed=least_important(importance, kept),
            bits={
                layer: LayerBits(width, model["activation_bits"][layer])
                for layer, width in model["weight_bits"].items()
            },
            scheme="symmetric",
        )
        network = inherit(plan, data, batch_size=64)
        network.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
        score = held_out_score(network, data, model["input_px"])
        assert score.accuracy == pytest.approx(model["accuracy"], abs=1.5 / score.total)


def test_resume_when_finished_evaluates_nothing_again(finished: Path, tmp_path: Path) -> None:
    before = (finished / "trials.csv").read_bytes()
    again = hwsearch("run", "--resume", str(finished), cache=tmp_path, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (finished / "trials.csv").read_bytes() == before
    assert not list(tmp_path.rglob("*.safetensors")), "no base network was trained"


def test_budget_when_below_what_is_reachable_says_the_least(tmp_path: Path) -> None:
    done = hwsearch(
        "run", "--target", "jetson", "--budget", "10us", cache=tmp_path, folder=tmp_path
    )
    assert done.returncode == 1
    assert "the least that is reachable is" in done.stderr
    assert (next((tmp_path / "results").iterdir()) / "report.md").is_file()
    assert not list((tmp_path).rglob("*.safetensors")), "nothing was trained"


def without_times(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "train_s"} for row in csv.DictReader(file)]


def test_trials_when_the_seed_is_the_same_are_the_same(tmp_path: Path) -> None:
    """Fresh caches on both sides, so that the base networks are trained again as well."""
    tables = []
    for name in ("first", "second"):
        home = tmp_path / name
        home.mkdir()
        settings = [part for pair in SHORT for part in ("--set", pair)]
        done = hwsearch(
            "run", "--target", "jetson-orin-nano", "--budget", "10ms", "--trials", "5",
            "--seed", "3", "--set", "backbones=test_resnet", *settings,
            cache=home / "cache", folder=home,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (folder,) = (home / "results").iterdir()
        tables.append(without_times(folder / "trials.csv"))
    assert len(tables[0]) == 5
    assert tables[0] == tables[1]


def test_trials_when_the_seed_differs_differ(finished: Path, tmp_path: Path) -> None:
    settings = [part for pair in SHORT for part in ("--set", pair)]
    done = hwsearch(
        "run", "--target", "jetson", "--budget", "10ms", "--trials", "4", "--seed", "9",
        "--set", "backbones=test_resnet", *settings,
        cache=tmp_path / "cache", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "results").iterdir()
    ours = [row["knobs"] for row in without_times(folder / "trials.csv")]
    assert ours != [row["knobs"] for row in without_times(finished / "trials.csv")][:4]
