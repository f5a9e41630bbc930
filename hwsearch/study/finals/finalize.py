"""After the search: the best trials and the baselines are trained to the end.

The dense fp32 baseline is the base network itself; uniform int8 is its calibrated form with the
short tuning that a user would give it. Their accuracy is that of their files, which are scored
later (``hwsearch.ship``).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from torch import nn

from hwsearch.accuracy.ladder import fine_tune, validation_score
from hwsearch.accuracy.training import UNLIMITED_STEPS, Recipe, Score
from hwsearch.bits import FP32
from hwsearch.space.candidate import Candidate, canonical_json
from hwsearch.study.asked.settings import derived_seed
from hwsearch.study.candidates.workbench import Workbench
from hwsearch.study.finals.final_time import FinalTime


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


def full_recipe(candidate: Candidate, bench: Workbench) -> Recipe:
    """How a finalist is trained to the end where no clock decides."""
    return Recipe(
        steps=bench.final_steps,
        batch_size=bench.settings.space.training.batch_size,
        learning_rate=bench.fine_tuning_rate(candidate),
        seed=derived_seed(bench.settings.seed, candidate.id, "final"),
    )


def baseline_recipe(candidate: Candidate, bench: Workbench) -> Recipe:
    """How a baseline is tuned: not at all in fp32, for the steps of the highest rung in int8."""
    dense = all(bits == FP32 for bits in candidate.layer_bits.values())
    steps = 0 if dense else bench.settings.space.training.rung_steps[-1]
    return replace(full_recipe(candidate, bench), steps=steps)


def finalize(
    finalists: Sequence[Candidate],
    baselines: Sequence[Candidate],
    done: Mapping[str, FinalScore],
    bench: Workbench,
    *,
    final_time: FinalTime | None = None,
    on_phase: Callable[[str], None],
    on_step: Callable[[int, int], None],
    on_final: Callable[[FinalScore, nn.Module], None],
) -> dict[str, FinalScore]:
    """Tune every network once.

    Args:
        finalists: those that add the most first.
        baselines: of their backbones; one that is a finalist is trained as such.
        done: finished earlier (a resumed run); these are not trained again.
        bench: of the run.
        final_time: shares out the time that a limit leaves; None where the effort decides.
        on_phase: is told which network is next.
        on_step: is called with each optimizer step.
        on_final: is called with each new result and its network, to be stored at once.

    Returns:
        The result of each candidate by id.
    """
    finals = dict(done)
    own = {candidate.id for candidate in finalists}
    wanted = {one.id: one for one in baselines if one.id not in own}
    wanted |= {one.id: one for one in finalists}
    missing = [candidate for key, candidate in wanted.items() if key not in finals]
    for position, candidate in enumerate(missing, start=1):
        on_phase(
            f"fine-tuning {position} of {len(missing)}: {candidate.backbone} at "
            f"{candidate.input_px} px"
        )
        if candidate.id not in own:
            recipe = baseline_recipe(candidate, bench)
        else:
            recipe = full_recipe(candidate, bench)
            if final_time is not None:
                rest = [one for one in missing[position - 1 :] if one.id in own]
                seconds = final_time.seconds_for(rest)
                recipe = replace(recipe, steps=UNLIMITED_STEPS, seconds=seconds)
        finals[candidate.id] = _final(candidate, bench, recipe, on_step, on_final)
    return finals


def _final(
    candidate: Candidate,
    bench: Workbench,
    recipe: Recipe,
    on_step: Callable[[int, int], None],
    on_final: Callable[[FinalScore, nn.Module], None],
) -> FinalScore:
    begin = time.monotonic()
    with bench.timed("finalize"):
        model = fine_tune(bench.plan(candidate), bench.data, recipe, on_step=on_step)
        validation = validation_score(model, bench.data, candidate.input_px)
    final = FinalScore(candidate=candidate, validation=validation, train_s=time.monotonic() - begin)
    on_final(final, model)
    return final
