"""The shell script that builds a TensorRT engine on the device and times it.

What differs between versions, as their documentation says:

- 11: every network is strongly typed; there are no precision options.
- 10: ``--stronglyTyped`` says the same, so that nothing runs in other bits than the file says.
- 8.6 and 9: weakly typed. ``--int8`` and ``--fp16`` allow what the file holds, and layers that
  are to stay in fp32 are named, since TensorRT may run them in 16 bits otherwise.
- before 8.6: not supported; their ONNX parsers read older operator sets.
"""

import re
from collections.abc import Mapping
from string import Template
from typing import Final

from hwsearch.bits import LayerBits
from hwsearch.deploy.input_contract import InputContract

#: Log that ``hwsearch verify --trtexec`` reads.
LOG_FILE: Final = "trtexec.log"
#: What ``trtexec`` splits its list of layers at; names with them cannot be listed.
_SEPARATORS: Final = re.compile(r"[,:'\"\s\\$`]")

_SCRIPT: Final = r"""#!/bin/sh
# Builds a TensorRT engine of model.onnx on this device and times it.
# For TensorRT 8.6 to 11. An engine runs on the device and version that it was built with only.
#
#   sh build_tensorrt.sh [/path/to/trtexec]
#
# Afterwards, where the run is:  hwsearch verify RUN --trtexec THIS_FOLDER/trtexec.log
# Input: "$input", fp32, 1x3x${side}x${side}, RGB; $normalization
set -eu
cd "$$(dirname "$$0")"

trtexec=$${1:-}
for place in trtexec /usr/src/tensorrt/bin/trtexec /opt/tensorrt/bin/trtexec; do
    if [ -z "$$trtexec" ] && command -v "$$place" >/dev/null; then trtexec=$$place; fi
done
if [ -z "$$trtexec" ]; then
    echo "trtexec was not found; give its path: sh build_tensorrt.sh /path/to/trtexec" >&2
    exit 3
fi

# The first line says v8601 for 8.6.1, v100300 for 10.3.0 or v11.1.0.106.
version=$$("$$trtexec" --help 2>&1 |
    sed -n 's/.*TensorRT\.trtexec \[TensorRT v\([0-9.]*\)\].*/\1/p' | head -n 1)
case $$version in
    '') echo "$$trtexec does not say its version; is it TensorRT's trtexec?" >&2; exit 3 ;;
    *.*) major=$${version%%.*}; rest=$${version#*.}; minor=$${rest%%.*} ;;
    ?????*) major=$$((version / 10000)); minor=$$((version / 100 % 100)) ;;
    *) major=$$((version / 1000)); minor=$$((version / 100 % 10)) ;;
esac
echo "TensorRT $$major.$$minor"

if [ "$$major" -ge 11 ]; then
    types=''
elif [ "$$major" -eq 10 ]; then
    types='--stronglyTyped'
elif [ "$$major" -eq 9 ] || { [ "$$major" -eq 8 ] && [ "$$minor" -ge 6 ]; }; then
    types='$weak'
else
    echo "TensorRT $$major.$$minor is too old for this file; 8.6 or later is needed" >&2
    exit 3
fi

# The timing cache makes the next build of this network, or of one like it, a matter of seconds.
# shellcheck disable=SC2086 # types are several words
"$$trtexec" --onnx=model.onnx --saveEngine=model.engine $$types \
    --timingCacheFile=timing.cache --profilingVerbosity=detailed \
    --exportLayerInfo=tensorrt_layers.json$shapes \
    --warmUp=0 --duration=0 --iterations=10 >build.log 2>&1 || {
    grep '\[E\]' build.log >&2 || tail -n 5 build.log >&2
    echo "the engine was not built; all of it is in build.log" >&2
    exit 1
}

# Five rounds, of which the least median counts. No transfers: on a Jetson they take the memory
# bandwidth of the kernels. Fix the clocks before (sudo jetson_clocks).
: >$log
for round in 1 2 3 4 5; do
    "$$trtexec" --loadEngine=model.engine$shapes --useSpinWait --noDataTransfers \
        --warmUp=200 --duration=0 --iterations=200 >>$log 2>&1
done
grep 'GPU Compute Time: min' $log
echo "tensorrt_layers.json says in which precision each layer runs; the times are in $log"
"""


def tensorrt_script(contract: InputContract, bits: Mapping[str, LayerBits]) -> str:
    """``build_tensorrt.sh``.

    Args:
        contract: of the input of ``model.onnx``.
        bits: of its layers.
    """
    px = contract.input_px
    open_batch = contract.batch is None
    return Template(_SCRIPT).substitute(
        input=contract.name,
        side=str(px),
        normalization=(
            "values from 0 to 255"
            if contract.baked
            else "(x / 255 - mean) / std, as run_onnxruntime.py does it"
        ),
        weak=" ".join(weak_options(bits)),
        shapes=f" --shapes={contract.name}:1x3x{px}x{px}" if open_batch else "",
        log=LOG_FILE,
    )


def weak_options(bits: Mapping[str, LayerBits]) -> list[str]:
    """What TensorRT 8.6 to 9 is told, which cannot take all types from the file.

    A layer whose name would break the list is left out of it: it may then run in 16 bits.
    """
    used = [(each.weight_bits, each.activation_bits) for each in bits.values()]
    integer = any(max(pair) <= 8 for pair in used)
    half = any(activation == 16 for _, activation in used)
    options = (["--int8"] if integer else []) + (["--fp16"] if half else [])
    plain = [
        name
        for name, each in bits.items()
        if each.activation_bits == 32 and not _SEPARATORS.search(name)
    ]
    if half and plain:
        listed = ",".join(f"{name}:fp32" for name in plain)
        options += ["--precisionConstraints=obey", f"--layerPrecisions={listed}"]
    return options
