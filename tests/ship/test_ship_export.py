import csv
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from ship_fixtures import Remembers
from tiny_network import PX

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.bits import FP32, INT8
from hwsearch.deploy.input_contract import read_contract
from hwsearch.deploy.realised import classes_of
from hwsearch.errors import BackboneError, RunError
from hwsearch.ship import export
from hwsearch.ship.export import ExportOptions, export_models, write_realised
from hwsearch.study.finals.evidence import state_of
from hwsearch.study.run_folder import RunFolder, open_run

Row = dict[str, str]


def exported(folder: Path, data: DataSet, **options: bool) -> RunFolder:
    run = open_run(folder)
    export_models(run, run.models, data, ExportOptions(**options), on_phase=Remembers().phase)
    return run


def layers(folder: Path) -> list[Row]:
    with (folder / "layers.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_export_when_done_has_a_file_for_every_model(host_run: Path, pictures: DataSet) -> None:
    run = exported(host_run, pictures)
    for model in run.models:
        proto = onnx.load(model.folder / "model.onnx")
        onnx.checker.check_model(proto, full_check=True)
        assert [opset.version for opset in proto.opset_import] == [17]
        assert proto.ir_version == 8
        contract = read_contract(model.folder / "model.onnx")
        assert contract.class_names == pictures.class_names
        assert contract.mean == pytest.approx(pictures.mean)
        assert (contract.batch, contract.input_px, contract.baked) == (1, PX, False)
        assert state_of(model.folder, host_run).artefact == f"models/{model.key}/model.onnx"


def test_layers_when_exported_say_asked_and_realised(host_run: Path, pictures: DataSet) -> None:
    exported(host_run, pictures)
    rows = layers(host_run / "models" / "trial_0003")
    weighted = [row for row in rows if row["realised_by"]]
    names = ("layer", "weight_bits", "realised_weight_bits")
    assert [tuple(row[name] for name in names) for row in weighted] == [
        ("0", "8", "8"), ("3", "8", "8"), ("6", "32", "32"), ("11", "32", "32"),
    ]  # fmt: skip
    assert all(row["realised_by"].startswith("ONNX Runtime ") for row in weighted)
    # A mean has no weights, and so no precision of its own.
    assert {row["realised_weight_bits"] for row in rows if row not in weighted} == {""}


def test_layers_when_for_a_runtime_that_is_not_here_claim_nothing(
    jetson_run: Path, pictures: DataSet
) -> None:
    exported(jetson_run, pictures)
    rows = layers(jetson_run / "models" / "trial_0003")
    assert {row["realised_weight_bits"] + row["realised_by"] for row in rows} == {""}


def test_realised_when_a_layer_is_other_is_told(tmp_path: Path) -> None:
    (tmp_path / "layers.csv").write_text("layer,weight_bits\na,8\nb,8\npool,8\n")
    write_realised(tmp_path / "layers.csv", {"a": INT8, "b": FP32})
    rows = layers(tmp_path)
    assert [row["realised_activation_bits"] for row in rows] == ["8", "32", ""]
    assert [row["weight_bits"] for row in rows] == ["8", "8", "8"]


def test_realised_when_there_is_no_table_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be read .* make the run again"):
        write_realised(tmp_path / "layers.csv", {})
    (tmp_path / "layers.csv").write_text("name\n")
    with pytest.raises(RunError, match="has no column 'layer'"):
        write_realised(tmp_path / "layers.csv", {})


@pytest.mark.parametrize(
    ("key", "odd", "refused"),
    [
        ("baseline_dense-fp32_tiny", 0.1, True),
        ("trial_0000", 0.3, False),
        ("trial_0000", 0.7, True),
    ],
)
def test_file_that_names_other_classes_than_its_network_is_refused(
    host_run: Path,
    pictures: DataSet,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    odd: float,
    refused: bool,
) -> None:
    run = open_run(host_run)
    model = next(one for one in run.models if one.key == key)

    def other(path: Path, values: np.ndarray) -> np.ndarray:
        found = classes_of(path, values)
        changed = round(odd * len(found))
        found[:changed] = (found[:changed] + 1) % len(pictures.class_names)
        return found

    monkeypatch.setattr(export, "classes_of", other)
    export_models(run, [model], pictures, ExportOptions(), on_phase=Remembers().phase)
    state = state_of(model.folder, host_run)
    assert (state.refused is not None) is refused
    assert (model.folder / "model.onnx").is_file() is not refused
    if state.refused is not None:
        assert "its file names the class that the network names for only" in state.refused


def test_export_when_the_batch_is_open_and_normalization_baked(
    host_run: Path, pictures: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[np.ndarray] = []

    def classes(path: Path, values: np.ndarray) -> np.ndarray:
        fed.append(values)
        return classes_of(path, values)

    monkeypatch.setattr(export, "classes_of", classes)
    run = exported(host_run, pictures, dynamic_batch=True, bake=True)
    contract = read_contract(run.models[0].folder / "model.onnx")
    assert contract.batch is None
    assert contract.baked
    session = onnxruntime.InferenceSession(str(run.models[0].folder / "model.onnx"))
    logits = session.run(None, {"picture": pictures.test.images[:5].float().numpy()})[0]
    assert logits.shape == (5, 3)
    # It was compared with its network on plain levels, which is what it takes.
    np.testing.assert_allclose(fed[0], np.rint(fed[0]), atol=1e-3)
    assert 150 < fed[0].max() < 256
    assert fed[0].min() > -1e-3


def test_outputs_when_for_tensorrt_are_quantized_symmetrically(
    jetson_run: Path, pictures: DataSet
) -> None:
    run = exported(jetson_run, pictures)
    for model in run.models:
        graph = onnx.load(model.folder / "model.onnx").graph
        constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
        for node in graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                zero = constants[node.input[2]]
                assert zero.dtype == np.int8
                assert not zero.any()


def test_export_when_a_network_cannot_be_is_remembered_until_it_can(
    shipped_host: Path, pictures: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise BackboneError("the layer 'a' runs twice")

    folder = shipped_host / "models" / "trial_0000"
    assert (folder / "verify.json").is_file()
    with monkeypatch.context() as patch:
        patch.setattr(export, "observe_output_ranges", fails)
        exported(shipped_host, pictures)
    state = state_of(folder, shipped_host)
    assert (state.artefact, state.verified) == (None, None)
    assert state.refused == "it cannot be exported: the layer 'a' runs twice"
    assert not (folder / "model.onnx").exists()
    before = (folder / "layers.csv").read_text(encoding="utf-8")
    exported(shipped_host, pictures)
    assert state_of(folder, shipped_host).refused is None
    assert not (folder / "verify.json").exists()
    assert (folder / "layers.csv").read_text(encoding="utf-8") == before, "the columns are once"
