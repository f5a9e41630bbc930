"""What is known of each network that a run trained to the end: all that a front is built from.

``evidence.json`` is written when the search ends, and holds what the search knows: the networks,
their predicted costs and what the user should be told. What a file reached is in the folder of its
network (``verify.json``), so that it can be scored and timed again without the search. Searching,
verifying and pricing for another target differ only in the evidence that they hand to
``build_front``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import JsonValue, model_validator

from hwsearch.accuracy.training import Score
from hwsearch.hardware.cost import Cost, Prediction
from hwsearch.hardware.measure.kept import content_hash
from hwsearch.report.stored import (
    ClosestEntry,
    Count,
    ProfileEntry,
    ReachableEntry,
    StoredModel,
    Tau,
    read_stored,
    replace_file,
)
from hwsearch.report.verified import VerifyFile, read_verified
from hwsearch.space.candidate import Candidate
from hwsearch.study.trials.stored_cost import StoredCost
from hwsearch.study.written.output import LAYERS_FILE, MODELS_FOLDER
from hwsearch.units import Quantity

EVIDENCE_FILE: Final = "evidence.json"
ONNX_FILE: Final = "model.onnx"
#: Why a file could not be made, for as long as it could not.
REFUSED_FILE: Final = "refused.txt"


class StoredNetwork(StoredModel):
    """A network that was trained to the end.

    Attributes:
        trial: its number; null for a baseline.
        name: of a baseline ("dense-fp32", "uniform-int8"); null for a trial.
        folder: name of the folder in ``models/``; a trial may share it with a baseline.
        candidate: canonical JSON.
        cost: as it was predicted for the target of the run.
    """

    trial: Count | None
    name: str | None
    folder: str
    candidate: str
    cost: StoredCost

    @model_validator(mode="after")
    def _consistent(self) -> "StoredNetwork":
        if (self.trial is None) == (self.name is None):
            raise ValueError("a network is a trial or a baseline")
        return self

    @property
    def label(self) -> str:
        """For people: "trial 3", "uniform-int8 of resnet18"."""
        if self.name is None:
            return f"trial {self.trial}"
        return f"{self.name} of {self.to_candidate().backbone}"

    def to_candidate(self) -> Candidate:
        """The point of the search space that ``candidate`` spells."""
        return Candidate.from_json(self.candidate)


class EvidenceFile(StoredModel):
    """``evidence.json``: what a search knows when it ends.

    Attributes:
        notes: what the user should be told about the search, the first things first.
        networks: trials, then baselines; none where nothing met the budget.
        closest: what misses the budget by the least, where nothing met it.
        minimum_reachable: the least that any candidate costs, where nothing met the budget.
    """

    schema_version: Literal[1]
    target: str
    alias: str | None
    profile: ProfileEntry
    data: dict[str, JsonValue]
    notes: tuple[str, ...]
    networks: tuple[StoredNetwork, ...]
    proxy_kendall_tau: Tau | None = None
    proxy_kendall_tau_ci90: tuple[Tau, Tau] | None = None
    closest: ClosestEntry | None = None
    minimum_reachable: dict[Quantity, ReachableEntry] | None = None

    @property
    def trials(self) -> list[int]:
        """Numbers of the trials that were trained to the end."""
        return [network.trial for network in self.networks if network.trial is not None]


@dataclass(frozen=True, kw_only=True)
class FileState:
    """What lies in the folder of a network.

    Attributes:
        artefact: path of the file within the run folder; None where there is none.
        verified: what that very file reached; None where it was not scored.
        refused: why it could not be exported.
    """

    artefact: str | None = None
    verified: VerifyFile | None = None
    refused: str | None = None


def state_of(folder: Path, run_folder: Path) -> FileState:
    """What lies in the folder of a network; a verification of another file is not counted.

    Raises:
        RunError: a file cannot be read.
    """
    file, refused = folder / ONNX_FILE, folder / REFUSED_FILE
    if refused.is_file():
        return FileState(refused=refused.read_text(encoding="utf-8"))
    if not file.is_file():
        return FileState()
    verified = read_verified(folder)
    if verified is not None and verified.file_hash != content_hash(file):
        verified = None
    return FileState(artefact=file.relative_to(run_folder).as_posix(), verified=verified)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A network and what is known of it.

    Attributes:
        network: as the search left it.
        predicted: its cost on the target.
        file: what was exported of it and what that reached.
    """

    network: StoredNetwork
    predicted: Cost
    file: FileState

    @property
    def score(self) -> Score | None:
        """Of the file on held-out pictures: the accuracy of the network; None without a score."""
        verified = self.file.verified
        if verified is None or verified.correct is None:
            return None
        return Score(correct=verified.correct, total=verified.pictures)

    @property
    def cost(self) -> Cost:
        """With the latency that was measured on the target in place of the predicted one."""
        verified = self.file.verified
        measured = None if verified is None else verified.latency_ms
        if measured is None or not measured.of_target:
            return self.predicted
        latency = Prediction(
            value=measured.value,
            low=measured.low,
            high=measured.high,
            confidence=measured.confidence,
            source="measured",
            sigma_log=measured.sigma_log,
        )
        return Cost(
            latency_ms=latency,
            energy_mj=self.predicted.energy_mj,
            size_bytes=self.predicted.size_bytes,
            macs=self.predicted.macs,
        )

    @property
    def layers(self) -> str | None:
        """Path of ``layers.csv`` within the run folder; None where the file is of another run."""
        if self.file.artefact is None:
            return None
        return f"{MODELS_FOLDER}/{self.network.folder}/{LAYERS_FILE}"

    @property
    def refusal(self) -> str | None:
        """Why its file cannot be used; None where it can."""
        verified = self.file.verified
        if self.file.refused is not None:
            return self.file.refused
        if verified is None:
            return "its file was not scored"
        return verified.refused


def write_evidence(folder: Path, evidence: EvidenceFile) -> None:
    """Write ``evidence.json``; raises ``RunError`` if it cannot be."""
    replace_file(folder / EVIDENCE_FILE, (evidence.model_dump_json(indent=1) + "\n").encode())


def read_evidence(folder: Path) -> EvidenceFile:
    """Read ``evidence.json`` of a run.

    Raises:
        RunError: the search has not ended, or the file cannot be read or is of another version.
    """
    return read_stored(folder / EVIDENCE_FILE, EvidenceFile)
