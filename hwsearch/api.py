"""The Python interface: what ``hwsearch run`` and its other verbs do, as functions."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, overload

from hwsearch.errors import NothingFitsError, RunError
from hwsearch.report.stored import FrontFile, ModelEntry, read_run_file
from hwsearch.study.asked.preflight import Checked, check, preflight
from hwsearch.study.asked.settings import RunSettings
from hwsearch.units import parse_duration_s

if TYPE_CHECKING:
    from torch import nn

    from hwsearch.accuracy.data.dataset import DataSet
    from hwsearch.report.prediction import ModelPrediction
    from hwsearch.study.asked.effort import Effort
    from hwsearch.study.coordinator import Run
    from hwsearch.study.trials.progress import Watcher

DEFAULT_SPACE: Final = "tiny"
DEFAULT_OUT: Final = Path("results")

_MOST_WORKERS: Final = 8


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run.

    Attributes:
        folder: holds the report, the tables and the networks.
        front: what ``front.json`` says.
    """

    folder: Path
    front: FrontFile

    @property
    def pick(self) -> ModelEntry | None:
        """The model that was picked; None where a baseline is (``front.to_use``), or nothing."""
        return self.front.picked


def search(
    *,
    target: str,
    budget: str | Sequence[str],
    data: str = "digits",
    space: str | Path = DEFAULT_SPACE,
    trials: int | None = None,
    time_limit: str | None = None,
    effort: "Effort | None" = None,
    confidence: float = 0.9,
    seed: int = 0,
    workers: int | None = None,
    out: str | Path = DEFAULT_OUT,
    download: bool = False,
    settings: Mapping[str, str] | None = None,
    watcher: "Watcher | None" = None,
) -> Result:
    """Find the networks for a target that meet a budget.

    Args:
        target: name, alias or file of a hardware profile.
        budget: such as "10ms", or several for different quantities.
        data: "digits", the name of a torchvision data set, or an image folder.
        space: name or file of a search space.
        trials: how many; the space's number if neither this nor a time limit is given.
        time_limit: of the whole run, such as "20m"; networks are trained by it.
        effort: how long they are trained without one: "quick", "standard" or "thorough".
        confidence: at which every budget must hold.
        seed: of the run; with one worker and no time limit one seed gives the same trials again.
        workers: networks that are trained side by side; by default one for each core.
        out: folder in which the run folder is made.
        download: allow downloads of data sets and pretrained weights.
        settings: as ``--set key=value``.
        watcher: is told what happens.

    Raises:
        UserError: something given cannot be used.
        NothingFitsError: no candidate meets the budget; the report is written all the same.
    """
    texts = (budget,) if isinstance(budget, str) else tuple(budget)
    checked = check(
        target=target, budgets=texts, data=data, space=space, trials=trials,
        time_limit=time_limit, effort=effort, confidence=confidence, seed=seed,
        download=download, settings=settings or {},
    )  # fmt: skip
    folder = new_folder(checked, Path(out))
    typed = f"hwsearch.search({target!r}, {texts})"
    return run(checked, folder, command=typed, workers=workers, watcher=watcher)


@overload
def predict(
    model: str | Path,
    *,
    target: str,
    bits: int | str | None = None,
    input_px: int | None = None,
    confidence: float = 0.9,
) -> "ModelPrediction": ...


@overload
def predict(
    model: str | Path,
    *,
    target: list[str] | tuple[str, ...],
    bits: int | str | None = None,
    input_px: int | None = None,
    confidence: float = 0.9,
) -> "tuple[ModelPrediction, ...]": ...


def predict(
    model: str | Path,
    *,
    target: str | list[str] | tuple[str, ...],
    bits: int | str | None = None,
    input_px: int | None = None,
    confidence: float = 0.9,
) -> "ModelPrediction | tuple[ModelPrediction, ...]":
    """Predict what a network costs on a target, with the interval and the cost of each kernel.

    Args:
        model: a timm name, ``package.module:function``, or the path of an ONNX file.
        target: name, alias or file of a hardware profile; or several of them, for as many results.
        bits: of every layer with weights: 8, "W4A8"; fp32, or what a file says, where left out.
        input_px: height and width of the picture; as pretrained, or as in the file, where left out.
        confidence: of the intervals.

    Raises:
        UserError: something given cannot be used, or the target cannot run the network.
    """
    from hwsearch.hardware.targets import load_profile
    from hwsearch.nets.describe import describe, read_bits
    from hwsearch.report.prediction import check_confidence, price

    profiles = [load_profile(name) for name in ([target] if isinstance(target, str) else target)]
    check_confidence(confidence)
    asked = None if bits is None else read_bits(str(bits))
    network = describe(str(model), input_px=input_px, bits=asked)
    predictions = tuple(
        price(profile, network, confidence=confidence).prediction for profile in profiles
    )
    return predictions[0] if isinstance(target, str) else predictions


def dry_run(checked: Checked) -> str:
    """What a run would do and cost, a line each; reads the pictures, trains and writes nothing."""
    from hwsearch.study.asked.pictures import load_pictures
    from hwsearch.study.candidates.pricing_context import PricingContext
    from hwsearch.study.candidates.training_context import TrainingContext
    from hwsearch.study.plan import dry_run_text

    data = load_pictures(checked.settings)
    pricing = PricingContext(checked.settings, checked.profile, len(data.class_names))
    training = TrainingContext(checked.settings, checked.profile, data, pricing.backbones)
    return dry_run_text(pricing, training, checked.settings.time_limit_s)


def new_folder(checked: Checked, out: Path) -> Path:
    """Make the folder of a new run; one that is there is never written into.

    Raises:
        RunError: it cannot be made.
    """
    name = checked.settings.folder_name(datetime.now())
    for attempt in range(100):
        folder = out / (name if attempt == 0 else f"{name}_{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(
                f"{folder} cannot be made ({error.strerror}); give another --out"
            ) from None
        return folder
    raise RunError(f"{out} holds a hundred runs of this second; give another --out")


def run(
    checked: Checked,
    folder: Path,
    *,
    command: str,
    workers: int | None = None,
    watcher: "Watcher | None" = None,
) -> Result:
    """Execute a checked run in its folder.

    Args:
        checked: what to search.
        folder: of the run; exists.
        command: as the user typed it.
        workers: networks that are trained side by side; by default one for each core.
        watcher: is told what happens.
    """
    # They need torch, which the prediction of a file must not wait for.
    from hwsearch.study.clock import Clock
    from hwsearch.study.coordinator import Run
    from hwsearch.study.trials.progress import Silent

    work = Run(
        checked=checked,
        folder=folder,
        command=command,
        watcher=watcher or Silent(),
        clock=Clock(checked.settings.time_limit_s),
        workers=_workers(workers),
    )
    return _execute(work)


def resume(
    folder: Path,
    *,
    trials: int | None = None,
    time_limit: str | None = None,
    workers: int | None = None,
    watcher: "Watcher | None" = None,
) -> Result:
    """Continue an interrupted run with the settings stored in its folder.

    Args:
        folder: of the run.
        trials: replaces the stored number.
        time_limit: replaces the stored limit.
        workers: as for ``run``.
        watcher: is told what happens.

    Raises:
        RunError: the folder holds no run, or the data or profile have changed since.
    """
    from hwsearch.study.clock import Clock
    from hwsearch.study.coordinator import Run
    from hwsearch.study.trials.progress import Silent

    changes: dict[str, object] = {}
    if trials is not None:
        changes["trials"] = trials
    if time_limit is not None:
        changes["time_limit_s"] = parse_duration_s(time_limit)
    stored = read_run_file(folder)
    settings = RunSettings.model_validate({**stored.configuration, **changes})
    work = Run(
        checked=preflight(settings),
        folder=folder,
        command=stored.command,
        watcher=watcher or Silent(),
        clock=Clock(settings.time_limit_s, earlier_s=stored.wall_s),
        workers=_workers(workers),
        started=stored.started,
    )
    return _execute(work)


def load(run: str | Path, trial: int | str = "pick") -> "nn.Module":
    """A network of a finished run, pruned and fake-quantized, for more training.

    It rounds weights and inputs of its layers as the exported file does, but not their outputs: its
    answers differ from those of the file for some pictures. The file's score is the one reported.

    Args:
        run: folder of the run.
        trial: its number, "pick", or the name of a folder in ``models/`` (a baseline).

    Returns:
        The module in evaluation mode. It takes pictures of shape (n, 3, px, px), normalized as
        the run's data set says.

    Raises:
        RunError: the run or the network is not there, or cannot be read.
        BackboneError: its backbone cannot be built here.
    """
    from hwsearch.deploy.network_file import load_network
    from hwsearch.study.jobs.final import WEIGHTS_FILE
    from hwsearch.study.run_folder import chosen, open_run

    if trial == "all":
        raise RunError("one network is loaded at a time; give a trial's number, or pick")
    [model] = chosen(open_run(Path(run)), str(trial))
    return load_network(model.folder / WEIGHTS_FILE)[0]


def export(
    run: str | Path,
    trial: int | str = "all",
    *,
    dynamic_batch: bool = False,
    bake: bool = False,
    watcher: "Watcher | None" = None,
) -> list[Path]:
    """Write the ONNX files of a finished run anew and score them.

    Args:
        run: folder of the run.
        trial: a number, "pick", "all", or the name of a folder in ``models/`` (a baseline).
        dynamic_batch: leave the batch open; it is 1 otherwise, which runtimes optimize for.
        bake: let the files normalize pictures themselves, so that they take 0..255.
        watcher: is told what happens.

    Returns:
        The files that were written.

    Raises:
        RunError: the run or the model is not there, or none could be exported.
        DataError: the pictures of the run, on which ranges are observed, are not there.
    """
    from hwsearch.ship.export import ExportOptions
    from hwsearch.ship.finish import export_run
    from hwsearch.study.trials.progress import Silent

    options = ExportOptions(dynamic_batch=dynamic_batch, bake=bake)
    return export_run(Path(run), str(trial), options, watcher or Silent())


def verify(
    run: str | Path,
    *,
    on: str | None = None,
    threads: int = 1,
    python: str | None = None,
    ssh_options: Sequence[str] = (),
    watcher: "Watcher | None" = None,
) -> Result:
    """Score the files of a finished run again, time them, and make the front anew.

    Args:
        run: folder of the run.
        on: "host" or "ssh://[user@]host[:port]", where they are timed; nowhere if left out.
        threads: of one inference.
        python: the interpreter there.
        ssh_options: more arguments of ``ssh``.
        watcher: is told what happens.

    Raises:
        UserError: a run or a place that cannot be used.
        HostError: the place cannot be reached, or its times do not repeat.
        NothingFitsError: nothing meets the budget once it is measured; the report is written.
    """
    from hwsearch.ship.finish import verify_run
    from hwsearch.study.trials.progress import Silent

    front = verify_run(
        Path(run),
        watcher or Silent(),
        on=on,
        python=python,
        ssh_options=ssh_options,
        threads=threads,
    )
    return Result(folder=Path(run), front=front)


def verify_log(
    run: str | Path,
    log: str | Path,
    trial: int | str | None = None,
    *,
    watcher: "Watcher | None" = None,
) -> Result:
    """Take the latency of one model from a log that ``trtexec`` wrote on the device.

    Args:
        run: folder of the run.
        log: as ``build_tensorrt.sh`` writes it.
        trial: whose log it is; None for the model in whose folder it lies.
        watcher: is told what happens.

    Raises:
        UserError: a run or a log that cannot be used.
        NothingFitsError: nothing meets the budget any more; the report is written.
    """
    from hwsearch.ship.finish import verify_log as take
    from hwsearch.study.trials.progress import Silent

    name = None if trial is None else str(trial)
    return Result(folder=Path(run), front=take(Path(run), Path(log), name, watcher or Silent()))


def reprice(run: str | Path, *, target: str, budget: str | Sequence[str] = ()) -> Result:
    """Price the stored trials of a finished run for another target, and report them.

    Networks and accuracies are those of the run; only the costs are predicted anew. The backbones
    of the run are traced again, without weights; nothing is trained.

    Args:
        run: folder of the run.
        target: name, alias or file of a hardware profile.
        budget: such as "10ms", or several; those of the run if left out.

    Returns:
        The front, which may be empty, and the folder of its report, inside that of the run.

    Raises:
        UserError: a run, target or budget that cannot be used.
    """
    from hwsearch.hardware.targets import load_profile
    from hwsearch.report.stored import read_run
    from hwsearch.units import parse_budgets

    # Mistakes are answered before torch is imported, which takes seconds.
    texts = (budget,) if isinstance(budget, str) else tuple(budget)
    load_profile(target)
    if texts:
        parse_budgets(texts)
    read_run(Path(run))

    from hwsearch.retarget.make import reprice_run

    front, folder = reprice_run(Path(run), target, texts)
    return Result(folder=folder, front=front)


def _workers(asked: int | None) -> int:
    """How many are used: one for each core that this process may use, up to eight, unless asked.

    Two processes of one thread train 2.0 times as much as one, one process of two threads 1.4 to
    1.8 times. Each worker needs memory of its own, so that many cores do not mean as many workers.
    """
    can_fork = sys.platform.startswith("linux")
    if asked is not None and asked < 1:
        raise RunError(f"{asked} workers is too few; give at least 1")
    if asked is not None and asked > 1 and not can_fork:
        raise RunError(f"{asked} workers need Linux; leave --workers out, or give 1")
    if asked is not None or not can_fork:
        return asked or 1
    return min(len(os.sched_getaffinity(0)), _MOST_WORKERS)


def _execute(work: "Run") -> Result:
    """Search, ship what was found, and read the front.

    Raises:
        NothingFitsError: nothing met the budget; the report is written all the same.
    """
    from hwsearch.report.stored import read_front
    from hwsearch.ship.finish import ship_run
    from hwsearch.ship.measured import measured_latencies
    from hwsearch.study.coordinator import Shipped

    def ship(folder: Path, data: "DataSet", watcher: "Watcher") -> Shipped:
        refused: NothingFitsError | None = None
        try:
            ship_run(folder, data, watcher)
        except NothingFitsError as error:
            refused = error
        return Shipped(measured_ms=measured_latencies(folder), refused=refused)

    work.execute(ship)
    return Result(folder=work.folder, front=read_front(work.folder))
