"""The folder of a run whose search has ended: what it asked for, what it knows, its models."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.errors import DataError, RunError
from hwsearch.hardware.runtimes import RuntimeFacts, runtime_facts
from hwsearch.report.stored import RUN_FILE, RunFile, read_front, read_run_file
from hwsearch.space.candidate import Candidate
from hwsearch.study.asked.pictures import load_pictures
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.finals.evidence import (
    EvidenceFile,
    StoredNetwork,
    read_evidence,
)
from hwsearch.study.written.output import MODELS_FOLDER


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A network that was trained to the end, with the folder that its files are in."""

    network: StoredNetwork
    folder: Path

    @property
    def key(self) -> str:
        """Name of the folder, one for each model of a run."""
        return self.folder.name

    @property
    def name(self) -> str:
        """For people: "trial 3", "uniform-int8 of resnet18"."""
        return self.network.label

    @property
    def candidate(self) -> Candidate:
        """The network."""
        return self.network.to_candidate()


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run whose search has ended.

    Attributes:
        run: ``run.json``.
        settings: what it was asked to do.
        evidence: what the search knew of the networks that it trained to the end.
    """

    folder: Path
    run: RunFile
    settings: RunSettings
    evidence: EvidenceFile

    @property
    def runtime(self) -> RuntimeFacts:
        """What is to be known of the runtime of the target."""
        return runtime_facts(self.evidence.profile.runtime)

    @property
    def models(self) -> list[TrainedModel]:
        """Trials and baselines, each folder once: a trial may be a baseline as well."""
        networks: dict[str, StoredNetwork] = {}
        for network in self.evidence.networks:
            networks.setdefault(network.folder, network)
        return [
            TrainedModel(network=network, folder=self.folder / MODELS_FOLDER / name)
            for name, network in networks.items()
        ]

    @property
    def classes(self) -> int:
        """Outputs of the classifier.

        Raises:
            RunError: the run does not say.
        """
        names = self.evidence.data.get("classes")
        if not isinstance(names, list) or not names:
            raise RunError(
                f"{self.folder} does not say which classes its data have; it was written by "
                "another version of hwsearch, use that one"
            )
        return len(names)

    def pictures(self) -> DataSet:
        """Load the pictures of the run.

        Raises:
            DataError: they are not there, or not those of the run.
        """
        data = load_pictures(self.settings)
        if data.content_hash != self.run.data.content_hash:
            raise DataError(
                f"'{self.settings.data}' holds other pictures than {self.folder} was searched "
                "with; put them back, or start a new run"
            )
        return data


def open_run(folder: Path) -> RunFolder:
    """Read the folder of a run; one in which nothing met the budget has no models.

    Raises:
        RunError: it is none, its search has not ended, or it is of another version.
    """
    if not folder.is_dir():
        raise RunError(f"{folder} is not a folder; give a run folder, as they are in results/")
    run = read_run_file(folder)
    return RunFolder(
        folder=folder,
        run=run,
        settings=settings_of(run, folder),
        evidence=read_evidence(folder),
    )


def settings_of(run: RunFile, folder: Path) -> RunSettings:
    """The settings that a run was started with.

    Raises:
        RunError: they are those of another version.
    """
    try:
        return RunSettings.model_validate(run.configuration)
    except ValidationError:
        raise RunError(
            f"{folder / RUN_FILE} was written by another version of hwsearch; use that one"
        ) from None


def chosen(run: RunFolder, trial: str) -> list[TrainedModel]:
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
        return [model for model in models if model.key == Path(pick.layers or "").parent.name]
    found = [model for model in models if trial in (str(model.network.trial), model.key)]
    if not found:
        raise RunError(f"{run.folder} has no model '{trial}'; give all, pick or {_known(models)}")
    return found


def _known(models: Sequence[TrainedModel]) -> str:
    trials = [str(m.network.trial) for m in models if m.network.trial is not None]
    baselines = [model.key for model in models if model.network.trial is None]
    return ", ".join([*trials, *baselines]) or "nothing (its front is empty)"
