from pathlib import Path

import pytest
from ship_fixtures import (
    KEYS,
    FakeMeasure,
    Remembers,
    copied,
    replace_measure,
    write_finished_run,
)
from tiny_network import make_data

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.ship.finish import ship_run
from hwsearch.study import run_folder


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """What every run of these tests was searched with; the cache knows of no earlier timing."""
    data = make_data()
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(run_folder, "load_pictures", lambda _settings: data)
    return data


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run for the host and one for a Jetson; tests work on copies."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWSEARCH_CACHE", str(place / "cache"))
        return {
            target: write_finished_run(place / target, target=target)
            for target in ("host", "jetson-orin-nano")
        }


@pytest.fixture(scope="session")
def shipped(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same runs once shipped, the one for the host with made up times; not to be changed."""
    place = tmp_path_factory.mktemp("shipped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWSEARCH_CACHE", str(place / "cache"))
        patch.setattr(run_folder, "load_pictures", lambda _settings: make_data())
        replace_measure(patch, FakeMeasure(dict(zip(KEYS, (1.0, 2.0, 4.0, 3.0), strict=True))))
        folders = {target: copied(run, place / target) for target, run in made.items()}
        for folder in folders.values():
            ship_run(folder, make_data(), Remembers())
    return folders


@pytest.fixture
def shipped_host(shipped: dict[str, Path], tmp_path: Path) -> Path:
    return copied(shipped["host"], tmp_path / "run")


@pytest.fixture
def shipped_jetson(shipped: dict[str, Path], tmp_path: Path) -> Path:
    return copied(shipped["jetson-orin-nano"], tmp_path / "run")


@pytest.fixture
def host_run(made: dict[str, Path], tmp_path: Path) -> Path:
    return copied(made["host"], tmp_path / "run")


@pytest.fixture
def jetson_run(made: dict[str, Path], tmp_path: Path) -> Path:
    return copied(made["jetson-orin-nano"], tmp_path / "run")
