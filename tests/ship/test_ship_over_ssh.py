"""``hwsearch verify --on ssh://...`` against a real OpenSSH server on loopback."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def kill_runner(there: Path, killed: threading.Event) -> None:
    """Wait for a runner that measures in a folder there, and kill it."""
    for _ in range(6000):
        for process in Path("/proc").glob("[0-9]*"):
            try:
                inside = there in (process / "cwd").readlink().parents
                command = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if inside and b"runner.py" in command and list(there.glob("*/net0000.onnx")):
                os.kill(int(process.name), signal.SIGKILL)
                killed.set()
                return
        time.sleep(0.01)


def verified(folder: Path, server: Server, watcher: Remembers, **options: Any) -> Any:  # noqa: ANN401
    return verify_run(
        folder, watcher, on=server.place.name, python=sys.executable,
        ssh_options=options.pop("ssh_options", server.options()), **options,
    )  # fmt: skip


def refusal(folder: Path, server: Server, **options: Any) -> str:  # noqa: ANN401
    """The one line that a verification ends with; the front is as it was."""
    before = (folder / "front.json").read_bytes()
    watcher = options.pop("watcher", Remembers())
    with pytest.raises(HostError) as caught:
        verified(folder, server, watcher, **options)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert message.startswith(f"{server.place.name}: ")
    assert "\n" not in message
    assert (folder / "front.json").read_bytes() == before
    return message


def test_verify_over_ssh_times_every_file_and_leaves_nothing(
    host_run: Path, server: Server
) -> None:
    watcher = Remembers()
    front = verified(host_run, server, watcher)
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


def test_verify_when_the_key_is_missing_says_so(
    host_run: Path, server: Server, tmp_path: Path
) -> None:
    options = server.options(key=make_key(tmp_path / "other"))
    watcher = Remembers()
    message = refusal(host_run, server, ssh_options=options, watcher=watcher)
    assert message.endswith(
        "it accepts none of the keys; set one up with ssh-copy-id and try ssh by hand"
    )
    # Before any file is scored, which may take minutes.
    assert watcher.phases == [f"reaching {server.place.name}"]


def test_verify_when_the_host_key_changed_says_so(
    host_run: Path, server: Server, tmp_path: Path
) -> None:
    make_key(tmp_path / "imposter")
    public = " ".join((tmp_path / "imposter.pub").read_text().split()[:2])
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {public}\n")
    message = refusal(host_run, server, ssh_options=server.options(known=known))
    assert "its host key is not the one that is known" in message
    assert f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in message


def test_verify_when_the_runner_is_killed_there_says_so(host_run: Path, server: Server) -> None:
    killed = threading.Event()
    killer = threading.Thread(target=kill_runner, args=(server.there, killed))
    killer.start()
    try:
        message = refusal(host_run, server)
    finally:
        killer.join()
    assert killed.is_set()
    assert "the measuring process there was killed (signal 9)" in message


def test_verify_when_the_disk_there_is_full_says_so(host_run: Path, tmp_path: Path) -> None:
    there = tmp_path / "tiny"
    there.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(there)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("a small tmpfs cannot be mounted here")
    (tmp_path / "sshd").mkdir()
    try:
        with serving(tmp_path / "sshd", there) as server:
            message = refusal(host_run, server)
            assert "No space left" in message
            assert message.endswith("free space or set TMPDIR")
            assert server.left_behind() == []
    finally:
        subprocess.run(["umount", "-l", str(there)], check=True)


def test_verify_when_the_server_is_gone_says_so(host_run: Path, tmp_path: Path) -> None:
    for name in ("sshd", "there"):
        (tmp_path / name).mkdir()
    with serving(tmp_path / "sshd", tmp_path / "there") as server:
        pass
    assert "cannot be reached" in refusal(host_run, server)
