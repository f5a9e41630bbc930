import json
from pathlib import Path

import pytest
import tiny_network
from tiny_network import OWN
from torch import nn

import hwsearch
from hwsearch.deploy.network_file import load_network
from hwsearch.errors import BackboneError, RunError, TargetError, UserError
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.targets import load_profile
from hwsearch.report.stored import CostEntry, FrontFile, read_front, read_run
from hwsearch.report.verified import read_verified
from hwsearch.retarget import make
from hwsearch.retarget.make import reprice_run
from hwsearch.retarget.pricing import Priced
from hwsearch.space.candidate import Candidate
from hwsearch.study.candidates.backbones import Backbones
from hwsearch.study.finals.evidence import read_evidence
from hwsearch.study.run_folder import open_run

SEARCHED_FOR = "jetson-orin-nano"
#: Has fp32 and int8, and no fp16.
OTHER = "raspberry-pi-4"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run but what was made for other targets."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "targets" not in path.relative_to(folder).parts
    }


def costs(front: FrontFile) -> list[object]:
    return [
        (m.trial, m.latency_ms, m.energy_mj, m.size_bytes, m.macs, m.meets_budget_probability)
        for m in front.scored
    ]


def test_reprice_for_its_own_target_is_what_the_run_said(run_folder: Path) -> None:
    before = read_run(run_folder)
    front, place = reprice_run(run_folder, "jetson")
    assert (front.alias, front.target) == ("jetson", SEARCHED_FOR)
    assert front.front
    assert costs(front) == costs(before.front)
    assert (front.pick, front.pick_reason) == (before.front.pick, before.front.pick_reason)
    assert front.baseline_pick == before.front.baseline_pick
    assert front.budgets == before.front.budgets
    assert front.profile == before.front.profile
    after = read_run(place)
    assert after.front == front
    for row, same in zip(before.trials, after.trials, strict=True):
        # A backbone that was refused as a whole had no network of its own to price.
        assert same == row or row.candidate == ""
    assert front.notes[0] == f"these are the predicted costs of the run, made for {SEARCHED_FOR}"


def test_reprice_changes_nothing_that_the_run_wrote(run_folder: Path) -> None:
    before = contents(run_folder)
    _, place = reprice_run(run_folder, OTHER)
    assert contents(run_folder) == before
    assert place == run_folder / "targets" / f"{OTHER}_10ms_1MB"
    names = {path.name for path in place.iterdir()}
    assert names == {
        "front.json", "front.csv", "run.json", "trials.csv", "report.md", "pareto.svg",
        "pareto.png",
    }  # fmt: skip
    first = contents(place)
    reprice_run(run_folder, OTHER)
    assert contents(place) == first


def test_reprice_prices_the_networks_that_were_really_trained(run_folder: Path) -> None:
    """Their weights lie in the run: as many, in the same shapes, as what was priced."""
    front, _ = reprice_run(run_folder, "jetson-nano", ["1000ms"])
    settings = open_run(run_folder).settings
    backbones = Backbones(space=settings.space, classes=3)
    predictor = CostPredictor(load_profile("jetson-nano"), settings.confidence)
    evidence = read_evidence(run_folder)
    folders = {network.trial: network.folder for network in evidence.networks}
    assert front.front
    for model in front.front:
        folder = run_folder / "models" / folders[model.trial]
        module, card = load_network(folder / "model.safetensors")
        network = backbones.describe(card.candidate)
        for kernel in network.weighted:
            layer = module.get_submodule(kernel.name)
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            assert layer.weight.shape[:2] == (kernel.out_channels, kernel.in_channels)
            assert model.weight_bits[kernel.name] == kernel.bits.weight_bits
        cost = predictor.predict(network)
        assert model.latency_ms == CostEntry.of(cost.latency_ms)
        assert cost.energy_mj is not None
        assert model.energy_mj == CostEntry.of(cost.energy_mj)
        assert (model.size_bytes, model.macs) == (cost.size_bytes, cost.macs)


def test_reprice_keeps_accuracies_and_says_whose_they_are(run_folder: Path) -> None:
    front, place = reprice_run(run_folder, "jetson-nano", ["1000ms"])
    assert front.front
    for model in front.front:
        file = read_verified(run_folder / "models" / f"trial_{model.trial:04d}")
        assert file is not None
        assert model.accuracy == file.accuracy
        assert model.latency_ms.source == "predicted"
        assert model.latency_ms.low < model.latency_ms.value < model.latency_ms.high
        assert (model.artefact, model.verified, model.layers) == (None, None, None)
    assert front.target == front.profile.name == "jetson-nano"
    assert front.notes[0].startswith(
        f"nothing was searched for jetson-nano: networks and accuracies are those of a run for "
        f"{SEARCHED_FOR}"
    )
    report = (place / "report.md").read_text(encoding="utf-8")
    assert "# Models for jetson-nano under 1000 ms" in report
    assert "nothing was searched for jetson-nano" in report
    about = read_run(place).run
    assert about.profile.name == "jetson-nano"
    assert about.command == "hwsearch report run --target jetson-nano --budget 1000ms"
    assert about.configuration == read_run(run_folder).run.configuration


def test_reprice_when_bits_do_not_run_leaves_trials_out(run_folder: Path) -> None:
    front, place = reprice_run(run_folder, OTHER, ["1000ms"])
    halves = {
        network.trial
        for network in read_evidence(run_folder).networks
        if network.trial is not None
        and any(b.weight_bits == 16 for _, b in Candidate.from_json(network.candidate).bits)
    }
    assert halves, "the run has no network with fp16 layers, so that nothing is left out"
    assert not halves.intersection(model.trial for model in front.front)
    listed = ", ".join(str(trial) for trial in sorted(halves)[:6])
    [note] = [note for note in front.notes if "left out" in note]
    assert note.startswith(f"{len(halves)} trial")
    assert f"({listed}" in note
    assert note.endswith(f": {OTHER} does not run fp16")
    rows = {row.trial: row for row in read_run(place).trials}
    for trial in halves:
        assert (rows[trial].latency_ms, rows[trial].macs) == (None, None)
        assert rows[trial].reason == f"{OTHER} does not run fp16"
        assert rows[trial].validation_accuracy is not None
    assert {baseline.name for baseline in front.baselines} == {"dense-fp32", "uniform-int8"}


def test_reprice_from_python_gives_front_and_folder(run_folder: Path) -> None:
    result = hwsearch.reprice(run_folder, target="jetson-nano", budget="1000ms")
    assert result.folder == run_folder / "targets" / "jetson-nano_1000ms"
    assert result.front == read_front(result.folder)
    with pytest.raises(UserError, match="budget '10' has no unit"):
        hwsearch.reprice(run_folder, target="jetson-nano", budget="10")


def test_reprice_when_nothing_meets_the_budget_names_the_closest(run_folder: Path) -> None:
    front, place = reprice_run(run_folder, "jetson-nano", ["1us"])
    assert (front.front, front.pick, front.baseline_pick) == ((), None, None)
    assert front.closest is not None
    assert front.closest.trial in read_evidence(run_folder).trials
    assert front.pick_reason == "nothing met the budget"
    assert "Nothing meets the budget" in (place / "report.md").read_text(encoding="utf-8")


def test_reprice_when_the_target_runs_nothing_is_refused(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Priced(cost=None, refusal="it runs int2 only")
    monkeypatch.setattr(make, "price", lambda *_: refused)
    with pytest.raises(TargetError, match=r"can be priced: it runs int2 only. Start a run for ras"):
        reprice_run(run_folder, OTHER)
    assert not (run_folder / "targets").exists()


def test_reprice_when_the_target_has_no_energy_refuses_its_budget(run_folder: Path) -> None:
    with pytest.raises(TargetError, match="coral-edge-tpu has no energy model"):
        reprice_run(run_folder, "coral-edge-tpu", ["5mJ"])


def test_reprice_when_the_run_has_not_finished(run_folder: Path) -> None:
    told = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    (run_folder / "run.json").write_text(json.dumps({**told, "finished": None}))
    with pytest.raises(RunError, match=r"has not finished; continue it with: hwsearch run --res"):
        reprice_run(run_folder, OTHER)


def test_reprice_when_the_study_is_gone(run_folder: Path) -> None:
    (run_folder / "study.db").unlink()
    with pytest.raises(RunError, match=r"has no study.db, which holds the channels and bits"):
        reprice_run(run_folder, OTHER)


def test_reprice_when_the_folder_was_made_for_another_target(run_folder: Path) -> None:
    _, place = reprice_run(run_folder, OTHER, ["1000ms"])
    with pytest.raises(RunError, match=r"give the folder of a run, as it was made"):
        reprice_run(place, "jetson-nano")


def test_reprice_when_no_network_was_trained_fully(run_folder: Path) -> None:
    content = json.loads((run_folder / "evidence.json").read_text(encoding="utf-8"))
    (run_folder / "evidence.json").write_text(json.dumps(content | {"networks": []}))
    with pytest.raises(RunError, match=r"no network of .* was trained fully"):
        reprice_run(run_folder, OTHER)


def test_reprice_when_the_backbone_has_changed(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(num_classes: int) -> nn.Module:
        model = plain(num_classes)
        assert isinstance(model, nn.Sequential)
        model[0] = nn.Conv2d(3, 16, 5, padding=2, bias=False)
        return model

    plain = tiny_network.tiny_backbone
    monkeypatch.setattr(tiny_network, "tiny_backbone", other)
    with pytest.raises(BackboneError, match=f"'{OWN}' is another network than when the run"):
        reprice_run(run_folder, OTHER)
