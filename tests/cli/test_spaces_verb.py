from pathlib import Path

import yaml
from own_place import Hwsearch

from hwsearch.files import packaged_folder

SPACES = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(packaged_folder("search_spaces").glob("*.yaml"))
}


def test_spaces_when_piped_lists_all_with_pixels_trials_and_backbones(hwsearch: Hwsearch) -> None:
    ended = hwsearch("spaces")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert {"tiny", "mobile", "edge"} <= set(SPACES)
    words = set(ended.stdout.replace(",", " ").split())
    rows = {line.split()[0]: line.split() for line in ended.stdout.splitlines() if line.strip()}
    for name, space in SPACES.items():
        assert {b if isinstance(b, str) else b["name"] for b in space["backbones"]} <= words
        pixels = [str(px) for px in space["input_px"]]
        assert rows[name][1 : 1 + len(pixels)] == pixels
        trials = f"0 to {max(space['pruning']['ratios']):g} {space['trials']}"
        assert trials in " ".join(rows[name])


def test_spaces_when_the_folder_has_one_lists_it_first_found(
    hwsearch: Hwsearch, tmp_path: Path
) -> None:
    (tmp_path / "search_spaces").mkdir()
    near = SPACES["tiny"] | {"trials": 7, "backbones": ["resnet18"]}
    (tmp_path / "search_spaces" / "tiny.yaml").write_text(yaml.safe_dump(near))
    row = next(line for line in hwsearch("spaces").stdout.splitlines() if " tiny " in f"{line} ")
    assert " 7 " in row
    assert row.split()[-1] == "resnet18"
