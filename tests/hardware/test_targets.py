from pathlib import Path

import pytest

from hwsearch.errors import FileModelError, TargetError
from hwsearch.files import packaged_folder
from hwsearch.hardware import targets
from hwsearch.hardware.targets import list_profiles, load_profile, resolve

SHIPPED = packaged_folder("hw_profiles")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a configuration folder without profiles."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HWSEARCH_CONFIG", str(tmp_path / "config"))
    return tmp_path


def write_profile(folder: Path, stem: str, *, name: str | None = None, alias: str = "") -> Path:
    text = (SHIPPED / "jetson-nano.yaml").read_text(encoding="utf-8")
    text = text.replace("name: jetson-nano", f"name: {name or stem}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.yaml"
    path.write_text(text.replace("aliases: []", f"aliases: [{alias}]"), encoding="utf-8")
    return path


def test_load_when_name() -> None:
    assert load_profile("jetson-nano").name == "jetson-nano"
    assert resolve("jetson-nano") == ("jetson-nano", False)


def test_load_when_alias() -> None:
    assert load_profile("jetson").name == "jetson-orin-nano"
    assert resolve("jetson") == ("jetson-orin-nano", True)


def test_load_when_path(elsewhere: Path) -> None:
    path = write_profile(elsewhere / "anywhere", "file", name="my-board")
    assert load_profile(str(path)).name == "my-board"
    assert resolve(str(path)) == ("my-board", False)
    plain = path.rename(path.with_suffix(".txt"))
    assert load_profile(str(plain)).name == "my-board"


def test_load_when_path_is_missing() -> None:
    with pytest.raises(FileModelError, match=r"nowhere\.yaml: cannot be read"):
        load_profile("nowhere.yaml")


def test_load_when_a_folder_has_the_name(elsewhere: Path) -> None:
    (elsewhere / "jetson").mkdir()
    assert load_profile("jetson").name == "jetson-orin-nano"


def test_load_when_unknown() -> None:
    with pytest.raises(TargetError) as caught:
        load_profile("jetson-orin-nanno")
    message = str(caught.value)
    assert message.startswith("target 'jetson-orin-nanno' is not known. Did you mean")
    assert "'jetson-orin-nano'" in message
    assert "jetson-agx-orin" in message
    assert ", jetson, " in message, "aliases are listed too"
    assert "\n" not in message


def test_load_when_in_a_power_mode(elsewhere: Path) -> None:
    assert load_profile("jetson-agx-orin@15W").name == "jetson-agx-orin@15W"
    assert resolve("jetson-agx-orin@15W") == ("jetson-agx-orin@15W", False)
    path = elsewhere / "mine.yaml"
    path.write_bytes((SHIPPED / "jetson-agx-orin.yaml").read_bytes())
    assert load_profile(f"{path}@30W") == load_profile("jetson-agx-orin@30W")
    assert resolve(f"{path}@30W") == ("jetson-agx-orin@30W", False)


def test_load_when_an_alias_is_in_a_power_mode() -> None:
    assert load_profile("jetson@7W") == load_profile("jetson-orin-nano@7W")
    assert resolve("jetson@7W") == ("jetson-orin-nano@7W", True)


@pytest.mark.parametrize(
    "target", ["jetson-agx-orin@12W", "jetson-agx-orin@", "jetson-agx-orin@15w"]
)
def test_load_when_there_is_no_such_power_mode(target: str) -> None:
    with pytest.raises(TargetError) as caught:
        load_profile(target)
    message = str(caught.value)
    assert message.startswith("jetson-agx-orin has no power mode '")
    assert "jetson-agx-orin@15W, jetson-agx-orin@30W, jetson-agx-orin@50W" in message
    assert "\n" not in message


def test_load_when_the_profile_before_a_power_mode_is_unknown() -> None:
    with pytest.raises(TargetError, match="target 'jetson-agx-orinn' is not known"):
        load_profile("jetson-agx-orinn@15W")


def test_load_when_a_file_is_named_like_a_power_mode(elsewhere: Path) -> None:
    # Measured in that mode by the user: better than what is scaled from another.
    write_profile(elsewhere / "hw_profiles", "jetson-agx-orin@15W")
    profile = load_profile("jetson-agx-orin@15W")
    assert (profile.name, profile.runtime_version) == ("jetson-agx-orin@15W", "8.2 (JetPack 4.6)")


def test_load_when_the_nearest_folder_wins(elsewhere: Path) -> None:
    write_profile(elsewhere / "hw_profiles", "jetson-nano", alias="mine")
    assert load_profile("jetson-nano").aliases == ("mine",)
    assert resolve("mine") == ("jetson-nano", True)


def test_load_when_in_the_configuration_folder(elsewhere: Path) -> None:
    write_profile(elsewhere / "config" / "hw_profiles", "bench")
    assert load_profile("bench").name == "bench"
    assert "bench" in [profile.name for profile in list_profiles()]


@pytest.mark.parametrize("written", ["[]  # none", "[a, mine]", '["mine"]', "\n  - mine"])
def test_load_when_an_alias_is_written_in_other_ways(elsewhere: Path, written: str) -> None:
    path = write_profile(elsewhere / "hw_profiles", "a-board", alias="x")
    path.write_text(path.read_text("utf-8").replace("[x]", written), encoding="utf-8")
    if "mine" in written:
        assert resolve("mine") == ("a-board", True)
    else:
        with pytest.raises(TargetError, match="'mine' is not known"):
            load_profile("mine")


def test_load_when_another_profile_has_mistakes(elsewhere: Path) -> None:
    path = write_profile(elsewhere / "hw_profiles", "a-board", alias="mine")
    broken = path.read_text("utf-8").replace("channel_granularity: 2", "channel_granularity: 0")
    path.write_text(broken, encoding="utf-8")
    assert load_profile("jetson").name == "jetson-orin-nano"
    with pytest.raises(FileModelError, match="channel_granularity"):
        load_profile("mine")


def test_load_when_another_file_is_no_profile_then_its_mistakes_are_named(elsewhere: Path) -> None:
    (elsewhere / "hw_profiles").mkdir()
    (elsewhere / "hw_profiles" / "notes.yaml").write_text("- milk\n", encoding="utf-8")
    assert load_profile("jetson-nano").name == "jetson-nano"
    with pytest.raises(FileModelError, match=r"notes\.yaml:1: the file must hold keys"):
        load_profile("jetson")


def test_load_when_a_name_is_mistyped_reads_no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a profile was read")

    monkeypatch.setattr(targets, "read_model", refuse)
    with pytest.raises(TargetError, match="Did you mean 'jetson'"):
        load_profile("jetsn")


def test_load_when_two_profiles_share_an_alias(elsewhere: Path) -> None:
    write_profile(elsewhere / "hw_profiles", "a-board", alias="jetson")
    with pytest.raises(TargetError, match="an alias of a-board and jetson-orin-nano; give one"):
        load_profile("jetson")


def test_load_when_file_and_profile_differ_in_name(elsewhere: Path) -> None:
    write_profile(elsewhere / "hw_profiles", "file", name="other")
    with pytest.raises(TargetError, match=r"holds the profile 'other'; rename the file to other"):
        load_profile("file")


def test_list_when_sorted() -> None:
    names = [profile.name for profile in list_profiles()]
    assert names == sorted(names)
    assert len(names) >= 8
