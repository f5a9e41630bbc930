import json
import math
from pathlib import Path

import yaml
from own_place import Hwsearch

from hwsearch.files import packaged_folder

PROFILES = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(packaged_folder("hw_profiles").glob("*.yaml"))
}


def test_table_when_piped_shows_what_each_profile_is_and_how_far_off(hwsearch: Hwsearch) -> None:
    ended = hwsearch("targets")
    assert ended.returncode == 0
    rows = {line.split()[0]: line for line in ended.stdout.splitlines() if line.strip()}
    assert len(PROFILES) >= 8
    for name, profile in PROFILES.items():
        version = profile["runtime_version"].split()[0]
        assert f"{profile['runtime']} {version} " in rows[name]
        assert f" {profile['evidence']} " in rows[name]
        energy = profile["energy"]
        assert f" {'none' if energy is None else energy['boundary']} " in rows[name]
        if "fit" in profile:
            error = profile["fit"]["latency"]["cross_validation"]
            shown = f" {error['mape_percent']:.1f} % ({error['networks']} nets)"
        else:
            # 1.645 standard deviations leave 5 % above.
            above = math.exp(1.644854 * profile["interval"]["latency_sigma_log"]) - 1
            shown = f"+{100 * above:.0f} %"
        assert rows[name].endswith(shown)
    assert {"fit" in profile for profile in PROFILES.values()} == {True, False}
    assert rows["jetson-orin-nano"].split()[1] == "jetson"
    assert " MAXN @15W @30W @50W " in rows["jetson-agx-orin"]
    assert " W2-8 A2-8 " in rows["bitfusion"]


def test_json_when_asked_for_is_all_that_is_printed(hwsearch: Hwsearch) -> None:
    ended = hwsearch("targets", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    entries = {entry["target"]: entry for entry in json.loads(ended.stdout)}
    assert list(entries) == sorted(PROFILES)
    assert entries["jetson-orin-nano"]["aliases"] == ["jetson"]
    assert entries["jetson-orin-nano"]["legal_bits"] == ["fp32", "fp16", "int8"]
    assert entries["jetson-nano"]["legal_bits"] == ["fp32", "fp16"]
    assert entries["jetson-orin-nano"]["power_modes"] == ["7W", "15W"]
    assert entries["jetson-tx2"]["power_modes"] == []
    assert len(entries["bitfusion"]["legal_bits"]) == 16
    for name, profile in PROFILES.items():
        fit = profile.get("fit", {})
        for quantity in ("latency", "energy"):
            error = fit[quantity]["cross_validation"] if quantity in fit else None
            assert entries[name][f"{quantity}_error"] == error
        assert entries[name]["latency_sigma_log"] == profile["interval"]["latency_sigma_log"]
        assert entries[name]["device"] == profile["device"]


def test_targets_when_the_user_has_a_profile_lists_it(hwsearch: Hwsearch, tmp_path: Path) -> None:
    own = PROFILES["jetson-tx2"] | {"name": "my-board", "energy": None, "power_mode": "[red]5 W"}
    (tmp_path / "hw_profiles").mkdir()
    (tmp_path / "hw_profiles" / "my-board.yaml").write_text(yaml.safe_dump(own))
    ended = hwsearch("targets")
    row = next(line for line in ended.stdout.splitlines() if "my-board" in line)
    assert " none " in row
    assert "[red]5 W" in row


def test_targets_when_a_profile_is_broken_names_the_file(
    hwsearch: Hwsearch, tmp_path: Path
) -> None:
    (tmp_path / "hw_profiles").mkdir()
    (tmp_path / "hw_profiles" / "broken.yaml").write_text("name: broken\nnonsense: 1\n")
    ended = hwsearch("targets")
    assert ended.returncode == 2
    assert "broken.yaml:2: nonsense: unknown key" in ended.stderr
