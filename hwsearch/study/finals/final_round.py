"""After a search: its finalists are trained to the end, and a front is made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from hwsearch.report.stored import FrontFile
from hwsearch.space.candidate import Candidate
from hwsearch.study.asked.effort import LEAST_FINAL_PASSES
from hwsearch.study.candidates.workbench import Workbench
from hwsearch.study.finals.final_time import FinalTime, TuningTimes
from hwsearch.study.finals.finalists import baseline_candidates, by_gain
from hwsearch.study.finals.finalize import FinalScore, finalize
from hwsearch.study.finals.offer import make_front
from hwsearch.study.trials.progress import Watcher
from hwsearch.study.trials.records import Record
from hwsearch.study.written.output import write_model
from hwsearch.study.written.storage import StudyStore


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What full fine-tuning led to.

    Attributes:
        front: what is offered.
        searched: the same with all models that were scored.
        notes: what the user should be told, the first things first.
    """

    front: FrontFile
    searched: FrontFile
    notes: tuple[str, ...] = ()

    def noted(self, note: str, *, told: bool = False) -> "Outcome":
        """With a note in the files before all others, and to be told unless it was."""
        front, searched = (
            one.model_copy(update={"notes": (note, *one.notes)})
            for one in (self.front, self.searched)
        )
        notes = self.notes if told else (note, *self.notes)
        return Outcome(front=front, searched=searched, notes=notes)


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

    def run(self, chosen: Sequence[Record]) -> Outcome:
        """Train the finalists to the end, score them and the baselines, and make the front.

        Args:
            chosen: the trials that are finalists.
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
        front, searched, dropped = make_front(bench, tuned, baselines, finals, folders)
        outcome = Outcome(front=front, searched=searched, notes=tuple(dropped))
        known = bench.predictor.recalibration
        if known is not None:
            outcome = outcome.noted(known.told(bench.profile.name), told=True)
        late = [str(record.trial) for record in chosen if record not in tuned]
        if late:
            outcome = outcome.noted(
                f"the time limit left no time to train trial {', '.join(late)} fully; go on with: "
                f"hwsearch run --resume {self.folder} --time-limit LONGER"
            )
        return outcome if thin is None else outcome.noted(thin)

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
        return self.folder / "models"

    def _done(self) -> dict[str, FinalScore]:
        return {key: FinalScore.from_json(text) for key, text in self.store.finals().items()}
