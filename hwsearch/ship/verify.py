"""Every file of a run scored again, timed where that is asked for, and what follows from it."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.training import Score
from hwsearch.bits import LayerBits
from hwsearch.deploy.realised import differences, realised_bits, runtime_name
from hwsearch.errors import HostError, NothingFitsError, RunError
from hwsearch.hardware.cost import Prediction
from hwsearch.hardware.measure.kept import content_hash
from hwsearch.hardware.measure.machine_speed import measure_with_reference
from hwsearch.hardware.measure.places import Place
from hwsearch.hardware.measure.protocol import (
    MeasureProgress,
    MeasureReport,
    Precision,
    measure,
)
from hwsearch.report.make import make_report
from hwsearch.report.verified import (
    LayerDifference,
    MeasuredLatency,
    VerifyFile,
    read_verified,
    write_verified,
)
from hwsearch.ship.scoring import RefusedFile, score_files
from hwsearch.ship.trtexec_log import TrtexecLog, read_log
from hwsearch.study.finals.evidence import ONNX_FILE, Evidence, state_of
from hwsearch.study.finals.front import Front, build_front
from hwsearch.study.run_folder import RunFolder, TrainedModel
from hwsearch.study.written.output import host_name, write_front

#: How far two measurements of one file differ at least, as a standard deviation of the logarithm.
#: Two measurements of one net in fresh processes differed by 1.7 % (median of 399 on a shared
#: machine, hw_profiles/host.yaml); 141 models that runs returned differed by 3.0 % (root mean
#: square, benchmarks/deploy/remeasure.py).
LEAST_SIGMA_LOG: Final = 0.03
#: The figures say nothing of more than one thread unless that was asked for.
THREADS: Final = 1


def score_models(
    run: RunFolder,
    models: Sequence[TrainedModel],
    data: DataSet,
    *,
    on_phase: Callable[[str], None],
) -> None:
    """Score every exported file on all held-out pictures and write its ``verify.json``.

    A latency that was measured for the very same file is kept.

    Raises:
        HostError: nothing can be scored on this machine.
        RunError: a file cannot be read or written.
    """
    files = _files(models)
    names = {model.key: model.name for model in models}
    scores = score_files(
        files,
        data,
        threads=THREADS,
        on_file=lambda key: on_phase(f"scoring the file of {names[key]}"),
    )
    for model in models:
        if model.key in files:
            write_verified(model.folder, _verified(model, scores[model.key], len(data.test)))


def time_models(
    run: RunFolder,
    models: Sequence[TrainedModel],
    place: Place,
    *,
    threads: int = THREADS,
    on_phase: Callable[[str], None],
) -> list[str]:
    """Time every scored file on a place, all of them in turn, and write it to ``verify.json``.

    Files are timed by the target's runtime; where that reads no ONNX, by ONNX Runtime, and the
    figure does not stand for the target then.

    Returns:
        What to know about the figures.

    Raises:
        HostError: the place cannot be reached, or its times do not repeat.
        UserError: a number of threads that cannot be.
    """
    wanted = run.runtime.timed_by
    files = {
        model.key: model.folder / ONNX_FILE
        for model in models
        if (found := read_verified(model.folder)) is not None and found.refused is None
    }
    if not files:
        return ["nothing was timed: no file could be scored"]

    done = 0

    def progress(at: MeasureProgress) -> None:
        nonlocal done
        if at.finished_nets != done:
            done = at.finished_nets
            on_phase(f"timing on {place.name}: {done} of {at.total_nets} files done")

    on_phase(f"timing {len(files)} files on {place.name}")
    speed = None
    if wanted == "trtexec":  # it takes its time to build an engine
        report = measure(
            files, place, threads=threads, runtime=wanted, precisions=_precisions(models),
            on_progress=progress,
        )  # fmt: skip
    else:
        report, speed = measure_with_reference(
            files, place, threads=threads, runtime=wanted, on_progress=progress
        )
    latencies = latencies_of(
        report,
        run.settings.confidence,
        of_target=wanted is not None,
        machine_sigma_log=0.0 if speed is None else speed.sigma_log,
    )
    for model in models:
        if model.key in latencies:
            _add_latency(model.folder, latencies[model.key])
    warnings = [*report.warnings]
    if speed is not None and 100 * speed.sigma_log > report.noise_floor_percent:
        warnings.append(speed.told(place.name))
    if wanted is None:
        warnings.append(
            f"the times are those of ONNX Runtime; {run.evidence.profile.runtime} reads no ONNX, "
            "so latencies in the front stay predicted"
        )
    return warnings


def read_trtexec(run: RunFolder, model: TrainedModel, path: Path) -> TrtexecLog:
    """Take the latency of one model from a log of ``trtexec``.

    Raises:
        RunError: the model has no scored file, or the target is none of TensorRT.
        UserError: the log holds no times.
    """
    if run.runtime.family != "tensorrt":
        raise RunError(
            f"{run.evidence.target} runs {run.evidence.profile.runtime}; a log of trtexec says "
            "nothing about it"
        )
    log = read_log(path)
    spread = math.log(max(log.medians_ms) / log.latency_ms)
    latency = _measured(
        log.latency_ms,
        max(LEAST_SIGMA_LOG, spread / 2),
        confidence=run.settings.confidence,
        place="trtexec log",
        runtime=log.runtime,
        device=log.device or "NVIDIA GPU",
        of_target=True,
        threads=None,
        noise=None,
    )
    found = read_verified(model.folder)
    if found is None or found.file_hash != content_hash(model.folder / ONNX_FILE):
        raise RunError(
            f"{model.name} has no file that was scored; first: hwsearch verify {run.folder}"
        )
    _add_latency(model.folder, latency)
    return log


def model_of_log(run: RunFolder, path: Path) -> TrainedModel | None:
    """The model whose folder a log lies in."""
    parent = path.resolve().parent
    return next((model for model in run.models if model.folder.resolve() == parent), None)


def write_new_front(run: RunFolder) -> Front:
    """Write ``front.json`` and the reports anew from what is known of each network."""
    states = {model.key: state_of(model.folder, run.folder) for model in run.models}
    evidence = [
        Evidence(network=one, predicted=one.cost.cost(), file=states[one.folder])
        for one in run.evidence.networks
    ]
    front = build_front(evidence, run.evidence, run.settings)
    write_front(run.folder, front.file)
    make_report(run.folder)
    return front


def require_pick(run: RunFolder, front: Front) -> None:
    """Refuse a front without anything to use.

    Raises:
        NothingFitsError: neither a model nor a baseline meets the budget any more.
    """
    if not run.evidence.trials or front.file.to_use is not None:
        return
    limits = " and ".join(budget.text for budget in run.settings.budgets)
    trial, reason = front.rejected[-1]
    raise NothingFitsError(
        f"none of the {len(run.evidence.trials)} models meets {limits}, and no baseline does "
        f"(trial {trial}: {reason}); report in {run.folder}"
    )


def _precisions(models: Sequence[TrainedModel]) -> tuple[Precision, ...]:
    """What TensorRT before 10 has to be allowed; from then on the files say it."""
    half = any(16 in (bits.activation_bits for _, bits in model.candidate.bits) for model in models)
    return ("int8", "fp16", "typed") if half else ("int8", "typed")


def _files(models: Sequence[TrainedModel]) -> dict[str, Path]:
    return {
        model.key: model.folder / ONNX_FILE
        for model in models
        if (model.folder / ONNX_FILE).is_file()
    }


def _verified(model: TrainedModel, score: Score | RefusedFile, pictures: int) -> VerifyFile:
    file = model.folder / ONNX_FILE
    file_hash = content_hash(file)
    earlier = read_verified(model.folder)
    same = earlier is not None and earlier.file_hash == file_hash
    asked = model.candidate.layer_bits
    refused = score.reason if isinstance(score, RefusedFile) else None
    odd: Mapping[str, tuple[LayerBits, LayerBits]] = {}
    if refused is None:
        odd = differences(asked, realised_bits(file, asked))
    return VerifyFile(
        schema_version=1,
        file=ONNX_FILE,
        file_hash=file_hash,
        pictures=pictures,
        correct=score.correct if isinstance(score, Score) else None,
        runtime=runtime_name(),
        host=host_name(),
        layers=len(asked),
        differences={
            layer: LayerDifference(asked=str(bits), realised=str(found))
            for layer, (bits, found) in odd.items()
        },
        latency_ms=earlier.latency_ms if same and earlier is not None else None,
        refused=None if refused is None else f"{runtime_name()} does not run its file: {refused}",
    )


def latencies_of(
    report: MeasureReport,
    confidence: float,
    *,
    of_target: bool,
    machine_sigma_log: float = 0.0,
) -> dict[str, MeasuredLatency]:
    """Measured latencies by net, with the interval in which another measurement lies.

    Args:
        report: of ``measure``.
        confidence: of the interval.
        of_target: whether they stand for the target.
        machine_sigma_log: by which the machine itself varies from one measurement to another.
    """
    # The noise floor is the median difference of two halves, each of which is the least of half of
    # the rounds; for a normal distribution a difference of two has a median of 0.95 sigma.
    sigma = max(LEAST_SIGMA_LOG, report.noise_floor_percent / 100 / 0.95)
    return {
        net.name: _measured(
            net.latency_ms,
            math.hypot(max(sigma, _halves_sigma(net.round_latencies_ms)), machine_sigma_log),
            confidence=confidence,
            place=report.place,
            runtime=f"{report.runtime} {report.runtime_version}",
            device=report.device,
            of_target=of_target,
            threads=report.threads,
            noise=report.noise_floor_percent,
        )
        for net in report.nets
    }


def _halves_sigma(rounds: Sequence[float]) -> float:
    """The standard deviation that two halves of the rounds of one file speak for."""
    first, second = min(rounds[0::2]), min(rounds[1::2])
    return statistics.stdev((math.log(first), math.log(second)))


def _measured(
    value: float,
    sigma_log: float,
    *,
    confidence: float,
    place: str,
    runtime: str,
    device: str,
    of_target: bool,
    threads: int | None,
    noise: float | None,
) -> MeasuredLatency:
    about = Prediction.lognormal(
        median=value, sigma_log=sigma_log, confidence=confidence, source="measured"
    )
    return MeasuredLatency(
        value=value,
        low=about.low,
        high=about.high,
        confidence=confidence,
        sigma_log=sigma_log,
        place=place,
        runtime=runtime,
        device=device,
        of_target=of_target,
        threads=threads,
        noise_floor_percent=noise,
    )


def _add_latency(folder: Path, latency: MeasuredLatency) -> None:
    found = read_verified(folder)
    if found is None:
        raise HostError(f"{folder} lost its verify.json meanwhile; verify again")
    write_verified(folder, found.model_copy(update={"latency_ms": latency}))
