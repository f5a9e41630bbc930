"""From evidence to a front: files are exported, scored and timed, after a search or on request."""

import time
from collections.abc import Sequence
from pathlib import Path

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.errors import HostError, RunError, RunInterrupted
from hwsearch.hardware.measure.places import LocalPlace, Place, parse_place
from hwsearch.hardware.measure.protocol import reach
from hwsearch.hardware.targets import HOST_TARGET
from hwsearch.report.make import make_report
from hwsearch.report.stored import FrontFile
from hwsearch.ship.export import ExportOptions, export_models, forget
from hwsearch.ship.verify import (
    THREADS,
    model_of_log,
    read_trtexec,
    require_pick,
    score_models,
    time_models,
    write_new_front,
)
from hwsearch.study.finals.evidence import ONNX_FILE, REFUSED_FILE
from hwsearch.study.finals.front import Front
from hwsearch.study.finals.front_notes import not_on_the_front
from hwsearch.study.run_folder import RunFolder, TrainedModel, chosen, open_run
from hwsearch.study.trials.progress import Watcher
from hwsearch.study.written.folder_lock import locked
from hwsearch.study.written.output import SHIPPING, add_wall_s


def ship_run(folder: Path, data: DataSet, watcher: Watcher) -> FrontFile:
    """Export and score all models of a search that has just ended; time them if this is the target.

    Args:
        folder: of the run.
        data: of the run.
        watcher: is told what happens.

    Raises:
        NothingFitsError: nothing meets the budget once it is measured; the report is written.
        RunInterrupted: the user stopped it; ``hwsearch verify`` goes on.
    """
    with locked(folder):
        begin = time.perf_counter()
        run = open_run(folder)
        try:
            for model in run.models:
                forget(model.folder)  # of an earlier end of this run: its weights may be others now
            front = _shipped(run, data, _own_place(run), THREADS, watcher, give_up=False)
        except KeyboardInterrupt:
            raise RunInterrupted(
                f"interrupted while its files were verified; go on with: hwsearch verify {folder}"
            ) from None
        add_wall_s(folder, SHIPPING, time.perf_counter() - begin)
        make_report(folder)
    _tell(front, watcher)
    require_pick(run, front)
    return front.file


def export_run(folder: Path, trial: str, options: ExportOptions, watcher: Watcher) -> list[Path]:
    """Write the files of models anew and score them; returns them.

    Args:
        folder: of a finished run.
        trial: "all", "pick", the number of a trial or the name of a folder in ``models/``.
        options: how they are written.
        watcher: is told what happens.

    Raises:
        RunError: the run or the model is not there, or none could be exported.
    """
    with locked(_checked(folder)):
        run = open_run(folder)
        models, data = chosen(run, trial), run.pictures()
        _export_and_score(run, models, models, data, options, watcher)
        write_new_front(run)
    files = [model.folder / ONNX_FILE for model in models]
    written = [file for file in files if file.is_file()]
    if not written:
        reason = (models[0].folder / REFUSED_FILE).read_text(encoding="utf-8")
        raise RunError(f"{models[0].name}: {reason}")
    watcher.note(f"new files are not timed yet; next: hwsearch verify {folder} --on host|ssh://...")
    return written


def verify_run(
    folder: Path,
    watcher: Watcher,
    *,
    on: str | None = None,
    python: str | None = None,
    ssh_options: Sequence[str] = (),
    threads: int = THREADS,
) -> FrontFile:
    """Score every file of a run again and export what is missing.

    Files are timed where ``on`` says; if it says nothing, here when this machine is the target.

    Raises:
        UserError: a place or a run that cannot be used.
        HostError: the place cannot be reached, or its times do not repeat.
        NothingFitsError: nothing meets the budget once it is measured; the report is written.
    """
    place = None if on is None else parse_place(on, python=python, ssh_options=tuple(ssh_options))
    with locked(_checked(folder)):
        run = open_run(folder)
        if place is not None:
            watcher.phase(f"reaching {place.name}")
            reach(place, runtime=run.runtime.timed_by, threads=threads)
        where = place or _own_place(run)
        front = _shipped(run, run.pictures(), where, threads, watcher, give_up=True)
    _tell(front, watcher)
    require_pick(run, front)
    return front.file


def verify_log(folder: Path, log: Path, trial: str | None, watcher: Watcher) -> FrontFile:
    """Take the latency of a model from a log of ``trtexec``.

    Args:
        folder: of the run.
        log: as ``build_tensorrt.sh`` writes it.
        trial: whose log it is; None for the model whose folder it lies in.
        watcher: is told what happens.

    Raises:
        RunError: nobody says whose log it is.
        UserError: it holds no times.
        NothingFitsError: nothing meets the budget any more; the report is written.
    """
    with locked(_checked(folder)):
        run = open_run(folder)
        model = model_of_log(run, log) if trial is None else chosen(run, trial)[0]
        if model is None:
            raise RunError(f"{log} lies in no model's folder of {folder}; say --trial N")
        found = read_trtexec(run, model, log)
        watcher.note(
            f"{model.name}: {found.latency_ms:.4g} ms in {found.runtime}, "
            f"{len(found.medians_ms)} rounds"
        )
        front = write_new_front(run)
    require_pick(run, front)
    return front.file


def _shipped(
    run: RunFolder,
    data: DataSet,
    place: Place | None,
    threads: int,
    watcher: Watcher,
    *,
    give_up: bool,
) -> Front:
    """Export what has no file, score every file, time all where there is a place; then the front.

    Without ``give_up`` a place that cannot time leaves the costs predicted, with a note.
    """
    missing = [model for model in run.models if not (model.folder / ONNX_FILE).is_file()]
    _export_and_score(run, missing, run.models, data, ExportOptions(), watcher)
    try:
        _time(run, place, threads, watcher)
    except HostError as error:
        if give_up:
            raise
        watcher.note(f"not timed: {error}; later: hwsearch verify {run.folder} --on host")
    return write_new_front(run)


def _export_and_score(
    run: RunFolder,
    exported: Sequence[TrainedModel],
    scored: Sequence[TrainedModel],
    data: DataSet,
    options: ExportOptions,
    watcher: Watcher,
) -> None:
    export_models(run, exported, data, options, on_phase=watcher.phase)
    score_models(run, scored, data, on_phase=watcher.phase)


def _checked(folder: Path) -> Path:
    """The folder, which the lock would make otherwise."""
    if not folder.is_dir():
        raise RunError(f"{folder} is not a folder; give a run folder, as they are in results/")
    return folder


def _own_place(run: RunFolder) -> Place | None:
    """This machine, where it is the target of the run."""
    return LocalPlace() if run.evidence.profile.name == HOST_TARGET else None


def _time(run: RunFolder, place: Place | None, threads: int, watcher: Watcher) -> None:
    if place is None:
        return
    for text in time_models(run, run.models, place, threads=threads, on_phase=watcher.phase):
        watcher.note(text)


def _tell(front: Front, watcher: Watcher) -> None:
    for note in not_on_the_front(front.rejected):
        watcher.note(note)
