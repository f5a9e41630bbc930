from collections.abc import Callable
from pathlib import Path

import pytest

from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.errors import FileModelError, SpaceError
from hwsearch.space.search_space import (
    SearchSpace,
    apply_settings,
    list_spaces,
    load_space,
)

Write = Callable[..., Path]

SMALL = """\
schema_version: 1
name: small
summary: one network
backbones:
  - resnet18
input_px: [48, 32]
pruning:
  ratios: [0.5, 0.0]
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes text to a space file and gives its path, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HWSEARCH_CONFIG", str(tmp_path / "config"))

    def write(text: str, name: str = "small.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def small(written: Write) -> SearchSpace:
    return load_space(written(SMALL))


# --- reading


def test_lists_are_ascending_and_left_out_keys_have_defaults(small: SearchSpace) -> None:
    assert small.input_px == (32, 48)
    assert small.pruning.ratios == (0.0, 0.5)
    assert small.weight_bits == small.activation_bits == "target"
    assert small.training.rung_steps == (30, 100)
    assert small.trials == 100


def test_choices_are_any_json(written: Write) -> None:
    long = "\n  - name: resnet18\n    width: {argument: width_factor, choices: [0.5, 1, null, [1]]}"
    space = load_space(written(SMALL.replace("\n  - resnet18", long)))
    width = space.backbones[0].width
    assert width is not None
    assert width.choices == (0.5, 1, None, [1])


def test_backbone_is_found_by_name(small: SearchSpace) -> None:
    assert small.backbone("resnet18") is small.backbones[0]
    with pytest.raises(SpaceError, match=r"'small' has no backbone 'resnet1'.*mean 'resnet18'"):
        small.backbone("resnet1")


# --- mistakes


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("schema_version: 1", "schema_version: 2", 1, "has version 2, this hwsearch reads 1"),
        ("schema_version: 1", "schema_version: 0", 1, "version 0 never was"),
        ("schema_version: 1", "", 1, "schema_version: missing"),
        ("name: small", "name: Small!", 2, "match pattern"),
        ("summary: one", "sumary: x\nsummary: one", 3, "sumary: unknown key"),
        ("- resnet18", "- resnet81", 5, "no model 'resnet81'"),
        ("- resnet18", "- resnet18\n  - name: resnet18", 6, "'resnet18' is given twice"),
        ("- resnet18", "- name: resnet18\n    stem_stride: 0", 6, "greater than or equal to 1"),
        ("- resnet18", "- 'my nets:build'", 5, "not of the form package.module:function"),
        ("- resnet18", "- name: resnet18\n    weights: a.pth", 6, "not a local safetensors file"),
        (
            "- resnet18",
            "- name: resnet18\n    weights: https://x/a.safetensors",
            6,
            "not a local safetensors file",
        ),
        (
            "- resnet18",
            "- name: resnet18\n    depth: {argument: 'a b', choices: [1]}",
            6,
            "'a b' is not the name of an argument",
        ),
        (
            "- resnet18",
            "- name: resnet18\n    depth: {argument: a, choices: [1, 1]}",
            6,
            "1 is given twice",
        ),
        (
            "- resnet18",
            "- name: resnet18\n    depth: {argument: a, choices: [.inf]}",
            6,
            "not a finite number",
        ),
        ("[48, 32]", "[]", 6, "the list is empty"),
        ("[48, 32]", "[48,\n 7]", 7, "greater than or equal to 8"),
        ("[48, 32]", "[48,\n 1025]", 7, "less than or equal to 1024"),
        ("[48, 32]", "[48,\n '32']", 7, "valid integer"),
        ("[48, 32]", "[48,\n 48]", 7, "48 is given twice"),
        ("[48, 32]", "48", 6, "valid tuple"),
        ("[0.5, 0.0]", "[0.5]", 8, "0.0 must be one of the ratios"),
        ("[0.5, 0.0]", "[0.0,\n 0.95]", 9, "less than or equal to 0.9"),
        ("[0.5, 0.0]", "[0.0,\n .nan]", 9, "finite number"),
        ("[0.5, 0.0]", "[0.0,\n 0]", 9, "0 is given twice"),
        ("pruning:", "weight_bits: [8,\n 9]\npruning:", 8, "9 are bits that no target runs"),
        ("pruning:", "weight_bits: all\npruning:", 7, "write 'target'"),
        (
            "pruning:",
            "weight_bits: [16]\nactivation_bits: [8]\npruning:",
            8,
            "weights of [16] bits need activations of the same width",
        ),
        ("pruning:", "trials: 0\npruning:", 7, "greater than or equal to 1"),
        ("pruning:", "training: {rung_steps: [9, 9]}\npruning:", 7, "does not climb"),
        ("pruning:", "training: {rung_steps: [9]}\npruning:", 7, "rung_steps"),
    ],
)
def test_mistake_is_reported_on_its_line(
    written: Write, old: str, new: str, line: int, message: str
) -> None:
    assert SMALL.count(old) == 1
    path = written(SMALL.replace(old, new))
    with pytest.raises(FileModelError) as caught:
        load_space(path)
    (report,) = str(caught.value).splitlines()
    assert report.startswith(f"{path}:{line}: ")
    assert message in report


def test_all_mistakes_are_reported_at_once(written: Write) -> None:
    text = SMALL.replace("resnet18", "resnet81").replace("[48, 32]", "[48, 48, 4, a]")
    text = text.replace("0.5", "1.5").replace("name: small", "nam: small")
    with pytest.raises(FileModelError) as caught:
        load_space(written(text))
    lines = [int(line.split(":")[1]) for line in str(caught.value).splitlines()]
    assert lines == [1, 2, 5, 6, 6, 6, 8]


# --- finding


def test_nearest_folder_wins(written: Write, tmp_path: Path) -> None:
    written(SMALL.replace("one network", "of the user"), "config/search_spaces/tiny.yaml")
    assert load_space("tiny").summary == "of the user"
    written(SMALL.replace("one network", "of the project"), "search_spaces/tiny.yaml")
    assert load_space("tiny").summary == "of the project"
    assert list_spaces()["tiny"] == tmp_path / "search_spaces" / "tiny.yaml"


def test_unknown_name_lists_the_known(written: Write) -> None:
    with pytest.raises(
        SpaceError, match=r"no search space 'mobil'\. Did you mean 'mobile'\? .*edge, mobile, tiny"
    ):
        load_space("mobil")


@pytest.mark.parametrize("name", ["there/tiny", "none.yaml"])
def test_missing_file_is_named(written: Write, name: str) -> None:
    with pytest.raises(SpaceError, match=f"no file '{name}'"):
        load_space(name)


def test_weights_are_found_beside_the_space(written: Write, tmp_path: Path) -> None:
    text = SMALL.replace("- resnet18", "- {name: resnet18, weights: w.safetensors}")
    path = written(text, "spaces/small.yaml")
    with pytest.raises(SpaceError, match=r"weights of resnet18, .*w\.safetensors', are not there"):
        load_space(path)
    (tmp_path / "spaces" / "w.safetensors").touch()
    assert load_space(path).backbones[0].weights == str(tmp_path / "spaces" / "w.safetensors")


# --- bits


@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "bits", "admitted"),
    [
        ("target", "target", FP32, True),
        ([4, 8], "target", INT8, True),
        ([4, 8], "target", FP32, False),
        ([4, 8], [8], LayerBits(4, 8), True),
        ([4, 8], [8], LayerBits(4, 4), False),
    ],
)
def test_space_admits_its_bits(
    small: SearchSpace,
    weight_bits: object,
    activation_bits: object,
    bits: LayerBits,
    admitted: bool,
) -> None:
    data = small.model_dump() | {"weight_bits": weight_bits, "activation_bits": activation_bits}
    assert SearchSpace.model_validate(data).admits(bits) is admitted


# --- settings


@pytest.mark.parametrize(
    ("key", "text", "path", "value"),
    [
        ("input_px", "64, 32", ("input_px",), (32, 64)),
        ("ratios", "0,0.5,0.25", ("pruning", "ratios"), (0.0, 0.25, 0.5)),
        ("weight_bits", "8,4", ("weight_bits",), (4, 8)),
        ("activation_bits", "target", ("activation_bits",), "target"),
        ("base_steps", "10", ("training", "base_steps"), 10),
        ("rung_steps", "5,20", ("training", "rung_steps"), (5, 20)),
        ("final_steps", "7", ("training", "final_steps"), 7),
        ("batch_size", "16", ("training", "batch_size"), 16),
        ("trials", "5", ("trials",), 5),
    ],
)
def test_setting_changes_its_value_only(
    small: SearchSpace, key: str, text: str, path: tuple[str, ...], value: object
) -> None:
    changed = apply_settings(small, {key: text})
    expected = small.model_dump()
    inside = expected if len(path) == 1 else expected[path[0]]
    inside[path[-1]] = value
    assert changed == SearchSpace.model_validate(expected)


def test_known_backbone_keeps_its_stem_and_new_one_has_its_own() -> None:
    changed = apply_settings(load_space("tiny"), {"backbones": "resnet18,lcnet_050"})
    strides = {backbone.name: backbone.stem_stride for backbone in changed.backbones}
    assert strides == {"resnet18": None, "lcnet_050": 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": "0"}, r"--set has no key 'ratio'\. Did you mean 'ratios'\? .*backbones, "),
        ({"ratios": "0.5"}, r"^--set ratios=0\.5: 0\.0 must be one of the ratios"),
        ({"ratios": "0,nan"}, r"--set ratios=0,nan: input should be a finite number"),
        ({"ratios": ""}, "--set ratios=: the list is empty"),
        ({"input_px": "32,abc"}, "--set input_px=32,abc: .*valid integer"),
        ({"weight_bits": "64"}, "--set weight_bits=64: 64 are bits that no target runs"),
        ({"rung_steps": "30,20"}, "does not climb"),
        ({"backbones": "resnet18,resnet81"}, "no model 'resnet81'"),
        ({"backbones": "resnet18,resnet18"}, "'resnet18' is given twice"),
        ({"trials": "0", "batch_size": "0"}, "--set batch_size=0: .*; --set trials=0: "),
    ],
)
def test_bad_setting_is_refused_as_written(
    small: SearchSpace, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(SpaceError, match=message) as caught:
        apply_settings(small, settings)
    assert "\n" not in str(caught.value)


def test_setting_is_blamed_when_another_value_no_longer_fits(small: SearchSpace) -> None:
    data = small.model_dump() | {"activation_bits": [8]}
    space = SearchSpace.model_validate(data)
    with pytest.raises(SpaceError, match=r"^activation_bits: weights of \[16\] bits need"):
        apply_settings(space, {"weight_bits": "16"})
