"""What the files of a run took on its target, held against what was predicted of them."""

import math
from pathlib import Path
from statistics import NormalDist

from hwsearch.hardware.cost import Prediction
from hwsearch.hardware.recalibration import Recalibration, recalibrate
from hwsearch.report.stored import CostEntry
from hwsearch.ship.export import state_of
from hwsearch.ship.run_folder import open_run


def recalibrated_by(folder: Path) -> Recalibration | None:
    """Learn from the models of a run that were timed on its target; None where none was.

    The factor is on the predictions of the search, as they were then.

    Raises:
        RunError: the folder holds no finished run.
    """
    run = open_run(folder)
    predicted, measured_ms = [], []
    for model in run.models:
        verified = state_of(model, folder).verified
        latency = None if verified is None else verified.latency_ms
        if latency is not None and latency.of_target:
            predicted.append(_prediction(model.entry.latency_ms))
            measured_ms.append(latency.value)
    if not predicted:
        return None
    said = math.fsum(one.sigma_log**2 for one in predicted) / len(predicted)
    # How far the machine as a whole may still be off is what the predictions say of themselves.
    return recalibrate(predicted, measured_ms, machine_sigma_log=math.sqrt(said))


def _prediction(entry: CostEntry) -> Prediction:
    quantile = NormalDist().inv_cdf((1 + entry.confidence) / 2)
    return Prediction.lognormal(
        median=entry.value,
        sigma_log=math.log(entry.high / entry.low) / (2 * quantile),
        confidence=entry.confidence,
    )
