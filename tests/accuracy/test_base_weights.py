import dataclasses
import importlib
import json
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import nn
from training_fixtures import PX, make_data, same_weights

from hwsearch.accuracy import base_weights
from hwsearch.accuracy.base_training import BaseTraining
from hwsearch.accuracy.base_weights import BaseNetwork, base_network
from hwsearch.accuracy.data.dataset import Augmentation, DataSet
from hwsearch.accuracy.elastic import Widths
from hwsearch.accuracy.training import Recipe, evaluate
from hwsearch.errors import BackboneError, HostError
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import Blueprint

RECIPE = Recipe(steps=4, batch_size=16, learning_rate=0.05, seed=0)
FACTORY = """
from torch import nn


def tiny(num_classes, width=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, num_classes),
    )
"""
OWN = BackboneRef(name="base_weights_factory:tiny", classes=3)
DATA = make_data(48, sides=(10, 16, 32))
UNFLIPPED = Augmentation(flip=False, shift_fraction=0.1)
TIMM = BackboneRef(name="mobilenetv3_small_050", classes=3, stem_stride=1)


class Counter:
    """Trains nothing of its own: counts, remembers the recipe, and hands on.

    Attributes:
        recipes: of what starts from random weights.
        tunings: of what starts from others.
    """

    def __init__(self, delay_s: float = 0.0) -> None:
        self.recipes: list[Recipe] = []
        self.tunings: list[Recipe] = []
        self.first_weights: list[torch.Tensor] = []
        self.delay_s = delay_s

    def __call__(
        self,
        model: nn.Module,
        blueprint: Blueprint,
        data: DataSet,
        recipe: Recipe,
        *,
        classifiers: frozenset[str] | None,
    ) -> BaseTraining:
        (self.recipes if classifiers is None else self.tunings).append(recipe)
        self.first_weights.append(next(model.parameters()).detach().clone())
        time.sleep(self.delay_s)
        return BaseTraining(model, blueprint, data, recipe, classifiers=classifiers)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter()
    monkeypatch.setattr(base_weights, "BaseTraining", counter)
    return counter


@pytest.fixture(autouse=True)
def own_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "base_weights_factory.py").write_text(FACTORY)
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("base_weights_factory", None)
    importlib.invalidate_caches()
    return tmp_path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache, in a machine without a network."""
    import huggingface_hub.constants

    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder


def get(**changes: Any) -> BaseNetwork:  # noqa: ANN401 - arguments of base_network
    arguments = {"ref": OWN, "data": DATA, "px": PX, "recipe": RECIPE, **changes}
    return base_network(
        arguments.pop("ref"),
        arguments.pop("data"),
        arguments.pop("px"),
        arguments.pop("recipe"),
        **arguments,
    )


def timm_file(path: Path, classes: int = 7, name: str = TIMM.name) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        state: dict[str, torch.Tensor] = timm.create_model(name, num_classes=classes).state_dict()
    safetensors.torch.save_file(state, path)
    return state


def into_hub(hub: Path, name: str = TIMM.name) -> dict[str, torch.Tensor]:
    """The layout that huggingface_hub keeps: refs/main names the snapshot."""
    repository = hub / "models--timm--mobilenetv3_small_050.lamb_in1k"
    snapshot = repository / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    return timm_file(snapshot / "model.safetensors", classes=10, name=name)


@pytest.mark.parametrize("widths", [None, Widths(ratios=(0.0, 0.5), granularity=1)])
def test_base_when_called_twice_is_read_and_not_trained(
    widths: Widths | None, trainings: Counter
) -> None:
    first, second = get(widths=widths), get(widths=widths)
    assert (first.cached, second.cached) == (False, True)
    assert len(trainings.recipes) == 1
    assert same_weights(first.model, second.model)
    assert (first.importance is None) == (widths is None)
    importances = [
        {name: list(found) for name, found in (base.importance or {}).items()}
        for base in (first, second)
    ]
    assert importances[0] == importances[1]
    alike = dataclasses.replace(
        first, model=second.model, cached=True, importance=second.importance
    )
    assert alike.__dict__ == second.__dict__


def test_base_is_dense_in_evaluation_mode_and_scored_right() -> None:
    steps: list[tuple[int, int]] = []
    base = get(on_step=lambda step, of: steps.append((step, of)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert base.source == "trained"
    assert base.train_s > 0
    assert not any(module.training for module in base.model.modules())
    assert base.validation == evaluate(base.model, DATA.validation, DATA)
    convolution = base.model.get_submodule("0")
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    assert int(base.model.get_buffer("1.num_batches_tracked")) > 0  # buffers are kept too


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": dataclasses.replace(RECIPE, seed=1)},
        {"recipe": dataclasses.replace(RECIPE, steps=3)},
        {"data": make_data(48, seed=1)},
        {"data": dataclasses.replace(DATA, augmentation=UNFLIPPED)},
        {"px": 10},
        {"ref": dataclasses.replace(OWN, arguments='{"width": 6}')},
        {"widths": Widths(ratios=(0.0, 0.5), granularity=1)},
    ],
    ids=["seed", "steps", "data", "flip", "px", "width", "widths"],
)
def test_key_differs_when_something_that_decides_does(change: dict[str, Any]) -> None:
    first, other = get(), get(**change)
    assert first.key != other.key
    assert not other.cached


def test_key_differs_when_the_users_source_does(own_factory: Path) -> None:
    first = get()
    (own_factory / "base_weights_factory.py").write_text(FACTORY + "\n# changed\n")
    assert get().key != first.key


def test_two_threads_that_want_the_same_base_train_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter(delay_s=0.2)
    monkeypatch.setattr(base_weights, "BaseTraining", counter)
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = [future.result() for future in [pool.submit(get), pool.submit(get)]]
    assert len(counter.recipes) == 1
    assert sorted(base.cached for base in found) == [False, True]
    assert same_weights(found[0].model, found[1].model)


def test_base_when_a_users_function_makes_another_network_is_trained_again(
    own_factory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = "import os\n" + FACTORY.replace("width=4", "width=int(os.environ['WIDTH'])")
    (own_factory / "base_weights_factory.py").write_text(source)
    bases = []
    for width in ("4", "6"):
        monkeypatch.setenv("WIDTH", width)
        sys.modules.pop("base_weights_factory", None)
        bases.append(get())
    assert [base.cached for base in bases] == [False, False]
    assert bases[0].key == bases[1].key, "what the source reads is not known"
    assert "the base network is trained again" in caplog.text
    assert get().cached


def test_own_file_is_tuned_from_its_weights_and_not_trained(
    trainings: Counter, own_factory: Path
) -> None:
    weights = own_factory / "mine.safetensors"
    start = build(dataclasses.replace(OWN, classes=5), PX, seed=9)
    safetensors.torch.save_file(start.state_dict(), weights)
    base = get(weights=weights)
    assert base.source == "file"
    assert (trainings.recipes, trainings.tunings) == ([], [RECIPE])
    assert torch.equal(trainings.first_weights[0], start.get_parameter("0.weight"))
    assert base.key != get(weights="scratch").key
    moved = own_factory / "moved.safetensors"
    shutil.copy(weights, moved)
    assert get(weights=moved).cached  # what is in the file counts, not where it lies


def test_timm_file_with_other_classes_loads(trainings: Counter, own_factory: Path) -> None:
    weights = own_factory / "timm.safetensors"
    state = timm_file(weights, classes=7)
    base = get(ref=TIMM, weights=weights, px=16)
    assert base.source == "file"
    assert torch.equal(trainings.first_weights[0], state["conv_stem.weight"])
    assert base.model.get_parameter("classifier.weight").shape[0] == 3


def test_vit_file_of_another_size_is_resampled(trainings: Counter, own_factory: Path) -> None:
    weights = own_factory / "vit.safetensors"
    small: dict[str, Any] = {"embed_dim": 24, "depth": 1, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=4, **small)
    safetensors.torch.save_file(model.state_dict(), weights)
    ref = BackboneRef(name="vit_tiny_patch16_224", classes=3, arguments=json.dumps(small))
    base = get(ref=ref, weights=weights, px=32, recipe=dataclasses.replace(RECIPE, steps=1))
    assert base.model.get_parameter("pos_embed").shape == (1, 5, 24)


def test_file_of_another_network_is_refused_with_the_first_differences(own_factory: Path) -> None:
    weights = own_factory / "other.safetensors"
    wide = build(dataclasses.replace(OWN, arguments='{"width": 6}'), PX).state_dict()
    renamed = build(OWN, PX).state_dict()
    renamed["module.0.weight"] = renamed.pop("0.weight")
    for state, message in (
        (
            wide,
            r"do not fit 'base_weights_factory:tiny': '0.weight' has the shape \(6, 3, 3, 3\) "
            r"instead of \(4, 3, 3, 3\), '1.weight' .* and 2 more; give weights of",
        ),
        (renamed, "'0.weight' is missing, 'module.0.weight' is not in the network"),
    ):
        safetensors.torch.save_file(state, weights)
        with pytest.raises(BackboneError, match=message):
            get(weights=weights)
    weights.write_bytes(b"\x80\x02}q\x00.")  # a pickle
    for path in (weights, own_factory / "gone.safetensors"):
        with pytest.raises(BackboneError, match=r"cannot be read \(.*\); give a safetensors file"):
            get(weights=path)


def test_pretrained_weights_are_found_in_the_local_cache(trainings: Counter, hub: Path) -> None:
    state = into_hub(hub)
    base = get(ref=TIMM, weights="pretrained", px=16)
    assert base.source == "pretrained"
    assert torch.equal(trainings.first_weights[0], state["conv_stem.weight"])
    automatic = get(ref=TIMM, weights="auto", px=16)
    assert automatic.cached
    assert automatic.key == base.key


def test_auto_with_weights_that_do_not_fit_is_scratch_with_a_note(
    hub: Path, caplog: pytest.LogCaptureFixture
) -> None:
    into_hub(hub, "mobilenetv3_small_075")
    base = get(ref=TIMM, px=16)
    assert base.source == "trained"
    assert "do not fit 'mobilenetv3_small_050'" in caplog.text
    assert "training starts from random weights" in caplog.text
    with pytest.raises(BackboneError, match="do not fit"):
        get(ref=TIMM, px=16, weights="pretrained")


def test_download_when_offline_is_one_line(hub: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(HostError, match=r"cannot be downloaded, .* offline \(.*\); conn") as caught:
        get(ref=TIMM, weights="pretrained", download=True)
    assert "\n" not in str(caught.value)
    assert get(ref=TIMM, weights="auto", download=True, px=16).source == "trained"
    assert get(ref=TIMM, weights="scratch", px=16).cached
    assert "training starts from random weights" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (OWN.name, "is a function of yours and has no pretrained weights"),
        (
            TIMM.name,
            r"of 'mobilenetv3_small_050' \(timm/mobilenetv3_small_050.lamb_in1k\) are not in the "
            "local Hugging Face cache and downloads are off; allow the download, give the path",
        ),
        ("no_such_net", "timm has no backbone 'no_such_net'"),
        ("resnet18.no_such_tag", "timm has no weights 'resnet18.no_such_tag'"),
        ("resnet50t", "timm has no pretrained weights for 'resnet50t'; use weights 'auto'"),
    ],
)
def test_pretrained_weights_that_cannot_be_had_are_refused(
    hub: Path, name: str, message: str
) -> None:
    with pytest.raises((BackboneError, HostError), match=message):
        get(ref=BackboneRef(name=name, classes=3), weights="pretrained")
