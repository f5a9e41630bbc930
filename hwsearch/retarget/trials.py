"""A finished run, opened to be priced again: its settings, results and trials."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hwsearch.errors import RunError
from hwsearch.report.stored import SEARCHED_FILE, FrontFile, StoredRun, read_front, read_run
from hwsearch.space.candidate import Candidate
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.trials.records import Record
from hwsearch.study.written.storage import read_records


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """What a finished run has stored.

    Attributes:
        stored: its files.
        settings: what it was asked to do.
        searched: baselines and all models that were trained fully, before any file was verified.
        records: every trial, in order, with its channels and bits.
    """

    stored: StoredRun
    settings: RunSettings
    searched: FrontFile
    records: tuple[Record, ...]

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.stored.folder

    @property
    def classes(self) -> int:
        """Outputs of the classifier.

        Raises:
            RunError: the run does not say.
        """
        names = self.searched.data.get("classes")
        if not isinstance(names, list) or not names:
            raise RunError(
                f"{self.folder} does not say which classes its data have; it was written by "
                "another version of hwsearch, use that one"
            )
        return len(names)

    @property
    def candidates(self) -> dict[int, Candidate]:
        """The network of each trial that came so far as to have one."""
        return {r.trial: r.candidate for r in self.records if r.candidate is not None}


def open_finished(folder: Path) -> FinishedRun:
    """Read the folder of a finished run; nothing in it is changed.

    Raises:
        RunError: it is none, it has not finished, its study cannot be read, or no network of it
            was trained fully.
    """
    stored = read_run(folder)
    if stored.run.finished is None:
        raise RunError(
            f"the run in {folder} has not finished; "
            f"continue it with: hwsearch run --resume {folder}"
        )
    records = read_records(folder)
    try:
        settings = RunSettings.model_validate(stored.run.configuration)
    except ValidationError:
        raise RunError(
            f"{folder / 'run.json'} was written by another version of hwsearch; use that one"
        ) from None
    if not (folder / SEARCHED_FILE).is_file():
        raise RunError(
            f"no network of {folder} was trained fully, so it has no accuracy to keep; start a "
            "run for the other target"
        )
    return FinishedRun(
        stored=stored,
        settings=settings,
        searched=read_front(folder, SEARCHED_FILE),
        records=tuple(records),
    )
