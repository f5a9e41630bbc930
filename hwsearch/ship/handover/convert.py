"""Instructions for runtimes that read no ONNX: what to convert, and what is not known then."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from hwsearch.bits import LayerBits
from hwsearch.deploy.input_contract import InputContract
from hwsearch.hardware.runtimes import Family

#: The network without quantization, which converters with a quantizer of their own start from.
FLOAT_FILE: Final = "model_float.onnx"

_HEAD: Final = """# {runtime} does not read ONNX

hwsearch has not converted this network, and has neither scored nor timed it in {runtime}. What
`front.json` says of its latency is predicted; its accuracy is that of `model.onnx`, scored in ONNX
Runtime with the same integers. A converter chooses integers of its own, so **score and time what it
writes before you rely on it**.

| file | what |
|---|---|
| `model.onnx` | the network as it was searched, {bits} |
| `{float_file}` | the same network, pruned and fine-tuned, without quantization |
| `run_onnxruntime.py` | runs `model.onnx`, with the preprocessing to use |

Input `{name}`: fp32, 1x3x{px}x{px} (channels first), RGB, {normalization}.
"""

_TFLITE: Final = """
## Conversion

`onnx2tf` turns the layout to channels last and quantizes by itself. It needs 100 to 500 training
pictures, **before** normalization, {calibration}, as an array (n, {px}, {px}, 3):

```sh
pip install onnx2tf
onnx2tf -i {float_file} -o converted -oiqt \\
    -cind {name} calibration.npy "[[[[{mean}]]]]" "[[[[{std}]]]]"
```

The last two are the mean and the deviation per channel. `converted/` then holds
`{stem}_full_integer_quant.tflite` (integer input and output) and
`{stem}_integer_quant.tflite` (fp32 input and output).
"""

_EDGE_TPU: Final = """
## For the Edge TPU

Everything must be int8, so take the full-integer file, then compile it:

```sh
edgetpu_compiler -s converted/{stem}_full_integer_quant.tflite
```

`-s` prints which operations run on the Edge TPU. All of them should: the first that does not sends
the rest of the network to the processor. The compiler exists for x86 Linux only.
"""

_OTHER: Final = """
## Conversion

hwsearch knows no converter for {runtime}. Start from `{float_file}` where it quantizes by itself,
and from `model.onnx` where it reads QuantizeLinear and DequantizeLinear.
"""


def conversion_text(
    family: Family, contract: InputContract, bits: Mapping[str, LayerBits], *, runtime: str
) -> str:
    """``CONVERT.md``."""
    counts = Counter(bits.values())
    values = {
        "runtime": runtime,
        "bits": ", ".join(f"{each} x {count}" for each, count in sorted(counts.items())),
        "float_file": FLOAT_FILE,
        "stem": FLOAT_FILE.removesuffix(".onnx"),
        "name": contract.name,
        "px": contract.input_px,
        "calibration": "from 0 to 255" if contract.baked else "scaled to 0..1",
        "mean": "0,0,0" if contract.baked else _numbers(contract.mean),
        "std": "1,1,1" if contract.baked else _numbers(contract.std),
        "normalization": (
            "values from 0 to 255" if contract.baked else "normalized as `(x / 255 - mean) / std`"
        ),
    }
    parts = [_HEAD]
    if family in ("tflite", "edgetpu"):
        parts.append(_TFLITE)
    if family == "edgetpu":
        parts.append(_EDGE_TPU)
    if family == "other":
        parts.append(_OTHER)
    return "".join(parts).format(**values)


def _numbers(values: tuple[float, float, float]) -> str:
    return ",".join(f"{value:.6g}" for value in values)
