"""ONNX files scored on the same pictures, and timed in one interleaved measurement.

ONNX Runtime, one thread, one picture at a time, for files of any maker. A latency is the least over
the rounds of the median of a round, and each round goes over all files in another order, so that
what the machine does meanwhile happens to all of them alike. ``hwsearch.hardware.measure`` parts
more than 40 files into groups that are timed one after the other; here all take turns.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: Metadata in which a file says how its pictures are normalized.
_CONTRACT: Final = "hwsearch.input"
ROUNDS, RUNS, _WARM_UP = 24, 30, 10


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """Pictures that no arm has seen.

    Attributes:
        images: uint8, (N, 3, S, S).
        labels: int64, (N,).
        mean: of the training pictures per channel on the scale 0..1, for files that say nothing.
        std: the same.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]


def open_session(path: Path) -> Any:  # noqa: ANN401 - a class of onnxruntime
    """A session of one thread on the processor."""
    # Since 1.29 the packages for Linux report every session to their maker unless this is set
    # before the import.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def input_px(path: Path) -> int:
    """The side of the pictures that a file takes."""
    return int(open_session(path).get_inputs()[0].shape[-1])


def accuracy_percent(path: Path, held_out: HeldOut) -> float:
    """Share of the pictures that a file is right about.

    Raises:
        ValueError: pictures of another side than the file takes.
    """
    session = open_session(path)
    entry = session.get_inputs()[0]
    if entry.shape[-1] != held_out.images.shape[-1]:
        raise ValueError(
            f"{path} takes {entry.shape[-1]} px, the pictures have {held_out.images.shape[-1]}"
        )
    mean, std = _normalization(session, held_out)
    right = 0
    for image, label in zip(held_out.images, held_out.labels, strict=True):
        picture = (image[None].astype(np.float32) / 255 - mean) / std
        right += int(session.run(None, {entry.name: picture})[0].argmax() == label)
    return 100 * right / len(held_out.labels)


def _normalization(
    session: Any,  # noqa: ANN401 - as above
    held_out: HeldOut,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation per channel, (1, 3, 1, 1): the file's own where it says them."""
    text = session.get_modelmeta().custom_metadata_map.get(_CONTRACT)
    ends: list[Any] = [held_out.mean, held_out.std]
    if text is not None:
        contract = json.loads(text)
        # A file that normalizes by itself takes 0..255.
        in_file = contract["normalization"] == "in the file"
        ends = [[0.0] * 3, [1 / 255] * 3] if in_file else [contract["mean"], contract["std"]]
    mean, std = (np.asarray(one, np.float32).reshape(1, 3, 1, 1) for one in ends)
    return mean, std


def latencies_ms(
    paths: Sequence[Path], *, core: int | None = None, rounds: int = ROUNDS, runs: int = RUNS
) -> NDArray[np.float64]:
    """Time all files in turns.

    Args:
        paths: of the files.
        core: to run on meanwhile; None leaves that to the system.
        rounds: over all files.
        runs: of a file in a round.

    Returns:
        (files, 2): the least and the median of the medians of the rounds.
    """
    allowed = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        medians = _round_medians_ms(paths, rounds, runs)
    finally:
        os.sched_setaffinity(0, allowed)
    return np.stack([medians.min(axis=0), np.median(medians, axis=0)], axis=1)


def _round_medians_ms(paths: Sequence[Path], rounds: int, runs: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    live = []
    for path in paths:
        session = open_session(path)
        entry = session.get_inputs()[0]
        shape = [1, *entry.shape[1:]]
        live.append((session, {entry.name: rng.standard_normal(shape).astype(np.float32)}))
    medians = np.empty((rounds, len(live)))
    for number in range(rounds):
        for at in rng.permutation(len(live)):
            session, feed = live[at]
            for _ in range(_WARM_UP):
                session.run(None, feed)
            times_s = []
            for _ in range(runs):
                begin = time.perf_counter()
                session.run(None, feed)
                times_s.append(time.perf_counter() - begin)
            medians[number, at] = 1e3 * np.median(times_s)
    return medians
