import subprocess
import sys
from pathlib import Path

import pytest

from hwsearch.errors import BackboneError, HostError
from hwsearch.space.timm_names import check_timm_name, timm_names


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


def test_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(BackboneError, match=r"no model 'mobilenet_v2_100'.*'mobilenetv2_100'"):
        check_timm_name("mobilenet_v2_100")


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
