"""After a search: its finalists and their baselines are fine-tuned fully, and a front is made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from torch import nn

from hwsearch.accuracy.agreement import attainable_tau
from hwsearch.report.stored import FrontFile
from hwsearch.space.candidate import Candidate
from hwsearch.study.candidates.workbench import Workbench
from hwsearch.study.finals.baseline_cache import BaselineCache
from hwsearch.study.finals.final_time import expected_times
from hwsearch.study.finals.finalists import baseline_candidates, plan, runners_up
from hwsearch.study.finals.finalize import FinalScore, finalize
from hwsearch.study.finals.offer import make_front
from hwsearch.study.trials.progress import Watcher
from hwsearch.study.trials.records import Record
from hwsearch.study.written.output import write_model
from hwsearch.study.written.storage import StudyStore

#: Agreement of short and final scores (Kendall's tau) below which more trials are fine-tuned fully.
_POOR_TAU: Final = 0.5


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
        known_baselines: are not fine-tuned again.
    """

    bench: Workbench
    store: StudyStore
    folder: Path
    watcher: Watcher
    left_s: Callable[[], float] | None
    known_baselines: BaselineCache

    def run(self, records: Sequence[Record], chosen: Sequence[Record]) -> Outcome:
        """Fine-tune the finalists, and more trials where short scores turn out to rank poorly.

        Args:
            records: of all trials.
            chosen: those that are finalists.
        """
        outcome = self._tuned(records, chosen)
        more = self._more(records, chosen, outcome.front.proxy_kendall_tau)
        if more:
            asked = (
                f"short scores ranked the {len(chosen)} finalists poorly (Kendall's tau "
                f"{outcome.front.proxy_kendall_tau:.2f}), so {len(more)} more trials go on to full "
                "fine-tuning"
            )
            self.watcher.note(asked)
            outcome = self._tuned(records, [*chosen, *more], further=True).noted(asked, told=True)
        known = self.bench.predictor.recalibration
        if known is not None:
            outcome = outcome.noted(known.told(self.bench.profile.name), told=True)
        return outcome

    def _tuned(
        self, records: Sequence[Record], chosen: Sequence[Record], *, further: bool = False
    ) -> Outcome:
        """Fine-tune fully; what comes further, after a front is there, is not needed."""
        bench, done = self.bench, self._done()
        baselines = baseline_candidates(chosen, bench)
        uniform = [candidate for _, candidate in baselines]
        folders = self._folders(chosen, baselines, done)

        def keep(final: FinalScore, model: nn.Module) -> None:
            network, card = bench.describe(final.candidate), bench.card(final.candidate)
            target = self._models / folders[final.candidate.id]
            write_model(target, model, network, bench.predictor, card)
            self.store.set_final(final.candidate.id, final.to_json())

        def keep_trained(final: FinalScore, model: nn.Module) -> None:
            keep(final, model)
            if final.candidate.id in {one.id for one in uniform}:
                self.known_baselines.keep(final, model)

        for candidate in uniform:
            found = None if candidate.id in done else self.known_baselines.read(candidate)
            if found is not None:
                keep(*found)
                done[candidate.id] = found[0]
        planned = plan(chosen, uniform, bench)
        if further:
            planned = [replace(one, needed=False) for one in planned]
        finals = finalize(
            planned,
            done,
            bench,
            expected=expected_times(records, chosen, uniform, bench),
            left_s=self.left_s,
            on_phase=self.watcher.phase,
            on_step=self.watcher.step,
            on_final=keep_trained,
        )
        tuned = [r for r in chosen if r.candidate is not None and r.candidate.id in finals]
        baselines = [(label, one) for label, one in baselines if one.id in finals]
        front, searched, dropped = make_front(bench, tuned, baselines, finals, folders)
        outcome = Outcome(front=front, searched=searched, notes=tuple(dropped))
        late = [str(record.trial) for record in chosen if record not in tuned]
        if not late:
            return outcome
        return outcome.noted(
            f"the time limit left no time to train trial {', '.join(late)} fully; go on with: "
            f"hwsearch run --resume {self.folder} --time-limit LONGER"
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

    def _more(
        self, records: Sequence[Record], chosen: Sequence[Record], tau: float | None
    ) -> list[Record]:
        """Who goes up the ladder as well where short scores do not foretell its end."""
        if tau is None or tau >= _POOR_TAU:
            return []
        tuned = {key: final.validation for key, final in self._done().items()}
        ids = [one.candidate.id for one in chosen if one.candidate is not None]
        ranked = [tuned[key] for key in ids if key in tuned]
        # Where networks hardly differ any two scores disagree, and more of them would be no better.
        if tau >= attainable_tau(ranked):
            return []
        return runners_up(records, tuned, self.bench)

    @property
    def _models(self) -> Path:
        return self.folder / "models"

    def _done(self) -> dict[str, FinalScore]:
        return {key: FinalScore.from_json(text) for key, text in self.store.finals().items()}
