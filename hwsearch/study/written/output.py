"""Writing a run folder: run.json, trials.csv, front.json and the networks of the front."""

import csv
import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from hwsearch.accuracy.training import Score
from hwsearch.hardware.cost import Cost
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.report.stored import (
    FRONT_FILE,
    RUN_FILE,
    TRIAL_COLUMNS,
    TRIALS_FILE,
    BudgetEntry,
    CostEntry,
    CountsEntry,
    DataEntry,
    FrontFile,
    HostEntry,
    ProfileEntry,
    RunFile,
    RunProfileEntry,
    TrialRow,
    read_run_file,
    replace_file,
)
from hwsearch.space.candidate import STAGES, Candidate
from hwsearch.study.asked.admission import Admission
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.trials.records import Record
from hwsearch.study.written.constraints import constraints_text
from hwsearch.study.written.storage import SAMPLERS

#: What ``pip install -c`` takes to get the versions of the run again.
CONSTRAINTS_FILE: Final = "constraints.txt"
#: In the folder of a network.
LAYERS_FILE: Final = "layers.csv"
#: Holds a folder for each network that was trained to the end.
MODELS_FOLDER: Final = "models"
#: The phase of a run after its search.
SHIPPING: Final = "export and verification"

_VERSIONS: Final = (
    "hwsearch", "torch", "timm", "torch-pruning", "optuna", "numpy", "scikit-learn", "torchvision",
    "onnx", "onnxruntime",
)  # fmt: skip


def entry(
    candidate: Candidate,
    cost: Cost,
    admitted: Admission,
    score: Score | None,
    *,
    trial: int | None,
    layers: str | None,
) -> dict[str, Any]:
    """The fields that models, baselines and the closest point share in ``front.json``."""
    return {
        "trial": trial,
        "backbone": candidate.backbone,
        "input_px": candidate.input_px,
        "depth": None if candidate.depth is None else json.loads(candidate.depth),
        "width": None if candidate.width is None else json.loads(candidate.width),
        "pruning": {
            f"stage{stage}": ratio for stage, ratio in zip(STAGES, candidate.pruning, strict=True)
        },
        "weight_bits": {layer: bits.weight_bits for layer, bits in candidate.bits},
        "activation_bits": {layer: bits.activation_bits for layer, bits in candidate.bits},
        "accuracy": None if score is None else score.accuracy,
        "accuracy_ci95": None if score is None else score.ci95,
        "latency_ms": CostEntry.of(cost.latency_ms),
        "energy_mj": None if cost.energy_mj is None else CostEntry.of(cost.energy_mj),
        "size_bytes": cost.size_bytes,
        "macs": cost.macs,
        "meets_budget_probability": admitted.probability,
        "artefact": None,
        "verified": None,
        "layers": layers,
    }


def profile_entry(profile: HardwareProfile) -> ProfileEntry:
    """The profile as ``front.json`` names it."""
    return ProfileEntry(
        name=profile.name,
        hash=profile.profile_hash,
        evidence=profile.evidence,
        runtime=f"{profile.runtime} {profile.runtime_version}",
        power_mode=profile.power_mode,
    )


def budget_entries(settings: RunSettings) -> tuple[BudgetEntry, ...]:
    """The budgets as ``front.json`` holds them."""
    return tuple(
        BudgetEntry(
            quantity=budget.quantity,
            limit=budget.limit,
            unit=budget.unit,
            confidence=settings.confidence,
        )
        for budget in settings.budgets
    )


def write_front(folder: Path, front: FrontFile) -> None:
    """Write ``front.json``."""
    replace_file(folder / FRONT_FILE, (front.model_dump_json(indent=1) + "\n").encode())


def write_trials(folder: Path, records: Sequence[Record]) -> None:
    """Write ``trials.csv``, one line for each trial in order."""
    write_rows(folder, [record.row() for record in records])


def write_rows(folder: Path, rows: Sequence[TrialRow]) -> None:
    """Write ``trials.csv`` from its lines."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, TRIAL_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row.model_dump())
    replace_file(folder / TRIALS_FILE, text.getvalue().encode())


def write_run(
    folder: Path,
    settings: RunSettings,
    profile: HardwareProfile,
    *,
    command: str,
    workers: int,
    fingerprint: str,
    data: Mapping[str, Any],
    started: datetime,
    finished: datetime | None,
    wall_s: Mapping[str, float],
    records: Sequence[Record],
) -> None:
    """Write ``run.json`` and ``constraints.txt``."""
    run = RunFile(
        schema_version=1,
        command=command,
        configuration=settings.to_json(),
        fingerprint=fingerprint,
        versions={name: version(name) for name in _VERSIONS},
        seed=settings.seed,
        workers=workers,
        host=_host(),
        data=DataEntry.model_validate(dict(data)),
        profile=RunProfileEntry(
            name=profile.name, hash=profile.profile_hash, evidence=profile.evidence
        ),
        started=started,
        finished=finished,
        wall_s={phase: round(seconds, 2) for phase, seconds in wall_s.items()},
        counts=_counts(records),
        sampler=SAMPLERS[settings.sampler],
    )
    replace_file(folder / RUN_FILE, (run.model_dump_json(indent=1) + "\n").encode())
    replace_file(folder / CONSTRAINTS_FILE, constraints_text().encode())


def add_wall_s(folder: Path, phase: str, seconds: float) -> None:
    """Add to the time of a phase in the ``run.json`` of a finished run.

    Raises:
        RunError: it cannot be read or written.
    """
    run = read_run_file(folder)
    spent = round(run.wall_s.get(phase, 0.0) + seconds, 2)
    run = run.model_copy(update={"wall_s": {**run.wall_s, phase: spent}})
    replace_file(folder / RUN_FILE, (run.model_dump_json(indent=1) + "\n").encode())


def write_layers(folder: Path, network: NetworkDesc, predictor: CostPredictor) -> None:
    """Write ``layers.csv`` of a network.

    Args:
        folder: of this network; made if it is not there.
        network: its kernels, with bits.
        predictor: prices each kernel.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["layer", "kind", "stage", "in_channels", "out_channels", "weight_bits", "activation_bits",
         "macs", "weight_bytes", "predicted_latency_ms", "predicted_energy_mj", "bound"]
    )  # fmt: skip
    for kernel, cost in zip(network.kernels, predictor.kernels(network), strict=True):
        writer.writerow(
            [kernel.name, kernel.kind.value, kernel.stage, kernel.in_channels, kernel.out_channels,
             kernel.bits.weight_bits, kernel.bits.activation_bits, kernel.macs,
             kernel.weight_bytes, f"{cost.latency_ms:.6g}",
             "" if cost.energy_mj is None else f"{cost.energy_mj:.6g}", cost.bound]
        )  # fmt: skip
    replace_file(folder / LAYERS_FILE, text.getvalue().encode())


def _counts(records: Sequence[Record]) -> CountsEntry:
    states = [record.state for record in records]
    return CountsEntry(
        priced=sum(record.cost is not None for record in records),
        over_budget=states.count("over_budget"),
        trained=sum(bool(r.scores) and r.state != "duplicate" for r in records),
        stopped=states.count("stopped"),
        completed=states.count("completed") + states.count("finalized"),
        duplicates=states.count("duplicate"),
        failed=states.count("failed"),
    )


def _host() -> HostEntry:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return HostEntry(
        cpu=host_name(),
        cores=os.cpu_count() or 1,
        memory_gb=round(pages / 1e9, 1),
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def host_name() -> str:
    """The processor of this machine."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
