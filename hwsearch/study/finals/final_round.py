"""After a search: its finalists are trained to the end, which gives the evidence for a front.

The dense fp32 baseline is the base network itself; uniform int8 is its calibrated form with the
short tuning that a user would give it. Their accuracy is that of their files, which are scored
later (``hwsearch.ship``).
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hwsearch.accuracy.agreement import Agreement, agreement
from hwsearch.accuracy.training import UNLIMITED_STEPS, Recipe
from hwsearch.bits import FP32
from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import Knobs
from hwsearch.study.asked.effort import LEAST_FINAL_PASSES
from hwsearch.study.candidates.pricing_context import PricingContext
from hwsearch.study.candidates.training_context import Base, TrainingContext
from hwsearch.study.clock import Clock
from hwsearch.study.executor.base import Executor, event_value
from hwsearch.study.finals.evidence import EvidenceFile, StoredNetwork
from hwsearch.study.finals.final_time import FinalTime, TuningTimes
from hwsearch.study.finals.finalists import baseline_candidates, by_gain
from hwsearch.study.jobs.final import Finalize, FinalScore
from hwsearch.study.trials.progress import Watcher
from hwsearch.study.trials.records import Record
from hwsearch.study.trials.stored_cost import StoredCost
from hwsearch.study.written.output import MODELS_FOLDER, profile_entry, write_layers
from hwsearch.study.written.storage import StudyStore

#: Fewer pairs say nothing about a rank correlation.
_LEAST_PAIRS: Final = 4


@dataclass(frozen=True, kw_only=True)
class FinalRound:
    """What full fine-tuning works with.

    Attributes:
        base_of: the trained base network of a candidate.
        folder: of the run.
    """

    pricing: PricingContext
    training: TrainingContext
    executor: Executor
    clock: Clock
    base_of: Callable[[Knobs | Candidate], Base]
    store: StudyStore
    folder: Path
    watcher: Watcher

    def run(self, chosen: Sequence[Record], notes: Sequence[str]) -> EvidenceFile:
        """Train the finalists and the baselines to the end, each network once.

        What was trained earlier (a resumed run) is not trained again.

        Args:
            chosen: the trials that are finalists.
            notes: what the user should be told before all that this finds.
        """
        pricing, done = self.pricing, self._done()
        ordered = [record.candidate for record in by_gain(chosen, pricing)]
        wanted = [one for one in ordered if one is not None and one.id not in done]
        baselines = baseline_candidates(chosen, pricing)
        uniform = [candidate for _, candidate in baselines]
        final_time, more = None, []
        if self.clock.limit_s is not None and wanted:
            kept, passes = self._final_time(chosen, [*wanted, *uniform]).affordable(wanted)
            final_time = self._final_time(chosen, [*kept, *uniform])
            wanted = kept
            if passes < LEAST_FINAL_PASSES:
                more.append(
                    f"the time limit leaves each finalist {passes:.1f} passes over the "
                    f"training pictures, where {LEAST_FINAL_PASSES} and more pay: more time "
                    "would raise these accuracies"
                )
        folders = self._folders(chosen, baselines, done)
        own = {one.id for one in ordered if one is not None}
        short = [one for one in uniform if one.id not in done and one.id not in own]
        finals = {**done, **self._trained(wanted, short, folders, final_time)}
        tuned = [r for r in chosen if r.candidate is not None and r.candidate.id in finals]
        late = [str(record.trial) for record in chosen if record not in tuned]
        if late:
            more.append(
                f"the time limit left no time to train trial {', '.join(late)} fully; go on with: "
                f"hwsearch run --resume {self.folder} --time-limit LONGER"
            )
        for text in more:
            self.watcher.note(text)
        known = pricing.predictor.recalibration
        if known is not None:
            more.append(known.told(pricing.profile.name))
        agreed = _agreement(tuned, finals)
        return EvidenceFile(
            schema_version=1,
            target=pricing.profile.name,
            alias=pricing.settings.alias,
            profile=profile_entry(pricing.profile),
            data=self.training.data.describe(),
            notes=(*notes, *more),
            networks=(
                *(self._network(r.candidate, folders, trial=r.trial) for r in tuned if r.candidate),
                *(self._network(one, folders, name=label) for label, one in baselines),
            ),
            proxy_kendall_tau=None if agreed is None else agreed.tau,
            proxy_kendall_tau_ci90=None if agreed is None else (agreed.low, agreed.high),
        )

    def _trained(
        self,
        finalists: Sequence[Candidate],
        baselines: Sequence[Candidate],
        folders: Mapping[str, str],
        final_time: FinalTime | None,
    ) -> dict[str, FinalScore]:
        """Train networks, as many side by side as there are slots.

        Args:
            finalists: those that add the most first.
            baselines: which need a short tuning or none, and go first.
            folders: of each network by its id.
            final_time: shares out what a time limit leaves; None where the effort decides.

        Returns:
            The result of each candidate by id.
        """

        def timed_recipe(lane: Sequence[Candidate]) -> Recipe:
            recipe = self._recipe(lane[0])
            if final_time is None:
                return recipe
            return replace(recipe, steps=UNLIMITED_STEPS, seconds=final_time.seconds_for(lane))

        finals = self._train_lanes(
            self._common_lane(baselines), lambda lane: self._baseline_recipe(lane[0]), folders
        )
        lanes = self._common_lane(finalists) if final_time is None else final_time.lanes(finalists)
        return {**finals, **self._train_lanes(lanes, timed_recipe, folders)}

    def _common_lane(self, networks: Sequence[Candidate]) -> list[list[Candidate]]:
        """One lane that all slots take from."""
        return [list(networks)] * min(self.executor.slots, len(networks))

    def _train_lanes(
        self,
        lanes: Sequence[list[Candidate]],
        recipe_of: Callable[[Sequence[Candidate]], Recipe],
        folders: Mapping[str, str],
    ) -> dict[str, FinalScore]:
        """Train the networks of each lane one after the other; each is stored at once."""
        running: dict[int, list[Candidate]] = {}
        finals: dict[str, FinalScore] = {}
        count = sum(len(lane) for lane in {id(lane): lane for lane in lanes}.values())
        free = deque(lanes)
        while free or running:
            if free:
                lane = free.popleft()
            else:
                event = self.executor.wait()
                lane = running.pop(event.job)
                final: FinalScore = event_value(event)
                network = self.pricing.backbones.describe(final.candidate)
                folder = self._models / folders[final.candidate.id]
                write_layers(folder, network, self.pricing.predictor)
                self.store.set_final(final.candidate.id, final.to_json())
                finals[final.candidate.id] = final
            if not lane:
                continue
            recipe, candidate = recipe_of(lane), lane.pop(0)
            self.watcher.phase(
                f"fine-tuning {len(finals) + len(running) + 1} of {count}: {candidate.backbone} "
                f"at {candidate.input_px} px"
            )
            job = Finalize(
                base=self.base_of(candidate),
                candidate=candidate,
                recipe=recipe,
                folder=self._models / folders[candidate.id],
            )
            running[self.executor.start(job)] = lane
        return finals

    def _recipe(self, candidate: Candidate) -> Recipe:
        """How a finalist is trained to the end where no clock decides."""
        base, steps = self.base_of(candidate), self.training.final_steps
        return self.training.recipe(base, steps, candidate.id, "final")

    def _baseline_recipe(self, candidate: Candidate) -> Recipe:
        """How a baseline is tuned: not at all in fp32, as long as a whole trial in int8."""
        dense = all(bits == FP32 for bits in candidate.layer_bits.values())
        steps = 0 if dense else self.training.settings.space.training.rung_steps[-1]
        return replace(self._recipe(candidate), steps=steps)

    def _final_time(self, chosen: Sequence[Record], files: Sequence[Candidate]) -> FinalTime:
        return FinalTime(
            self.clock,
            TuningTimes.of(chosen, self.training, self.clock),
            self.pricing,
            self.training,
            files,
            self.executor.slots,
        )

    def _network(
        self,
        candidate: Candidate,
        folders: Mapping[str, str],
        *,
        trial: int | None = None,
        name: str | None = None,
    ) -> StoredNetwork:
        return StoredNetwork(
            trial=trial,
            name=name,
            folder=folders[candidate.id],
            candidate=candidate.to_json(),
            cost=StoredCost.of(self.pricing.price(candidate)),
        )

    def _folders(
        self,
        chosen: Sequence[Record],
        baselines: Sequence[tuple[str, Candidate]],
        done: Mapping[str, FinalScore],
    ) -> dict[str, str]:
        """The folder of each network by its id.

        A network that is a baseline and a trial has one folder: that of the trial, unless it was
        fine-tuned when it was one of the two only.
        """
        folders = {
            candidate.id: f"baseline_{label}_{candidate.backbone.replace(':', '.')}"
            for label, candidate in baselines
        }
        for record in chosen:
            if record.candidate is None:
                continue
            key, name = record.candidate.id, f"trial_{record.trial:04d}"
            if key not in folders or key not in done or (self._models / name).is_dir():
                folders[key] = name
        return folders

    @property
    def _models(self) -> Path:
        return self.folder / MODELS_FOLDER

    def _done(self) -> dict[str, FinalScore]:
        return {key: FinalScore.from_json(text) for key, text in self.store.finals().items()}


def _agreement(chosen: Sequence[Record], finals: Mapping[str, FinalScore]) -> Agreement | None:
    """Between the last short score and the final validation score."""
    pairs = [
        (record.accuracy, finals[record.candidate.id].validation.accuracy)
        for record in chosen
        if record.candidate is not None and record.accuracy is not None
    ]
    if len(pairs) < _LEAST_PAIRS:
        return None
    return agreement([short for short, _ in pairs], [full for _, full in pairs])
