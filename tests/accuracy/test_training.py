import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from training_fixtures import PX, make_data, make_model, same_weights

from hwsearch.accuracy.data.batches import normalized
from hwsearch.accuracy.data.dataset import DataSet, Split
from hwsearch.accuracy.training import (
    Recipe,
    Score,
    calibration_batches,
    evaluate,
    reestimate_batch_norm,
    train,
)
from hwsearch.errors import BackboneError, DataError

RECIPE = Recipe(steps=20, batch_size=16, learning_rate=0.05, seed=3)


@pytest.fixture(scope="module")
def data() -> DataSet:
    return make_data()


def loss_of(model: nn.Module, data: DataSet) -> float:
    images = normalized(data.train.images, data.mean, data.std)
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(images), data.train.labels))


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_ci95_when_held_against_published_values(
    correct: int, total: int, low: float, high: float
) -> None:
    assert Score(correct=correct, total=total).ci95 == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 2000), st.floats(0, 1))
def test_ci95_when_right_and_wrong_are_swapped_is_mirrored(total: int, share: float) -> None:
    correct = round(share * total)
    low, high = Score(correct=correct, total=total).ci95
    assert 0 <= low <= correct / total <= high <= 1
    mirrored = Score(correct=total - correct, total=total).ci95
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize(("correct", "total"), [(-1, 3), (4, 3), (0, 0)])
def test_score_when_it_is_none(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match="is no score"):
        Score(correct=correct, total=total)


def test_standard_error_when_all_are_right_is_not_zero() -> None:
    assert Score(correct=30, total=30).standard_error > 0
    half = Score(correct=5000, total=10000)
    assert half.accuracy == 0.5
    assert half.standard_error == pytest.approx(math.sqrt(0.25 / 10000))


@pytest.mark.parametrize("norm", [True, False])
def test_train_when_done_lowers_the_loss(data: DataSet, norm: bool) -> None:
    model = make_model(norm=norm)
    before = loss_of(model.eval(), data)
    steps: list[tuple[int, int]] = []
    train(model, data, PX, RECIPE, on_step=lambda done, of: steps.append((done, of)))
    assert loss_of(model, data) < before - 0.02
    assert steps == [(step + 1, 20) for step in range(20)]
    assert not model.training


def test_train_when_the_seed_is_the_same_gives_the_same_bits(data: DataSet) -> None:
    models = [make_model(dropout=0.5) for _ in range(3)]
    for global_seed, (model, seed) in enumerate(zip(models, (3, 3, 4), strict=True)):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        train(model, data, PX, Recipe(steps=5, batch_size=16, seed=seed))
        assert torch.equal(torch.get_rng_state(), before)
    assert same_weights(models[0], models[1])
    assert not same_weights(models[0], models[2])


def test_train_and_evaluate_when_numbers_are_not_finite(data: DataSet) -> None:
    model = make_model()
    nn.init.constant_(next(model.parameters()), math.nan)
    with pytest.raises(BackboneError, match="the loss is not finite"):
        train(model, data, PX, RECIPE)
    with pytest.raises(BackboneError, match="outputs are not finite"):
        evaluate(model, data.validation, data)


def test_evaluate_when_counted_by_hand(data: DataSet) -> None:
    model = make_model().eval()
    images = normalized(data.validation.images, data.mean, data.std)
    with torch.no_grad():
        right = int((model(images).argmax(1) == data.validation.labels).sum())
    model.train()
    assert evaluate(model, data.validation, data) == Score(correct=right, total=30)
    assert not model.training


def test_reestimate_when_held_against_the_definition() -> None:
    data = make_data(train=64)
    model = make_model()
    model[1].running_mean.fill_(99.0)  # type: ignore[index]
    reestimate_batch_norm(model, data, PX, batch_size=16)
    images = normalized(data.train.images, data.mean, data.std)
    means, variances = [], []
    for batch in images.split(16):  # type: ignore[no-untyped-call]
        outputs = model[0](batch).detach()  # type: ignore[index]
        means.append(outputs.mean((0, 2, 3)))
        variances.append(outputs.var((0, 2, 3), unbiased=True))
    norm = model[1]  # type: ignore[index]
    assert torch.allclose(norm.running_mean, torch.stack(means).mean(0), atol=1e-5)
    assert torch.allclose(norm.running_var, torch.stack(variances).mean(0), rtol=1e-4)
    assert norm.momentum == 0.1
    assert not model.training


def test_reestimate_when_there_is_no_batch_norm(data: DataSet) -> None:
    model = make_model(norm=False).train()
    reestimate_batch_norm(model, data, PX, batch_size=16)
    assert model.training


def test_calibration_batches_when_asked_are_the_first_pictures(data: DataSet) -> None:
    batches = calibration_batches(data, PX, batch_size=16, count=2)
    expected = normalized(data.train.images[:32], data.mean, data.std)
    assert torch.equal(torch.cat(batches), expected)
    assert [len(batch) for batch in batches] == [16, 16]
    assert [len(batch) for batch in calibration_batches(data, PX, batch_size=500, count=4)] == [96]


def test_networks_of_another_side_see_the_pictures_of_that_side(data: DataSet) -> None:
    train, validation, test = (
        Split(images=split.images[..., ::2, ::2], labels=split.labels)
        for split in (data.train, data.validation, data.test)
    )
    two_sides = dataclasses.replace(data, other_sides={4: (train, validation, test)})
    (batch,) = calibration_batches(two_sides, 4, batch_size=96, count=1)
    assert torch.equal(batch, normalized(train.images, data.mean, data.std))
    with pytest.raises(DataError, match="are loaded at 8 px, not at 4 px"):
        calibration_batches(data, 4, batch_size=96, count=1)
