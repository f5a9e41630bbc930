# ruff: noqa: ANN401 - fakes take whatever the real function is given
"""A space of the tiny backbone, a device and records, so that a search takes a second."""

from pathlib import Path
from typing import Any

from bench import Bench
from tiny_network import OWN, PX, make_data

from hwsearch.accuracy.training import Score
from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.hardware.cost import Cost, Prediction
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import load_profile
from hwsearch.report.stored import BaselineEntry, ModelEntry, TrialState
from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import Knobs
from hwsearch.space.search_space import SearchSpace
from hwsearch.study.asked.preflight import Checked
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.trials.records import Record

BUDGETS = ("1ms", "1MB")
CONFIDENCE = 0.9


def make_space(**changes: Any) -> SearchSpace:
    """One own backbone, few steps."""
    plain: dict[str, Any] = {
        "schema_version": 1,
        "name": "small",
        "summary": "one own backbone",
        "backbones": [OWN],
        "input_px": [PX],
        "pruning": {"ratios": [0.0, 0.25, 0.5]},
        "training": {
            "base_steps": 4,
            "rung_steps": [1, 2],
            "final_steps": 2,
            "batch_size": 16,
        },
        "trials": 8,
    }
    return SearchSpace.model_validate(plain | changes)


def make_settings(**changes: Any) -> RunSettings:
    """Eight trials within a budget that most candidates meet."""
    plain: dict[str, Any] = {
        "target": "round",
        "budget_texts": BUDGETS,
        "confidence": CONFIDENCE,
        "data": "digits",
        "space": make_space(),
        "weights": "scratch",
    }
    return RunSettings.model_validate(plain | changes)


def make_profile(**changes: Any) -> HardwareProfile:
    """A slow device without a floor, where every channel and bit is felt in latency."""
    data = load_profile("jetson-orin-nano").model_dump(mode="json")
    data |= {"name": "round", "aliases": [], "fit": None}
    data["kernels"] |= {"network_overhead_us": 1.0, "floor_us": 0.001}
    data["memory"] |= {"bandwidth_gb_per_s": 1.0}
    return HardwareProfile.model_validate(data | changes)


def make_checked(**changes: Any) -> Checked:
    """Settings and profile, without a file of either."""
    return Checked(settings=make_settings(**changes), profile=make_profile())


def make_bench(**changes: Any) -> Bench:
    """Both contexts of a run."""
    return Bench(make_settings(**changes), make_profile(), make_data())


def make_cost(
    latency_ms: float = 0.5,
    *,
    size_bytes: int = 1000,
    energy_mj: float | None = None,
    sigma_log: float = 0.2,
) -> Cost:
    """A predicted cost."""

    def about(median: float) -> Prediction:
        return Prediction.lognormal(median=median, sigma_log=sigma_log, confidence=CONFIDENCE)

    return Cost(
        latency_ms=about(latency_ms),
        energy_mj=None if energy_mj is None else about(energy_mj),
        size_bytes=size_bytes,
        macs=12345,
    )


def make_knobs(**changes: Any) -> Knobs:
    """The dense network."""
    plain: dict[str, Any] = {"backbone": OWN, "input_px": PX}
    return Knobs(**(plain | changes))


def make_candidate(kept: int = 16, bits: LayerBits = INT8) -> Candidate:
    """A candidate of two layers that nobody has to be able to build."""
    return Candidate.build(
        backbone=OWN,
        input_px=PX,
        channels={"first": kept},
        bits={"first": bits, "last": FP32},
        pruning=(0.25, 0.0, 0.5, 0.0),
    )


def make_record(trial: int = 0, state: TrialState = "completed", **changes: Any) -> Record:
    """A trial that went up the whole ladder."""
    plain: dict[str, Any] = {
        "trial": trial,
        "state": state,
        "knobs": make_knobs(saving=0.125 * (trial % 8)),
        "candidate": make_candidate(),
        "cost": make_cost(),
        "probability": 0.97,
        "scores": tuple(Score(correct=right, total=30) for right in (12, 18, 24)),
        "train_s": 1.25,
    }
    return Record(**(plain | changes))


def _entry(accuracy: float, latency_ms: float, size_bytes: int) -> dict[str, Any]:
    score = Score(correct=round(accuracy * 1000), total=1000)
    near = {"value": latency_ms, "low": latency_ms * 0.8, "high": latency_ms * 1.2}
    return {
        "backbone": OWN,
        "input_px": PX,
        "depth": None,
        "width": None,
        "pruning": {},
        "weight_bits": {"first": 8},
        "activation_bits": {"first": 8},
        "accuracy": score.accuracy,
        "accuracy_ci95": score.ci95,
        "latency_ms": {**near, "confidence": CONFIDENCE, "source": "predicted"},
        "energy_mj": None,
        "size_bytes": size_bytes,
        "macs": 1,
        "meets_budget_probability": 1.0,
        "artefact": None,
        "verified": None,
        "layers": None,
    }


def model_entry(
    trial: int, accuracy: float, latency_ms: float, size_bytes: int = 1000
) -> ModelEntry:
    """A model of the front."""
    return ModelEntry(trial=trial, **_entry(accuracy, latency_ms, size_bytes))


def baseline_entry(accuracy: float, latency_ms: float, size_bytes: int = 1000) -> BaselineEntry:
    """The dense baseline."""
    entry = _entry(accuracy, latency_ms, size_bytes)
    return BaselineEntry(name="dense-fp32", trial=None, **entry)


def make_picture_folder(root: Path) -> Path:
    """A folder of two classes with ten pictures each."""
    from PIL import Image

    for position, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for number in range(10):
            colour = (20 * number, 200 * position, 7)
            Image.new("RGB", (PX, PX), colour).save(root / name / f"{number}.png")
    return root
