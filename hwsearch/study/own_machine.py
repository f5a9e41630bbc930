"""Before the search on this machine: networks of its space are timed, to correct its profile.

The shipped profile of the host is that of one machine. Time does not depend on weights, so nothing
has to be trained for it.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.calibrate.make import write_network
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.measure.machine_speed import measure_with_reference
from hwsearch.hardware.measure.places import LocalPlace
from hwsearch.hardware.recalibration import Recalibration, recalibrate
from hwsearch.nets.blueprint import Blueprint
from hwsearch.space.knobs import dense
from hwsearch.study.candidates.pricing_context import PricingContext

#: Networks of all backbones: with more than four backbones, those that come last in ``_VARIANTS``
#: are left out. Twenty took 6.8 s of one core. A backbone of which nothing is timed is predicted no
#: better than with one factor for all (27 % root mean square instead of 9 %).
_MOST_NETWORKS: Final = 24
#: Rounds of each network; 20 of them take 1.6 s more, and repeat to 0.9 % instead of 1.2 %.
_ROUNDS: Final = 10
_TIME_LIMIT_S: Final = 30.0

#: What is timed of each backbone: share of the largest pruning ratio, bits, and whether at the
#: largest input instead of the smallest. With all of them at the smallest, networks above 0.1 ms
#: were 14 % slower than predicted; which widths of which sizes are timed matters less.
_VARIANTS: Final = (
    (0.0, FP32, False),
    (0.0, INT8, False),
    (1.0, FP32, False),
    (0.5, INT8, True),
    (0.5, FP32, True),
)

Network = tuple[Blueprint, dict[str, int], dict[str, LayerBits]]


def recalibrated(pricing: PricingContext, on_phase: Callable[[str], None]) -> Recalibration:
    """Time networks of the search space here and learn what its profile is off by.

    Raises:
        HostError: nothing can be timed, or times do not repeat.
        BackboneError: a backbone cannot be made or exported.
    """
    with tempfile.TemporaryDirectory(prefix="hwsearch-") as folder:
        networks, files = _written(pricing, Path(folder), on_phase)
        on_phase(f"timing {len(files)} networks here, to hold the profile to them")
        report, _ = measure_with_reference(
            files, LocalPlace(), rounds=_ROUNDS, time_limit_s=_TIME_LIMIT_S
        )
    timed = pricing.predictor.predict_timed(
        networks, {net.name: net.latency_ms for net in report.nets}
    )
    return recalibrate(timed, machine_sigma_log=pricing.profile.interval.latency_sigma_log)


def timed_networks(pricing: PricingContext) -> Iterator[tuple[str, Network]]:
    """Names and networks that are timed: blueprint, channels by group, bits by layer."""
    space = pricing.settings.space
    plans = [(variant, backbone.name) for variant in _VARIANTS for backbone in space.backbones]
    for number, ((share, bits, large), backbone) in enumerate(plans[:_MOST_NETWORKS]):
        knobs = dense(backbone, max(space.input_px) if large else min(space.input_px))
        ratio = space.pruning.ratios[round(share * (len(space.pruning.ratios) - 1))]
        blueprint = pricing.backbones.blueprint(knobs)
        kept = pricing.plain_channels(replace(knobs, prune=(ratio,) * 4))
        layers = blueprint.describe(kept).weighted
        name = f"{backbone.replace(':', '.')}-{number}"
        yield name, (blueprint, kept, {layer.name: bits for layer in layers})


def _written(
    pricing: PricingContext, folder: Path, on_phase: Callable[[str], None]
) -> tuple[dict[str, NetworkDesc], dict[str, Path]]:
    networks: dict[str, NetworkDesc] = {}
    files: dict[str, Path] = {}
    for name, (blueprint, kept, bits) in timed_networks(pricing):
        px = blueprint.trace.input_px
        on_phase(f"exporting {blueprint.ref.name} at {px} px, to time it")
        networks[name], files[name] = blueprint.describe(kept, bits), folder / f"{name}.onnx"
        write_network(
            blueprint,
            kept,
            bits,
            files[name],
            scheme=pricing.profile.activation_quantization,
            seed=pricing.settings.seed,
        )
    return networks, files
