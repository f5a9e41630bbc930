import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hwsearch.files import read_model
from hwsearch.hardware.profile import HardwareProfile


@pytest.mark.slow
def test_this_machine_becomes_a_target(
    filled: Path, command: Callable[..., list[str]], surroundings: dict[str, str]
) -> None:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command(*arguments), cwd=filled, env=surroundings, capture_output=True, text=True,
            timeout=500, check=False,
        )  # fmt: skip

    ended = run(
        "profile", "measure", "--on", "host", "--nets", "6", "--name", "mine", "--json",
        "--time-limit", "3m",
    )  # fmt: skip
    if "more than 20 % is refused" in ended.stderr:
        pytest.skip("this machine is too busy to be measured")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert len(told["nets"]) == 6
    profile = read_model(filled / "hw_profiles" / "mine.yaml", HardwareProfile)
    assert profile.profile_hash == told["profile_hash"]
    assert profile.evidence == "measured"
    assert profile.fit is not None
    assert profile.fit.latency.networks == 6
    text = (filled / "hw_profiles" / "mine.yaml").read_text()
    assert str(filled) not in text
    assert "measure 6 nets on host" in ended.stderr
    assert not list((filled / "cache").rglob("*.onnx")), "finished work is removed"
    predicted = run("predict", "resnet18", "--target", "mine", "--json")
    assert json.loads(predicted.stdout)["latency_ms"]["value"] > 0
