"""All jobs, and the one way to run them.

A job is plain data. ``run`` gives a generator: it yields where the job pauses, is sent the answer
that the job waits for, and returns the job's result.
"""

from collections.abc import Generator
from typing import Any

from hwsearch.study.candidates.training_context import TrainingContext
from hwsearch.study.jobs.base import TrainBase, train_base
from hwsearch.study.jobs.final import Finalize, finalize
from hwsearch.study.jobs.layers import ExamineLayers, examine_layers
from hwsearch.study.jobs.report import Report
from hwsearch.study.jobs.trial import Evaluate, evaluate

Job = TrainBase | ExamineLayers | Evaluate | Finalize


def run(job: Job, context: TrainingContext, report: Report) -> Generator[Any, Any, Any]:
    """The generator of a job; nothing is done before its first ``next``."""
    match job:
        case TrainBase():
            return train_base(job, context, report)
        case ExamineLayers():
            return examine_layers(job, context, report)
        case Evaluate():
            return evaluate(job, context, report)
        case Finalize():
            return finalize(job, context, report)


def warm(job: Job, context: TrainingContext) -> None:
    """Load what a job needs of its base network, for all jobs that are run after it.

    Raises:
        BackboneError: the backbone cannot be built.
        HostError: the base network is gone.
    """
    match job:
        case TrainBase():
            context.backbones.blueprint_at(job.ref, job.px)
        case ExamineLayers():
            context.importance(job.base)
            context.backbones.blueprint_at(job.base.ref, job.px)
        case Evaluate() | Finalize():
            context.importance(job.base)
            context.backbones.blueprint(job.candidate)
