from pathlib import Path

import pytest
from tiny_network import make_data

from hwsearch.study.asked import pictures


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up pictures, and a cache of its own."""
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pictures, "load_data", lambda *_, seed, **__: make_data(seed))
