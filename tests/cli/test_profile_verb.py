from pathlib import Path

import pytest
import yaml
from own_place import Hwsearch

from hwsearch.files import packaged_folder, read_model
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import load_profile

NANO = packaged_folder("hw_profiles") / "jetson-nano.yaml"


def test_show_when_given_an_alias_prints_what_it_is(hwsearch: Hwsearch) -> None:
    ended = hwsearch("profile", "show", "jetson")
    assert (ended.returncode, ended.stderr) == (0, "")
    profile = load_profile("jetson-orin-nano")
    first, second, *rest = ended.stdout.splitlines()
    assert first == f"jetson-orin-nano: {profile.summary}"
    assert second == f"hash {profile.profile_hash}"
    lines = [line.split() for line in rest]
    assert ["conv", "fp32,", "fp16,", "int8"] in lines
    assert ["matmul", "fp32,", "fp16;", "int8", "is", "priced", "as", "fp16"] in lines
    assert ["energy", "boundary:", "wall;", "baseline", "6", "W"] in lines
    assert any("jetson-orin-nano@7W: 2 of 4 TPCs" in line for line in rest)
    assert max(len(line) for line in rest) <= 100


@pytest.mark.parametrize("name", ["raspberry-pi-4", "jetson-orin-nx@15W"])
def test_show_when_printed_has_every_source_with_its_date(name: str, hwsearch: Hwsearch) -> None:
    ended = hwsearch("profile", "show", name)
    assert (ended.returncode, ended.stderr) == (0, "")
    profile = load_profile(name)
    text = " ".join(ended.stdout.split())
    proofs = [
        profile.compute.provenance,
        profile.memory.provenance,
        profile.kernels.provenance,
        profile.interval.provenance,
    ]
    proofs += [part.provenance for part in (profile.energy, profile.power_modes) if part]
    proofs += [] if profile.fit is None else [profile.fit.latency.provenance]
    for proof in proofs:
        assert f"{proof.source}, {proof.date}: {' '.join(proof.reference.split())}" in text


@pytest.mark.parametrize("name", ["raspberry-pi-4", "jetson-agx-orin@15W"])
def test_show_when_asked_for_yaml_prints_a_profile_file(
    name: str, hwsearch: Hwsearch, tmp_path: Path
) -> None:
    ended = hwsearch("profile", "show", name, "--yaml")
    (tmp_path / "again.yaml").write_text(ended.stdout)
    assert read_model(tmp_path / "again.yaml", HardwareProfile) == load_profile(name)


def test_show_when_given_a_file_reads_it(hwsearch: Hwsearch, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(NANO.read_text().replace("25.6\n", "12.5\n"))
    ended = hwsearch("profile", "show", "mine.yaml", "--yaml")
    assert ended.returncode == 0
    assert yaml.safe_load(ended.stdout)["memory"]["bandwidth_gb_per_s"] == 12.5


def test_show_when_the_power_mode_is_unknown_names_those_that_there_are(hwsearch: Hwsearch) -> None:
    ended = hwsearch("profile", "show", "jetson-agx-orin@60W")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "has no power mode '60W'. Did you mean '50W'? There are jetson-agx-orin@15W," in (
        ended.stderr
    )


def test_check_when_the_profile_is_shipped_passes(hwsearch: Hwsearch) -> None:
    ended = hwsearch("profile", "check", str(NANO))
    assert ended.returncode == 0
    short_hash = load_profile(NANO.stem).profile_hash[:12]
    assert ended.stdout == f"{NANO}: a valid profile of {NANO.stem}, hash {short_hash}\n"


def test_check_when_the_profile_is_broken_lists_all_mistakes(
    hwsearch: Hwsearch, tmp_path: Path
) -> None:
    text = NANO.read_text()
    lines = text.splitlines()
    changes = {
        "channel_granularity: 2": "channel_granularity: -2",
        "  bandwidth_gb_per_s: 25.6": "  bandwidth: 25.6",
        "evidence: measured": "evidence: rumour",
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
