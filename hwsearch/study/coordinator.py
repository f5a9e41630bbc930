"""A whole run: the only writer of its folder, from settings to a reported front."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

from hwsearch.accuracy.base_weights import BaseNetwork
from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.errors import (
    BackboneError,
    HostError,
    NothingFitsError,
    RunInterrupted,
    TrialsFailedError,
)
from hwsearch.hardware.recalibration import Recalibration
from hwsearch.hardware.targets import HOST_TARGET
from hwsearch.report.make import make_report
from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import Knobs, anchors
from hwsearch.study.asked.admission import admission
from hwsearch.study.asked.effort import BASE_SHARE, LEAST_BASE_PASSES, TRIAL_SHARE
from hwsearch.study.asked.pictures import load_pictures
from hwsearch.study.asked.preflight import Checked
from hwsearch.study.bases import Outcome, base_name, base_names, prepare_bases
from hwsearch.study.candidates.pricing import KnobPricer
from hwsearch.study.candidates.workbench import Workbench
from hwsearch.study.finals.evidence import EvidenceFile, read_evidence, write_evidence
from hwsearch.study.finals.final_round import FinalRound
from hwsearch.study.finals.final_time import expected_s
from hwsearch.study.finals.finalists import finalists
from hwsearch.study.finals.front import build_front
from hwsearch.study.finals.reachable import no_evidence, reachable, reachable_text
from hwsearch.study.own_machine import recalibrated
from hwsearch.study.plan import plan_text
from hwsearch.study.trials.progress import Watcher
from hwsearch.study.trials.records import Record
from hwsearch.study.trials.trial import Trial
from hwsearch.study.written.folder_lock import locked
from hwsearch.study.written.output import (
    SHIPPING,
    write_front,
    write_run,
    write_trials,
)
from hwsearch.study.written.storage import ProposedTrial, StudyStore

#: Of the planned trials at most one in so many is an anchor; a short run does without.
_ANCHOR_SHARE: Final = 5
#: Proposals in a row that are networks evaluated before: the space is exhausted.
_EXHAUSTED: Final = 60
#: A run goes on after its files were timed if so much of its limit is left, and at least so long.
_GOES_ON_SHARE: Final = 0.1
_GOES_ON_S: Final = 20.0
#: However short a time limit is, so many are tried until one of them is trained.
_LEAST_TRIALS: Final = 5
#: Failed trials that are tolerated, beside a fifth of all.
_TOLERATED_FAILURES: Final = 3


@dataclass(kw_only=True)
class Run:
    """One run folder and the work on it.

    Attributes:
        folder: exists.
        command: as the user typed it, for the report.
    """

    checked: Checked
    folder: Path
    command: str
    watcher: Watcher
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    earlier_wall_s: dict[str, float] = field(default_factory=dict)

    def execute(self) -> None:
        """Search, train the finalists to the end and write the evidence for a front.

        Raises:
            NothingFitsError: no candidate meets the budget; the report is written all the same.
            RunLockedError: another process works on the folder.
            RunInterrupted: the user stopped it.
            TrialsFailedError: too many trials failed.
        """
        self._begin = time.monotonic()
        limit_s = self.checked.settings.time_limit_s
        if limit_s is not None:
            self.watcher.deadline(self._begin + limit_s - sum(self.earlier_wall_s.values()))
        with locked(self.folder):
            self.watcher.phase(f"reading {self.checked.settings.data}")
            start = time.perf_counter()
            data = load_pictures(self.checked.settings)
            self._bench = Workbench(
                self.checked.settings,
                self.checked.profile,
                data,
                on_phase=self.watcher.phase,
                on_step=self.watcher.step,
            )
            self._bench.wall_s["data"] = time.perf_counter() - start
            self._space = self.checked.settings.space
            self._open_store()
            self._write_progress(finished=None)
            with self._interruptible():
                self._hold_to_own_machine()
                self._search_and_finalize()

    def go_on(self, measured_ms: Mapping[Candidate, float]) -> bool:
        """Search on after the files were timed, with predictions corrected by that.

        The front that was made stays as it is unless a network is found that may join it.

        Args:
            measured_ms: latencies on the target; at least one.

        Returns:
            Whether there is new evidence, whose files are to be scored.

        Raises:
            RunLockedError, RunInterrupted, TrialsFailedError: as ``execute``.
        """
        bench = self._bench
        timed = bench.predictor.predict_timed(
            {candidate.id: bench.describe(candidate) for candidate in measured_ms},
            {candidate.id: latency_ms for candidate, latency_ms in measured_ms.items()},
        )
        known = bench.predictor.recalibration or Recalibration(
            machine_sigma_log=bench.profile.interval.latency_sigma_log
        )
        known = known.with_timed(timed)
        with locked(self.folder):
            bench.recalibrate(known)
            self.watcher.note(known.told(bench.profile.name))
            least = reachable(bench)
            if not least.admitted:
                self.watcher.note(f"search ended: {reachable_text(least, self.checked.settings)}")
                return False
            self._store.set_recalibration(known)
            self._open_store()  # what a sampler has priced is out of date
            with self._interruptible():
                return self._search_on()

    def shipped(self, seconds: float) -> None:
        """Take note of what export and verification of this run's files took."""
        bench = self._bench
        bench.wall_s[SHIPPING] = bench.wall_s.get(SHIPPING, 0.0) + seconds
        bench.ship_s = seconds / max(1, len(self._store.finals()))

    @property
    def has_time(self) -> bool:
        """Whether a time limit leaves enough for more trials and what comes after them."""
        limit_s = self.checked.settings.time_limit_s
        if limit_s is None:
            return False
        planned = self.checked.settings.trial_count
        if planned is not None and len(self._store.records()) >= planned:
            return False
        return self._limit_left_s() > max(_GOES_ON_S, _GOES_ON_SHARE * limit_s)

    @property
    def data(self) -> DataSet:
        """The pictures, once it executes."""
        return self._bench.data

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
        settings, bench = self.checked.settings, self._bench
        self.watcher.phase("what the budget can reach")
        least = reachable(bench)
        if not least.admitted:
            self._nothing_fits(no_evidence(bench, least, []), reachable_text(least, settings))
        left_s = None if settings.time_limit_s is None else self._limit_left_s()
        self.watcher.note(plan_text(bench, left_s))
        self._train_bases(left_s)
        planned = settings.trial_count or settings.space.trials
        self._store.enqueue(anchors(self._space)[: planned // _ANCHOR_SHARE])
        self._search()
        records = self._records()
        chosen = finalists(records, bench)
        if not chosen:
            text = f"no trained candidate meets the budget; {reachable_text(least, settings)}"
            self._nothing_fits(no_evidence(bench, least, records), text)
        self._finalize(records, chosen)
        while self.has_time and self._search_on():
            pass

    def _train_bases(self, left_s: float | None) -> None:
        """Train the base networks; backbones that stop are left out of the space from then on.

        A run that goes on has its base networks already, and reads them when one is needed.
        """
        bench, stored = self._bench, self._store.bases()

        def prepared(chosen: Mapping[str, str] | None) -> Outcome:
            with bench.timed("base weights"):
                return prepare_bases(
                    bench,
                    None if left_s is None else BASE_SHARE * left_s,
                    chosen=chosen,
                    on_phase=self.watcher.phase,
                    on_step=self.watcher.step,
                )

        if stored is None:
            outcome = prepared(None)
            bench.adopt(outcome.bases)
            keys = base_names(outcome)
            self._base_notes: tuple[str, ...] = (
                *self._thin(outcome.bases.values()),
                *(f"{name} is not searched: {why}" for name, why in outcome.stopped.items()),
            )
            self._store.set_bases(keys, self._base_notes)
        else:
            keys, self._base_notes = stored
            bench.adopt_when_needed(lambda: prepared(keys).bases)
        for text in self._base_notes:
            self.watcher.note(text)
        kept = {
            knobs.backbone for knobs in bench.variants() if base_name(*bench.base_of(knobs)) in keys
        }
        space = self.checked.settings.space
        self._space = space.model_copy(
            update={"backbones": tuple(one for one in space.backbones if one.name in kept)}
        )
        self._open_store()

    def _thin(self, bases: Iterable[BaseNetwork]) -> list[str]:
        """A note where a time limit left base networks too little training."""
        if self.checked.settings.time_limit_s is None:
            return []
        pictures = min(base.steps for base in bases) * self._space.training.batch_size
        passes = pictures / len(self._bench.data.train)
        if passes >= LEAST_BASE_PASSES:
            return []
        return [
            f"the time limit left base networks {passes:.1f} passes over the training pictures, "
            f"where {LEAST_BASE_PASSES} and more pay: more time would raise all accuracies"
        ]

    def _search_on(self) -> bool:
        self._search()
        records = self._records()
        chosen = finalists(records, self._bench)
        tuned = self._store.finals()
        if all(record.candidate is not None and record.candidate.id in tuned for record in chosen):
            self.watcher.note("search ended: no other network was found that may join the front")
            self._write_finished(records, read_evidence(self.folder).trials)
            return False
        self._finalize(records, chosen)
        return True

    def _finalize(self, records: list[Record], chosen: list[Record]) -> None:
        work = FinalRound(
            bench=self._bench,
            store=self._store,
            folder=self.folder,
            watcher=self.watcher,
            left_s=self._limit_left_s if self.checked.settings.time_limit_s else None,
        )
        evidence = work.run(chosen, self._base_notes)
        write_evidence(self.folder, evidence)
        self._write_finished(records, evidence.trials)

    def _write_finished(self, records: Sequence[Record], tuned: Collection[int]) -> None:
        done = [record.finalized() if record.trial in tuned else record for record in records]
        self._write_progress(finished=datetime.now(UTC), records=done)

    def _hold_to_own_machine(self) -> None:
        """Correct the profile where the target is this machine; once, before the first trial."""
        bench = self._bench
        if bench.profile.name != HOST_TARGET:
            return
        known = self._store.recalibration()
        if known is None and not self._store.records():
            try:
                with bench.timed("timing here"):
                    known = recalibrated(bench, self.watcher.phase)
            except (HostError, BackboneError) as error:
                self.watcher.note(f"{bench.profile.name} was not held to this machine: {error}")
                return
            self._store.set_recalibration(known)
        if known is not None:
            bench.recalibrate(known)
            self.watcher.note(known.told(bench.profile.name))

    def _records(self) -> list[Record]:
        """The trials so far, at what is known of their costs by now."""
        bench, records = self._bench, self._store.records()
        if bench.predictor.recalibration is None:
            return records
        return [
            replace(record, cost=bench.price(record.candidate))
            if record.candidate is not None and record.cost is not None
            else record
            for record in records
        ]

    def _search(self) -> None:
        records = self._records()
        repeats = 0
        limit_s = self.checked.settings.time_limit_s
        if limit_s is not None:
            self._trials_end_s = self._spent_s() + TRIAL_SHARE * self._limit_left_s()
        while not self._enough(records, repeats):
            trial, knobs = self._ask()
            number = len(records)
            self.watcher.phase(f"trial {number}: {knobs.backbone} at {knobs.input_px} px")
            work = Trial(
                number=number, bench=self._bench, history=records, on_step=self.watcher.step
            )
            record = work.run(knobs)
            with self._bench.timed("storage"):
                self._tell(trial, record)
            records.append(record)
            repeats = repeats + 1 if record.state == "duplicate" else 0
            self.watcher.trial(
                record,
                planned=self.checked.settings.trial_count,
                left_s=self._left_s(records),
            )
            _check_failures(records)

    def _open_store(self) -> None:
        settings = self.checked.settings
        with self._bench.timed("storage"):
            self._store = StudyStore(
                self.folder,
                space=self._space,
                quantities=settings.quantities,
                seed=settings.seed,
                fingerprint=self._fingerprint(),
                pricer=self._pricer(),
            )

    def _pricer(self) -> KnobPricer | None:
        if self.checked.settings.sampler == "tpe":
            return None
        return KnobPricer(self._bench)

    def _ask(self) -> tuple[ProposedTrial, Knobs]:
        with self._bench.timed("sampler"):
            return self._store.ask()

    def _tell(self, trial: ProposedTrial, record: Record) -> None:
        settings, bench = self.checked.settings, self._bench
        assert record.cost is not None
        admitted = admission(record.cost, settings.budgets, settings.confidence)
        values = None
        if record.accuracy is not None and record.state != "failed" and admitted.admitted:
            values = (record.accuracy, *bench.values(record.cost))
        self._store.tell(trial, record, values, admitted.violations)

    def _nothing_fits(self, evidence: EvidenceFile, text: str) -> NoReturn:
        write_evidence(self.folder, evidence)
        write_front(self.folder, build_front([], evidence, self.checked.settings).file)
        self._write_progress(finished=datetime.now(UTC))
        make_report(self.folder)
        raise NothingFitsError(f"{text}; report in {self.folder}")

    # -- parts ------------------------------------------------------------------------------------

    def _enough(self, records: Sequence[Record], repeats: int) -> bool:
        planned = self.checked.settings.trial_count
        if planned is not None and len(records) >= planned:
            return True
        if repeats >= _EXHAUSTED:
            self.watcher.note(f"the last {repeats} proposals were known networks; search ended")
            return True
        if self.checked.settings.time_limit_s is None:
            return False
        trained = [record.train_s for record in records if record.train_s > 0]
        if not trained and (self._limit_left_s() > 0 or len(records) < _LEAST_TRIALS):
            return False  # a front needs one
        return self._spent_s() + max(trained[-10:], default=0.0) > self._trials_end_s

    def _left_s(self, records: Sequence[Record]) -> float | None:
        settings = self.checked.settings
        if settings.time_limit_s is not None:
            return max(0.0, self._limit_left_s())
        if settings.trial_count is None or not records:
            return None
        mean = sum(record.train_s for record in records) / len(records)
        left = mean * (settings.trial_count - len(records))
        return left + expected_s(finalists(records, self._bench), self._bench)

    def _limit_left_s(self) -> float:
        assert self.checked.settings.time_limit_s is not None
        return self.checked.settings.time_limit_s - self._spent_s()

    def _spent_s(self) -> float:
        return time.monotonic() - self._begin + sum(self.earlier_wall_s.values())

    def _fingerprint(self) -> str:
        return self.checked.settings.fingerprint(
            profile_hash=self.checked.profile.profile_hash,
            data_hash=self._bench.data.content_hash,
        )

    def _write_progress(
        self, *, finished: datetime | None, records: Sequence[Record] | None = None
    ) -> None:
        records = self._store.records() if records is None else records
        wall_s = dict(self.earlier_wall_s)
        for phase, seconds in self._bench.wall_s.items():
            wall_s[phase] = wall_s.get(phase, 0.0) + seconds
        total = time.monotonic() - self._begin
        wall_s["other"] = wall_s.get("other", 0.0) + max(
            0.0, total - sum(self._bench.wall_s.values())
        )
        write_trials(self.folder, records)
        write_run(
            self.folder,
            self.checked.settings,
            self.checked.profile,
            command=self.command,
            fingerprint=self._fingerprint(),
            data=self._bench.data.describe(),
            started=self.started,
            finished=finished,
            wall_s=wall_s,
            records=records,
        )


def _check_failures(records: Sequence[Record]) -> None:
    failed = [record for record in records if record.state == "failed"]
    if len(failed) > max(_TOLERATED_FAILURES, len(records) // 5):
        raise TrialsFailedError(
            f"{len(failed)} of {len(records)} trials failed, the last one with: {failed[-1].reason}"
        )
