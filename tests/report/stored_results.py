"""Made-up but valid stored results, and a writer of run folders."""

import csv
import json
import math
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema

from hwsearch.report.stored import TRIAL_COLUMNS, StoredRun, read_run

Json = dict[str, Any]


def shipped_schema(name: str) -> Json:
    """A JSON schema (draft 2020-12) that ships with the package."""
    text = (resources.files("hwsearch.report") / f"{name}.schema.json").read_text(encoding="utf-8")
    schema: Json = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


LAYERS = ("stem", "stage1.conv1", "stage2.conv1", "stage3.conv1", "stage4.conv1", "head")


def cost(value: float, *, source: str = "predicted", spread: float = 0.15) -> Json:
    return {
        "value": value,
        "low": value * (1 - spread),
        "high": value * (1 + spread),
        "confidence": 0.9,
        "source": source,
    }


def interval(accuracy: float, pictures: int = 360) -> list[float]:
    """Wilson's 95 % interval."""
    z = 1.959964
    centre = (accuracy + z * z / (2 * pictures)) / (1 + z * z / pictures)
    half = (
        z
        / (1 + z * z / pictures)
        * math.sqrt(accuracy * (1 - accuracy) / pictures + z * z / (4 * pictures**2))
    )
    return [max(0.0, centre - half), min(1.0, centre + half)]


def model(trial: int | None, *, latency_ms: float = 2.0, accuracy: float = 0.95) -> Json:
    weight_bits = dict.fromkeys(LAYERS, 8) | {"stem": 16, "head": 16}
    return {
        "trial": trial,
        "backbone": "resnet10t" if (trial or 0) % 2 == 0 else "mobilenetv3_small_050",
        "input_px": 32,
        "depth": None,
        "width": 0.75,
        "pruning": {"stage1": 0.0, "stage2": 0.25, "stage3": 0.5, "stage4": 0.5},
        "weight_bits": weight_bits,
        "activation_bits": dict(weight_bits),
        "accuracy": accuracy,
        "accuracy_ci95": interval(accuracy),
        "latency_ms": cost(latency_ms),
        "energy_mj": cost(latency_ms * 6.5),
        "size_bytes": round(120_000 * latency_ms),
        "macs": round(9_000_000 * latency_ms),
        "meets_budget_probability": 0.97,
        "artefact": None,
        "verified": None,
        "layers": None,
    }


def baseline(name: str, *, latency_ms: float, accuracy: float, backbone: str) -> Json:
    bits = dict.fromkeys(LAYERS, 32 if name == "dense-fp32" else 8)
    return model(None, latency_ms=latency_ms, accuracy=accuracy) | {
        "name": name,
        "backbone": backbone,
        "pruning": {"stage1": 0.0, "stage2": 0.0, "stage3": 0.0, "stage4": 0.0},
        "weight_bits": bits,
        "activation_bits": dict(bits),
    }


def saturating_accuracy(latency_ms: float) -> float:
    return 0.985 - 0.16 * math.exp(-latency_ms / 1.6)


def front(models: int = 6) -> Json:
    """A front of so many models from 0.8 ms on, with the last but one as the pick."""
    latencies = [0.8 * 1.35**n if models <= 10 else 0.8 + 0.27 * n for n in range(models)]
    entries = [
        model(10 + n, latency_ms=latency, accuracy=saturating_accuracy(latency))
        for n, latency in enumerate(latencies)
    ]
    return {
        "schema_version": 1,
        "target": "jetson-orin-nano-super",
        "alias": "jetson",
        "profile": {
            "name": "jetson-orin-nano-super",
            "hash": "sha256:" + "ab" * 32,
            "evidence": "spec sheet",
            "runtime": "TensorRT 10.3",
            "power_mode": "15W",
        },
        "budgets": [{"quantity": "latency", "limit": 10.0, "unit": "ms", "confidence": 0.9}],
        "data": {"name": "digits", "pictures": {"train": 1077, "val": 360, "test": 360}},
        "baselines": [
            baseline("dense-fp32", latency_ms=7.4, accuracy=0.981, backbone="resnet10t"),
            baseline("uniform-int8", latency_ms=4.6, accuracy=0.969, backbone="resnet10t"),
        ],
        "pick": 10 + max(0, models - 2) if models else None,
        "pick_reason": "It is the most accurate model that leaves a margin to the budget.",
        "proxy_kendall_tau": 0.84,
        "proxy_kendall_tau_ci90": [0.55, 0.97],
        "notes": ["The 10 ms budget does not bind: the pick would still meet 3.2 ms."],
        "front": entries,
        "closest": None,
        "minimum_reachable": None,
        "baseline_pick": None,
    }


def empty_front(*, trained: bool = False) -> Json:
    closest = model(3, latency_ms=1.1) | {"meets_budget_probability": 0.02}
    if not trained:
        closest |= {"accuracy": None, "accuracy_ci95": None}
    return front(0) | {
        "budgets": [{"quantity": "latency", "limit": 0.2, "unit": "ms", "confidence": 0.9}],
        "pick_reason": "No candidate meets 0.2 ms.",
        "closest": closest,
        "minimum_reachable": {"latency": {"value": 0.61, "unit": "ms"}},
    }


def run() -> Json:
    return {
        "schema_version": 1,
        "command": "hwsearch run --target jetson --budget 10ms --trials 40",
        "configuration": {"trials": 40, "space": {"backbones": ["resnet10t"]}},
        "fingerprint": "f00d" * 8,
        "versions": {"hwsearch": "0.1.0", "torch": "2.15.0"},
        "seed": 7,
        "host": {
            "cpu": "a processor",
            "cores": 2,
            "memory_gb": 7.6,
            "os": "Linux",
            "python": "3.12.3",
        },
        "data": {"name": "digits", "content_hash": "sha256:" + "cd" * 32},
        "profile": {"name": "jetson-orin-nano-super", "hash": "sha256:1", "evidence": "spec sheet"},
        "started": "2026-03-01T10:00:00+00:00",
        "finished": "2026-03-01T10:04:10+00:00",
        "wall_s": {"base": 31.5, "search": 180.25, "finalize": 38.0},
        "counts": {
            "priced": 4000,
            "over_budget": 5,
            "trained": 40,
            "stopped": 16,
            "completed": 24,
            "duplicates": 1,
            "failed": 0,
        },
        "sampler": "hypervolume",
    }


def trial(number: int, state: str, *, latency_ms: float, accuracy: float | None) -> Json:
    row: Json = dict.fromkeys(TRIAL_COLUMNS, "")
    row |= {
        "trial": number,
        "state": state,
        "candidate": f"c{number:06x}",
        "backbone": "resnet10t" if number % 2 == 0 else "mobilenetv3_small_050",
        "input_px": 32,
        "latency_ms": latency_ms,
        "energy_mj": 6.5 * latency_ms,
        "size_bytes": round(120_000 * latency_ms),
        "knobs": json.dumps({"width": 0.5}),
    }
    if accuracy is not None:
        row |= {"rung": 0 if state == "stopped" else 2, "accuracy_rung0": accuracy}
    if state in {"completed", "finalized"}:
        row |= {"validation_accuracy": accuracy}
    return row


def trials(number: int = 40) -> list[Json]:
    rows = []
    for n in range(number):
        latency_ms = 0.6 + 0.17 * ((n * 7) % 41)
        drop = 0.015 + 0.02 * ((n * 5) % 7)
        accuracy = saturating_accuracy(latency_ms) - drop
        if n % 5 == 4:
            rows.append(trial(n, "stopped", latency_ms=latency_ms, accuracy=accuracy - 0.06))
        elif n % 13 == 12:
            rows.append(trial(n, "over_budget", latency_ms=14.0, accuracy=None))
        elif n == 6:
            rows.append(trial(n, "stopped", latency_ms=latency_ms, accuracy=0.11))
        else:
            rows.append(trial(n, "completed", latency_ms=latency_ms, accuracy=accuracy))
    return rows


def write_run(
    folder: Path,
    front_content: Json | None = None,
    *,
    run_content: Json | None = None,
    trial_rows: list[Json] | None = None,
) -> Path:
    """Write a run folder; what is not given is the made-up default."""
    folder.mkdir(parents=True, exist_ok=True)
    front_text = json.dumps(front() if front_content is None else front_content)
    (folder / "front.json").write_text(front_text, encoding="utf-8")
    run_text = json.dumps(run() if run_content is None else run_content)
    (folder / "run.json").write_text(run_text, encoding="utf-8")
    with (folder / "trials.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=TRIAL_COLUMNS)
        writer.writeheader()
        writer.writerows(trials() if trial_rows is None else trial_rows)
    return folder


def stored_run(folder: Path, front_content: Json | None = None, **content: Any) -> StoredRun:  # noqa: ANN401
    """The same, read back."""
    return read_run(write_run(folder, front_content, **content))
