"""``hwsearch verify --on ssh://...`` against a real OpenSSH server on loopback."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ship_fixtures import Remembers
from ssh_server import NEEDS_SSHD, Server, make_key, serving

from hwsearch.errors import HostError
from hwsearch.report.verified import read_verified
from hwsearch.ship.finish import verify_run

pytestmark = NEEDS_SSHD


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    for name in ("sshd", "there"):
        (tmp_path / name).mkdir()
    with serving(tmp_path / "sshd", tmp_path / "there") as running:
        yield running
        assert running.left_behind() == []


def test_verify_over_ssh_times_every_file_and_leaves_nothing(
    host_run: Path, server: Server
) -> None:
    watcher = Remembers()
    front = verify_run(
        host_run, watcher, on=server.place.name, python=sys.executable,
        ssh_options=server.options(),
    )  # fmt: skip
    assert {entry.latency_ms.source for entry in front.scored} == {"measured"}
    for key in ("trial_0003", "baseline_dense-fp32_tiny"):
        found = read_verified(host_run / "models" / key)
        assert found is not None
        assert found.latency_ms is not None
        assert found.latency_ms.place == server.place.name
        assert found.latency_ms.of_target
    assert any(text.startswith(f"timing 4 files on {server.place.name}") for text in watcher.phases)
    written = json.loads((host_run / "front.json").read_text(encoding="utf-8"))
    assert written["baselines"][0]["latency_ms"]["source"] == "measured"


def test_verify_when_the_key_is_missing_says_so_before_any_file_is_scored(
    shipped_host: Path, server: Server, tmp_path: Path
) -> None:
    options = server.options(key=make_key(tmp_path / "other"))
    before, watcher = (shipped_host / "front.json").read_bytes(), Remembers()
    with pytest.raises(HostError, match=r"accepts none of the keys; set one up with ssh-copy-id"):
        verify_run(shipped_host, watcher, on=server.place.name, ssh_options=options)
    assert watcher.phases == [f"reaching {server.place.name}"]
    assert (shipped_host / "front.json").read_bytes() == before
