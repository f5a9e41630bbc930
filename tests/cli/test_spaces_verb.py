import subprocess
from collections.abc import Callable
from pathlib import Path

import yaml

from hwsearch.files import packaged_folder

Hwsearch = Callable[..., "subprocess.CompletedProcess[str]"]
SPACES = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(packaged_folder("search_spaces").glob("*.yaml"))
}


def test_spaces_when_piped_lists_all_with_every_backbone(hwsearch: Hwsearch) -> None:
    ended = hwsearch("spaces")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert {"tiny", "mobile", "edge"} <= set(SPACES)
    words = ended.stdout.replace(",", " ").split()
    assert set(SPACES) <= set(words)
    for space in SPACES.values():
        names = {b if isinstance(b, str) else b["name"] for b in space["backbones"]}
        assert names <= set(words)
    assert "…" not in ended.stdout


def test_spaces_when_piped_shows_pixels_and_trials(hwsearch: Hwsearch) -> None:
    lines = hwsearch("spaces").stdout.splitlines()
    for name, space in SPACES.items():
        row = next(line.split() for line in lines if line.split()[:1] == [name])
        pixels = [str(px) for px in space["input_px"]]
        assert row[1 : 1 + len(pixels)] == pixels
        assert f"0 to {max(space['pruning']['ratios']):g} {space['trials']}" in " ".join(row)


def test_spaces_when_the_folder_has_one_lists_it_first_found(
    hwsearch: Hwsearch, tmp_path: Path
) -> None:
    (tmp_path / "search_spaces").mkdir()
    near = SPACES["tiny"] | {"trials": 7, "backbones": ["resnet18"]}
    (tmp_path / "search_spaces" / "tiny.yaml").write_text(yaml.safe_dump(near))
    row = next(line for line in hwsearch("spaces").stdout.splitlines() if " tiny " in f"{line} ")
    assert " 7 " in row
    assert row.split()[-1] == "resnet18"
