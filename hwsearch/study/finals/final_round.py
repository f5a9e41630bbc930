"""After a search: its finalists are trained to the end, which gives the evidence for a front."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import nn

from hwsearch.accuracy.agreement import Agreement, agreement
from hwsearch.space.candidate import Candidate
from hwsearch.study.asked.effort import LEAST_FINAL_PASSES
from hwsearch.study.candidates.workbench import Workbench
from hwsearch.study.finals.evidence import EvidenceFile, StoredNetwork
from hwsearch.study.finals.final_time import FinalTime, TuningTimes
from hwsearch.study.finals.finalists import baseline_candidates, by_gain
from hwsearch.study.finals.finalize import FinalScore, finalize
from hwsearch.study.trials.progress import Watcher
from hwsearch.study.trials.records import Record
from hwsearch.study.trials.stored_cost import StoredCost
from hwsearch.study.written.output import MODELS_FOLDER, profile_entry, write_model
from hwsearch.study.written.storage import StudyStore

#: Fewer pairs say nothing about a rank correlation.
_LEAST_PAIRS: Final = 4


@dataclass(frozen=True, kw_only=True)
class FinalRound:
    """What full fine-tuning works with.

    Attributes:
        folder: of the run.
        left_s: seconds that a time limit leaves; None without one.
    """

    bench: Workbench
    store: StudyStore
    folder: Path
    watcher: Watcher
    left_s: Callable[[], float] | None

    def run(self, chosen: Sequence[Record], notes: Sequence[str]) -> EvidenceFile:
        """Train the finalists and the baselines to the end.

        Args:
            chosen: the trials that are finalists.
            notes: what the user should be told before all that this finds.
        """
        bench, done = self.bench, self._done()
        ordered = [record.candidate for record in by_gain(chosen, bench)]
        wanted = [candidate for candidate in ordered if candidate is not None]
        baselines = baseline_candidates(chosen, bench)
        uniform = [candidate for _, candidate in baselines]
        final_time, thin = None, None
        if self.left_s is not None:
            times = TuningTimes.of(chosen, bench)
            final_time = FinalTime(self.left_s, times, bench, [*wanted, *uniform])
            new = [candidate for candidate in wanted if candidate.id not in done]
            if new:
                kept, passes = final_time.affordable(new)
                final_time = FinalTime(self.left_s, times, bench, [*kept, *uniform])
                wanted = [one for one in wanted if one.id in done or one in kept]
                if passes < LEAST_FINAL_PASSES:
                    thin = (
                        f"the time limit leaves each finalist {passes:.1f} passes over the "
                        f"training pictures, where {LEAST_FINAL_PASSES} and more pay: more time "
                        "would raise these accuracies"
                    )
        folders = self._folders(chosen, baselines, done)

        def keep(final: FinalScore, model: nn.Module) -> None:
            network, card = bench.describe(final.candidate), bench.card(final.candidate)
            target = self._models / folders[final.candidate.id]
            write_model(target, model, network, bench.predictor, card)
            self.store.set_final(final.candidate.id, final.to_json())

        finals = finalize(
            wanted,
            uniform,
            done,
            bench,
            final_time=final_time,
            on_phase=self.watcher.phase,
            on_step=self.watcher.step,
            on_final=keep,
        )
        tuned = [r for r in chosen if r.candidate is not None and r.candidate.id in finals]
        late = [str(record.trial) for record in chosen if record not in tuned]
        more = [] if thin is None else [thin]
        if late:
            more.append(
                f"the time limit left no time to train trial {', '.join(late)} fully; go on with: "
                f"hwsearch run --resume {self.folder} --time-limit LONGER"
            )
        for text in more:
            self.watcher.note(text)
        known = bench.predictor.recalibration
        if known is not None:
            more.append(known.told(bench.profile.name))
        agreed = _agreement(tuned, finals)
        return EvidenceFile(
            schema_version=1,
            target=bench.profile.name,
            alias=bench.settings.alias,
            profile=profile_entry(bench.profile),
            data=bench.data.describe(),
            notes=(*notes, *more),
            networks=(
                *(self._network(r.candidate, folders, trial=r.trial) for r in tuned if r.candidate),
                *(self._network(one, folders, name=label) for label, one in baselines),
            ),
            proxy_kendall_tau=None if agreed is None else agreed.tau,
            proxy_kendall_tau_ci90=None if agreed is None else (agreed.low, agreed.high),
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
            cost=StoredCost.of(self.bench.price(candidate)),
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
