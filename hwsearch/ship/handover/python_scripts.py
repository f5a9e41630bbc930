"""Python that runs one file: the preprocessing to use, written out, and the runtime's calls."""

from string import Template
from typing import Final

from hwsearch.deploy.input_contract import InputContract

#: Lines of class names are not longer than this.
_WIDTH: Final = 96

_PREPARE: Final = '''
HERE = Path(__file__).resolve().parent
SIDE = $side
# $normalization
SCALE = np.array($scale, np.float32).reshape(3, 1, 1)
OFFSET = np.array($offset, np.float32).reshape(3, 1, 1)
CLASSES = $classes


def prepare(file: str) -> np.ndarray:
    """A picture file as the network takes it: (1, 3, SIDE, SIDE), fp32, RGB.

    As in training: turned upright, its middle square, resized with antialiasing.
    """
    with Image.open(file) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    pixels = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
    return (pixels.transpose(2, 0, 1) * SCALE + OFFSET)[None]

'''

_MAIN: Final = """

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python $file PICTURE ...")
    for name in sys.argv[1:]:
        logits = classify(prepare(name))
        best = int(logits.argmax())
        print(f"{name}: {CLASSES[best]} ({logits[best]:.3f})")
"""

_ONNXRUNTIME: Final = '''"""Runs model.onnx with ONNX Runtime.

    pip install onnxruntime numpy pillow
    python run_onnxruntime.py PICTURE ...
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
'''

_ONNXRUNTIME_RUN: Final = '''
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1  # as it was measured
session = onnxruntime.InferenceSession(
    str(HERE / "model.onnx"), options, providers=["CPUExecutionProvider"]
)


def classify(picture: np.ndarray) -> np.ndarray:
    """The logits of one picture, one for each of CLASSES."""
    return session.run(None, {"$input": picture})[0][0]
'''

_OPENVINO: Final = '''"""Runs model.onnx with OpenVINO.

    pip install openvino numpy pillow
    python run_openvino.py PICTURE ...
"""

import sys
from pathlib import Path

import numpy as np
import openvino
from PIL import Image, ImageOps
'''

_OPENVINO_RUN: Final = '''
# One stream for the shortest latency of a single picture; fp32 stays fp32 on processors with BF16.
compiled = openvino.Core().compile_model(
    str(HERE / "model.onnx"),
    "CPU",
    {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"},
)


def classify(picture: np.ndarray) -> np.ndarray:
    """The logits of one picture, one for each of CLASSES."""
    return compiled({"$input": picture})[0][0]
'''


def onnxruntime_script(contract: InputContract) -> str:
    """``run_onnxruntime.py``."""
    return _script(_ONNXRUNTIME, _ONNXRUNTIME_RUN, "run_onnxruntime.py", contract)


def openvino_script(contract: InputContract) -> str:
    """``run_openvino.py``."""
    return _script(_OPENVINO, _OPENVINO_RUN, "run_openvino.py", contract)


def _script(head: str, run: str, file: str, contract: InputContract) -> str:
    values = {
        "file": file,
        "input": contract.name,
        "side": str(contract.input_px),
        "scale": _numbers(contract.scale),
        "offset": _numbers(contract.offset),
        "normalization": (
            "The file normalizes by itself and takes values from 0 to 255."
            if contract.baked
            else "(x / 255 - mean) / std of the training pictures, as x * SCALE + OFFSET."
        ),
        "classes": _classes(contract.class_names),
    }
    return head + Template(_PREPARE + run + _MAIN).substitute(values)


def _numbers(values: tuple[float, float, float]) -> str:
    return "[" + ", ".join(f"{value:.9g}" for value in values) + "]"


def _classes(names: tuple[str, ...]) -> str:
    """A list literal; ``repr`` of a name is Python whatever the name is."""
    lines, line = [], ""
    for name in names:
        text = f"{name!r}, "
        if line and len(line) + len(text) > _WIDTH:
            lines.append(line.rstrip())
            line = ""
        line += text
    lines.append(line.rstrip())
    return "[\n    " + "\n    ".join(lines) + "\n]"
