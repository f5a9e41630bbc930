"""One ONNX file for every model of a run, and what goes with it."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.ladder import CALIBRATION_BATCHES
from hwsearch.accuracy.training import calibration_batches
from hwsearch.bits import LayerBits
from hwsearch.deploy.export import ExportedFile, PictureInfo, export_onnx
from hwsearch.deploy.input_contract import InputContract, read_contract
from hwsearch.deploy.network_file import load_network
from hwsearch.deploy.ranges import observe_output_ranges
from hwsearch.deploy.realised import classes_of, realised_bits, runtime_name
from hwsearch.errors import BackboneError, HostError, RunError
from hwsearch.hardware.runtimes import runtime_facts
from hwsearch.nets.quantize import without_quantization
from hwsearch.report.stored import replace_file
from hwsearch.report.verified import VERIFY_FILE
from hwsearch.ship.handover.convert import FLOAT_FILE
from hwsearch.ship.handover.write import write_handover
from hwsearch.study.finals.evidence import ONNX_FILE, REFUSED_FILE
from hwsearch.study.jobs.final import WEIGHTS_FILE
from hwsearch.study.run_folder import RunFolder, TrainedModel
from hwsearch.study.written.output import LAYERS_FILE

#: Columns that export adds to ``layers.csv``.
REALISED_COLUMNS: Final = ("realised_weight_bits", "realised_activation_bits", "realised_by")
#: Pictures on which a file is held against its network, and the least share of them for which both
#: name the same class. Integer kernels round outputs where the network does not: lcnet_050 in int8
#: agrees on 89 % (30 hard swishes in a row), and less where a network has learned little.
_COMPARED: Final = 128
_LEAST_AGREEMENT: Final = 0.95
_LEAST_AGREEMENT_INTEGER: Final = 0.5


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
    run: RunFolder,
    models: Sequence[TrainedModel],
    data: DataSet,
    options: ExportOptions,
    *,
    on_phase: Callable[[str], None],
) -> None:
    """Write ``model.onnx`` and its hand-over for each model; what was verified is forgotten.

    A model that cannot be exported is remembered as refused (``FileState``).

    Raises:
        RunError: weights that cannot be read, or a folder that cannot be written.
    """
    batch_size = run.settings.space.training.batch_size
    batches: dict[int, list[Tensor]] = {}
    for position, model in enumerate(models, start=1):
        on_phase(f"exporting {position} of {len(models)}: {model.name}")
        px = model.candidate.input_px
        if px not in batches:
            batches[px] = calibration_batches(
                data, px, batch_size=batch_size, count=CALIBRATION_BATCHES
            )
        forget(model.folder)
        try:
            export_model(model.folder, run.evidence.profile.runtime, batches[px], options)
        except (BackboneError, HostError) as error:
            forget(model.folder)
            text = f"it cannot be exported: {error}"
            replace_file(model.folder / REFUSED_FILE, text.encode())


def export_model(
    folder: Path,
    runtime_name: str,
    batches: Sequence[Tensor],
    options: ExportOptions,
) -> ExportedFile:
    """Export the network in a folder.

    Args:
        folder: holds ``model.safetensors`` and ``layers.csv``.
        runtime_name: what the file is for, as the profile says it.
        batches: pictures, normalized, on which the ranges of outputs are observed.
        options: how the file is written.

    Raises:
        BackboneError: the network cannot be exported, or its file names other classes.
        HostError: ONNX Runtime does not run the file.
        RunError: a file of the folder cannot be read or written.
    """
    model, card = load_network(folder / WEIGHTS_FILE)
    runtime, ranges = runtime_facts(runtime_name), None
    if runtime.fusion is not None:
        ranges = observe_output_ranges(model, batches, fusion=runtime.fusion)
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
        if runtime.takes_float_file:
            write(without_quantization(model), path=folder / FLOAT_FILE)
    except OSError as error:
        raise RunError(
            f"{folder / ONNX_FILE} cannot be written ({error.strerror}); free space or unlock it"
        ) from None
    contract = read_contract(exported.path)
    _check_agreement(model, exported, contract, batches)
    asked = {layer.path: layer.bits for layer in exported.layers}
    # What another runtime does is not known here; ONNX Runtime fuses no symmetric ReLU, say.
    realised = realised_bits(exported.path, asked) if runtime.runs_here else {}
    write_realised(folder / LAYERS_FILE, realised)
    write_handover(folder, runtime, contract, asked, runtime_name=runtime_name)
    return exported


def _check_agreement(
    model: nn.Module,
    exported: ExportedFile,
    contract: InputContract,
    batches: Sequence[Tensor],
) -> None:
    """Refuse a file that names other classes than its network: its export is broken.

    Raises:
        BackboneError: they agree on fewer pictures than rounding explains.
        HostError: ONNX Runtime does not run the file.
    """
    pictures = torch.cat(list(batches))[:_COMPARED]
    with torch.no_grad():
        expected = model.eval()(pictures).argmax(1).numpy()
    mean, std, scale, offset = (
        np.array(word, np.float32).reshape(1, 3, 1, 1)
        for word in (contract.mean, contract.std, contract.scale, contract.offset)
    )
    raw = (pictures.numpy() * std + mean) * 255
    agreed = float((classes_of(exported.path, raw * scale + offset) == expected).mean())
    narrowest = min(
        min(layer.bits.weight_bits, layer.bits.activation_bits) for layer in exported.layers
    )
    if agreed < (_LEAST_AGREEMENT_INTEGER if narrowest <= 8 else _LEAST_AGREEMENT):
        raise BackboneError(
            f"its file names the class that the network names for only {100 * agreed:.0f} % of "
            f"{len(pictures)} pictures; please report the backbone"
        )


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


def forget(folder: Path) -> None:
    """Remove what an earlier export left, so that no file is taken for this one."""
    for name in (ONNX_FILE, VERIFY_FILE, REFUSED_FILE):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(
                f"{folder / name} cannot be replaced ({error.strerror}); unlock it"
            ) from None
