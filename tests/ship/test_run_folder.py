import json
from pathlib import Path

import pytest
from ship_fixtures import KEYS
from tiny_network import OWN

from hwsearch.errors import DataError, RunError
from hwsearch.study import run_folder
from hwsearch.study.run_folder import chosen, open_run


def test_run_when_opened_has_front_and_baselines(host_run: Path) -> None:
    run = open_run(host_run)
    assert [model.key for model in run.models] == list(KEYS)
    assert [model.name for model in run.models] == [
        "trial 0", "trial 3", f"dense-fp32 of {OWN}", f"uniform-int8 of {OWN}",
    ]  # fmt: skip
    assert all((model.folder / "model.safetensors").is_file() for model in run.models)
    assert run.runtime.family == "onnxruntime"


def test_run_when_a_trial_is_a_baseline_has_its_file_once(host_run: Path) -> None:
    path = host_run / "evidence.json"
    content = json.loads(path.read_text())
    content["networks"][3]["folder"] = content["networks"][0]["folder"]
    path.write_text(json.dumps(content))
    run = open_run(host_run)
    assert [model.name for model in run.models] == ["trial 0", "trial 3", f"dense-fp32 of {OWN}"]


def test_run_of_an_older_version_says_how_to_go_on(host_run: Path) -> None:
    (host_run / "evidence.json").rename(host_run / "searched.json")
    with pytest.raises(RunError, match=r"no evidence\.json.*continue it with: hwsearch run --resu"):
        open_run(host_run)


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
    assert run.pictures().content_hash == run.run.data.content_hash
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
        ("all", list(KEYS)),
    ],
)
def test_model_when_named_is_found(host_run: Path, text: str, keys: list[str]) -> None:
    assert [model.key for model in chosen(open_run(host_run), text)] == keys


def test_pick_when_wanted_is_that_of_the_front_or_a_baseline(shipped_host: Path) -> None:
    path = shipped_host / "front.json"
    front = json.loads(path.read_text())
    assert front["pick"] is not None
    [model] = chosen(open_run(shipped_host), "pick")
    assert model.network.trial == front["pick"]
    path.write_text(json.dumps(front | {"pick": None, "baseline_pick": 1}))
    [model] = chosen(open_run(shipped_host), "pick")
    assert model.name == f"uniform-int8 of {OWN}"
    path.write_text(json.dumps(front | {"pick": None, "baseline_pick": None}))
    with pytest.raises(RunError, match="has no pick; name a trial: 0, 3, baseline_dense"):
        chosen(open_run(shipped_host), "pick")


def test_model_when_unknown_says_what_there_is(host_run: Path) -> None:
    with pytest.raises(RunError, match="has no model '7'; give all, pick or 0, 3, baseline_dense"):
        chosen(open_run(host_run), "7")
