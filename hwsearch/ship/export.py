"""One ONNX file for every model of a run, and what goes with it."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from torch import Tensor

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.ladder import CALIBRATION_BATCHES
from hwsearch.accuracy.training import calibration_batches
from hwsearch.bits import LayerBits
from hwsearch.deploy.export import ExportedFile, PictureInfo, export_onnx
from hwsearch.deploy.input_contract import read_contract
from hwsearch.deploy.network_file import load_network
from hwsearch.deploy.ranges import fusion_of, observe_output_ranges
from hwsearch.deploy.realised import realised_bits, runtime_name
from hwsearch.errors import BackboneError, HostError, RunError
from hwsearch.hardware.measure.kept import content_hash
from hwsearch.hardware.runtime_family import Family
from hwsearch.nets.quantize import without_quantization
from hwsearch.report.stored import replace_file
from hwsearch.report.verified import VERIFY_FILE, read_verified
from hwsearch.ship.handover.convert import FLOAT_FILE
from hwsearch.ship.handover.write import needs_float_file, write_handover
from hwsearch.ship.offer import ModelState
from hwsearch.ship.run_folder import OpenedRun, ShippedModel
from hwsearch.study.written.output import LAYERS_FILE, WEIGHTS_FILE

ONNX_FILE: Final = "model.onnx"
#: Why a file could not be made, for as long as it could not.
REFUSED_FILE: Final = "refused.txt"
#: Columns that export adds to ``layers.csv``.
REALISED_COLUMNS: Final = ("realised_weight_bits", "realised_activation_bits", "realised_by")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How files are written.

    Attributes:
        dynamic_batch: leave the batch open; it is 1 otherwise, which runtimes optimize for.
        bake: let the files normalize pictures themselves, so that they take 0..255.
    """

    dynamic_batch: bool = False
    bake: bool = False


def export_models(
    run: OpenedRun,
    models: Sequence[ShippedModel],
    data: DataSet,
    options: ExportOptions,
    *,
    on_phase: Callable[[str], None],
) -> None:
    """Write ``model.onnx`` and its hand-over for each model; what was verified is forgotten.

    A model that cannot be exported is remembered as refused (``state_of``).

    Raises:
        RunError: weights that cannot be read, or a folder that cannot be written.
    """
    batch_size = run.settings.space.training.batch_size
    batches: dict[int, list[Tensor]] = {}
    for position, model in enumerate(models, start=1):
        on_phase(f"exporting {position} of {len(models)}: {model.name}")
        px = model.entry.input_px
        if px not in batches:
            batches[px] = calibration_batches(
                data, px, batch_size=batch_size, count=CALIBRATION_BATCHES
            )
        forget(model.folder)
        try:
            export_model(
                model.folder, run.family, batches[px], options, runtime=run.searched.profile.runtime
            )
        except (BackboneError, HostError) as error:
            text = f"it cannot be exported: {error}"
            replace_file(model.folder / REFUSED_FILE, text.encode())


def export_model(
    folder: Path,
    family: Family,
    batches: Sequence[Tensor],
    options: ExportOptions,
    *,
    runtime: str,
) -> ExportedFile:
    """Export the network in a folder.

    Args:
        folder: holds ``model.safetensors`` and ``layers.csv``.
        family: of the runtime that the file is for.
        batches: pictures, normalized, on which the ranges of outputs are observed.
        options: how the file is written.
        runtime: as the profile names it, for people.

    Raises:
        BackboneError: the network cannot be exported.
        HostError: ONNX Runtime does not run the file.
        RunError: a file of the folder cannot be read or written.
    """
    model, card = load_network(folder / WEIGHTS_FILE)
    fusion = fusion_of(family)
    ranges = None if fusion is None else observe_output_ranges(model, batches, fusion=fusion)
    about = PictureInfo(mean=card.mean, std=card.std, class_names=card.class_names)
    write = partial(
        export_onnx,
        input_px=card.candidate.input_px,
        dynamic_batch=options.dynamic_batch,
        pictures=about,
        bake=options.bake,
    )
    try:
        exported = write(model, path=folder / ONNX_FILE, output_ranges=ranges)
        if needs_float_file(family):
            write(without_quantization(model), path=folder / FLOAT_FILE)
    except OSError as error:
        raise RunError(
            f"{folder / ONNX_FILE} cannot be written ({error.strerror}); free space or unlock it"
        ) from None
    asked = {layer.path: layer.bits for layer in exported.layers}
    # What another runtime does is not known here; ONNX Runtime fuses no symmetric ReLU, say.
    ours = family == "onnxruntime"
    write_realised(folder / LAYERS_FILE, realised_bits(exported.path, asked) if ours else {})
    contract = read_contract(exported.path)
    write_handover(folder, family, contract, asked, runtime=runtime)
    return exported


def write_realised(path: Path, realised: Mapping[str, LayerBits]) -> None:
    """Add to ``layers.csv`` in which bits ONNX Runtime runs each layer here.

    Rows of kernels without weights, and of layers that nothing is known of, have empty cells.

    Raises:
        RunError: the file is not there, or has no layers.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); make the run again") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    kept = [name for name in reader.fieldnames or () if name not in REALISED_COLUMNS]
    if "layer" not in kept:
        raise RunError(f"{path} has no column 'layer'; make the run again")
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, [*kept, *REALISED_COLUMNS], lineterminator="\n")
    writer.writeheader()
    for row in reader:
        bits = realised.get(row["layer"])
        cells = ("", "", "") if bits is None else (
            str(bits.weight_bits), str(bits.activation_bits), runtime_name(),
        )  # fmt: skip
        filled = {name: row[name] for name in kept}
        writer.writerow({**filled, **dict(zip(REALISED_COLUMNS, cells, strict=True))})
    replace_file(path, out.getvalue().encode())


def state_of(model: ShippedModel, run_folder: Path) -> ModelState:
    """What lies in the folder of a model; a verification of another file is not counted.

    Raises:
        RunError: a file cannot be read.
    """
    file, refused = model.folder / ONNX_FILE, model.folder / REFUSED_FILE
    if refused.is_file():
        return ModelState(refused=refused.read_text(encoding="utf-8"))
    if not file.is_file():
        return ModelState()
    verified = read_verified(model.folder)
    if verified is not None and verified.file_hash != content_hash(file):
        verified = None
    return ModelState(artefact=file.relative_to(run_folder).as_posix(), verified=verified)


def forget(folder: Path) -> None:
    """Remove what an earlier export left, so that no file is taken for this one."""
    for name in (ONNX_FILE, VERIFY_FILE, REFUSED_FILE):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(
                f"{folder / name} cannot be replaced ({error.strerror}); unlock it"
            ) from None
