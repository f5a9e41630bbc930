import dataclasses
import hashlib
import json
from typing import Any

import pytest

from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.errors import RunError
from hwsearch.space.candidate import Candidate, canonical_json

FIRST = Candidate.build(
    backbone="resnet18",
    input_px=32,
    depth="[1,1,1,1]",
    pruning=(0.0, 0.25, 0.5, 0.5),
    channels={"layer1": 64, "layer2": 96},
    bits={"conv1": FP32, "fc": INT8},
)


def test_order_of_the_mappings_does_not_matter() -> None:
    turned = Candidate.build(
        backbone="resnet18",
        input_px=32,
        depth="[1,1,1,1]",
        pruning=[0, 0.25, 0.5, 0.5],
        channels={"layer2": 96, "layer1": 64},
        bits={"fc": INT8, "conv1": FP32},
    )
    assert turned == FIRST
    assert turned.to_json() == FIRST.to_json()
    assert hash(turned) == hash(FIRST)


def test_json_is_canonical() -> None:
    text = FIRST.to_json()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert json.loads(text)["bits"] == {"conv1": "W32A32", "fc": "W8A8"}
    assert Candidate.from_json(text) == FIRST


def test_id_is_the_hash_of_the_network() -> None:
    network = json.loads(FIRST.to_json())
    del network["pruning"]
    digest = hashlib.sha256(canonical_json(network).encode()).hexdigest()
    assert FIRST.id == digest[:12]


def test_id_ignores_how_the_channels_were_reached() -> None:
    assert dataclasses.replace(FIRST, pruning=(0.1, 0.1, 0.1, 0.1)).id == FIRST.id


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "resnet34"},
        {"input_px": 48},
        {"depth": None},
        {"width": "1.0"},
        {"channels": (("layer1", 64), ("layer2", 88))},
        {"bits": (("conv1", FP32), ("fc", LayerBits(4, 8)))},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_id_differs_for_another_network(changes: dict[str, Any]) -> None:
    assert dataclasses.replace(FIRST, **changes).id != FIRST.id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": ""}, "has a backbone"),
        ({"input_px": 0}, "at least 1 px"),
        ({"depth": "[1, 1]"}, r"depth '\[1, 1\]' is not canonical JSON"),
        ({"depth": "{b"}, "not canonical JSON"),
        ({"width": "NaN"}, "width 'NaN' is not canonical JSON"),
        ({"pruning": (0.0, 0.0)}, "not four numbers"),
        ({"pruning": (0.0, 0.0, 0.0, 0.95)}, "not four numbers from 0 to 0.9"),
        ({"pruning": (0.0, 0.0, 0.0, float("nan"))}, "not four numbers"),
        ({"channels": (("layer1", 0),)}, "group layer1 keeps 0 channels"),
    ],
)
def test_wrong_field_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(FIRST, **changes)


@pytest.mark.parametrize("pairs", [(("b", 8), ("a", 8)), (("a", 8), ("a", 8))])
def test_unsorted_pairs_are_refused(pairs: tuple[tuple[str, int], ...]) -> None:
    with pytest.raises(ValueError, match="channels must be sorted by name, each name once"):
        Candidate(backbone="resnet18", input_px=32, channels=pairs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "the keys must be backbone, bits"),
        ('{"backbone":"resnet18"}', "the keys must be"),
        (FIRST.to_json().replace("W8A8", "W9A9"), "9 bits is not a width"),
        (FIRST.to_json().replace('"channels":{', '"channels":{"a":"x",'), "cannot be read"),
        (FIRST.to_json().replace('"input_px":32', '"input_px":null'), "cannot be read"),
    ],
)
def test_changed_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(RunError, match=message):
        Candidate.from_json(text)
