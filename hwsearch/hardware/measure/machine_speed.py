"""How much a machine's own speed varies from one timing to a later one.

The rounds of one measurement say how well it repeats within its minutes. Clocks, heat and
neighbours on the same processor move a machine for longer than that: a virtual machine timed one
network at 0.063 ms and, 40 minutes later, at 0.087 ms, each time within 1 %. So one network, always
the same, is timed along with the others, and what it took is kept in the user's cache.
"""

import json
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import log, sqrt
from pathlib import Path
from typing import Any, Final

from hwsearch.errors import HostError
from hwsearch.files import cache_folder
from hwsearch.hardware.measure.places import Place
from hwsearch.hardware.measure.protocol import MeasureReport, measure

#: Name of the network that is always the same.
REFERENCE: Final = "reference"
#: Older timings speak of another time of the machine.
_KEPT: Final = timedelta(days=30)
#: Of the reference.
_CHANNELS, _LAYERS, _PX = 32, 6, 16


@dataclass(frozen=True, kw_only=True)
class MachineSpeed:
    """What the reference took on a machine, now and before.

    Attributes:
        timings: how many, the last one included.
        since: of the first.
        sigma_log: standard deviation of the logarithm of the ratio of any two of them; 0 of a
            single one, which tells nothing.
    """

    timings: int
    since: datetime
    sigma_log: float

    def told(self, place: str) -> str:
        """One line for people."""
        return (
            f"the speed of {place} differs by {100 * self.sigma_log:.1f} % between any two of "
            f"{self.timings} timings since {self.since:%Y-%m-%d %H:%M} UTC; measured intervals "
            "allow for it"
        )


def measure_with_reference(
    files: Mapping[str, Path],
    place: Place,
    **options: Any,  # noqa: ANN401 - of ``measure``
) -> tuple[MeasureReport, MachineSpeed]:
    """Time networks, and the reference among them.

    Args:
        files: the networks by name.
        place: where; with a runtime that reads ONNX files as they are.
        options: of ``measure``.

    Returns:
        The report, without the reference, and what is known of the machine by now.

    Raises:
        HostError: as ``measure``, or the cache cannot be read or written.
    """
    with tempfile.TemporaryDirectory(prefix="hwsearch-") as folder:
        path = Path(folder) / f"{REFERENCE}.onnx"
        write_reference(path)
        report = measure({**files, REFERENCE: path}, place, **options)
    own = tuple(net for net in report.nets if net.name != REFERENCE)
    found = next((net for net in report.nets if net.name == REFERENCE), None)
    if found is None or not own:
        raise HostError(
            f"{report.place}: {report.runtime} {report.runtime_version} runs none of them; the "
            f"first: {report.refused[0].reason}"
        )
    speed = remember(report, found.latency_ms, datetime.now(UTC))
    return replace(report, nets=own), speed


def write_reference(path: Path) -> None:
    """Six convolutions of 32 channels at 16 x 16 pixels, in fp32."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    kernel = np.full((_CHANNELS, _CHANNELS, 3, 3), 1 / (9 * _CHANNELS), dtype=np.float32)
    nodes = []
    for layer in range(_LAYERS):
        last = "input" if layer == 0 else f"rectified{layer - 1}"
        out = "output" if layer == _LAYERS - 1 else f"rectified{layer}"
        nodes += [
            helper.make_node("Conv", [last, "kernel"], [f"sum{layer}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"sum{layer}"], [out]),
        ]
    shape = [1, _CHANNELS, _PX, _PX]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name in ("input", "output")
    ]
    graph = helper.make_graph(
        nodes, REFERENCE, ends[:1], ends[1:], [numpy_helper.from_array(kernel, "kernel")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def remember(report: MeasureReport, latency_ms: float, now: datetime) -> MachineSpeed:
    """Keep a timing of the reference, and say how it lies among those of the same machine.

    Args:
        report: of the measurement: place, device, runtime and threads have to be the same.
        latency_ms: of the reference.
        now: of the measurement.

    Raises:
        HostError: the cache cannot be read or written.
    """
    path = cache_folder() / "machine_speed.jsonl"
    same = {
        "place": report.place,
        "cpu": report.cpu,
        "device": report.device,
        "runtime": f"{report.runtime} {report.runtime_version}",
        "threads": report.threads,
    }
    line = {**same, "at": now.isoformat(), "latency_ms": latency_ms}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        kept = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
        alike = [
            (datetime.fromisoformat(one["at"]), float(one["latency_ms"]))
            for one in kept
            if all(one[name] == value for name, value in same.items())
        ]
        recent = [(at, log(value)) for at, value in alike if now - at <= _KEPT]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HostError(
            f"{path} cannot be used ({error}); remove it, or set HWSEARCH_CACHE to another folder"
        ) from None
    logs = [value for _, value in recent]
    return MachineSpeed(
        timings=len(logs),
        since=min(at for at, _ in recent),
        sigma_log=sqrt(2) * statistics.stdev(logs) if len(logs) > 1 else 0.0,
    )
