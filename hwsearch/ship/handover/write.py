"""The scripts and instructions that go with an exported file, by the runtime of its target."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hwsearch.bits import LayerBits
from hwsearch.deploy.input_contract import InputContract
from hwsearch.errors import RunError
from hwsearch.hardware.runtimes import RuntimeFacts
from hwsearch.report.stored import replace_file
from hwsearch.ship.handover.convert import FLOAT_FILE, conversion_text
from hwsearch.ship.handover.python_scripts import onnxruntime_script, openvino_script
from hwsearch.ship.handover.tensorrt import tensorrt_script

TENSORRT_FILE: Final = "build_tensorrt.sh"
ONNXRUNTIME_FILE: Final = "run_onnxruntime.py"
OPENVINO_FILE: Final = "run_openvino.py"
CONVERT_FILE: Final = "CONVERT.md"

_ALL: Final = (TENSORRT_FILE, ONNXRUNTIME_FILE, OPENVINO_FILE, CONVERT_FILE)


def write_handover(
    folder: Path,
    runtime: RuntimeFacts,
    contract: InputContract,
    bits: Mapping[str, LayerBits],
    *,
    runtime_name: str,
) -> list[Path]:
    """Write what goes with ``model.onnx`` in a folder; what went with an earlier one is removed.

    Args:
        folder: of the model.
        runtime: that it is for.
        contract: of its input.
        bits: of its layers, in running order.
        runtime_name: as the profile says it, for people.

    Returns:
        The files.

    Raises:
        RunError: the folder cannot be written.
    """
    texts = {ONNXRUNTIME_FILE: onnxruntime_script(contract)}
    if runtime.family == "tensorrt":
        texts[TENSORRT_FILE] = tensorrt_script(contract, bits)
    elif runtime.family in ("onnxruntime", "openvino"):
        # This machine may have either; the faster one differs from model to model.
        texts[OPENVINO_FILE] = openvino_script(contract)
    else:
        texts[CONVERT_FILE] = conversion_text(runtime.family, contract, bits, runtime=runtime_name)
    stale = [*(name for name in _ALL if name not in texts)]
    if not runtime.takes_float_file:
        stale.append(FLOAT_FILE)
    for name in stale:
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{folder / name} cannot be removed ({error.strerror})") from None
    for name, text in texts.items():
        replace_file(folder / name, text.encode())
    return [folder / name for name in texts]
