import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hwsearch.bits import INT8
from hwsearch.files import packaged_folder, read_model
from hwsearch.hardware.kernels import KernelKind
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import load_profile

Hwsearch = Callable[..., "subprocess.CompletedProcess[str]"]
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


@pytest.mark.parametrize("name", ["raspberry-pi-4", "jetson-orin-nx@15W", "bitfusion", "host"])
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


def test_show_when_fitted_prints_the_errors_and_the_largest_factors(hwsearch: Hwsearch) -> None:
    ended = hwsearch("profile", "show", "raspberry-pi-4")
    fit = load_profile("raspberry-pi-4").fit
    assert fit is not None
    assert fit.energy is not None
    lines = [line.split() for line in ended.stdout.splitlines()]
    for name, model in (("latency", fit.latency), ("energy", fit.energy)):
        checked = model.cross_validation
        assert [
            name,
            f"{checked.networks}",
            f"{checked.mape_percent:.1f}",
            "%",
            f"{checked.rmspe_percent:.1f}",
            "%",
            f"{checked.spearman:.3f}",
            f"{checked.coverage_percent:.0f}",
            "%",
        ] in lines
        effects = {effect: values[0] for effect, values in model.coefficients.effects.items()}
        largest = max(effects, key=lambda effect: abs(effects[effect]))
        (line,) = (words for words in lines if words[:3] == [name, largest, "x"])
        assert float(line[3]) == pytest.approx(math.exp(effects[largest]), abs=0.006)
    assert len(lines) < 80, "the samples are not for people"


def test_show_when_nothing_was_measured_says_so(hwsearch: Hwsearch) -> None:
    ended = hwsearch("profile", "show", "jetson-tx2")
    assert "nothing was measured for this profile" in ended.stdout
    assert "within a factor of 1.8 (one sigma)" in ended.stdout


def test_show_when_there_is_no_energy_says_so(hwsearch: Hwsearch) -> None:
    ended = hwsearch("profile", "show", "host")
    assert "energy          none: there is no evidence" in ended.stdout
    # Slower alone, but between layers in int8 it spares conversions.
    assert "depthwise       fp32, int8" in ended.stdout.splitlines()


def test_show_when_bits_do_not_pay_says_so(hwsearch: Hwsearch) -> None:
    ended = hwsearch("profile", "show", "jetson-nano")
    slowdown = load_profile("jetson-nano").kernels.by_kind[KernelKind.DEPTHWISE][INT8].slowdown
    assert slowdown > 1
    line = f"depthwise       fp32, fp16; int8 is priced as fp16, {slowdown:g} times slower"
    assert line in ended.stdout.splitlines()


def test_show_when_weights_may_not_fit_says_what_happens(hwsearch: Hwsearch) -> None:
    ended = hwsearch("profile", "show", "coral")
    line = "weights         past 8 MB they travel for every inference, at 0.4 GB/s"
    assert line in ended.stdout.splitlines()


@pytest.mark.parametrize("name", ["jetson-tx2", "raspberry-pi-4", "jetson-agx-orin@15W", "host"])
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


def test_check_when_there_is_no_file_says_so(hwsearch: Hwsearch) -> None:
    ended = hwsearch("profile", "check", "nowhere.yaml")
    assert ended.returncode == 2
    assert ended.stderr == "hwsearch: nowhere.yaml: cannot be read (No such file or directory)\n"
