import copy
import dataclasses
import math
from pathlib import Path

import pytest
import torch
from tiny_network import PX, make_data
from torch import nn

from hwsearch.accuracy import sensitivity
from hwsearch.accuracy.base_weights import BaseNetwork
from hwsearch.accuracy.data.batches import normalized
from hwsearch.accuracy.data.dataset import DataSet, Split, resized_images
from hwsearch.accuracy.sensitivity import mean_kl_nats, sensitivity_table
from hwsearch.accuracy.training import Recipe, Score, calibration_batches, train
from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.errors import BackboneError
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import Blueprint, make_blueprint
from hwsearch.nets.quantize import calibrate, quantize

REF = BackboneRef(name="resnet10t", classes=3, arguments='{"channels": [8, 8, 16, 16]}')
W2A8, W4A4 = LayerBits(2, 8), LayerBits(4, 4)
LAYERS = ("conv1.0", "layer1.0.conv1", "layer3.0.conv2", "fc")
OPTIONS = dict.fromkeys(LAYERS, (W2A8, W4A4, INT8, FP32))


@pytest.fixture(scope="module")
def data() -> DataSet:
    return make_data(sizes=(96, 40, 3))


@pytest.fixture(scope="module")
def base(data: DataSet) -> BaseNetwork:
    model = build(REF, PX)
    train(model, data, PX, Recipe(steps=40, batch_size=32, learning_rate=0.05, seed=0))
    return BaseNetwork(
        model=model.eval(),
        key="0123",
        source="trained",
        cached=False,
        validation=Score(correct=1, total=2),
        train_s=1.0,
        steps=1,
    )


@pytest.fixture(scope="module")
def blueprint() -> Blueprint:
    return make_blueprint(REF, PX)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path))
    return tmp_path / "sensitivity"


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix != ".lock"]


def by_hand(base: BaseNetwork, data: DataSet, layer: str, bits: LayerBits, count: int) -> float:
    """From the definition, for a network in which nothing but this layer was ever quantized."""
    images = normalized(data.validation.images[:count], data.mean, data.std)
    model = copy.deepcopy(base.model)
    quantize(model, {layer: bits}, "symmetric")
    calibrate(model, calibration_batches(data, PX, batch_size=64, count=4))
    with torch.no_grad():
        p = torch.softmax(base.model(images).double(), 1).tolist()
        q = torch.softmax(model(images).double(), 1).tolist()
    total = 0.0
    for row, other in zip(p, q, strict=True):
        total += sum(a * math.log(a / b) for a, b in zip(row, other, strict=True) if a > 0)
    return total / count


def test_table_is_that_of_the_definition(
    base: BaseNetwork, blueprint: Blueprint, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensitivity, "_BATCH_SIZE", 7)
    options = dict.fromkeys(LAYERS, (W2A8, W4A4, INT8, FP16, FP32))
    before = copy.deepcopy(base.model.state_dict())
    table = sensitivity_table(base, blueprint, options, data, scheme="symmetric", pictures=30)
    for layer, row in table.items():
        for bits, found in row.items():
            expected = by_hand(base, data, layer, bits, 30)
            assert found == pytest.approx(max(0.0, expected), rel=1e-3, abs=1e-9)
    assert all(torch.equal(base.model.state_dict()[name], before[name]) for name in before)
    assert not any(module.training for module in base.model.modules())


def test_second_call_reads_what_the_first_wrote(
    base: BaseNetwork, blueprint: Blueprint, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sensitivity_table(base, blueprint, OPTIONS, data, scheme="affine")
    monkeypatch.setattr(sensitivity, "_measure", lambda *_: pytest.fail("measured again"))
    assert sensitivity_table(base, blueprint, OPTIONS, data, scheme="affine") == first
    more = sensitivity_table(base, blueprint, OPTIONS, data, scheme="affine", pictures=999)
    assert more == first  # there are only 40 pictures, so it is the same question


def test_another_question_is_another_file(
    base: BaseNetwork, blueprint: Blueprint, data: DataSet, cache: Path
) -> None:
    few = {"fc": (INT8,)}
    sensitivity_table(base, blueprint, few, data, scheme="affine", pictures=4)
    sensitivity_table(base, blueprint, few, data, scheme="symmetric", pictures=4)
    sensitivity_table(base, blueprint, few, data, scheme="affine", pictures=5)
    sensitivity_table(base, blueprint, {"fc": (W4A4,)}, data, scheme="affine", pictures=4)
    larger = [
        Split(images=resized_images(split.images, 24), labels=split.labels)
        for split in (data.train, data.validation, data.test)
    ]
    both = dataclasses.replace(data, other_sides={24: (larger[0], larger[1], larger[2])})
    sensitivity_table(base, make_blueprint(REF, 24), few, both, scheme="affine", pictures=4)
    assert len(entries(cache)) == 5


def test_unknown_layer_is_refused(base: BaseNetwork, blueprint: Blueprint, data: DataSet) -> None:
    message = "'resnet10t' has no layer 'bn1' with weights; it has [0-9]+, such as 'fc'"
    with pytest.raises(BackboneError, match=message):
        sensitivity_table(base, blueprint, {"bn1": (INT8,)}, data, scheme="affine")


def test_output_that_is_not_finite_is_refused(
    base: BaseNetwork, blueprint: Blueprint, data: DataSet, cache: Path
) -> None:
    model = copy.deepcopy(base.model)
    layer = model.get_submodule("fc")
    assert isinstance(layer, nn.Linear)
    assert layer.bias is not None
    with torch.no_grad():
        layer.bias[0] = float("nan")
    broken = BaseNetwork(**{**base.__dict__, "model": model})
    with pytest.raises(BackboneError, match="layer 'fc' at W8A8 makes the output not finite"):
        sensitivity_table(broken, blueprint, {"fc": (INT8,)}, data, scheme="affine")
    assert not entries(cache)


def test_no_pictures_are_refused(base: BaseNetwork, blueprint: Blueprint, data: DataSet) -> None:
    with pytest.raises(ValueError, match="pictures 0 is not at least 1"):
        sensitivity_table(base, blueprint, OPTIONS, data, scheme="affine", pictures=0)


def test_mean_kl_matches_torch_and_is_zero_for_equal_logits() -> None:
    generator = torch.Generator().manual_seed(1)
    p, q = torch.randn(2, 20, 5, generator=generator, dtype=torch.float64)
    expected = nn.functional.kl_div(
        q.log_softmax(1), p.log_softmax(1), log_target=True, reduction="batchmean"
    )
    assert mean_kl_nats(p, q) == pytest.approx(float(expected))
    assert mean_kl_nats(p, p) == 0
    assert mean_kl_nats(p, p + 3) == pytest.approx(0, abs=1e-12)  # logits have no zero
    assert math.isnan(mean_kl_nats(p, q * math.nan))
