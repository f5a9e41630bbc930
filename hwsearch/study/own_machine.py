"""Before the search on this machine: a few networks are timed, and its profile is held to them.

The shipped profile of the host is that of one machine. Time does not depend on weights, so nothing
has to be trained for it.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.calibrate.make import write_network
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.measure.machine_speed import measure_with_reference
from hwsearch.hardware.measure.places import LocalPlace
from hwsearch.hardware.recalibration import Recalibration, recalibrate
from hwsearch.space.knobs import dense
from hwsearch.study.candidates.workbench import Workbench

#: Backbones that are timed, each dense in fp32 and int8, and half pruned at its cheapest bits.
_MOST_BACKBONES: Final = 6
_TIME_LIMIT_S: Final = 30.0


def recalibrated(bench: Workbench, on_phase: Callable[[str], None]) -> Recalibration:
    """Time networks of the search space here and hold the profile to them.

    Raises:
        HostError: nothing can be timed, or times do not repeat.
        BackboneError: a backbone cannot be made or exported.
    """
    with tempfile.TemporaryDirectory(prefix="hwsearch-") as folder:
        networks, files = _written(bench, Path(folder), on_phase)
        on_phase(f"timing {len(files)} networks here, to hold the profile to them")
        report, _ = measure_with_reference(files, LocalPlace(), time_limit_s=_TIME_LIMIT_S)
    predicted = bench.predictor.predict_all([networks[net.name] for net in report.nets])
    return recalibrate(
        [cost.latency_ms for cost in predicted],
        [net.latency_ms for net in report.nets],
        machine_sigma_log=bench.profile.interval.latency_sigma_log,
    )


def _written(
    bench: Workbench, folder: Path, on_phase: Callable[[str], None]
) -> tuple[dict[str, NetworkDesc], dict[str, Path]]:
    space = bench.settings.space
    px = min(space.input_px)
    ratios = space.pruning.ratios
    networks: dict[str, NetworkDesc] = {}
    files: dict[str, Path] = {}
    for backbone in space.backbones[:_MOST_BACKBONES]:
        on_phase(f"exporting {backbone.name} at {px} px, to time it")
        blueprint = bench.blueprint(dense(backbone.name, px))
        whole = {group.name: group.channels for group in blueprint.graph.groups}
        ratio = ratios[len(ratios) // 2]
        half = bench.plain_channels(replace(dense(backbone.name, px), prune=(ratio,) * 4))
        layers = blueprint.describe(whole).weighted
        variants: list[tuple[dict[str, int], dict[str, LayerBits]]] = [
            (whole, {layer.name: bits for layer in layers}) for bits in (FP32, INT8)
        ]
        variants.append((half, bench.bit_costs.allocate(blueprint.describe(half), 1.0)))
        for number, (kept, bits) in enumerate(variants):
            name = f"{backbone.name.replace(':', '.')}-{number}"
            files[name] = folder / f"{name}.onnx"
            networks[name] = blueprint.describe(kept, bits)
            write_network(
                blueprint,
                kept,
                bits,
                files[name],
                scheme=bench.profile.activation_quantization,
                seed=bench.settings.seed,
            )
    return networks, files
