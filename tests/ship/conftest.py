from pathlib import Path

import pytest
from ship_fixtures import copied, write_finished_run
from tiny_network import make_data

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.study import run_folder


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """What every run of these tests was searched with."""
    data = make_data()
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


@pytest.fixture
def host_run(made: dict[str, Path], tmp_path: Path) -> Path:
    return copied(made["host"], tmp_path / "run")


@pytest.fixture
def jetson_run(made: dict[str, Path], tmp_path: Path) -> Path:
    return copied(made["jetson-orin-nano"], tmp_path / "run")
