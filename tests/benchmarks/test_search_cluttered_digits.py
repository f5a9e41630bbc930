from pathlib import Path

import cluttered_digits
import pytest
from cluttered_digits import make_scenes
from PIL import Image


def test_held_out_scenes_share_no_digit_with_those_of_training() -> None:
    train, test = make_scenes("train", 400, 0), make_scenes("test", 100, 0)
    assert set(train.sources.flatten().tolist()).isdisjoint(test.sources.flatten().tolist())


def test_folder_holds_a_picture_for_each_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scenes"
    given = ["cluttered_digits.py", str(folder), "--train", "20", "--test", "10"]
    monkeypatch.setattr("sys.argv", given)
    cluttered_digits.main()
    files = sorted(folder.glob("*/*/*.png"))
    assert [file.parent.name for file in files if file.parts[-3] == "train"] == [
        str(label) for label in range(10) for _ in range(2)
    ]
    assert len(files) == 30
    with Image.open(files[0]) as picture:
        assert (picture.size, picture.mode) == ((64, 64), "RGB")
    with pytest.raises(SystemExit):
        cluttered_digits.main()
    assert "is there already" in capsys.readouterr().err
