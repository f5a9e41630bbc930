"""Candidates of a space without a run: what benchmarks and tests make networks with."""

from typing import Any

from hwsearch.accuracy.base_weights import base_network
from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.ladder import Plan
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.nets.backbone import BackboneRef
from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import Knobs
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.candidates.pricing_context import LayerFacts, PricingContext
from hwsearch.study.candidates.training_context import Base, TrainingContext
from hwsearch.study.jobs.layers import Examined, ExamineLayers
from hwsearch.study.jobs.report import Report
from hwsearch.study.jobs.run import Job, run


class Bench:
    """Both contexts of a run; base networks are trained when one is needed."""

    def __init__(self, settings: RunSettings, profile: HardwareProfile, data: DataSet) -> None:
        self.settings, self.profile, self.data = settings, profile, data
        self.pricing = PricingContext(settings, profile, len(data.class_names))
        self.training = TrainingContext(settings, profile, data, self.pricing.backbones)
        self.bases: dict[tuple[BackboneRef, int], Base] = {}
        self.facts: dict[tuple[BackboneRef, int], LayerFacts] = {}

    def base_of(self, chosen: Knobs | Candidate) -> Base:
        """The base network of knobs or a candidate, trained as the effort says."""
        ref, px = self.pricing.backbones.base_of(chosen)
        if (ref, px) not in self.bases:
            network = base_network(
                ref,
                self.data,
                px,
                self.training.base_recipe,
                weights=self.training.weights_of(ref),
                widths=self.training.widths,
            )
            base = self.bases[ref, px] = Base.of(network, ref, px)
            self.training.keep(network, base)
        return self.bases[ref, px]

    def facts_of(self, chosen: Knobs | Candidate) -> LayerFacts:
        """What the base network says about its layers at the input size of knobs."""
        key = (self.pricing.backbones.ref(chosen), chosen.input_px)
        if key not in self.facts:
            offered = self.pricing.offered_bits(self.pricing.backbones.blueprint(chosen))
            job = ExamineLayers(base=self.base_of(chosen), px=chosen.input_px, offered=offered)
            examined: Examined = result_of(job, self.training)
            self.facts[key] = examined.facts
        return self.facts[key]

    def expand(self, knobs: Knobs) -> Candidate:
        """The candidate that knobs become."""
        return self.pricing.expand(knobs, self.facts_of(knobs))

    def plan(self, candidate: Candidate) -> Plan:
        """How to make its network."""
        return self.training.plan(candidate, self.base_of(candidate))


def result_of(job: Job, context: TrainingContext) -> Any:  # noqa: ANN401 - as the job says
    """Run a job that never pauses here and now, and say nothing of it."""
    silent = Report(phase=lambda _: None, step=lambda _done, _total: None)
    try:
        next(run(job, context, silent))
    except StopIteration as end:
        return end.value
    raise ValueError(f"{type(job).__name__} pauses; give it to an executor")
