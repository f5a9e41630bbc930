"""After the search: the best trials and the baselines are fine-tuned fully and scored again.

The score is taken on held-out data that no decision of the search has looked at.
"""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from torch import nn

from hwsearch.accuracy.ladder import fine_tune, held_out_score, validation_score
from hwsearch.accuracy.training import Recipe, Score
from hwsearch.hardware.targets import HOST_TARGET
from hwsearch.space.candidate import Candidate, canonical_json
from hwsearch.study.finalists import (
    MOST_FINALISTS,
    Planned,
    baseline_candidates,
    by_gain,
    finalists,
)
from hwsearch.study.records import Record
from hwsearch.study.settings import derived_seed
from hwsearch.study.trial import FINE_TUNING_RATE
from hwsearch.study.workbench import Workbench

#: On what finalization is expected to take: other programs come and go, and a limit of 20 minutes
#: was overrun by 15 s of 230 s without it.
_MARGIN: Final = 1.15
#: What starting the process that scores the files takes, and exporting and scoring a file of a
#: small network: 10 files took 2.8 s together on a busy core.
_SHIP_START_S: Final = 4.0
_SHIP_S: Final = 0.5
#: The same of a file that is timed as well, since this machine is the target, until this run has
#: timed files itself; and inferences that its timing takes, with half of the extra rounds.
_SHIP_TIMED_S: Final = 2.5
_TIMED_RUNS: Final = 240

#: Networks in a row, the slowest of which says how long the next one will take.
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


def finalization_s(
    records: Sequence[Record],
    bench: Workbench,
    done: Collection[str] = (),
    room_s: float = math.inf,
) -> float:
    """Seconds to keep for finalization, export and verification if the search ends now.

    From what the trials so far took: the time of an optimizer step is multiplied by the steps of
    full fine-tuning, that of a scoring by its pictures, and the rest comes once. A baseline takes
    what the largest network of its backbone took, more by as much as it has more MACs: the time
    grows by no more than those. One more finalist is allowed for, which the next trial may bring.

    Args:
        records: of all trials so far.
        bench: of the run.
        done: ids of networks that were finalized before; they are only verified again.
        room_s: no more than this is kept, but for what is needed: the most accurate finalist and
            the baselines of its backbone.
    """
    chosen = finalists(records, bench)
    if not chosen:
        return 0.0
    best = by_gain(chosen, bench)[0]
    whole = [_network_s(record, record.candidate, 1.0, bench) for record in chosen]
    times = [
        _verified_s(record, bench)
        if record.candidate is not None and record.candidate.id in done
        else seconds
        for record, seconds in zip(chosen, whole, strict=True)
    ]
    needed_s = times[chosen.index(best)]
    if done or len(chosen) < MOST_FINALISTS:
        times.append(max(whole))
    completed = [record for record in records if record.state == "completed"]
    for _, candidate in baseline_candidates(chosen, bench):
        same = [r for r in completed if r.knobs.backbone == candidate.backbone]
        largest = max(same, key=_macs)
        factor = bench.describe(candidate).macs / _macs(largest)
        times.append(
            _verified_s(largest, bench)
            if candidate.id in done
            else _network_s(largest, candidate, max(1.0, factor), bench)
        )
        if candidate.backbone == best.knobs.backbone:
            needed_s += times[-1]
    every_s, least_s = (_SHIP_START_S + _MARGIN * seconds for seconds in (sum(times), needed_s))
    return max(least_s, min(every_s, room_s))


def _network_s(
    record: Record, candidate: Candidate | None, factor: float, bench: Workbench
) -> float:
    """Seconds that a network takes until its file is verified.

    Args:
        record: of a completed trial.
        candidate: of the trial, or another one of its backbone.
        factor: by which that one takes longer.
        bench: of the run.
    """
    training = bench.settings.space.training
    last, scorings = training.rung_steps[-1], len(training.rung_steps) + 1
    # Finding where outputs are rounded, and moving biases, takes what an export check takes.
    found_s = bench.export_s if _rounds(candidate, bench) else 0.0
    verified = found_s + _verified_s(record, bench)
    if record.step_s is None or record.score_s is None:  # as if a trial were made of steps alone
        return factor * (record.train_s * max(1.0, bench.final_steps / last) + verified)
    # It is made and settled no more often than in a trial.
    rest = max(0.0, record.train_s - record.step_s * last - record.score_s * scorings)
    tuned = record.step_s * bench.final_steps + rest + record.score_s + _held_out_s(record, bench)
    return factor * (tuned + verified)


def _rounds(candidate: Candidate | None, bench: Workbench) -> bool:
    """Whether outputs of a network are rounded in its file."""
    if candidate is None or bench.fusion is None:
        return False
    bits = candidate.layer_bits.values()
    return any(max(one.weight_bits, one.activation_bits) <= 8 for one in bits)


def _verified_s(record: Record, bench: Workbench) -> float:
    """Seconds that the file takes: scoring it is no slower than fake quantization in torch is."""
    assert record.cost is not None
    return _ship_s(record.cost.latency_ms.value, bench) + _held_out_s(record, bench)


def _held_out_s(record: Record, bench: Workbench) -> float:
    pictures = len(bench.data.test) / len(bench.data.validation)
    return (record.score_s or 0.0) * pictures


def _ship_s(latency_ms: float, bench: Workbench) -> float:
    """Seconds that the file of a network takes, without being scored."""
    if bench.profile.name != HOST_TARGET:
        return bench.export_s + _SHIP_S
    if bench.ship_s is not None:
        return bench.ship_s
    return bench.export_s + _SHIP_TIMED_S + _TIMED_RUNS * latency_ms / 1e3


def _macs(record: Record) -> int:
    assert record.cost is not None
    return record.cost.macs


def finalize(
    planned: Sequence[Planned],
    done: Mapping[str, FinalScore],
    bench: Workbench,
    *,
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
    trained_s: list[float] = []
    incomplete: set[str] = set()

    def file_s(candidate: Candidate) -> float:
        return _ship_s(bench.price(candidate).latency_ms.value, bench)

    files_s = sum(file_s(final.candidate) for final in done.values())
    for position, one in enumerate(missing, start=1):
        candidate = one.candidate
        if left_s is not None and trained_s and not one.needed:
            scoring_s = bench.wall_s[_SCORING] / len(trained_s)
            ship_s = _SHIP_START_S + (len(finals) + 1) * scoring_s + files_s + file_s(candidate)
            late = left_s() < max(trained_s[-_RECENT:]) + ship_s
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
        trained_s.append(finals[candidate.id].train_s)
    return finals


def _final(
    candidate: Candidate,
    bench: Workbench,
    on_step: Callable[[int, int], None],
    on_final: Callable[[FinalScore, nn.Module], None],
) -> FinalScore:
    training = bench.settings.space.training
    phases = ("finalize", _SCORING)
    before = sum(bench.wall_s.get(phase, 0.0) for phase in phases)
    with bench.timed("finalize"):
        recipe = Recipe(
            steps=bench.final_steps,
            batch_size=training.batch_size,
            learning_rate=FINE_TUNING_RATE,
            seed=derived_seed(bench.settings.seed, candidate.id, "final"),
        )
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
