import csv
import io

import pytest
from stored_results import Json, empty_front, front

from hwsearch.report.stored import FrontFile
from hwsearch.report.tables import front_csv


def rows(content: Json) -> list[dict[str, str]]:
    text = front_csv(FrontFile.model_validate(content))
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_front_csv_reads_back_as_the_front_sorted_by_latency() -> None:
    content = front()
    file = FrontFile.model_validate(content)
    found = rows(content | {"front": content["front"][::-1]})
    for row, entry in zip(found, file.front, strict=True):
        assert int(row["trial"]) == entry.trial
        assert row["pick"] == ("yes" if entry.trial == file.pick else "no")
        assert float(row["latency_ms"]) == entry.latency_ms.value
        assert float(row["latency_ms_high"]) == entry.latency_ms.high
        assert row["energy_source"] == "predicted"
        assert float(row["accuracy_percent"]) == pytest.approx(100 * entry.accuracy, abs=1e-6)
        assert float(row["prune_stage3"]) == entry.pruning["stage3"]
        assert int(row["size_bytes"]) == entry.size_bytes
        assert float(row["speed_up_over_dense_fp32"]) == pytest.approx(
            7.4 / entry.latency_ms.value, abs=1e-4
        )


def test_front_csv_leaves_empty_what_is_unknown() -> None:
    content = front(1)
    content["front"][0] |= {
        "energy_mj": None,
        "artefact": "models/trial_0010/model.onnx",
        "verified": {"accuracy": 0.88, "latency_ms": None, "runtime": "ORT", "host": "h"},
    }
    (row,) = rows(content)
    assert {row[key] for key in row if key.startswith("energy")} == {""}
    assert (row["verified_accuracy_percent"], row["verified_latency_ms"]) == ("88.0", "")


def test_front_csv_names_stages_once_whatever_their_spelling() -> None:
    content = front(1)
    content["front"][0]["pruning"] = {"1": 0.25, "stage2": 0.5}
    (row,) = rows(content)
    assert (row["prune_stage1"], row["prune_stage2"]) == ("0.25", "0.5")


def test_front_csv_survives_hostile_names() -> None:
    content = front(1)
    content["front"][0]["backbone"] = 'a,"b"\n|c\x00;模'
    (row,) = rows(content)
    assert row["backbone"] == 'a,"b" |c ;模'


def test_front_csv_of_an_empty_front_is_the_header_of_the_others() -> None:
    (empty,) = front_csv(FrontFile.model_validate(empty_front())).splitlines()
    full = front_csv(FrontFile.model_validate(front())).splitlines()
    assert full[0] == empty + ",prune_stage1,prune_stage2,prune_stage3,prune_stage4"
