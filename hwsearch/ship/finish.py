"""The verbs behind the command line: ship a finished run, export it, verify it."""

import time
from collections.abc import Sequence
from pathlib import Path

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.errors import HostError, RunError, RunInterrupted
from hwsearch.hardware.measure.places import LocalPlace, Place, parse_place
from hwsearch.hardware.measure.protocol import reach
from hwsearch.hardware.targets import HOST_TARGET
from hwsearch.report.make import make_report
from hwsearch.report.stored import FrontFile, read_front
from hwsearch.ship.export import (
    ONNX_FILE,
    REFUSED_FILE,
    ExportOptions,
    export_models,
    forget,
)
from hwsearch.ship.run_folder import OpenedRun, chosen, offered_models, open_run
from hwsearch.ship.runtimes import timed_by
from hwsearch.ship.verify import (
    THREADS,
    model_of_log,
    offer,
    read_trtexec,
    require_offer,
    score_models,
    time_models,
)
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
            _forget_files(run)
            front = _shipped(run, data, _own_place(run), THREADS, watcher, give_up=False)
        except KeyboardInterrupt:
            raise RunInterrupted(
                f"interrupted while its files were verified; go on with: hwsearch verify {folder}"
            ) from None
        add_wall_s(folder, SHIPPING, time.perf_counter() - begin)
        make_report(folder)
    _tell(run, front, watcher)
    require_offer(run, front)
    return front


def export_run(folder: Path, trial: str, options: ExportOptions, watcher: Watcher) -> list[Path]:
    """Write the files of models anew; returns them.

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
        models = chosen(run, trial)
        export_models(run, models, run.pictures(), options, on_phase=watcher.phase)
        offer(run)
    files = [model.folder / ONNX_FILE for model in models]
    written = [file for file in files if file.is_file()]
    if not written:
        reason = (models[0].folder / REFUSED_FILE).read_text(encoding="utf-8")
        raise RunError(f"{models[0].name}: {reason}")
    watcher.note(f"new files are not verified yet; next: hwsearch verify {folder}")
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
            reach(place, runtime=timed_by(run.family), threads=threads)
        where = place or _own_place(run)
        front = _shipped(run, run.pictures(), where, threads, watcher, give_up=True)
    _tell(run, front, watcher)
    require_offer(run, front)
    return front


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
        front = offer(run)
    require_offer(run, front)
    return front


def _shipped(
    run: OpenedRun,
    data: DataSet,
    place: Place | None,
    threads: int,
    watcher: Watcher,
    *,
    give_up: bool,
) -> FrontFile:
    """Export what has no file, score every file, time all where there is a place, and offer.

    Without ``give_up`` a place that cannot time leaves the costs predicted, with a note.

    Where nothing is timed, predictions decide between models, so that those which the search did
    not offer get a file only if the accuracy of another file brings them back.
    """
    done: set[str] = set()
    wanted = run.models if place is not None else offered_models(run, read_front(run.folder))
    while True:
        missing = [model for model in wanted if not (model.folder / ONNX_FILE).is_file()]
        export_models(run, missing, data, ExportOptions(), on_phase=watcher.phase)
        score_models(run, wanted, data, on_phase=watcher.phase)
        try:
            _time(run, place, threads, watcher)
        except HostError as error:
            if give_up:
                raise
            watcher.note(f"not timed: {error}; later: hwsearch verify {run.folder} --on host")
        front = offer(run)
        done.update(model.key for model in wanted)
        wanted = [model for model in offered_models(run, front) if model.key not in done]
        if not wanted:
            return front


def _forget_files(run: OpenedRun) -> None:
    """Remove the files of an earlier end of this run, whose weights may be others now."""
    for model in run.models:
        forget(model.folder)


def _checked(folder: Path) -> Path:
    """The folder, which the lock would make otherwise."""
    if not folder.is_dir():
        raise RunError(f"{folder} is not a folder; give a run folder, as they are in results/")
    return folder


def _own_place(run: OpenedRun) -> Place | None:
    """This machine, where it is the target of the run."""
    return LocalPlace() if run.searched.profile.name == HOST_TARGET else None


def _time(run: OpenedRun, place: Place | None, threads: int, watcher: Watcher) -> None:
    if place is None:
        return
    for text in time_models(run, run.models, place, threads=threads, on_phase=watcher.phase):
        watcher.note(text)


def _tell(run: OpenedRun, front: FrontFile, watcher: Watcher) -> None:
    """Say what was dropped since the search ended."""
    before = set(run.searched.notes)
    for note in front.notes:
        if note not in before and "is not offered" in note:
            watcher.note(note)
