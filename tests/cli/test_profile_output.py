from pathlib import Path

import pytest
import yaml

from hwsearch.bits import INT8
from hwsearch.calibrate.fitting import Fitted
from hwsearch.calibrate.offers import Speed
from hwsearch.cli.profile_output import output_path, save, show_fitted
from hwsearch.errors import HostError, UserError
from hwsearch.files import read_model
from hwsearch.hardware.kernels import KernelKind
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import load_profile


def fitted() -> Fitted:
    return Fitted(
        profile=load_profile("raspberry-pi-4"),
        speeds=(
            Speed(kind=KernelKind.CONV, bits=INT8, time_ratio=0.5, kernels=40),
            Speed(kind=KernelKind.DEPTHWISE, bits=INT8, time_ratio=2.5, kernels=20),
        ),
    )


def test_a_folder_and_a_file_are_told_apart(tmp_path: Path) -> None:
    assert output_path(tmp_path / "a", "mine", overwrite=False) == tmp_path / "a" / "mine.yaml"
    path = tmp_path / "b" / "mine.yaml"
    assert output_path(path, "mine", overwrite=False) == path
    assert path.parent.is_dir()


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("precious")
    with pytest.raises(UserError, match=r"mine\.yaml is there already; give --overwrite, or ano"):
        output_path(path, "mine", overwrite=False)
    assert output_path(path, "mine", overwrite=True) == path
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["My Board", "board@15W", "", "-x", "a/b"])
def test_a_name_that_no_target_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot name a target; give --name with small letters"):
        output_path(tmp_path, name, overwrite=False)


def test_a_file_that_the_name_does_not_find_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --name other or another --out"):
        output_path(tmp_path / "other.yaml", "mine", overwrite=False)


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot be made"):
        output_path(tmp_path / "file" / "below", "mine", overwrite=False)


def test_the_file_says_what_made_it_and_holds_the_profile(tmp_path: Path) -> None:
    profile, path = load_profile("host"), tmp_path / "host.yaml"
    save(profile, path, "hwsearch profile measure --on host")
    lines = path.read_text().splitlines()
    assert lines[0] == f"# {profile.summary}."
    assert lines[1] == "# Made by:  hwsearch profile measure --on host"
    assert read_model(path, HardwareProfile) == profile
    assert list(yaml.safe_load(path.read_text()))[:2] == ["schema_version", "name"]


def test_a_file_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be written"):
        save(load_profile("host"), tmp_path / "gone" / "host.yaml", "a test")


def test_a_profile_in_its_folder_is_reached_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    show_fitted(fitted(), Path("hw_profiles/mine.yaml"), as_json=False, more={})
    assert "hwsearch run --target mine --budget 10ms" in capsys.readouterr().out
