import functools
import json
from pathlib import Path

import pytest
import torch
from deploy_fixtures import network, pictures, settled
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.deploy.network_file import NetworkCard, load_network, network_bytes, read_card
from hwsearch.errors import RunError
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import make_blueprint
from hwsearch.nets.quantize import calibrate, quantize
from hwsearch.nets.realize import pruned
from hwsearch.space.candidate import Candidate

PX = 32
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@functools.cache
def made(
    name: str, bits: LayerBits | None, ratio: float = 0.0, stride: int | None = None
) -> tuple[nn.Module, NetworkCard]:
    """A trained-like network, pruned at both ends of each group, and its card."""
    ref = BackboneRef(name=name, classes=3, stem_stride=stride)
    blueprint = make_blueprint(ref, PX)
    sizes = {group.name: group.channels for group in blueprint.graph.groups}
    removed = {
        key: tuple(range(0, 2 * int(size * ratio), 2))
        for key, size in sizes.items()
        if int(size * ratio)
    }
    model = pruned(settled(build(ref, PX), PX), blueprint, removed)
    layers = [kernel.name for kernel in blueprint.trace.kernels if kernel.weighted]
    asked = {
        layer: bits or (FP32, INT8, LayerBits(4, 8))[at % 3] for at, layer in enumerate(layers)
    }
    quantize(model, asked, "affine")
    calibrate(model, [pictures(PX)])
    candidate = Candidate.build(
        backbone=name,
        input_px=PX,
        channels={key: size - len(removed.get(key, ())) for key, size in sizes.items()},
        bits=asked,
    )
    card = NetworkCard(
        ref=ref, candidate=candidate, scheme="affine", mean=MEAN, std=STD,
        class_names=("a", "b", "Zürich"),
    )  # fmt: skip
    return model.eval(), card


def written(path: Path, model: nn.Module, card: NetworkCard) -> Path:
    path.write_bytes(network_bytes(model, card))
    return path


@pytest.mark.parametrize(
    ("name", "bits", "ratio", "stride"),
    [
        ("resnet10t", FP32, 0.0, 1),
        ("mobilenetv2_050", INT8, 0.5, None),
        ("test_efficientnet", None, 0.25, None),
        ("test_vit", INT8, 0.5, None),
    ],
)
def test_network_when_read_gives_the_same_logits(
    name: str, bits: LayerBits | None, ratio: float, stride: int | None, tmp_path: Path
) -> None:
    model, card = made(name, bits, ratio, stride)
    path = written(tmp_path / "n.safetensors", model, card)
    again, found = load_network(path)
    assert found == read_card(path) == card
    with safe_open(path, framework="pt") as file:
        assert list(file.metadata()) == ["hwsearch"]
        assert set(file.keys()) == model.state_dict().keys()
    with torch.no_grad():
        torch.testing.assert_close(again(pictures(PX)), model(pictures(PX)), rtol=0, atol=1e-4)


def test_network_when_read_can_be_trained_on(tmp_path: Path) -> None:
    model, card = made("resnet10t", INT8, 0.5)
    again, _ = load_network(written(tmp_path / "n.safetensors", model, card))
    before = {name: value.clone() for name, value in again.state_dict().items()}
    optimizer = torch.optim.SGD(again.parameters(), lr=0.1)
    nn.functional.cross_entropy(again(pictures(PX)), torch.tensor([0, 1, 2] * 2)).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    changed = [name for name, value in again.state_dict().items() if (value != before[name]).any()]
    assert any("parametrizations.weight.original" in name for name in changed)


def test_file_when_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no .*; the run did not finish this network"):
        load_network(tmp_path / "n.safetensors")


def test_file_when_torn_says_so(tmp_path: Path) -> None:
    model, card = made("resnet10t", FP32)
    path = written(tmp_path / "n.safetensors", model, card)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"cannot be read .* take it from a backup"):
        load_network(path)


def test_file_without_a_card_says_so(tmp_path: Path) -> None:
    path = tmp_path / "n.safetensors"
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(RunError, match="does not say which network it is of; make the run again"):
        read_card(path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    _, card = made("resnet10t", FP32)
    path = written(tmp_path / "n.safetensors", network("mobilenetv2_050"), card)
    with pytest.raises(RunError, match="do not fit 'resnet10t' as it is built here"):
        load_network(path)


def test_groups_of_another_version_are_refused(tmp_path: Path) -> None:
    model, card = made("resnet10t", FP32)
    changed = json.loads(card.to_json())
    candidate = json.loads(changed["candidate"])
    candidate["channels"] = {"other": 8}
    changed["candidate"] = json.dumps(candidate)
    path = written(tmp_path / "n.safetensors", model, NetworkCard.from_json(json.dumps(changed)))
    with pytest.raises(RunError, match="has other groups of channels than 'resnet10t' has here"):
        load_network(path)


def test_file_of_an_older_version_that_imitated_its_export_is_read(tmp_path: Path) -> None:
    model, card = made("resnet10t", INT8)
    path = written(tmp_path / "n.safetensors", model, card)
    state = load_file(path) | {"bn1.output_quantizer.quantizer.scale": torch.ones(1)}
    save_file(
        state,
        path,
        metadata={"hwsearch": card.to_json(), "hwsearch.outputs": '{"a": ["bn1", null]}'},
    )
    again, _ = load_network(path)
    with torch.no_grad():
        assert torch.equal(again(pictures(PX)), model(pictures(PX)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version 2 is another one"),
        ({"scheme": "odd"}, "'odd' is no scheme"),
        ({"mean": [1.0]}, "not enough values"),
        ({"candidate": "{}"}, "cannot be read"),
        ({"backbone": {"colour": "red"}}, "colour"),
    ],
)
def test_card_when_changed_is_refused(change: dict[str, object], message: str) -> None:
    _, card = made("resnet10t", FP32)
    with pytest.raises(ValueError, match=message):
        NetworkCard.from_json(json.dumps(json.loads(card.to_json()) | change))


def test_card_when_a_key_is_missing_is_refused() -> None:
    content = json.loads(made("resnet10t", FP32)[1].to_json())
    del content["std"]
    with pytest.raises(ValueError, match="KeyError: 'std'"):
        NetworkCard.from_json(json.dumps(content))
