import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_results import baseline, empty_front, front, model

from hwsearch.report.stored import BaselineEntry, ClosestEntry, FrontFile, ModelEntry
from hwsearch.report.tables import (
    accuracy_cell,
    bits_summary,
    cost_cell,
    entry_name,
    front_csv,
    front_rows,
    one_line,
    pruning_summary,
    speed_up,
    speed_up_cell,
    write_front_csv,
)


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@given(st.text())
def test_one_line_has_neither_breaks_nor_control_characters(text: str) -> None:
    line = one_line(text)
    assert line.splitlines() in ([line], [])
    assert all(char.isprintable() for char in line)
    assert one_line(line) == line


def test_one_line_keeps_letters_of_all_scripts() -> None:
    assert one_line("Zähler\n\x1b[31m模型\u202eabc\t x") == "Zähler [31m模型 abc x"


def test_bits_are_summed_up_with_the_most_frequent_first() -> None:
    entry = ModelEntry.model_validate(model(1))
    assert bits_summary(entry) == "W8A8 x 4, W16A16 x 2"


def test_bits_summary_does_not_depend_on_the_order_of_layers() -> None:
    content = model(1) | {
        "weight_bits": {"a": 4, "b": 8, "c": 16},
        "activation_bits": {"c": 16, "b": 8, "a": 8},
    }
    turned = content | {"weight_bits": dict(reversed(content["weight_bits"].items()))}
    expected = "W4A8 x 1, W8A8 x 1, W16A16 x 1"
    assert bits_summary(ModelEntry.model_validate(content)) == expected
    assert bits_summary(ModelEntry.model_validate(turned)) == expected


def test_pruning_is_shown_stage_by_stage() -> None:
    assert pruning_summary(ModelEntry.model_validate(model(1))) == "0/25/50/50"
    dense = baseline("dense-fp32", latency_ms=1, accuracy=0.9, backbone="x")
    assert pruning_summary(BaselineEntry.model_validate(dense)) == "none"


def test_cells_show_three_digits_and_the_interval() -> None:
    entry = ModelEntry.model_validate(model(1, latency_ms=2.0, accuracy=0.95))
    assert cost_cell(entry.latency_ms) == "2.00 (1.70 to 2.30)"
    assert cost_cell(None) == "-"
    assert accuracy_cell(entry) == "95.0 (92.2 to 96.8)"


def test_accuracy_cell_says_so_when_the_closest_point_was_not_trained() -> None:
    closest = ClosestEntry.model_validate(empty_front()["closest"])
    assert accuracy_cell(closest) == "not trained"
    assert entry_name(closest) == "trial 3"


def test_speed_up_is_over_the_dense_baseline_of_the_same_backbone() -> None:
    content = front()
    content["baselines"].append(
        baseline("dense-fp32", latency_ms=3.0, accuracy=0.97, backbone="mobilenetv3_small_050")
    )
    file = FrontFile.model_validate(content)
    resnet, mobilenet = file.front[0], file.front[1]
    assert speed_up(file, resnet) == pytest.approx(7.4 / 0.8)
    assert speed_up(file, mobilenet) == pytest.approx(3.0 / (0.8 * 1.35))
    assert speed_up_cell(file, resnet) == "9.25 x"


def test_speed_up_is_unknown_without_a_dense_baseline() -> None:
    file = FrontFile.model_validate(front() | {"baselines": []})
    assert speed_up(file, file.front[0]) is None
    assert speed_up_cell(file, file.front[0]) == "-"


def test_front_rows_are_sorted_by_latency_whatever_their_order() -> None:
    content = front()
    turned = content | {"front": content["front"][::-1]}
    rows = front_rows(FrontFile.model_validate(content))
    assert rows == front_rows(FrontFile.model_validate(turned))
    assert [row["trial"] for row in rows] == list(range(10, 16))
    assert [row["pick"] for row in rows] == ["no"] * 4 + ["yes", "no"]


def test_front_csv_reads_back_as_the_front() -> None:
    file = FrontFile.model_validate(front())
    rows = read_csv(front_csv(file))
    assert len(rows) == len(file.front)
    for row, entry in zip(rows, file.front, strict=True):
        assert int(row["trial"]) == entry.trial
        assert float(row["latency_ms"]) == entry.latency_ms.value
        assert float(row["latency_ms_high"]) == entry.latency_ms.high
        assert row["energy_source"] == "predicted"
        assert float(row["accuracy_percent"]) == pytest.approx(100 * entry.accuracy, abs=1e-6)
        assert float(row["prune_stage3"]) == entry.pruning["stage3"]
        assert int(row["size_bytes"]) == entry.size_bytes


def test_front_csv_leaves_unknown_energy_empty() -> None:
    content = front(1)
    content["front"][0]["energy_mj"] = None
    (row,) = read_csv(front_csv(FrontFile.model_validate(content)))
    assert {row[key] for key in row if key.startswith("energy")} == {""}


def test_front_csv_names_stages_once_whatever_their_spelling() -> None:
    content = front(1)
    content["front"][0]["pruning"] = {"1": 0.25, "stage2": 0.5}
    (row,) = read_csv(front_csv(FrontFile.model_validate(content)))
    assert (row["prune_stage1"], row["prune_stage2"]) == ("0.25", "0.5")


def test_front_csv_survives_hostile_names() -> None:
    content = front(1)
    content["front"][0]["backbone"] = 'a,"b"\n|c\x00;模'
    (row,) = read_csv(front_csv(FrontFile.model_validate(content)))
    assert row["backbone"] == 'a,"b" |c ;模'


def test_front_csv_of_an_empty_front_is_the_header_of_the_others() -> None:
    empty = front_csv(FrontFile.model_validate(empty_front())).splitlines()
    full = front_csv(FrontFile.model_validate(front())).splitlines()
    assert len(empty) == 1
    assert full[0] == empty[0] + ",prune_stage1,prune_stage2,prune_stage3,prune_stage4"


def test_front_csv_shows_what_was_verified() -> None:
    content = front(1)
    content["front"][0] |= {
        "artefact": "models/trial_0010/model.onnx",
        "verified": {"accuracy": 0.88, "latency_ms": None, "runtime": "ORT", "host": "h"},
    }
    (row,) = read_csv(front_csv(FrontFile.model_validate(content)))
    assert (row["verified_accuracy_percent"], row["verified_latency_ms"]) == ("88.0", "")


def test_write_front_csv_writes_into_the_folder(tmp_path: Path) -> None:
    file = FrontFile.model_validate(front())
    path = write_front_csv(tmp_path, file)
    assert path == tmp_path / "front.csv"
    assert path.read_text(encoding="utf-8") == front_csv(file)
