import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hwsearch.files import packaged_folder
from hwsearch.hardware.targets import load_profile

Hwsearch = Callable[..., "subprocess.CompletedProcess[str]"]
NANO = packaged_folder("hw_profiles") / "jetson-nano.yaml"


def test_show_when_given_an_alias_prints_rates_and_provenance(hwsearch: Hwsearch) -> None:
    ended = hwsearch("profile", "show", "jetson")
    assert (ended.returncode, ended.stderr) == (0, "")
    profile = load_profile("jetson-orin-nano")
    first, second, *rest = ended.stdout.splitlines()
    assert first == f"jetson-orin-nano: {profile.summary}"
    assert second == f"hash {profile.profile_hash}"
    assert ["conv", "fp32,", "fp16,", "int8"] in [line.split() for line in rest]
    shown = yaml.safe_load("\n".join(rest[rest.index("schema_version: 1") :]))
    for part in ("compute", "memory", "kernels", "energy", "interval"):
        assert shown[part]["provenance"]["source"] in {"spec sheet", "derived"}
        assert len(shown[part]["provenance"]["reference"]) > 20
    assert shown["memory"]["bandwidth_gb_per_s"] == profile.memory.bandwidth_gb_per_s


def test_show_when_given_a_file_reads_it(hwsearch: Hwsearch, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(NANO.read_text().replace("25.6\n", "12.5\n"))
    ended = hwsearch("profile", "show", "mine.yaml")
    assert ended.returncode == 0
    assert "bandwidth_gb_per_s: 12.5" in ended.stdout


def test_show_when_the_target_is_unknown_suggests_the_nearest(hwsearch: Hwsearch) -> None:
    ended = hwsearch("profile", "show", "jetson-nanno")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Did you mean 'jetson-nano'?" in ended.stderr


@pytest.mark.parametrize("path", sorted(NANO.parent.glob("*.yaml"))[:2], ids=lambda p: p.stem)
def test_check_when_the_profile_is_shipped_passes(path: Path, hwsearch: Hwsearch) -> None:
    ended = hwsearch("profile", "check", str(path))
    assert ended.returncode == 0
    short_hash = load_profile(path.stem).profile_hash[:12]
    assert ended.stdout == f"{path}: a valid profile of {path.stem}, hash {short_hash}\n"


def test_check_when_the_profile_is_broken_lists_all_mistakes(
    hwsearch: Hwsearch, tmp_path: Path
) -> None:
    text = NANO.read_text()
    lines = text.splitlines()
    changes = {
        "channel_granularity: 2": "channel_granularity: -2",
        "  bandwidth_gb_per_s: 25.6": "  bandwidth: 25.6",
        "evidence: spec sheet": "evidence: rumour",
    }
    for old, new in changes.items():
        assert lines.count(old) == 1
        text = text.replace(f"\n{old}\n", f"\n{new}\n")
    (tmp_path / "broken.yaml").write_text(text)
    ended = hwsearch("profile", "check", "broken.yaml")
    assert (ended.returncode, ended.stdout) == (2, "")
    for old in changes:
        assert f"broken.yaml:{lines.index(old) + 1}: " in ended.stderr
    assert "memory.bandwidth: unknown key" in ended.stderr
    assert "memory.bandwidth_gb_per_s: missing" in ended.stderr
    assert len(ended.stderr.splitlines()) == 4


def test_check_when_there_is_no_file_says_so(hwsearch: Hwsearch) -> None:
    ended = hwsearch("profile", "check", "nowhere.yaml")
    assert ended.returncode == 2
    assert ended.stderr == "hwsearch: nowhere.yaml: cannot be read (No such file or directory)\n"
