"""The job that trains a network of the front to the end and writes its weights."""

import json
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from hwsearch.accuracy.ladder import fine_tune, validation_score
from hwsearch.accuracy.training import Recipe, Score
from hwsearch.deploy.network_file import network_bytes
from hwsearch.report.stored import replace_file
from hwsearch.space.candidate import Candidate, canonical_json
from hwsearch.study.candidates.training_context import Base, TrainingContext
from hwsearch.study.jobs.report import Report

#: In the folder of a network.
WEIGHTS_FILE: Final = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Finalize:
    """Train a candidate to the end.

    Attributes:
        recipe: of the training; none of its steps for a base network as it is.
        folder: that its weights are written to; made if it is not there.
    """

    base: Base
    candidate: Candidate
    recipe: Recipe
    folder: Path


@dataclass(frozen=True, kw_only=True)
class FinalScore:
    """A network that was trained to the end, and its score on the validation split."""

    candidate: Candidate
    validation: Score
    train_s: float

    def to_json(self) -> str:
        """Canonical JSON, for the study."""
        return canonical_json(
            {
                "candidate": self.candidate.to_json(),
                "validation": [self.validation.correct, self.validation.total],
                "train_s": self.train_s,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what ``to_json`` wrote."""
        data = json.loads(text)
        return cls(
            candidate=Candidate.from_json(data["candidate"]),
            validation=Score(correct=data["validation"][0], total=data["validation"][1]),
            train_s=data["train_s"],
        )


def finalize(
    job: Finalize, context: TrainingContext, report: Report
) -> Generator[None, None, FinalScore]:
    """Run a ``Finalize`` job.

    Raises:
        BackboneError: the network cannot be made, or its training diverges.
        HostError: the base network is gone.
        RunError: the weights cannot be written.
    """
    yield from ()
    begin_s = time.perf_counter()
    candidate = job.candidate
    model = fine_tune(
        context.plan(candidate, job.base), context.data, job.recipe, on_step=report.step
    )
    validation = validation_score(model, context.data, candidate.input_px)
    job.folder.mkdir(parents=True, exist_ok=True)
    replace_file(job.folder / WEIGHTS_FILE, network_bytes(model, context.card(candidate)))
    return FinalScore(
        candidate=candidate, validation=validation, train_s=time.perf_counter() - begin_s
    )
