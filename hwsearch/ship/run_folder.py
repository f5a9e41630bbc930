"""A finished run, opened for export and verification."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.errors import DataError, RunError
from hwsearch.hardware.runtime_family import Family, family_of
from hwsearch.report.stored import (
    SEARCHED_FILE,
    BaselineEntry,
    FrontFile,
    ModelEntry,
    read_front,
)
from hwsearch.study.asked.pictures import load_pictures
from hwsearch.study.asked.preflight import stored_run
from hwsearch.study.asked.settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class ShippedModel:
    """A model of the front or a baseline, with the folder that its files are in."""

    entry: ModelEntry | BaselineEntry
    folder: Path

    @property
    def key(self) -> str:
        """Name of the folder, one for each model of a run."""
        return self.folder.name

    @property
    def name(self) -> str:
        """For people: "trial 3", "uniform-int8 of resnet18"."""
        if isinstance(self.entry, BaselineEntry):
            return f"{self.entry.name} of {self.entry.backbone}"
        return f"trial {self.entry.trial}"


@dataclass(frozen=True, kw_only=True)
class OpenedRun:
    """A finished run.

    Attributes:
        searched: baselines and all models that were trained fully, at their predicted costs.
        data_hash: of the pictures that it was searched with.
    """

    folder: Path
    settings: RunSettings
    searched: FrontFile
    data_hash: str

    @property
    def family(self) -> Family:
        """Of the target's runtime."""
        return family_of(self.searched.profile.runtime)

    @property
    def models(self) -> list[ShippedModel]:
        """Front and baselines, each file once; the models of the front come first.

        A network of the front may be a baseline of it as well.
        """
        entries: dict[str, ModelEntry | BaselineEntry] = {}
        for entry in self.searched.scored:
            if entry.layers is not None:
                entries.setdefault(entry.layers, entry)
        return [
            ShippedModel(entry=entry, folder=self.folder / Path(layers).parent)
            for layers, entry in entries.items()
        ]

    def pictures(self) -> DataSet:
        """Load the pictures of the run.

        Raises:
            DataError: they are not there, or not those of the run.
        """
        data = load_pictures(self.settings)
        if data.content_hash != self.data_hash:
            raise DataError(
                f"'{self.settings.data}' holds other pictures than {self.folder} was searched "
                "with; put them back, or start a new run"
            )
        return data


def open_run(folder: Path) -> OpenedRun:
    """Open the folder of a finished run; one in which nothing met the budget has no models.

    Raises:
        RunError: it is none.
    """
    if not folder.is_dir():
        raise RunError(f"{folder} is not a folder; give a run folder, as they are in results/")
    stored = stored_run(folder)
    front = read_front(folder)
    if front.closest is None or (folder / SEARCHED_FILE).is_file():
        front = read_front(folder, SEARCHED_FILE)
    try:
        settings = RunSettings.model_validate(stored["configuration"])
        data_hash = str(stored["data"]["content_hash"])
    except (ValidationError, KeyError, TypeError):
        raise RunError(
            f"{folder / 'run.json'} was written by another version of hwsearch; use that one"
        ) from None
    return OpenedRun(
        folder=folder,
        settings=settings,
        searched=front,
        data_hash=data_hash,
    )


def offered_models(run: OpenedRun, front: FrontFile) -> list[ShippedModel]:
    """The models that a front offers, and the baselines."""
    offered = {entry.layers for entry in front.scored}
    return [model for model in run.models if model.entry.layers in offered]


def chosen(run: OpenedRun, trial: str) -> list[ShippedModel]:
    """The models that a user names: "all", "pick", a trial's number, or a folder of models/.

    Raises:
        RunError: there is no such model.
    """
    models = run.models
    if trial == "all":
        return models
    if trial == "pick":
        pick = read_front(run.folder).to_use
        if pick is None:
            raise RunError(f"{run.folder} has no pick; name a trial: {_known(models)}")
        return [model for model in models if model.entry.layers == pick.layers]
    found = [model for model in models if trial in (str(model.entry.trial), model.key)]
    if not found:
        raise RunError(f"{run.folder} has no model '{trial}'; give all, pick or {_known(models)}")
    return found


def _known(models: Sequence[ShippedModel]) -> str:
    trials = [str(m.entry.trial) for m in models if m.entry.trial is not None]
    baselines = [model.key for model in models if model.entry.trial is None]
    return ", ".join([*trials, *baselines]) or "nothing (its front is empty)"
