import json
from pathlib import Path

import pytest
from own_place import Hwsearch

from hwsearch.files import read_model
from hwsearch.hardware.profile import HardwareProfile

TABLE = """net,px,width,bits,latency_ms,repeat_ms
test_resnet,32,,,0.30,0.303
test_resnet,64,,,0.80,0.81
test_resnet,64,0.5,,0.40,0.40
test_resnet,64,,8,0.35,0.36
test_resnet,96,,8,0.70,0.70
test_resnet,96,0.5,8,0.40,0.42
"""


def test_a_table_becomes_a_target(hwsearch: Hwsearch, tmp_path: Path) -> None:
    (tmp_path / "bench.csv").write_text(TABLE)
    ended = hwsearch(
        "profile", "fit", "bench.csv", "--target", "host", "--device", "a bench", "--power-mode",
        "2 threads", "--reference", "a test", "--json",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["target"], told["networks"]) == ("bench", 6)
    profile = read_model(tmp_path / "hw_profiles" / "bench.yaml", HardwareProfile)
    assert (profile.device, profile.power_mode) == ("a bench", "2 threads")
    assert profile.fit is not None
    assert profile.fit.latency.provenance.reference == "a test"
    assert profile.fit.noise_floor_percent == pytest.approx(1.1, abs=0.5)
    shown = hwsearch("profile", "show", "bench")
    assert "as measured" in shown.stdout.splitlines()[0]
    # Again: nothing is overwritten unasked.
    ended = hwsearch("profile", "fit", "bench.csv", "--target", "host")
    assert ended.returncode == 2
    assert "is there already" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "host"), "none.csv: cannot be read (No such file"),
        ((), "Missing option '--target'"),
        (("--target", "nothing-such"), "target 'nothing-such' is not known"),
        (("--target", "host", "--out", "a.yaml", "--name", "b"), "give --name a or another --out"),
    ],
)
def test_what_cannot_be_done_is_explained(
    arguments: tuple[str, ...], message: str, hwsearch: Hwsearch
) -> None:
    ended = hwsearch("profile", "fit", "none.csv", *arguments)
    assert ended.returncode == 2
    assert message in ended.stderr
