import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from ship_fixtures import KEYS, Remembers
from tiny_network import PX

from hwsearch.accuracy.data.dataset import DataSet, Split
from hwsearch.accuracy.training import Score, evaluate
from hwsearch.deploy.network_file import load_network
from hwsearch.errors import DataError, HostError, RunError
from hwsearch.ship import scorer
from hwsearch.ship.export import ExportOptions, export_models
from hwsearch.ship.scoring import RefusedFile, score_files
from hwsearch.study.run_folder import chosen, open_run


@pytest.fixture(scope="session")
def files(shipped: dict[str, Path]) -> dict[str, Path]:
    return {key: shipped["host"] / "models" / key / "model.onnx" for key in KEYS}


def test_files_when_scored_are_as_accurate_as_the_networks(
    files: dict[str, Path], pictures: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    labels = pictures.test.labels.clone()
    labels[::3] = (labels[::3] + 1) % 3  # else every network is right about everything
    test = Split(images=pictures.test.images, labels=labels)
    data = dataclasses.replace(pictures, test=test)
    asked: list[str] = []
    scores = score_files(files, data, threads=1, on_file=asked.append)
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"
    assert asked == list(scores) == list(files)
    for key, file in files.items():
        score = scores[key]
        assert isinstance(score, Score)
        assert score.total == 30
        network = load_network(file.with_name("model.safetensors"))[0]
        of_module = evaluate(network, data.at(PX).test, data)
        assert of_module.accuracy < 0.8
        # Integer kernels round outputs where the module does not.
        assert abs(score.accuracy - of_module.accuracy) <= 2 / 30 + 1e-9


def test_file_when_it_normalizes_by_itself_scores_the_same(
    host_run: Path, pictures: DataSet, files: dict[str, Path]
) -> None:
    key = "baseline_dense-fp32_tiny"
    run = open_run(host_run)
    [model] = chosen(run, key)
    options = ExportOptions(bake=True, dynamic_batch=True)
    export_models(run, [model], pictures, options, on_phase=Remembers().phase)
    both = {"baked": model.folder / "model.onnx", "plain": files[key]}
    scores = score_files(both, pictures, threads=1)
    assert scores["baked"] == scores["plain"]


def test_files_when_there_are_other_sides_are_scored_at_their_own(
    files: dict[str, Path], pictures: DataSet
) -> None:
    def noise(split: Split) -> Split:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (len(split), 3, 24, 24), generator=generator)
        return Split(images=images.to(torch.uint8), labels=split.labels)

    splits = (pictures.train, pictures.validation, pictures.test)
    noises = noise(splits[0]), noise(splits[1]), noise(splits[2])
    both = dataclasses.replace(pictures, other_sides={24: noises})
    expected = score_files(files, pictures, threads=1)
    assert score_files(files, both, threads=1) == expected
    assert score_files(files, both.at(24), threads=1) == expected


def test_files_when_their_side_is_not_loaded_are_not_scored(
    files: dict[str, Path], pictures: DataSet
) -> None:
    large = pictures.test.images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    twice = Split(images=large, labels=pictures.test.labels)
    other = dataclasses.replace(pictures, train=twice, validation=twice, test=twice)
    with pytest.raises(DataError, match="are loaded at 32 px, not at 16 px"):
        score_files(files, other, threads=1)


def test_file_when_its_logits_are_not_finite_is_refused(
    files: dict[str, Path], pictures: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Session:
        def get_inputs(self) -> list[object]:
            return [type("Input", (), {"name": "picture"})]

        def run(self, _names: object, feed: dict[str, object]) -> list[object]:
            return [torch.full((1, 3), float("nan")).numpy()]

    import onnxruntime

    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: Session())
    file = {"file": "x", "scale": [1, 1, 1], "offset": [0, 0, 0]}
    images, labels = pictures.test.images.numpy(), pictures.test.labels.numpy()
    with pytest.raises(ValueError, match="a logit is not finite"):
        scorer.score(file, images, labels, 1)


def test_file_when_the_runtime_refuses_it_leaves_the_others(
    files: dict[str, Path], pictures: DataSet, tmp_path: Path
) -> None:
    import onnx

    broken = onnx.load(next(iter(files.values())))
    broken.graph.node[0].op_type = "NoSuchOperation"
    path = tmp_path / "broken.onnx"
    onnx.save(broken, path)
    scores = score_files({"broken": path, **files}, pictures, threads=1)
    refused = scores["broken"]
    assert isinstance(refused, RefusedFile)
    assert "NoSuchOperation" in refused.reason
    assert "\n" not in refused.reason
    assert all(isinstance(scores[name], Score) for name in files)


CRASH = """
import json, os, sys
job = json.loads(sys.stdin.readline())
for file in job["files"]:
    print(json.dumps({"event": "begin", "id": file["id"]}), flush=True)
    if file["id"] == "trial_0003":
        os.kill(os.getpid(), 11)
    print(json.dumps({"event": "score", "id": file["id"], "correct": 1, "total": 2}), flush=True)
"""


def test_file_when_it_crashes_the_runtime_leaves_the_others(
    files: dict[str, Path], pictures: DataSet
) -> None:
    command = (sys.executable, "-c", CRASH)
    scores = score_files(files, pictures, threads=1, command=command)
    refused = scores.pop("trial_0003")
    assert isinstance(refused, RefusedFile)
    assert refused.reason == "the process that ran it was ended by signal 11"
    assert list(scores.values()) == [Score(correct=1, total=2)] * 3


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('no safetensors here')", "scored: no safetensors here"),
        ("import os; os.kill(os.getpid(), 9)", "was killed"),
        ("import json; print(json.dumps({'event': 'begin', 'id': 'trial_0000'}))", "exit code 0"),
    ],
)
def test_scorer_when_it_cannot_work_says_so(
    files: dict[str, Path], pictures: DataSet, code: str, message: str
) -> None:
    with pytest.raises(HostError, match=message):
        score_files(files, pictures, threads=1, command=(sys.executable, "-c", code))


def test_scorer_when_there_is_no_room_says_so(
    files: dict[str, Path], pictures: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(HostError, match=r"cannot hold the pictures \(No space left on device\)"):
        score_files(files, pictures, threads=1)


def test_file_of_others_is_refused(tmp_path: Path, pictures: DataSet) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(RunError, match="is no ONNX file of hwsearch"):
        score_files({"a": tmp_path / "model.onnx"}, pictures, threads=1)


def test_scorer_imports_neither_torch_nor_the_rest(tmp_path: Path) -> None:
    code = (
        "import sys; import hwsearch.ship.scorer; import json; "
        "print(json.dumps([m for m in sys.modules if m.startswith(('torch', 'hwsearch'))]))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(ended.stdout)
    assert set(loaded) == {"hwsearch", "hwsearch.ship", "hwsearch.ship.scorer"}
