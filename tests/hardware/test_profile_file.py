from pathlib import Path

import pytest
import yaml

from hwsearch.files import read_model
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.profile_file import write_profile
from hwsearch.hardware.targets import load_profile


@pytest.mark.parametrize("name", ["host", "jetson-agx-orin", "raspberry-pi-4", "coral-edge-tpu"])
def test_a_profile_is_read_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    profile, path = load_profile(name), tmp_path / "any.yaml"
    write_profile(profile, path, ["one", "two"])
    assert path.read_text().startswith("# one\n# two\nschema_version: 1\n")
    again = read_model(path, HardwareProfile)
    assert again == profile
    assert again.profile_hash == profile.profile_hash


def test_a_profile_without_energy_says_so(tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    write_profile(load_profile("host"), path, [])
    assert "\nenergy: null\n" in path.read_text()


def test_the_fit_is_last_and_marked_as_written_by_a_command(tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    write_profile(load_profile("raspberry-pi-4"), path, [])
    text = path.read_text()
    assert list(yaml.safe_load(text))[-1] == "fit"
    assert "\n# Written by a command; its digests find what was changed by hand.\nfit:\n" in text


def test_a_folder_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_profile(load_profile("host"), tmp_path / "gone" / "any.yaml", [])
    assert list(tmp_path.iterdir()) == []
