"""A finished search for a Jetson, made once; tests work on copies of its folder."""

import shutil
from pathlib import Path

import pytest
from study_fixtures import make_settings
from tiny_network import make_data

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.hardware.targets import load_profile
from hwsearch.ship.finish import ship_run
from hwsearch.study.asked import pictures
from hwsearch.study.asked.preflight import Checked
from hwsearch.study.clock import Clock
from hwsearch.study.coordinator import Run, Shipped
from hwsearch.study.trials.progress import Silent, Watcher

SEARCHED_FOR = "jetson-orin-nano"


def ship(folder: Path, data: DataSet, watcher: Watcher) -> Shipped:
    ship_run(folder, data, watcher)
    return Shipped(measured_ms={}, refused=None)


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a run")
    settings = make_settings(target=SEARCHED_FOR, budget_texts=("10ms", "1MB"), trials=6)
    checked = Checked(settings=settings, profile=load_profile(SEARCHED_FOR))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(pictures, "load_data", lambda *_, seed, **__: make_data(seed))
        work = Run(
            checked=checked, folder=folder, command="hwsearch run", watcher=Silent(), clock=Clock()
        )
        work.execute(ship)
    return folder


@pytest.fixture
def run_folder(made_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_run, tmp_path / "run"))
