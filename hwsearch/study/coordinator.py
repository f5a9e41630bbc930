"""A whole run: the only writer of its folder, from settings to files that were scored."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.errors import BackboneError, HostError, NothingFitsError, RunInterrupted
from hwsearch.hardware.cost import Cost, Prediction
from hwsearch.hardware.recalibration import Recalibration
from hwsearch.hardware.targets import HOST_TARGET
from hwsearch.nets.backbone import BackboneRef
from hwsearch.report.make import make_report
from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import Knobs, anchors
from hwsearch.study.asked.effort import BASE_SHARE, LEAST_BASE_PASSES, TRIAL_SHARE
from hwsearch.study.asked.pictures import load_pictures
from hwsearch.study.asked.preflight import Checked
from hwsearch.study.bases import Bases, Outcome, base_name, base_names, prepare_bases
from hwsearch.study.candidates.pricing import KnobPricer
from hwsearch.study.candidates.pricing_context import LayerFacts, PricingContext
from hwsearch.study.candidates.training_context import Base, TrainingContext
from hwsearch.study.clock import SHIP, TIMING, Clock
from hwsearch.study.executor.base import Executor
from hwsearch.study.executor.inline import InlineExecutor
from hwsearch.study.executor.local import LocalExecutor
from hwsearch.study.finals.evidence import EvidenceFile, read_evidence, write_evidence
from hwsearch.study.finals.final_round import FinalRound
from hwsearch.study.finals.final_time import expected_s
from hwsearch.study.finals.finalists import finalists
from hwsearch.study.finals.front import build_front
from hwsearch.study.finals.reachable import no_evidence, reachable, reachable_text
from hwsearch.study.jobs.report import Report
from hwsearch.study.own_machine import recalibrated, time_candidates
from hwsearch.study.plan import plan_text
from hwsearch.study.trial_loop import TrialLoop
from hwsearch.study.trials.progress import Watcher
from hwsearch.study.trials.records import Record
from hwsearch.study.written.folder_lock import locked
from hwsearch.study.written.output import SHIPPING, write_front, write_run, write_trials
from hwsearch.study.written.storage import StudyStore

#: Of the planned trials at most one in so many is an anchor; a short run does without.
_ANCHOR_SHARE: Final = 5
#: A run goes on after its files were timed if so much of its limit is left, and at least so long.
_GOES_ON_SHARE: Final = 0.1
_GOES_ON_S: Final = 20.0
#: Networks that are timed before finalists are chosen, and the share of what a limit leaves that
#: this may take.
_TIMED_FRONT: Final = 16
_TIMED_SHARE: Final = 0.04
#: How well such a time repeats.
_TIMED_SIGMA_LOG: Final = 0.02


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """What came of the files of a run.

    Attributes:
        measured_ms: latencies that were measured on the target.
        refused: why nothing is on the front.
    """

    measured_ms: Mapping[Candidate, float]
    refused: NothingFitsError | None


#: Exports, scores and times the models in a run folder and makes its front.
Ship = Callable[[Path, DataSet, Watcher], Shipped]


@dataclass(kw_only=True)
class Run:
    """One run folder and the work on it.

    Attributes:
        folder: exists.
        command: as the user typed it, for the report.
        workers: jobs side by side; one runs them in this process.
        clock: counts from the beginning of the run.
    """

    checked: Checked
    folder: Path
    command: str
    watcher: Watcher
    clock: Clock
    workers: int = 1
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def execute(self, ship: Ship) -> None:
        """Search, train the finalists to the end, ship them, and search on while time is left.

        Raises:
            NothingFitsError: no candidate meets the budget; the report is written all the same.
            RunLockedError: another process works on the folder.
            RunInterrupted: the user stopped it.
            TrialsFailedError: too many trials failed.
        """
        if self.clock.deadline_s is not None:
            self.watcher.deadline(self.clock.deadline_s)
        settings, profile = self.checked.settings, self.checked.profile
        report = Report(phase=self.watcher.phase, step=self.watcher.step)
        workers = None
        if self.workers > 1:  # they get ready while the pictures are read here
            workers = LocalExecutor(settings, profile, self.workers, report)
        try:
            with locked(self.folder):
                self.watcher.phase(f"reading {settings.data}")
                with self.clock.phase("data"):
                    data = load_pictures(settings)
                self._pricing = PricingContext(settings, profile, len(data.class_names))
                self._training = TrainingContext(settings, profile, data, self._pricing.backbones)
                self._executor: Executor = workers or InlineExecutor(self._training, report)
                self._space = settings.space
                self._bases: Bases | None = None
                self._facts: dict[tuple[BackboneRef, int], LayerFacts] = {}
                self._open_store()
                self._write_progress(finished=None)
                with self._interruptible():
                    if workers is not None:
                        workers.wait_until_ready()
                    self._hold_to_own_machine()
                    self._search_and_finalize()
            while True:
                shipped = self._ship(ship)
                if not shipped.measured_ms or not self._has_time or not self._go_on(shipped):
                    break
            if shipped.refused is not None:
                raise shipped.refused
        finally:
            if workers is not None:
                workers.close()

    # -- the course of a run ----------------------------------------------------------------------

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            self._write_progress(finished=None)
            raise RunInterrupted(
                f"interrupted after {len(self._store.records())} trials; "
                f"continue with: hwsearch run --resume {self.folder}"
            ) from None

    def _search_and_finalize(self) -> None:
        settings, pricing = self.checked.settings, self._pricing
        self.watcher.phase("what the budget can reach")
        least = reachable(pricing)
        if not least.admitted:
            evidence = no_evidence(pricing, self._training.data, least, [])
            self._nothing_fits(evidence, reachable_text(least, settings))
        left_s = self.clock.left_s
        self.watcher.note(plan_text(self._training, left_s))
        self._train_bases(None if left_s is None else BASE_SHARE * left_s)
        planned = settings.trial_count or settings.space.trials
        self._store.enqueue(anchors(self._space)[: planned // _ANCHOR_SHARE])
        self._search()
        chosen = self._finalists()
        if not chosen:
            evidence = no_evidence(pricing, self._training.data, least, self._loop.records)
            text = f"no trained candidate meets the budget; {reachable_text(least, settings)}"
            self._nothing_fits(evidence, text)
        self._finalize(chosen)
        while self._has_time and self._search_on():
            pass

    def _train_bases(self, seconds: float | None) -> None:
        """Train the base networks; backbones that stop are left out of the space from then on.

        A run that goes on has its base networks already, and reads them when one is needed.
        """
        stored = self._store.bases()
        if stored is None:
            outcome = self._prepare_bases(seconds, None)
            self._bases, keys = outcome.bases, base_names(outcome)
            self._base_notes: tuple[str, ...] = (
                *self._thin(outcome.bases.values()),
                *(f"{name} is not searched: {why}" for name, why in outcome.stopped.items()),
            )
            self._store.set_bases(keys, self._base_notes)
        else:
            keys, self._base_notes = stored
        for text in self._base_notes:
            self.watcher.note(text)
        backbones, space = self._pricing.backbones, self.checked.settings.space
        kept = {
            knobs.backbone
            for knobs in backbones.variants()
            if base_name(*backbones.base_of(knobs)) in keys
        }
        self._space = space.model_copy(
            update={"backbones": tuple(one for one in space.backbones if one.name in kept)}
        )
        self._open_store()

    def _prepare_bases(self, seconds: float | None, chosen: Mapping[str, str] | None) -> Outcome:
        with self.clock.phase("base networks"):
            return prepare_bases(
                self._pricing, self._training, self._executor, self.clock, seconds, chosen=chosen
            )

    def _base_of(self, chosen: Knobs | Candidate) -> Base:
        """The trained base network of knobs or a candidate."""
        if self._bases is None:
            stored = self._store.bases()
            assert stored is not None
            self._bases = self._prepare_bases(None, stored[0]).bases
        return self._bases[self._pricing.backbones.base_of(chosen)]

    def _thin(self, bases: Iterable[Base]) -> list[str]:
        """A note where a time limit left base networks too little training."""
        if self.clock.limit_s is None:
            return []
        passes = self._training.passes(min(base.steps for base in bases))
        if passes >= LEAST_BASE_PASSES:
            return []
        return [
            f"the time limit left base networks {passes:.1f} passes over the training pictures, "
            f"where {LEAST_BASE_PASSES} and more pay: more time would raise all accuracies"
        ]

    def _search(self) -> None:
        """Run trials until enough are told."""
        left_s = self.clock.left_s
        with self.clock.phase("trials"):
            self._loop = self._trial_loop()
            self._loop.run(None if left_s is None else TRIAL_SHARE * left_s)

    def _search_on(self) -> bool:
        """Search on where there is time; returns whether there is new evidence."""
        self._search()
        chosen = self._finalists()
        tuned = self._store.finals()
        if all(record.candidate is not None and record.candidate.id in tuned for record in chosen):
            self.watcher.note("search ended: no other network was found that may join the front")
            self._write_finished(read_evidence(self.folder).trials)
            return False
        self._finalize(chosen)
        return True

    def _finalists(self) -> list[Record]:
        """The trials that may be on the front, at measured latencies where this is the target."""
        self._time_front()
        known = self._pricing.predictor.recalibration
        measured_ms = {} if known is None else {one.name: one.measured_ms for one in known.timed}
        records = [
            replace(record, cost=_measured(record.cost, measured_ms[record.candidate.id]))
            if record.cost and record.candidate and record.candidate.id in measured_ms
            else record
            for record in self._loop.records
        ]
        return finalists(records, self._pricing)

    def _time_front(self) -> None:
        """Time networks that may join the front here, and correct all predictions by that.

        Small integer networks took up to a third longer than predicted, so that pruned fp32 ones,
        which are faster than they, were not among the finalists.
        """
        pricing = self._pricing
        known = pricing.predictor.recalibration
        if pricing.profile.name != HOST_TARGET or known is None:
            return
        done = {one.name for one in known.timed}
        front = [
            record.candidate
            for record in finalists(self._loop.records, pricing, most=_TIMED_FRONT)
            if record.candidate is not None and record.candidate.id not in done
        ]
        network_s = self.clock.mean_s(TIMING) or 0.0
        if self.clock.left_s is not None and network_s:
            front = front[: int(_TIMED_SHARE * max(0.0, self.clock.left_s) / network_s)]
        if not front:
            return
        try:
            with self.clock.phase("timing here"):
                timed = time_candidates(pricing, front, self.watcher.phase)
        except (HostError, BackboneError) as error:
            self.watcher.note(f"the front was not timed before it was trained: {error}")
            return
        known = known.with_timed(timed)
        pricing.recalibrate(known)
        self._store.set_recalibration(known)
        self._open_store()  # what a sampler has priced is out of date
        self._loop = self._trial_loop()

    def _finalize(self, chosen: Sequence[Record]) -> None:
        work = FinalRound(
            pricing=self._pricing,
            training=self._training,
            executor=self._executor,
            clock=self.clock,
            base_of=self._base_of,
            store=self._store,
            folder=self.folder,
            watcher=self.watcher,
        )
        with self.clock.phase("finalists"):
            evidence = work.run(chosen, self._base_notes)
        write_evidence(self.folder, evidence)
        self._write_finished(evidence.trials)

    def _ship(self, ship: Ship) -> Shipped:
        """Have the files of the run made, scored and timed."""
        begin_s = self.clock.spent_s
        with self.clock.phase(SHIPPING):
            shipped = ship(self.folder, self._training.data, self.watcher)
        self.clock.took(SHIP, (self.clock.spent_s - begin_s) / max(1, len(self._store.finals())))
        return shipped

    def _go_on(self, shipped: Shipped) -> bool:
        """Search on with predictions corrected by what was measured.

        The front that was made stays as it is unless a network is found that may join it. Returns
        whether there is new evidence, whose files are to be shipped.
        """
        pricing, measured_ms = self._pricing, shipped.measured_ms
        timed = pricing.predictor.predict_timed(
            {candidate.id: pricing.backbones.describe(candidate) for candidate in measured_ms},
            {candidate.id: latency_ms for candidate, latency_ms in measured_ms.items()},
        )
        known = pricing.predictor.recalibration or Recalibration(
            machine_sigma_log=pricing.profile.interval.latency_sigma_log
        )
        known = known.with_timed(timed)
        with locked(self.folder):
            pricing.recalibrate(known)
            self.watcher.note(known.told(pricing.profile.name))
            least = reachable(pricing)
            if not least.admitted:
                self.watcher.note(f"search ended: {reachable_text(least, self.checked.settings)}")
                return False
            self._store.set_recalibration(known)
            self._open_store()  # what a sampler has priced is out of date
            with self._interruptible():
                return self._search_on()

    @property
    def _has_time(self) -> bool:
        """Whether a time limit leaves enough for more trials and what comes after them."""
        limit_s, left_s = self.clock.limit_s, self.clock.left_s
        if limit_s is None or left_s is None:
            return False
        planned = self.checked.settings.trial_count
        if planned is not None and len(self._store.records()) >= planned:
            return False
        return left_s > max(_GOES_ON_S, _GOES_ON_SHARE * limit_s)

    # -- parts ------------------------------------------------------------------------------------

    def _hold_to_own_machine(self) -> None:
        """Correct the profile where the target is this machine; once, before the first trial."""
        pricing = self._pricing
        if pricing.profile.name != HOST_TARGET:
            return
        known = self._store.recalibration()
        if known is None and not self._store.records():
            begin_s = self.clock.spent_s
            try:
                with self.clock.phase("timing here"):
                    known = recalibrated(pricing, self.watcher.phase)
            except (HostError, BackboneError) as error:
                self.watcher.note(f"{pricing.profile.name} was not held to this machine: {error}")
                return
            self.clock.took(TIMING, (self.clock.spent_s - begin_s) / max(1, known.networks))
            self._store.set_recalibration(known)
        if known is not None:
            pricing.recalibrate(known)
            self.watcher.note(known.told(pricing.profile.name))

    def _trial_loop(self) -> TrialLoop:
        """The loop over the trials so far, at what is known of their costs by now."""
        pricing, records = self._pricing, self._store.records()
        if pricing.predictor.recalibration is not None:
            records = [
                replace(record, cost=pricing.price(record.candidate))
                if record.candidate is not None and record.cost is not None
                else record
                for record in records
            ]
        return TrialLoop(
            pricing=pricing,
            executor=self._executor,
            store=self._store,
            clock=self.clock,
            watcher=self.watcher,
            base_of=self._base_of,
            records=records,
            left_s=self._left_s,
            facts=self._facts,
        )

    def _left_s(self, records: Sequence[Record]) -> float | None:
        """Seconds that the run will still take; None where that is not known."""
        if self.clock.left_s is not None:
            return max(0.0, self.clock.left_s)
        planned = self.checked.settings.trial_count
        if planned is None or not records:
            return None
        slots = self._executor.slots
        mean_s = sum(record.train_s for record in records) / len(records)
        left_s = mean_s * (planned - len(records)) / slots
        chosen = finalists(records, self._pricing)
        return left_s + expected_s(chosen, self._pricing, self._training, self.clock, slots)

    def _open_store(self) -> None:
        settings = self.checked.settings
        with self.clock.phase("storage"):
            self._store = StudyStore(
                self.folder,
                space=self._space,
                quantities=settings.quantities,
                seed=settings.seed,
                fingerprint=self._fingerprint(),
                pricer=None if settings.sampler == "tpe" else KnobPricer(self._pricing),
            )

    def _fingerprint(self) -> str:
        return self.checked.settings.fingerprint(
            profile_hash=self.checked.profile.profile_hash,
            data_hash=self._training.data.content_hash,
        )

    def _nothing_fits(self, evidence: EvidenceFile, text: str) -> NoReturn:
        write_evidence(self.folder, evidence)
        write_front(self.folder, build_front([], evidence, self.checked.settings).file)
        self._write_progress(finished=datetime.now(UTC))
        make_report(self.folder)
        raise NothingFitsError(f"{text}; report in {self.folder}")

    def _write_finished(self, tuned: Collection[int]) -> None:
        records = sorted(self._loop.records, key=lambda record: record.trial)
        done = [record.finalized() if record.trial in tuned else record for record in records]
        self._write_progress(finished=datetime.now(UTC), records=done)

    def _write_progress(
        self, *, finished: datetime | None, records: Sequence[Record] | None = None
    ) -> None:
        records = self._store.records() if records is None else records
        write_trials(self.folder, records)
        write_run(
            self.folder,
            self.checked.settings,
            self.checked.profile,
            command=self.command,
            workers=self.workers,
            fingerprint=self._fingerprint(),
            data=self._training.data.describe(),
            started=self.started,
            finished=finished,
            wall_s=self.clock.wall_s(),
            records=records,
        )


def _measured(cost: Cost, latency_ms: float) -> Cost:
    """A cost whose latency was measured."""
    predicted = cost.latency_ms
    measured = Prediction.lognormal(
        median=latency_ms, sigma_log=_TIMED_SIGMA_LOG, confidence=predicted.confidence
    )
    return replace(cost, latency_ms=measured)
