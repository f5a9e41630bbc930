import subprocess
import sys
from pathlib import Path

import pytest

from hwsearch.errors import BackboneError, HostError
from hwsearch.space.timm_names import check_timm_name, split_tag, timm_names


def test_names_hold_the_backbones_of_every_family() -> None:
    assert {"resnet10t", "mobilenetv4_conv_small", "regnetx_002", "convnext_atto"} <= timm_names()


def test_names_are_read_without_importing_timm() -> None:
    code = (
        "import sys; from hwsearch.space.timm_names import timm_names; timm_names();"
        "sys.exit('timm' in sys.modules or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.slow
def test_names_are_those_of_the_registry() -> None:
    # In a process of its own: timm warns of its own deprecations while it is imported.
    code = (
        "import timm; from hwsearch.space.timm_names import timm_names;"
        "print(sorted(timm_names() ^ set(timm.list_models())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("resnet18", ("resnet18", None)),
        ("resnet10t.c3_in1k", ("resnet10t", "c3_in1k")),
        ("resnet18.", ("resnet18", "")),
    ],
)
def test_tag_is_split(name: str, parts: tuple[str, str | None]) -> None:
    assert split_tag(name) == parts


@pytest.mark.parametrize("name", ["resnet18", "resnet10t.c3_in1k"])
def test_known_name_passes(name: str) -> None:
    check_timm_name(name)


def test_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(BackboneError, match=r"no model 'mobilenet_v2_100'.*'mobilenetv2_100'"):
        check_timm_name("mobilenet_v2_100")


def test_name_far_from_all_is_refused_without_a_hint() -> None:
    with pytest.raises(BackboneError, match=r"no model '#####'\. Give a name"):
        check_timm_name("#####")


def test_empty_tag_is_refused() -> None:
    with pytest.raises(BackboneError, match="write resnet18 or"):
        check_timm_name("resnet18.")


def test_missing_timm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HostError, match="timm is not installed"):
        timm_names.__wrapped__()


def test_timm_without_models_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Spec:
        submodule_search_locations = [str(tmp_path)]

    monkeypatch.setattr("importlib.util.find_spec", lambda name: Spec())
    with pytest.raises(HostError, match="registers no model"):
        timm_names.__wrapped__()
