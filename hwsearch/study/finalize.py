"""After the search: the best trials and the baselines are fine-tuned fully and scored again.

The score is taken on held-out data that no decision of the search has looked at.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from torch import nn

from hwsearch.accuracy.ladder import fine_tune, held_out_score, validation_score
from hwsearch.accuracy.training import Recipe, Score
from hwsearch.hardware.targets import HOST_TARGET
from hwsearch.space.candidate import Candidate, canonical_json
from hwsearch.space.knobs import Knobs
from hwsearch.study.front import non_dominated
from hwsearch.study.records import Record
from hwsearch.study.settings import derived_seed
from hwsearch.study.trial import FINE_TUNING_RATE
from hwsearch.study.workbench import BASELINES, Workbench

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

#: Scores of the search are short and noisy, so more than its own front is taken, within reason.
_LEAST = 8
MOST_FINALISTS = 10


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


def finalists(records: Sequence[Record], bench: Workbench) -> list[Record]:
    """The completed trials that may be on the front: its layers from the outside in.

    At least 8 (if there are as many) and at most 10, evenly spaced by cost when a layer has more.
    """
    left = [record for record in records if record.state == "completed"]
    chosen: list[Record] = []
    while left and len(chosen) < _LEAST:
        layer = [left[at] for at in non_dominated([_point(record, bench) for record in left])]
        room = MOST_FINALISTS - len(chosen)
        ordered = sorted(layer, key=lambda record: (_point(record, bench)[1:], record.trial))
        chosen += _spaced(ordered, room)
        taken = {record.trial for record in layer}
        left = [record for record in left if record.trial not in taken]
    return sorted(chosen, key=lambda record: record.trial)


def best_first(records: Sequence[Record]) -> list[Candidate]:
    """The networks of trained records, the most accurate first; ties by trial."""
    ordered = sorted(records, key=lambda record: (-(record.accuracy or 0.0), record.trial))
    return [record.candidate for record in ordered if record.candidate is not None]


def baseline_candidates(chosen: Sequence[Record], bench: Workbench) -> list[tuple[str, Candidate]]:
    """Dense fp32 and uniform int8 of each backbone among the finalists.

    At the input size that the finalists of that backbone use most (the smaller on a tie).
    """
    found = []
    for name in dict.fromkeys(record.knobs.backbone for record in chosen):
        sizes = [record.knobs.input_px for record in chosen if record.knobs.backbone == name]
        px = min(set(sizes), key=lambda size: (-sizes.count(size), size))
        for label, bits in BASELINES:
            found.append((label, bench.baseline(Knobs(backbone=name, input_px=px), bits)))
    return found


def finalization_s(
    records: Sequence[Record], bench: Workbench, done: Collection[str] = ()
) -> float:
    """Seconds that finalization, export and verification will take if the search ends now.

    From what the trials so far took: the time of an optimizer step is multiplied by the steps of
    full fine-tuning, that of a scoring by its pictures, and the rest comes once. A baseline takes
    what the largest network of its backbone took, more by as much as it has more MACs: the time
    grows by no more than those. One more finalist is allowed for, which the next trial may bring.

    Args:
        records: of all trials so far.
        bench: of the run.
        done: ids of networks that were finalized before; they are only verified again.
    """
    chosen = finalists(records, bench)
    if not chosen:
        return 0.0
    whole = [_network_s(record, record.candidate, 1.0, bench) for record in chosen]
    times = [
        _verified_s(record, bench)
        if record.candidate is not None and record.candidate.id in done
        else seconds
        for record, seconds in zip(chosen, whole, strict=True)
    ]
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
    return _SHIP_START_S + _MARGIN * sum(times)


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
    candidates: Sequence[Candidate],
    done: Mapping[str, FinalScore],
    bench: Workbench,
    *,
    needed: Collection[str] = (),
    left_s: Callable[[], float] | None = None,
    on_phase: Callable[[str], None],
    on_step: Callable[[int, int], None],
    on_final: Callable[[FinalScore, nn.Module], None],
) -> dict[str, FinalScore]:
    """Fine-tune and score every candidate once, as far as there is time.

    Time was kept back for all of them; a machine that has become slower since may not be done.

    Args:
        candidates: finalists and baselines, the first ones first; equal ones are trained once.
        done: finished earlier (a resumed run); these are not trained again.
        bench: of the run.
        needed: ids of those that are trained however long it takes.
        left_s: seconds that are left, export and verification included; None if all there are.
        on_phase: is told which network is next.
        on_step: is called with each optimizer step.
        on_final: is called with each new result and its network, to be stored at once.

    Returns:
        The result of each candidate by id, less those that there was no time for.
    """
    finals = dict(done)
    wanted = {candidate.id: candidate for candidate in candidates}
    missing = [candidate for key, candidate in wanted.items() if key not in finals]
    trained_s: list[float] = []

    def file_s(candidate: Candidate) -> float:
        return _ship_s(bench.price(candidate).latency_ms.value, bench)

    files_s = sum(file_s(final.candidate) for final in done.values())
    for position, candidate in enumerate(missing, start=1):
        if left_s is not None and trained_s and candidate.id not in needed:
            scoring_s = bench.wall_s[_SCORING] / len(trained_s)
            ship_s = _SHIP_START_S + (len(finals) + 1) * scoring_s + files_s + file_s(candidate)
            if left_s() < max(trained_s[-_RECENT:]) + ship_s:
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


def _point(record: Record, bench: Workbench) -> tuple[float, ...]:
    assert record.cost is not None
    assert record.accuracy is not None
    return (1.0 - record.accuracy, *bench.values(record.cost))


def _spaced(ordered: list[Record], room: int) -> list[Record]:
    """At most ``room`` of a list, both ends included, evenly spaced."""
    if len(ordered) <= room:
        return ordered
    if room == 1:
        return [ordered[-1]]
    return [ordered[round(at * (len(ordered) - 1) / (room - 1))] for at in range(room)]
