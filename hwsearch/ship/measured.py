"""What the files of a run took on its target, for its predictions to be held against."""

from pathlib import Path

from hwsearch.deploy.network_file import read_card
from hwsearch.ship.export import state_of
from hwsearch.ship.run_folder import open_run
from hwsearch.space.candidate import Candidate
from hwsearch.study.written.output import WEIGHTS_FILE


def measured_latencies(folder: Path) -> dict[Candidate, float]:
    """Latencies in ms of the models of a run that were timed on its target.

    Raises:
        RunError: the folder holds no finished run, or a file of it cannot be read.
    """
    found = {}
    for model in open_run(folder).models:
        verified = state_of(model, folder).verified
        latency = None if verified is None else verified.latency_ms
        if latency is not None and latency.of_target:
            found[read_card(model.folder / WEIGHTS_FILE).candidate] = latency.value
    return found
