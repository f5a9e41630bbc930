"""A board over a real OpenSSH server becomes a profile, by the command that a user types."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ssh_server import NEEDS_SSHD, Server, serving

from hwsearch.files import read_model
from hwsearch.hardware.profile import HardwareProfile

pytestmark = NEEDS_SSHD

ROOT = Path(__file__).resolve().parents[2]
START = "from hwsearch.cli.main import main; main()"


def profile_measure(
    server: Server, folder: Path, *more: str, options: tuple[str, ...] | None = None
) -> "subprocess.CompletedProcess[str]":
    place = server.place
    words = place.ssh_options if options is None else options
    arguments = [
        "profile", "measure", "--on", place.name, "--name", "board", "--python", place.python,
        "--nets", "5", "--time-limit", "2m", *more, *(f"--ssh-option={word}" for word in words),
    ]  # fmt: skip
    surroundings = os.environ | {
        "PYTHONPATH": str(ROOT), "HWSEARCH_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", START, *arguments],
        cwd=folder, env=surroundings, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip


def test_a_board_becomes_a_profile_and_nothing_is_left_behind(tmp_path: Path) -> None:
    there, keys = tmp_path / "there", tmp_path / "keys"
    there.mkdir()
    keys.mkdir()
    with serving(keys, there) as server:
        ended = profile_measure(server, tmp_path, "--json")
        assert server.left_behind() == []
    if "more than 20 % is refused" in ended.stderr:
        pytest.skip("this machine is too busy to be measured")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert len(told["nets"]) == 5
    path = tmp_path / "hw_profiles" / "board.yaml"
    profile = read_model(path, HardwareProfile)
    assert profile.fit is not None
    assert profile.fit.latency.networks == 5
    text = path.read_text()
    for private in (server.place.host, str(server.place.port), f"{server.place.user}@"):
        assert private not in text, "a profile names no machine and no user"
