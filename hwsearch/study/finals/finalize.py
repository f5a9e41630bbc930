"""After the search: the best trials and the baselines are fine-tuned fully and scored again.

The score is taken on held-out data that no decision of the search has looked at.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from torch import nn

from hwsearch.accuracy.ladder import fine_tune, held_out_score, validation_score
from hwsearch.accuracy.training import Recipe, Score
from hwsearch.space.candidate import Candidate, canonical_json
from hwsearch.study.asked.settings import derived_seed
from hwsearch.study.candidates.workbench import Workbench
from hwsearch.study.finals.final_time import MARGIN, SHIP_START_S, Expected, ship_s
from hwsearch.study.finals.finalists import Planned
from hwsearch.study.trials.trial import FINE_TUNING_RATE

#: Networks in a row, the slowest of which, for what was expected of it, says how slow the next one
#: will be.
_RECENT: Final = 3
#: A phase of its own, since an exported file is scored on the same pictures once more.
_SCORING: Final = "held-out scoring"


@dataclass(frozen=True, kw_only=True)
class FinalScore:
    """Scores of a fully fine-tuned network."""

    candidate: Candidate
    validation: Score
    held_out: Score
    train_s: float

    def to_json(self) -> str:
        """Canonical JSON, for the study."""
        return canonical_json(
            {
                "candidate": self.candidate.to_json(),
                "validation": [self.validation.correct, self.validation.total],
                "held_out": [self.held_out.correct, self.held_out.total],
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
            held_out=Score(correct=data["held_out"][0], total=data["held_out"][1]),
            train_s=data["train_s"],
        )


def full_recipe(candidate: Candidate, bench: Workbench) -> Recipe:
    """How a candidate is fine-tuned fully."""
    return Recipe(
        steps=bench.final_steps,
        batch_size=bench.settings.space.training.batch_size,
        learning_rate=FINE_TUNING_RATE,
        seed=derived_seed(bench.settings.seed, candidate.id, "final"),
    )


def finalize(
    planned: Sequence[Planned],
    done: Mapping[str, FinalScore],
    bench: Workbench,
    *,
    expected: Expected | None = None,
    left_s: Callable[[], float] | None = None,
    on_phase: Callable[[str], None],
    on_step: Callable[[int, int], None],
    on_final: Callable[[FinalScore, nn.Module], None],
) -> dict[str, FinalScore]:
    """Fine-tune and score every candidate once, as far as there is time.

    Args:
        planned: finalists and baselines, the first ones first; equal ones are trained once.
        done: finished earlier (a resumed run); these are not trained again.
        bench: of the run.
        expected: what networks will take; one of which that is not known is taken to take what the
            longest of the last three took.
        left_s: seconds that are left, export and verification included; None if all there are.
        on_phase: is told which network is next.
        on_step: is called with each optimizer step.
        on_final: is called with each new result and its network, to be stored at once.

    Returns:
        The result of each candidate by id, less those that there was no time for.
    """
    finals = dict(done)
    wanted: dict[str, Planned] = {}
    for one in planned:
        wanted.setdefault(one.candidate.id, one)
    missing = [one for key, one in wanted.items() if key not in finals]
    pace = _Pace(bench, expected)

    def file_s(candidate: Candidate) -> float:
        return ship_s(bench.price(candidate).latency_ms.value, bench)

    files_s = sum(file_s(final.candidate) for final in done.values())
    incomplete: set[str] = set()
    for position, one in enumerate(missing, start=1):
        candidate = one.candidate
        if left_s is not None and finals and not one.needed:
            scoring_s = (len(finals) + 1) * pace.scoring_s
            after_s = SHIP_START_S + scoring_s + files_s + file_s(candidate)
            late = left_s() < pace.tuning_s(candidate) + after_s
            if late and one.baseline:
                incomplete.add(candidate.backbone)
            if late or candidate.backbone in incomplete:
                continue
        on_phase(
            f"fine-tuning {position} of {len(missing)}: {candidate.backbone} at "
            f"{candidate.input_px} px"
        )
        finals[candidate.id] = _final(candidate, bench, on_step, on_final)
        files_s += file_s(candidate)
        pace.took(finals[candidate.id])
    return finals


class _Pace:
    """What the next network will take: what was expected, corrected by what the last ones took."""

    def __init__(self, bench: Workbench, expected: Expected | None) -> None:
        self._bench = bench
        self._expected_s = {} if expected is None else expected.tuning_s
        self._expected_scoring_s = 0.0 if expected is None else expected.scoring_s
        self._scored_before_s = bench.wall_s.get(_SCORING, 0.0)
        self._trained_s: list[float] = []
        self._slower: list[float] = []

    @property
    def scoring_s(self) -> float:
        """Of one network on held-out pictures."""
        if self._trained_s:
            spent_s = self._bench.wall_s[_SCORING] - self._scored_before_s
            return spent_s / len(self._trained_s)
        return self._expected_scoring_s

    def tuning_s(self, candidate: Candidate) -> float:
        """Of one network until it is scored."""
        if candidate.id not in self._expected_s:
            return max(self._trained_s[-_RECENT:], default=0.0)
        return self._expected_s[candidate.id] * max(self._slower[-_RECENT:], default=MARGIN)

    def took(self, final: FinalScore) -> None:
        """Learn from a network that is finished."""
        self._trained_s.append(final.train_s)
        if final.candidate.id in self._expected_s:
            self._slower.append(final.train_s / self._expected_s[final.candidate.id])


def _final(
    candidate: Candidate,
    bench: Workbench,
    on_step: Callable[[int, int], None],
    on_final: Callable[[FinalScore, nn.Module], None],
) -> FinalScore:
    phases = ("finalize", _SCORING)
    before = sum(bench.wall_s.get(phase, 0.0) for phase in phases)
    with bench.timed("finalize"):
        recipe = full_recipe(candidate, bench)
        model = fine_tune(bench.final_plan(candidate), bench.data, recipe, on_step=on_step)
        validation = validation_score(model, bench.data, candidate.input_px)
    with bench.timed(_SCORING):
        held_out = held_out_score(model, bench.data, candidate.input_px)
    final = FinalScore(
        candidate=candidate,
        validation=validation,
        held_out=held_out,
        train_s=sum(bench.wall_s[phase] for phase in phases) - before,
    )
    on_final(final, model)
    return final
