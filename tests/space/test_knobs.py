import dataclasses
import itertools
import json
from typing import Any

import pytest

from hwsearch.errors import RunError
from hwsearch.space.knobs import Choice, Knobs, anchors, dense, knob_choices
from hwsearch.space.search_space import SearchSpace, load_space

SPACE = SearchSpace.model_validate(
    {
        "schema_version": 1,
        "name": "s",
        "summary": "s",
        "backbones": [
            {"name": "resnet18", "depth": {"argument": "layers", "choices": [[2, 2], [1, 1]]}},
            {"name": "my.nets:small", "width": {"argument": "width", "choices": [0.5, 1]}},
        ],
        "input_px": [32, 48],
        "pruning": {"ratios": [0.0, 0.5]},
    }
)
CHOICES = knob_choices(SPACE)


@pytest.mark.parametrize("name", ["tiny", "mobile", "edge"])
def test_every_choice_can_be_stored(name: str) -> None:
    for choices in knob_choices(load_space(name)).values():
        assert choices
        assert all(isinstance(choice, bool | int | float | str) for choice in choices)
        assert json.loads(json.dumps(choices)) == list(choices)


def test_first_and_last_choices_become_knobs() -> None:
    # In a fixed order: a seed draws by position.
    stages = [f"prune_stage{stage}" for stage in (1, 2, 3, 4)]
    own = ["depth.resnet18", "width.my.nets:small"]
    saved = ["saving", "protect_edges", "spread"]
    assert list(CHOICES) == ["backbone", "input_px", *stages, *saved, *own]
    first = Knobs.from_choices({name: choices[0] for name, choices in CHOICES.items()})
    assert first == Knobs(backbone="resnet18", input_px=32, depth="[2,2]", protect_edges=False)
    last = Knobs.from_choices({name: choices[-1] for name, choices in CHOICES.items()})
    assert last == Knobs(
        backbone="my.nets:small",
        input_px=48,
        width="1",
        prune=(0.5, 0.5, 0.5, 0.5),
        saving=1.0,
        protect_edges=True,
        spread=1.0,
    )


def test_stages_are_not_mixed_up() -> None:
    choices = {name: offered[0] for name, offered in CHOICES.items()}
    for stage in range(1, 5):
        knobs = Knobs.from_choices(choices | {f"prune_stage{stage}": 0.5})
        assert knobs.prune == tuple(0.5 if n == stage else 0.0 for n in range(1, 5))
        assert knobs.to_choices()[f"prune_stage{stage}"] == 0.5


def test_choices_come_back_without_those_of_other_backbones() -> None:
    for backbone, px in itertools.product(CHOICES["backbone"], CHOICES["input_px"]):
        choices = {name: offered[-1] for name, offered in CHOICES.items()}
        choices |= {"backbone": backbone, "input_px": px}
        back = Knobs.from_choices(choices).to_choices()
        dropped = {name for name in choices if "." in name and not name.endswith(f".{backbone}")}
        assert back == {name: value for name, value in choices.items() if name not in dropped}
        assert list(back) == [name for name in CHOICES if name in back]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, r"unknown \['colour'\], missing \[\]"),
        ({"saving": None}, r"unknown \[\], missing \['saving'\]"),
    ],
)
def test_other_knobs_are_refused(change: dict[str, Choice | None], message: str) -> None:
    choices = dense("resnet18", 32).to_choices() | change
    given = {name: value for name, value in choices.items() if value is not None}
    with pytest.raises(RunError, match=message):
        Knobs.from_choices(given)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("backbone", "", "name a backbone"),
        ("input_px", 0, "at least 1 px"),
        ("prune", (0.0, 0.0, 0.0), "not four numbers"),
        ("prune", (0.0, 0.0, 0.0, -0.1), "not four numbers"),
        ("saving", 1.5, r"saving 1\.5 is not a share"),
        ("spread", float("nan"), "spread nan is not a share"),
    ],
)
def test_value_out_of_range_is_refused(field: str, value: object, message: str) -> None:
    change: dict[str, Any] = {field: value}
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(dense("resnet18", 32), **change)


def test_anchors_are_every_backbone_dense_and_half_pruned() -> None:
    found = anchors(SPACE)
    names = [backbone.name for backbone in SPACE.backbones]
    assert [knobs.backbone for knobs in found] == 2 * names
    assert {knobs.prune for knobs in found[: len(names)]} == {(0.0,) * 4}
    ratios = SPACE.pruning.ratios
    assert {knobs.prune for knobs in found[len(names) :]} == {(ratios[len(ratios) // 2],) * 4}
    assert all(knobs.saving == 1.0 and knobs.input_px == min(SPACE.input_px) for knobs in found)
    assert [knobs.protect_edges for knobs in found] == [False] * len(names) + [True] * len(names)
