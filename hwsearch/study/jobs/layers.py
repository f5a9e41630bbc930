"""The job that finds out what a base network says about its channels and layers."""

import time
from collections.abc import Generator
from dataclasses import dataclass

from hwsearch.accuracy.sensitivity import sensitivity_table
from hwsearch.bits import LayerBits
from hwsearch.deploy.runnable import layers_without_int8
from hwsearch.hardware.runtimes import runtime_facts
from hwsearch.study.candidates.pricing_context import LayerFacts
from hwsearch.study.candidates.training_context import Base, TrainingContext
from hwsearch.study.jobs.report import Report


@dataclass(frozen=True, kw_only=True)
class ExamineLayers:
    """Measure sensitivity, and which layers the runtime does not run in int8.

    Attributes:
        px: input size of the networks that are asked about.
        offered: bits that each weighted layer may have.
    """

    base: Base
    px: int
    offered: dict[str, tuple[LayerBits, ...]]


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What was found out.

    Attributes:
        export_s: seconds that exporting the dense network took.
    """

    facts: LayerFacts
    export_s: float


def examine_layers(
    job: ExamineLayers, context: TrainingContext, report: Report
) -> Generator[None, None, Examined]:
    """Run an ``ExamineLayers`` job.

    Raises:
        BackboneError: the backbone cannot be exported, or bits make its outputs not finite.
        HostError: the base network is gone, or the cache cannot be written.
    """
    yield from ()
    network, scheme = context.network(job.base), context.profile.activation_quantization
    begin_s = time.perf_counter()
    unfused = layers_without_int8(network.model, job.px, list(job.offered), scheme)
    export_s = time.perf_counter() - begin_s
    report.phase(f"sensitivity of {job.base.ref.name} at {job.px} px, layer by layer")
    sensitivity = sensitivity_table(
        network,
        context.backbones.blueprint_at(job.base.ref, job.px),
        job.offered,
        context.data,
        scheme=scheme,
    )
    runs_here = runtime_facts(context.profile.runtime).runs_here
    facts = LayerFacts(
        importance=context.importance(job.base),
        sensitivity=sensitivity,
        unfused=unfused if runs_here else frozenset(),
    )
    return Examined(facts=facts, export_s=export_s)
