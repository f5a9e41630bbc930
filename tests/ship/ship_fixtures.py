"""A finished run of a tiny backbone, made without a search."""

import datetime
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from bench import Bench
from study_fixtures import make_settings, make_space
from tiny_network import OWN, PX, make_data

from hwsearch.accuracy.ladder import inherit, validation_score
from hwsearch.accuracy.training import Score
from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.deploy.network_file import network_bytes
from hwsearch.hardware.measure import machine_speed
from hwsearch.hardware.measure.machine_speed import REFERENCE
from hwsearch.hardware.measure.places import Place
from hwsearch.hardware.measure.protocol import MeasuredNet, MeasureReport
from hwsearch.hardware.targets import load_profile
from hwsearch.ship import verify
from hwsearch.space.candidate import Candidate
from hwsearch.space.knobs import Knobs
from hwsearch.study.finals.evidence import EvidenceFile, StoredNetwork, write_evidence
from hwsearch.study.jobs.final import WEIGHTS_FILE
from hwsearch.study.trials.progress import Silent
from hwsearch.study.trials.records import Record
from hwsearch.study.trials.stored_cost import StoredCost
from hwsearch.study.written.output import profile_entry, write_layers, write_run, write_trials

BASELINES: Final = (
    ("dense-fp32", FP32, "baseline_dense-fp32_tiny"),
    ("uniform-int8", INT8, "baseline_uniform-int8_tiny"),
)
#: Folders of the networks of a run.
KEYS: Final = ("trial_0000", "trial_0003", *(folder for _, _, folder in BASELINES))


def candidates(bench: Bench) -> dict[int, Candidate]:
    """Trial 0 is pruned and int8, trial 3 dense with mixed bits."""
    dense = bench.pricing.backbones.uniform(Knobs(backbone=OWN, input_px=PX), FP32)
    layers = [name for name, _ in dense.bits]
    half = FP16 if bench.profile.runtime == "TensorRT" else FP32
    mixed: dict[str, LayerBits] = dict(zip(layers, (INT8, half, INT8, FP32), strict=True))
    pruned = {name: kept // 2 for name, kept in dense.channels}
    build = Candidate.build
    return {
        0: build(backbone=OWN, input_px=PX, channels=pruned, bits=dict.fromkeys(layers, INT8),
                 pruning=(0.5, 0.5, 0.5, 0.5)),
        3: build(backbone=OWN, input_px=PX, channels=dense.channel_counts, bits=mixed),
    }  # fmt: skip


def write_finished_run(folder: Path, **changes: Any) -> Path:  # noqa: ANN401
    """Write the folder of a finished run, with the weights of two trials and two baselines."""
    training = {"base_steps": 30, "rung_steps": [1, 2], "final_steps": 2, "batch_size": 16}
    space = make_space(training=training)
    settings = make_settings(budget_texts=("50ms",), space=space, **changes)
    data = make_data()
    bench = Bench(settings, load_profile(settings.target), data)
    chosen = candidates(bench)
    knobs = Knobs(backbone=OWN, input_px=PX)
    base = [(label, bench.pricing.backbones.uniform(knobs, bits)) for label, bits, _ in BASELINES]
    folders = {candidate.id: f"trial_{trial:04d}" for trial, candidate in chosen.items()}
    folders |= {
        candidate.id: name for (_, candidate), (_, _, name) in zip(base, BASELINES, strict=True)
    }
    scores: dict[str, Score] = {}
    for candidate in (*chosen.values(), *(candidate for _, candidate in base)):
        model = inherit(bench.plan(candidate), data, batch_size=16)
        scores[candidate.id] = validation_score(model, data, PX)
        place = folder / "models" / folders[candidate.id]
        write_layers(place, bench.pricing.backbones.describe(candidate), bench.pricing.predictor)
        (place / WEIGHTS_FILE).write_bytes(network_bytes(model, bench.training.card(candidate)))
    records = [
        Record(
            trial=trial, state="completed", knobs=knobs, candidate=candidate,
            cost=bench.pricing.price(candidate), probability=1.0,
            scores=(scores[candidate.id],),
        )
        for trial, candidate in chosen.items()
    ]  # fmt: skip
    named: list[tuple[int | None, str | None, Candidate]] = [
        *((trial, None, candidate) for trial, candidate in chosen.items()),
        *((None, label, candidate) for label, candidate in base),
    ]
    write_evidence(folder, EvidenceFile(
        schema_version=1, target=bench.profile.name, alias=None,
        profile=profile_entry(bench.profile), data=data.describe(), notes=(),
        networks=tuple(
            StoredNetwork(
                trial=trial, name=name, folder=folders[candidate.id],
                candidate=candidate.to_json(), cost=StoredCost.of(bench.pricing.price(candidate)),
            )
            for trial, name, candidate in named
        ),
    ))  # fmt: skip
    write_trials(folder, records)
    now = datetime.datetime.now(datetime.UTC)
    write_run(
        folder, settings, bench.profile, command="made up", workers=1, fingerprint="0",
        data=data.describe(),
        started=now, finished=now, wall_s={}, records=records,
    )  # fmt: skip
    return folder


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


class FakeMeasure:
    """``measure`` with given latencies; remembers how it was called."""

    def __init__(self, latencies_ms: Mapping[str, float], noise: float = 0.5) -> None:
        self.latencies_ms, self.noise = latencies_ms, noise
        self.calls: list[dict[str, Any]] = []
        self.reached: list[tuple[str, str | None]] = []

    def reach(self, place: Place, *, runtime: str | None, threads: int) -> None:
        self.reached.append((place.name, runtime))

    def __call__(self, files: Mapping[str, Path], place: Place, **options: object) -> MeasureReport:
        asked = [name for name in files if name != REFERENCE]
        self.calls.append({"place": place.name, "files": asked, **options})
        known = {REFERENCE: 1.0, **self.latencies_ms}
        nets = tuple(
            MeasuredNet(
                name=name, latency_ms=known[name], minimum_ms=known[name],
                round_latencies_ms=(known[name], known[name] * 1.001),
            )
            for name in files
        )  # fmt: skip
        return MeasureReport(
            nets=nets, refused=(), noise_floor_percent=self.noise, drift_percent=None,
            place=place.name, runtime="onnxruntime", runtime_version="1.32.0", device="a board",
            cpu="a processor", cpu_features=(), power_mode=None, energy_boundary=None, threads=1,
            rounds=20, runs=5, date=datetime.date(2026, 11, 27), kept_nets=0,
            warnings=("the times are noisy",),
        )  # fmt: skip


def replace_measure(monkeypatch: pytest.MonkeyPatch, fake: Callable[..., MeasureReport]) -> None:
    """In the two modules that time files."""
    for module in (verify, machine_speed):
        monkeypatch.setattr(module, "measure", fake)


class Remembers(Silent):
    """A watcher that keeps what it was told."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def step(self, done: int, total: int) -> None:
        assert 0 < done <= total

    def trial(
        self, record: Record, *, done: int, planned: int | None, left_s: float | None
    ) -> None:
        raise AssertionError(record, planned, left_s)

    def note(self, text: str) -> None:
        self.notes.append(text)
