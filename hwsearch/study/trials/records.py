"""What is kept of a trial: one JSON text in the study, one line in ``trials.csv``."""

import json
from dataclasses import dataclass, replace
from typing import Final, Self

from hwsearch.accuracy.training import Score
from hwsearch.errors import RunError
from hwsearch.hardware.cost import Cost, Prediction
from hwsearch.report.stored import TrialRow, TrialState
from hwsearch.space.candidate import Candidate, canonical_json
from hwsearch.space.knobs import Knobs
from hwsearch.study.trials.stored_cost import StoredCost

#: Rungs of the ladder that ``trials.csv`` has columns for.
RUNGS: Final = 3


@dataclass(frozen=True, kw_only=True)
class Record:
    """One trial, from proposal to its end.

    Attributes:
        candidate: None where the backbone was over budget before it was expanded.
        scores: on the validation split, one for each rung that was reached.
        probability: that the predicted cost meets every budget.
        reason: why it was stopped, refused or failed.
        original: number of the trial that evaluated the same candidate first.
        train_s: seconds on the ladder.
        step_s: seconds of an optimizer step, where two or more in a row were timed.
        score_s: seconds of a scoring on the validation split, where there was one.
    """

    trial: int
    state: TrialState
    knobs: Knobs
    candidate: Candidate | None
    cost: Cost | None
    probability: float | None
    scores: tuple[Score, ...] = ()
    reason: str | None = None
    original: int | None = None
    train_s: float = 0.0
    step_s: float | None = None
    score_s: float | None = None

    @property
    def accuracy(self) -> float | None:
        """Validation accuracy at the highest rung reached."""
        return self.scores[-1].accuracy if self.scores else None

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Validation accuracy at each rung reached, from the lowest up."""
        return tuple(score.accuracy for score in self.scores)

    def finalized(self) -> Self:
        """The same trial after its network was fine-tuned fully."""
        return replace(self, state="finalized")

    def to_json(self) -> str:
        """Canonical JSON."""
        return canonical_json(
            {
                "trial": self.trial,
                "state": self.state,
                "knobs": self.knobs.to_choices(),
                "candidate": None if self.candidate is None else self.candidate.to_json(),
                "cost": None if self.cost is None else StoredCost.of(self.cost).model_dump(),
                "probability": self.probability,
                "scores": [[score.correct, score.total] for score in self.scores],
                "reason": self.reason,
                "original": self.original,
                "train_s": self.train_s,
                "step_s": self.step_s,
                "score_s": self.score_s,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what ``to_json`` wrote; raises ``RunError`` on anything else."""
        try:
            data = json.loads(text)
            candidate, cost = data["candidate"], data["cost"]
            return cls(
                trial=data["trial"],
                state=data["state"],
                knobs=Knobs.from_choices(data["knobs"]),
                candidate=None if candidate is None else Candidate.from_json(candidate),
                cost=None if cost is None else StoredCost.model_validate(cost).cost(),
                probability=data["probability"],
                scores=tuple(Score(correct=c, total=t) for c, t in data["scores"]),
                reason=data["reason"],
                original=data["original"],
                train_s=data["train_s"],
                # The first runs did not store these.
                step_s=data.get("step_s"),
                score_s=data.get("score_s"),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"a stored trial cannot be read ({error}); the study was changed, or written by "
                "another version of hwsearch"
            ) from None

    def row(self) -> TrialRow:
        """The line of ``trials.csv``."""
        bits = [] if self.candidate is None else [bits for _, bits in self.candidate.bits]
        ladder = [score.accuracy for score in self.scores] + [None] * (RUNGS - len(self.scores))
        costs: dict[str, float | None] = dict.fromkeys(
            f"{name}{end}" for name in ("latency_ms", "energy_mj") for end in ("", "_low", "_high")
        )
        if self.cost is not None:
            costs |= _columns("latency_ms", self.cost.latency_ms)
            costs |= _columns("energy_mj", self.cost.energy_mj)
        return TrialRow(
            trial=self.trial,
            state=self.state,
            candidate=None if self.candidate is None else self.candidate.id,
            backbone=self.knobs.backbone,
            input_px=self.knobs.input_px,
            prune_stage1=self.knobs.prune[0],
            prune_stage2=self.knobs.prune[1],
            prune_stage3=self.knobs.prune[2],
            prune_stage4=self.knobs.prune[3],
            mean_weight_bits=_mean([b.weight_bits for b in bits]),
            mean_activation_bits=_mean([b.activation_bits for b in bits]),
            rung=len(self.scores) - 1 if self.scores else None,
            accuracy_rung0=ladder[0],
            accuracy_rung1=ladder[1],
            accuracy_rung2=ladder[2],
            validation_accuracy=self.accuracy if self.state in {"completed", "finalized"} else None,
            size_bytes=None if self.cost is None else self.cost.size_bytes,
            macs=None if self.cost is None else self.cost.macs,
            meets_budget_probability=self.probability,
            reason=self.reason,
            train_s=round(self.train_s, 3),
            knobs=canonical_json(self.knobs.to_choices()),
            **costs,
        )


def _columns(name: str, prediction: Prediction | None) -> dict[str, float | None]:
    if prediction is None:
        return {}
    return {name: prediction.value, f"{name}_low": prediction.low, f"{name}_high": prediction.high}


def _mean(widths: list[int]) -> float | None:
    return sum(widths) / len(widths) if widths else None
