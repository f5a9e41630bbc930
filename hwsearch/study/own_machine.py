"""On this machine, networks of the space are timed, to correct its profile.

Before the search, some that stand for all; after it, those that may join the front. The shipped
profile of the host is that of one machine. Time does not depend on weights, so nothing has to be
trained for it.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.calibrate.make import write_network
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.measure.machine_speed import measure_with_reference
from hwsearch.hardware.measure.places import LocalPlace
from hwsearch.hardware.recalibration import Recalibration, TimedNetwork, recalibrate
from hwsearch.nets.blueprint import Blueprint
from hwsearch.space.candidate import Candidate
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
    timed = time_here(pricing, dict(timed_networks(pricing)), on_phase)
    return recalibrate(timed, machine_sigma_log=pricing.profile.interval.latency_sigma_log)


def time_candidates(
    pricing: PricingContext, candidates: Sequence[Candidate], on_phase: Callable[[str], None]
) -> list[TimedNetwork]:
    """Time candidates here, before they are trained to the end.

    Raises:
        HostError: nothing can be timed, or times do not repeat.
        BackboneError: one cannot be exported.
    """
    networks = {
        one.id: (pricing.backbones.blueprint(one), one.channel_counts, one.layer_bits)
        for one in candidates
    }
    return time_here(pricing, networks, on_phase)


def time_here(
    pricing: PricingContext, networks: Mapping[str, Network], on_phase: Callable[[str], None]
) -> list[TimedNetwork]:
    """Export networks with random weights, and time them in interleaved rounds.

    Args:
        pricing: predicts what they would take by the profile alone.
        networks: by name.
        on_phase: is told what is done.

    Raises:
        HostError: nothing can be timed, or times do not repeat.
        BackboneError: one cannot be made or exported.
    """
    with tempfile.TemporaryDirectory(prefix="hwsearch-") as folder:
        described, files = _written(pricing, networks, Path(folder), on_phase)
        on_phase(f"timing {len(files)} networks here, to hold the profile to them")
        report, _ = measure_with_reference(
            files, LocalPlace(), rounds=_ROUNDS, time_limit_s=_TIME_LIMIT_S
        )
    return pricing.predictor.predict_timed(
        described, {net.name: net.latency_ms for net in report.nets}
    )


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
    pricing: PricingContext,
    networks: Mapping[str, Network],
    folder: Path,
    on_phase: Callable[[str], None],
) -> tuple[dict[str, NetworkDesc], dict[str, Path]]:
    described: dict[str, NetworkDesc] = {}
    files: dict[str, Path] = {}
    for name, (blueprint, kept, bits) in networks.items():
        px = blueprint.trace.input_px
        on_phase(f"exporting {blueprint.ref.name} at {px} px, to time it")
        described[name], files[name] = blueprint.describe(kept, bits), folder / f"{name}.onnx"
        write_network(
            blueprint,
            kept,
            bits,
            files[name],
            scheme=pricing.profile.activation_quantization,
            seed=pricing.settings.seed,
        )
    return described, files
