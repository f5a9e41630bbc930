"""What the files of a run took on its target, for its predictions to be held against."""

from pathlib import Path

from hwsearch.space.candidate import Candidate
from hwsearch.study.finals.evidence import state_of
from hwsearch.study.run_folder import open_run


def measured_latencies(folder: Path) -> dict[Candidate, float]:
    """Latencies in ms of the models of a run that were timed on its target.

    Raises:
        RunError: the folder holds no finished run, or a file of it cannot be read.
    """
    found = {}
    for model in open_run(folder).models:
        verified = state_of(model.folder, folder).verified
        latency = None if verified is None else verified.latency_ms
        if latency is not None and latency.of_target:
            found[model.candidate] = latency.value
    return found
