import json
import shutil
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner
from own_place import Hwsearch

from hwsearch.cli import doctor_verb
from hwsearch.cli.doctor_verb import command, examine
from hwsearch.errors import HostError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "not" / "yet" / "made"))
    return tmp_path / "not" / "yet" / "made"


def state(name: str) -> tuple[str, str, str]:
    found = next(one for one in examine() if one.name == name)
    return found.state, found.found, found.advice


def test_doctor_when_all_is_there_ends_well(hwsearch: Hwsearch, cache: Path) -> None:
    ended = hwsearch("doctor")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = [line.split() for line in ended.stdout.splitlines() if line.strip()]
    assert ["optuna", "ok", metadata.version("optuna")] in [line[:3] for line in lines]
    content = json.loads(hwsearch("doctor", "--json").stdout)
    assert {"torch", "openvino", "cache folder", "ssh"} <= {one["name"] for one in content}
    assert {tuple(one) for one in content} == {("name", "state", "found", "advice")}
    assert not cache.parent.parent.exists(), "looking makes no folder"


def test_package_when_not_installed_is_missing_and_the_exit_code_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor_verb, "_NEEDED", ("torch", "no-such-package"))
    assert state("no-such-package")[:2] == ("missing", "-")
    with pytest.raises(HostError, match="missing: no-such-package; do what stands beside each"):
        CliRunner().invoke(command, [], catch_exceptions=False)


def test_cache_when_a_file_is_in_the_way_is_missing(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "not").write_text("a file")
    kind, found, advice = state("cache folder")
    assert (kind, found) == ("missing", f"{cache} (Not a directory)")
    assert advice == "set HWSEARCH_CACHE to another folder"


def test_cache_when_the_disk_is_nearly_full_says_how_much_to_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1e12, 1e12, 3e8))
    kind, found, advice = state("cache folder")
    assert (kind, found.rpartition(", ")[2]) == ("missing", "0.3 GB free")
    assert advice == "free 2 GB, or set HWSEARCH_CACHE to another folder"
