"""The job that trains a base network, for as long as whoever asked for it says."""

from collections.abc import Generator
from dataclasses import dataclass

from hwsearch.accuracy.base_weights import Source, begin_training, keep_base
from hwsearch.accuracy.training import Score
from hwsearch.nets.backbone import BackboneRef
from hwsearch.study.candidates.training_context import Base, TrainingContext
from hwsearch.study.jobs.report import Report


@dataclass(frozen=True, kw_only=True)
class TrainBase:
    """Train a base network.

    The job pauses with its ``Source`` before the first step. Each ``TrainOn`` that it is given
    trains the whole network on, and it pauses with ``Trained``; ``Finish`` ends it with a ``Base``.

    Attributes:
        px: input size at which it is trained.
        key: under which it is kept in the cache.
    """

    ref: BackboneRef
    px: int
    key: str


@dataclass(frozen=True, kw_only=True)
class TrainOn:
    """Train the whole network on.

    Attributes:
        steps: optimizer steps; at most so many where the clock decides.
        seconds: after which it ends; None where the steps decide.
    """

    steps: int
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Finish:
    """Train the whole network on, then anneal it at all widths, and keep it.

    Attributes:
        whole: None where it was trained for long enough.
    """

    whole: TrainOn | None
    anneal: TrainOn


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Where a base network in training is.

    Attributes:
        score: on the validation pictures.
        seconds: of the training that was asked for last.
    """

    score: Score
    seconds: float


def train_base(
    job: TrainBase, context: TrainingContext, report: Report
) -> Generator[Source | Trained, TrainOn | Finish, Base]:
    """Run a ``TrainBase`` job.

    Raises:
        BackboneError: the network cannot be built or trained, or weights do not fit.
        HostError: weights cannot be had, or the cache cannot be written.
    """
    named = f"base weights of {job.ref.name} at {job.px} px"
    recipe, data = context.base_recipe, context.data
    training, source = begin_training(
        job.ref,
        data,
        job.px,
        recipe,
        weights=context.weights_of(job.ref),
        download=context.settings.download,
    )
    command = yield source
    while isinstance(command, TrainOn):
        report.phase(named)
        before_s = training.train_s
        training.train_whole(command.steps, command.seconds, on_step=report.step)
        score = training.score()
        report.phase(f"{named}: {100 * score.accuracy:.1f} % on validation pictures so far")
        command = yield Trained(score=score, seconds=training.train_s - before_s)
    if command.whole is not None:
        report.phase(named)
        training.train_whole(command.whole.steps, command.whole.seconds, on_step=report.step)
    report.phase(f"{named}, at all widths")
    training.anneal(
        command.anneal.steps, command.anneal.seconds, widths=context.widths, on_step=report.step
    )
    network = keep_base(job.key, training, source, job.ref, data, job.px, recipe)
    base = Base.of(network, job.ref, job.px)
    context.keep(network, base)
    return base
