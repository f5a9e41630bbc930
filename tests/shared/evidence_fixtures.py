"""Evidence of networks that nobody trained."""

import math
from typing import Any, Final

from hwsearch.bits import FP32, INT8
from hwsearch.hardware.cost import Cost, Prediction
from hwsearch.report.stored import FrontFile
from hwsearch.report.verified import VerifyFile
from hwsearch.space.candidate import Candidate
from hwsearch.study.finals.evidence import Evidence, EvidenceFile, FileState, StoredNetwork
from hwsearch.study.trials.stored_cost import StoredCost

PICTURES: Final = 1000


def verified(
    accuracy: float,
    latency_ms: float | None = None,
    *,
    sigma_log: float = 0.02,
    of_target: bool = True,
    **changes: Any,  # noqa: ANN401
) -> VerifyFile:
    """What a file reached; timed where a latency is given."""
    latency = None
    if latency_ms is not None:
        reach = math.exp(1.6449 * sigma_log)
        latency = {
            "value": latency_ms, "low": latency_ms / reach, "high": latency_ms * reach,
            "confidence": 0.9, "sigma_log": sigma_log, "place": "host", "runtime": "onnxruntime 1",
            "device": "a board", "of_target": of_target, "threads": 1, "noise_floor_percent": 1.0,
        }  # fmt: skip
    return VerifyFile.model_validate(
        {
            "schema_version": 1, "file": "model.onnx", "file_hash": "0", "pictures": PICTURES,
            "correct": round(accuracy * PICTURES), "runtime": "ONNX Runtime 1.32.0",
            "host": "a processor", "layers": 2, "differences": {}, "latency_ms": latency,
            "refused": None,
        }
        | changes
    )  # fmt: skip


def stored_network(
    trial: int | None,
    name: str | None,
    latency_ms: float,
    *,
    size_bytes: int = 1000,
    sigma_log: float = 0.1,
    extrapolated: bool = False,
    **candidate: Any,  # noqa: ANN401
) -> StoredNetwork:
    """A network at its predicted cost; the rest is of its candidate."""
    latency = Prediction.lognormal(
        median=latency_ms, sigma_log=sigma_log, confidence=0.9, extrapolated=extrapolated
    )
    plain: dict[str, Any] = {
        "backbone": "net", "input_px": 32, "channels": {"a": 16}, "bits": {"a": INT8, "b": FP32},
    }  # fmt: skip
    cost = Cost(latency_ms=latency, energy_mj=None, size_bytes=size_bytes, macs=1)
    return StoredNetwork(
        trial=trial,
        name=name,
        folder=name or f"trial_{trial:04d}",
        candidate=Candidate.build(**(plain | candidate)).to_json(),
        cost=StoredCost.of(cost),
    )


def evidence(
    network: StoredNetwork, found: VerifyFile | None, refused: str | None = None
) -> Evidence:
    """What is known of a network, its predicted cost as stored."""
    artefact = None if refused else f"models/{network.folder}/model.onnx"
    file = FileState(artefact=artefact, verified=found, refused=refused)
    return Evidence(network=network, predicted=network.cost.cost(), file=file)


def trial(number: int, accuracy: float, latency_ms: float, **changes: Any) -> Evidence:  # noqa: ANN401
    """A trial whose file was scored and not timed."""
    return evidence(stored_network(number, None, latency_ms, **changes), verified(accuracy))


def baseline(name: str, accuracy: float, latency_ms: float, **changes: Any) -> Evidence:  # noqa: ANN401
    """The same of a baseline."""
    return evidence(stored_network(None, name, latency_ms, **changes), verified(accuracy))


def about(runtime: str = "ONNX Runtime 1.x", notes: tuple[str, ...] = ()) -> EvidenceFile:
    """What a search for this machine knew."""
    return EvidenceFile.model_validate(
        {
            "schema_version": 1, "target": "host", "alias": None,
            "profile": {"name": "host", "hash": "0", "evidence": "declared", "runtime": runtime,
                        "power_mode": None},
            "data": {}, "notes": notes, "networks": (),
        }
    )  # fmt: skip


def trials(front: FrontFile) -> list[int]:
    """Numbers of the trials on a front."""
    return [each.trial for each in front.front]
