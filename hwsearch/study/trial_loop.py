"""The loop of a search: ask for knobs, evaluate what they become, tell how it went.

One trial from beginning to end: ``_ask`` (knobs from the sampler), ``_consider`` (knobs become a
candidate with a cost; what misses the budgets or is known ends here), an ``Evaluate`` job, whose
scores ``_go_on`` compares with those of other trials, and ``_end`` (the study is told).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from hwsearch.errors import BackboneError, TrialsFailedError
from hwsearch.nets.backbone import BackboneRef
from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import Knobs
from hwsearch.study.candidates.pricing_context import LayerFacts, PricingContext
from hwsearch.study.candidates.training_context import Base
from hwsearch.study.clock import EXPORT, Clock
from hwsearch.study.executor.base import (
    Done,
    Event,
    Executor,
    Failed,
    Paused,
    WorkerLostError,
    event_value,
)
from hwsearch.study.jobs.layers import Examined, ExamineLayers
from hwsearch.study.jobs.trial import Evaluate, Pace
from hwsearch.study.trials.progress import Watcher
from hwsearch.study.trials.promotion import Climb, stop_reason
from hwsearch.study.trials.records import Record
from hwsearch.study.written.storage import ProposedTrial, StudyStore

#: Proposals in a row that are networks evaluated before: the space is exhausted.
_EXHAUSTED: Final = 60
#: However short a time limit is, so many are tried until one of them is trained.
_LEAST_TRIALS: Final = 5
#: Failed trials that are tolerated, beside a fifth of all.
_TOLERATED_FAILURES: Final = 3
#: Trials whose length tells how long the next one may take.
_LATEST: Final = 10


@dataclass(kw_only=True)
class _Running:
    """A trial whose job runs."""

    proposal: ProposedTrial
    record: Record


@dataclass(kw_only=True)
class TrialLoop:
    """Runs trials, as many side by side as the executor has slots.

    Attributes:
        base_of: the trained base network of knobs or a candidate.
        records: of the trials that came to an end.
        left_s: seconds that the whole run will still take, as far as is known; for the user.
    """

    pricing: PricingContext
    executor: Executor
    store: StudyStore
    clock: Clock
    watcher: Watcher
    base_of: Callable[[Knobs | Candidate], Base]
    records: list[Record]
    left_s: Callable[[Sequence[Record]], float | None]
    facts: dict[tuple[BackboneRef, int], LayerFacts]
    _running: dict[int, _Running] = field(default_factory=dict)
    _repeats: int = 0

    def run(self, trials_s: float | None) -> None:
        """Run trials until enough are told, and all that were begun have ended.

        Args:
            trials_s: seconds for them; None where their number decides.

        Raises:
            TrialsFailedError: too many trials failed.
            BackboneError: a backbone cannot be exported.
            HostError: jobs cannot be run any more.
        """
        end_s = None if trials_s is None else self.clock.spent_s + trials_s
        while True:
            while len(self._running) < self.executor.slots and not self._enough(end_s):
                self._ask()
            if not self._running:
                return
            self._take(self.executor.wait())

    def _enough(self, end_s: float | None) -> bool:
        planned = self.pricing.settings.trial_count
        begun = len(self.records) + len(self._running)
        if planned is not None and begun >= planned:
            return True
        if self._repeats >= _EXHAUSTED:
            self.watcher.note(
                f"the last {self._repeats} proposals were known networks; search ended"
            )
            return True
        if end_s is None:
            return False
        trained_s = [record.train_s for record in self.records if record.train_s > 0]
        if not trained_s and ((self.clock.left_s or 0.0) > 0 or begun < _LEAST_TRIALS):
            return False  # a front needs one
        return self.clock.spent_s + max(trained_s[-_LATEST:], default=0.0) > end_s

    # -- one trial, in the order in which things happen -----------------------------------------

    def _ask(self) -> None:
        with self.clock.phase("sampler"):
            proposal, knobs = self.store.ask()
        self.watcher.phase(f"trial {proposal.number}: {knobs.backbone} at {knobs.input_px} px")
        record, candidate = self._consider(proposal.number, knobs)
        if candidate is None:
            self._end(proposal, record)
            return
        job = self.executor.start(Evaluate(base=self.base_of(candidate), candidate=candidate))
        self._running[job] = _Running(proposal=proposal, record=record)

    def _consider(self, number: int, knobs: Knobs) -> tuple[Record, Candidate | None]:
        """What knobs become; a candidate only where it is to be trained."""
        pricing = self.pricing
        cost, _ = pricing.cheapest(knobs)
        bound = pricing.admit(cost)
        if not bound.admitted:
            record = Record(
                trial=number, state="over_budget", knobs=knobs, candidate=None, cost=cost,
                probability=bound.probability, reason="even the smallest of this backbone",
            )  # fmt: skip
            return record, None
        candidate = pricing.expand(knobs, self._layer_facts(knobs))
        cost = pricing.price(candidate)
        admitted = pricing.admit(cost)
        record = Record(
            trial=number, state="completed", knobs=knobs, candidate=candidate, cost=cost,
            probability=admitted.probability,
        )  # fmt: skip
        original = self._same(candidate)
        if original is not None:
            record = replace(
                record, state="duplicate", original=original.trial, scores=original.scores,
                reason=f"same network as trial {original.trial}",
            )  # fmt: skip
            return record, None
        if not admitted.admitted:
            return replace(record, state="over_budget", reason="predicted over the budget"), None
        return record, candidate

    def _layer_facts(self, knobs: Knobs) -> LayerFacts:
        """What the base network of knobs says about its layers; finding out is a job."""
        key = (self.pricing.backbones.ref(knobs), knobs.input_px)
        if key not in self.facts:
            blueprint = self.pricing.backbones.blueprint(knobs)
            job = self.executor.start(
                ExamineLayers(
                    base=self.base_of(knobs),
                    px=knobs.input_px,
                    offered=self.pricing.offered_bits(blueprint),
                )
            )
            while (event := self.executor.wait()).job != job:
                self._take(event)
            examined: Examined = event_value(event)
            self.clock.took(EXPORT, examined.export_s)
            self.facts[key] = examined.facts
        return self.facts[key]

    def _same(self, candidate: Candidate) -> Record | None:
        """The trial that has this network already, or is about to."""
        return next(
            (
                record
                for record in (*self.records, *(one.record for one in self._running.values()))
                if record.candidate is not None
                and record.candidate.id == candidate.id
                and record.state not in {"duplicate", "failed"}
            ),
            None,
        )

    def _take(self, event: Event) -> None:
        """Take note of what happened to a trial."""
        trial = self._running[event.job]
        match event:
            case Paused(value=score):
                trial.record = replace(trial.record, scores=(*trial.record.scores, score))
                self.executor.answer(event.job, self._go_on(trial))
            case Done(value=pace):
                del self._running[event.job]
                self._end(trial.proposal, _timed(trial.record, pace))
            case Failed(error=error):
                if not isinstance(error, BackboneError | RuntimeError | WorkerLostError):
                    raise error
                del self._running[event.job]
                reason = " ".join(str(error).split())[:300]
                self._end(
                    trial.proposal, replace(trial.record, state="failed", scores=(), reason=reason)
                )

    def _go_on(self, trial: _Running) -> bool:
        """Whether the next fidelity level is worth it; notes in the record why it is not."""
        count = len(self.pricing.settings.space.training.rung_steps) + 1
        if len(trial.record.scores) == count:
            return False
        others = [self._climbed(r) for r in self.records if r.cost and r.state != "duplicate"]
        reason = stop_reason(self._climbed(trial.record), others, count)
        if reason is not None:
            trial.record = replace(trial.record, state="stopped", reason=reason)
        return reason is None

    def _climbed(self, record: Record) -> Climb:
        assert record.cost is not None
        return Climb(
            trial=record.trial, costs=self.pricing.values(record.cost), scores=record.scores
        )

    def _end(self, proposal: ProposedTrial, record: Record) -> None:
        """Tell the study how a trial ended, and the user."""
        assert record.cost is not None
        admitted = self.pricing.admit(record.cost)
        values = None
        if record.accuracy is not None and record.state != "failed" and admitted.admitted:
            values = (record.accuracy, *self.pricing.values(record.cost))
        with self.clock.phase("storage"):
            self.store.tell(proposal, record, values, admitted.violations)
        self.records.append(record)
        self._repeats = self._repeats + 1 if record.state == "duplicate" else 0
        self.watcher.trial(
            record,
            done=len(self.records),
            planned=self.pricing.settings.trial_count,
            left_s=self.left_s(self.records),
        )
        failed = [one for one in self.records if one.state == "failed"]
        if len(failed) > max(_TOLERATED_FAILURES, len(self.records) // 5):
            raise TrialsFailedError(
                f"{len(failed)} of {len(self.records)} trials failed, the last one with: "
                f"{failed[-1].reason}"
            )


def _timed(record: Record, pace: Pace) -> Record:
    return replace(record, train_s=pace.train_s, step_s=pace.step_s, score_s=pace.score_s)
