"""Tiny ONNX files, and a place that answers as a runner would."""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hwsearch.hardware.measure import runner
from hwsearch.hardware.measure.process import Event
from hwsearch.hardware.runtimes import Runner

#: A job of the runner; tests change what they are about.
JOB: Final[dict[str, Any]] = {
    "mode": "measure", "runtime": "onnxruntime", "threads": 1, "rounds": 2, "extra_rounds": 0,
    "runs": 3, "warm_up": 1, "seconds_per_round": 1.0, "time_limit_s": None, "precisions": [],
    "anchor": None,
}  # fmt: skip


def write_net(
    path: Path, *, channels: int = 4, batch: int | str = 1, side: int | str = 8, opset: int = 13
) -> Path:
    """A convolution, a ReLU, pooling and a GEMM on one picture of three channels."""
    rng = np.random.default_rng(channels)
    weights = {
        "w": rng.standard_normal((channels, 3, 3, 3)),
        "v": rng.standard_normal((channels, 2)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def write_nets(folder: Path, count: int) -> dict[str, Path]:
    """So many different nets, by name."""
    return {f"net{n}": write_net(folder / f"net{n}.onnx", channels=4 + 4 * n) for n in range(count)}


def steady(number: int) -> list[float]:
    """Rounds of a quiet machine."""
    return [1.0 + number, 1.01 + number]


@dataclass
class ScriptedPlace:
    """Answers jobs without running anything, and remembers them.

    Attributes:
        rounds_ms: the rounds of the net at a position of the job.
        break_off: called before each result; may raise.
        extra: events after the first one.
        silent: there are no events at all.
    """

    name: str = "scripted"
    default_runtime: Runner = "onnxruntime"
    runtime_version: str = "1.2.3"
    energy: bool = False
    rounds_ms: Callable[[int], list[float]] = steady
    break_off: Callable[[str], None] = lambda name: None
    refused: frozenset[str] = frozenset()
    extra: tuple[Event, ...] = ()
    silent: bool = False
    jobs: list[dict[str, Any]] = field(default_factory=list)

    def run(
        self, job: Mapping[str, object], files: Mapping[str, Path]
    ) -> Generator[Event, None, None]:
        self.jobs.append({**job, "files": list(files)})
        if self.silent:
            return
        yield {
            "event": "start",
            "runtime_version": self.runtime_version,
            "device": "board",
            "cpu": "processor",
            "cpu_features": ["avx2"],
            "power_mode": None,
            "energy": self.energy,
            "no_energy": "no counter",
        }
        if job["mode"] == "measure":
            yield from self.extra
        unwanted = job.get("only_anchor", [])
        assert isinstance(unwanted, list)
        for position, name in enumerate(files):
            if name in self.refused:
                yield {"event": "refused", "id": name, "reason": "no kernel for it"}
                continue
            self.break_off(name)
            rounds_ms = self.rounds_ms(position)
            for number, value in enumerate(rounds_ms):
                yield {"event": "round", "id": name, "round": number, "median_ms": value}
            if name == job["anchor"]:
                yield {"event": "anchor", "id": name, "latency_ms": min(rounds_ms)}
            if name not in unwanted:
                yield {
                    "event": "net",
                    "id": name,
                    "latency_ms": min(rounds_ms),
                    "rounds_ms": rounds_ms,
                    "minimum_ms": min(rounds_ms) * 0.9,
                    "energy_mj": 5.0 if self.energy else None,
                }
        yield {"event": "done"}


class ScriptedRuntime:
    """A runtime inside the runner whose nets take what a test says.

    Args:
        rounds_ms: the rounds of a net, by its file.
    """

    def __init__(self, rounds_ms: Callable[[str], Iterator[float]]) -> None:
        self.rounds_ms = rounds_ms

    def start(self) -> dict[str, Any]:
        return {}

    def load(self, file: str, job: dict[str, Any]) -> "ScriptedNet":
        return ScriptedNet(self.rounds_ms(file))


class ScriptedNet:
    """A net of ``ScriptedRuntime``."""

    def __init__(self, rounds_ms: Iterator[float]) -> None:
        self.rounds_ms = rounds_ms

    def round(self, runs: int, seconds_per_round: float) -> dict[str, Any]:
        value = next(self.rounds_ms)
        return {"median_ms": value, "minimum_ms": value, "runs": runs}

    def energy_mj(self) -> None: ...


class Recorder(runner.Events):
    """Events of the runner, kept in this process."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def emit(self, event: str, **values: object) -> None:
        self.events.append((event, values))

    def names(self, wanted: str) -> list[str]:
        """The nets of all events of a kind, in order."""
        return [str(values["id"]) for event, values in self.events if event == wanted]

    def rounds(self) -> dict[str, int]:
        """How many rounds each net had."""
        return {v["id"]: len(v["rounds_ms"]) for event, v in self.events if event == "net"}
