import csv
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ship_fixtures import Remembers
from tiny_network import PX

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.bits import FP32, INT8
from hwsearch.deploy.input_contract import read_contract
from hwsearch.deploy.network_file import load_network
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


def test_export_when_done_says_which_is_next(host_run: Path, pictures: DataSet) -> None:
    run, watcher = open_run(host_run), Remembers()
    export_models(run, run.models[:2], pictures, ExportOptions(), on_phase=watcher.phase)
    assert watcher.phases == ["exporting 1 of 2: trial 0", "exporting 2 of 2: trial 3"]


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


def test_layers_when_exported_again_have_the_columns_once(
    host_run: Path, pictures: DataSet
) -> None:
    exported(host_run, pictures)
    path = host_run / "models" / "trial_0003" / "layers.csv"
    before = path.read_text(encoding="utf-8")
    exported(host_run, pictures)
    assert path.read_text(encoding="utf-8") == before
    assert before.splitlines()[0].endswith(
        ",realised_weight_bits,realised_activation_bits,realised_by"
    )


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
        ("baseline_dense-fp32_tiny", 0.0, False),
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


@pytest.mark.parametrize("key", ["trial_0000", "trial_0003", "baseline_dense-fp32_tiny"])
def test_file_when_run_gives_the_logits_of_the_network(
    host_run: Path, pictures: DataSet, key: str
) -> None:
    exported(host_run, pictures)
    folder = host_run / "models" / key
    model, card = load_network(folder / "model.safetensors")
    mean, std = (torch.tensor(each).reshape(1, 3, 1, 1) for each in (card.mean, card.std))
    values = (pictures.test.images[:12].float() / 255 - mean) / std
    with torch.no_grad():
        expected = model(values).numpy()
    # As the graph is written: without VNNI the integer kernels of x86 saturate.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
    found = np.concatenate(
        [session.run(None, {"picture": each[None].numpy()})[0] for each in values]
    )
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.999
    np.testing.assert_allclose(found, expected, atol=0.1 * float(np.abs(expected).max()))


def test_export_when_the_batch_is_open_and_normalization_baked(
    host_run: Path, pictures: DataSet
) -> None:
    run = exported(host_run, pictures, dynamic_batch=True, bake=True)
    contract = read_contract(run.models[0].folder / "model.onnx")
    assert contract.batch is None
    assert contract.baked
    session = onnxruntime.InferenceSession(str(run.models[0].folder / "model.onnx"))
    logits = session.run(None, {"picture": pictures.test.images[:5].float().numpy()})[0]
    assert logits.shape == (5, 3)


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


def test_export_when_a_network_cannot_be_is_remembered(
    host_run: Path, pictures: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise BackboneError("the layer 'a' runs twice")

    exported(host_run, pictures)
    with monkeypatch.context() as patch:
        patch.setattr(export, "observe_output_ranges", fails)
        run = exported(host_run, pictures)
    state = state_of(run.models[0].folder, host_run)
    assert state.artefact is None
    assert state.refused == "it cannot be exported: the layer 'a' runs twice"
    assert not (run.models[0].folder / "model.onnx").exists()
    assert state_of(exported(host_run, pictures).models[0].folder, host_run).refused is None


def test_export_when_repeated_forgets_what_was_verified(host_run: Path, pictures: DataSet) -> None:
    run = exported(host_run, pictures)
    (run.models[0].folder / "verify.json").write_text("{}")
    exported(host_run, pictures)
    assert not (run.models[0].folder / "verify.json").exists()


def test_state_when_nothing_was_exported(host_run: Path) -> None:
    state = state_of(open_run(host_run).models[0].folder, host_run)
    assert (state.artefact, state.verified, state.refused) == (None, None, None)


def test_export_when_weights_are_missing_says_which(host_run: Path, pictures: DataSet) -> None:
    (host_run / "models" / "trial_0000" / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"there is no .*trial_0000/model\.safetensors"):
        exported(host_run, pictures)
