"""The accuracy of exported files, scored in another process on all held-out pictures."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwsearch.accuracy.data.dataset import DataSet, Split
from hwsearch.accuracy.training import Score
from hwsearch.deploy.input_contract import InputContract, read_contract
from hwsearch.errors import HostError
from hwsearch.hardware.measure.process import exit_reason, runner_events, started


@dataclass(frozen=True, kw_only=True)
class RefusedFile:
    """A file that the runtime does not run, or that ended the process."""

    reason: str


def score_files(
    files: Mapping[str, Path],
    data: DataSet,
    *,
    threads: int,
    on_file: Callable[[str], None] = lambda _: None,
    command: Sequence[str] = (sys.executable, "-m", "hwsearch.ship.scorer"),
) -> dict[str, Score | RefusedFile]:
    """Score files in ONNX Runtime on all held-out pictures, one picture at a time.

    Args:
        files: by any name; all of hwsearch, with their contract inside, which says the side of the
            pictures and their preprocessing.
        data: whose test split is used, at the side of each file.
        threads: of one inference.
        on_file: is told which file is next.
        command: the scorer.

    Returns:
        By name, in order.

    Raises:
        HostError: the scorer cannot be run at all.
        DataError: the pictures are not loaded at the side of a file.
        RunError: a file is none of hwsearch.
    """
    contracts = {name: read_contract(path) for name, path in files.items()}
    results: dict[str, Score | RefusedFile] = {}
    for px in dict.fromkeys(contract.input_px for contract in contracts.values()):
        same = {name: path for name, path in files.items() if contracts[name].input_px == px}
        with tempfile.TemporaryDirectory(prefix="hwsearch-") as folder:
            stored = _store(Path(folder), data.at(px).test)
            results |= _scored(same, contracts, stored, threads, on_file, command)
    return {name: results[name] for name in files}


def _store(folder: Path, pictures: Split) -> Path:
    from safetensors.torch import save_file

    path = folder / "pictures.safetensors"
    held_out = {"images": pictures.images.contiguous(), "labels": pictures.labels.contiguous()}
    try:
        save_file(held_out, path)
    except OSError as error:
        raise HostError(
            f"{folder} cannot hold the pictures ({error.strerror}); free space or set TMPDIR"
        ) from None
    return path


def _scored(
    files: Mapping[str, Path],
    contracts: Mapping[str, InputContract],
    stored: Path,
    threads: int,
    on_file: Callable[[str], None],
    command: Sequence[str],
) -> dict[str, Score | RefusedFile]:
    """Score files of one size; after a crash, those behind the one that caused it go on."""
    results: dict[str, Score | RefusedFile] = {}
    while left := {name: path for name, path in files.items() if name not in results}:
        job = {
            "pictures": str(stored),
            "threads": threads,
            "files": [
                {
                    "id": name,
                    "file": str(path.resolve()),
                    "scale": contracts[name].scale,
                    "offset": contracts[name].offset,
                }
                for name, path in left.items()
            ],
        }
        begun = None
        with started(command, dict(os.environ)) as running:
            running.send(json.dumps(job).encode() + b"\n")
            for event in runner_events(running):
                if event["event"] == "begin":
                    begun = event["id"]
                    on_file(begun)
                elif event["event"] == "score":
                    results[event["id"]] = Score(correct=event["correct"], total=event["total"])
                elif event["event"] == "refused":
                    results[event["id"]] = RefusedFile(reason=event["reason"])
            code = running.exit_code()
            if begun is None or (code == 0 and left.keys() - results.keys()):
                words = running.last_words() or exit_reason(code)
                raise HostError(f"exported files cannot be scored: {words}")
        if begun not in results:
            results[begun] = RefusedFile(reason=f"the process that ran it {exit_reason(code)}")
    return results
