import json
from pathlib import Path

import pytest
from tiny_network import OWN

from hwsearch.errors import DataError, RunError
from hwsearch.ship import run_folder
from hwsearch.ship.run_folder import chosen, offered_models, open_run


def test_run_when_opened_has_front_and_baselines(host_run: Path) -> None:
    run = open_run(host_run)
    assert [model.key for model in run.models] == [
        "trial_0000", "trial_0003", "baseline_dense-fp32_tiny", "baseline_uniform-int8_tiny",
    ]  # fmt: skip
    assert [model.name for model in run.models] == [
        "trial 0", "trial 3", f"dense-fp32 of {OWN}", f"uniform-int8 of {OWN}",
    ]  # fmt: skip
    assert all((model.folder / "model.safetensors").is_file() for model in run.models)
    assert run.family == "onnxruntime"


def test_run_when_models_were_dropped_still_has_them(host_run: Path) -> None:
    front = json.loads((host_run / "front.json").read_text())
    (host_run / "front.json").write_text(json.dumps(front | {"front": [], "pick": None}))
    assert [model.entry.trial for model in open_run(host_run).models][:2] == [0, 3]


def test_run_when_a_finalist_is_a_baseline_has_its_file_once(host_run: Path) -> None:
    path = host_run / "searched.json"
    content = json.loads(path.read_text())
    content["baselines"][1]["layers"] = content["front"][0]["layers"]
    path.write_text(json.dumps(content))
    run = open_run(host_run)
    assert [model.name for model in run.models] == ["trial 0", "trial 3", f"dense-fp32 of {OWN}"]
    # Where the search does not offer it, the baseline still needs it.
    nothing = run.searched.model_copy(update={"front": (), "pick": None})
    assert [model.name for model in offered_models(run, nothing)] == [
        "trial 0", f"dense-fp32 of {OWN}",
    ]  # fmt: skip


def test_run_when_nothing_met_the_budget_has_no_models(host_run: Path) -> None:
    front = json.loads((host_run / "front.json").read_text())
    closest = {**front["front"][0], "layers": None} if front["front"] else None
    if closest is None:
        searched = json.loads((host_run / "searched.json").read_text())
        closest = {**searched["front"][0], "layers": None}
    empty = front | {"front": [], "baselines": [], "pick": None, "closest": closest}
    (host_run / "front.json").write_text(json.dumps(empty))
    (host_run / "searched.json").unlink()
    assert open_run(host_run).models == []


def test_run_when_there_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a folder; give a run folder"):
        open_run(tmp_path / "missing")
    with pytest.raises(RunError, match=r"run\.json is missing"):
        open_run(tmp_path)


def test_run_when_written_by_another_version_is_refused(host_run: Path) -> None:
    run = json.loads((host_run / "run.json").read_text())
    run["configuration"]["colour"] = "red"
    (host_run / "run.json").write_text(json.dumps(run))
    with pytest.raises(RunError, match="written by another version of hwsearch"):
        open_run(host_run)


def test_pictures_when_they_are_others_are_refused(
    host_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(host_run)
    assert run.pictures().content_hash == run.data_hash
    other = run.pictures()
    object.__setattr__(other, "content_hash", "0")
    monkeypatch.setattr(run_folder, "load_pictures", lambda _settings: other)
    with pytest.raises(DataError, match="'digits' holds other pictures than"):
        run.pictures()


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("3", ["trial_0003"]),
        ("trial_0003", ["trial_0003"]),
        ("baseline_uniform-int8_tiny", ["baseline_uniform-int8_tiny"]),
    ],
)
def test_model_when_named_is_found(host_run: Path, text: str, keys: list[str]) -> None:
    assert [model.key for model in chosen(open_run(host_run), text)] == keys


def test_models_when_all_are_wanted(host_run: Path) -> None:
    assert len(chosen(open_run(host_run), "all")) == 4


def test_pick_when_wanted_is_that_of_the_front(host_run: Path) -> None:
    front = json.loads((host_run / "front.json").read_text())
    [model] = chosen(open_run(host_run), "pick")
    assert model.entry.trial == front["pick"]


def test_pick_when_it_is_a_baseline_is_that(host_run: Path) -> None:
    front = json.loads((host_run / "front.json").read_text())
    changed = front | {"pick": None, "baseline_pick": 1}
    (host_run / "front.json").write_text(json.dumps(changed))
    [model] = chosen(open_run(host_run), "pick")
    assert model.name == f"uniform-int8 of {OWN}"


def test_pick_when_there_is_none_says_what_there_is(host_run: Path) -> None:
    front = json.loads((host_run / "front.json").read_text())
    (host_run / "front.json").write_text(json.dumps(front | {"pick": None}))
    with pytest.raises(RunError, match="has no pick; name a trial: 0, 3, baseline_dense"):
        chosen(open_run(host_run), "pick")


def test_model_when_unknown_says_what_there_is(host_run: Path) -> None:
    with pytest.raises(RunError, match="has no model '7'; give all, pick or 0, 3, baseline_dense"):
        chosen(open_run(host_run), "7")
