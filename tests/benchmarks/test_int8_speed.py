from pathlib import Path

import pytest
from int8_speed import latencies_ms, row

from hwsearch.accuracy.data.sources import load_data


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the stock tool's own
def test_int8_speed_compares_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    data = load_data("digits", px=32)
    found = row("test_resnet", data, tmp_path, steps=20, calibrations=1, rounds=1, repeats=1)
    assert found["backbone"] == "test_resnet"
    # No kernel more than the stock tool's.
    assert 0 < int(found["ours_nodes"]) <= int(found["stock_nodes"])
    assert found["least_ratio"] == found["greatest_ratio"] == found["latency_ratio"]
    assert found["pictures"] == len(data.test)
    [one, same] = latencies_ms([tmp_path / "test_resnet_ours.onnx"] * 2, 1)
    assert one > 0
    assert same > 0
