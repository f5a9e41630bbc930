"""The Python interface: what ``hwsearch run`` and ``hwsearch predict`` do, as functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, overload

from hwsearch.errors import RunError
from hwsearch.report.stored import FrontFile, ModelEntry
from hwsearch.study.preflight import Checked, check, preflight, stored_run
from hwsearch.study.settings import RunSettings
from hwsearch.units import parse_duration_s

if TYPE_CHECKING:
    from hwsearch.report.prediction import ModelPrediction
    from hwsearch.study.progress import Watcher

DEFAULT_SPACE: Final = "tiny"
DEFAULT_OUT: Final = Path("results")


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
        """The model that was picked."""
        return self.front.picked


def search(
    *,
    target: str,
    budget: str | Sequence[str],
    data: str = "digits",
    space: str | Path = DEFAULT_SPACE,
    trials: int | None = None,
    time_limit: str | None = None,
    confidence: float = 0.9,
    seed: int = 0,
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
        time_limit: such as "20m".
        confidence: at which every budget must hold.
        seed: of everything random; one seed gives the same trials again.
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
        time_limit=time_limit, confidence=confidence, seed=seed, download=download,
        settings=settings or {},
    )  # fmt: skip
    folder = new_folder(checked, Path(out))
    return run(checked, folder, command=f"hwsearch.search({target!r}, {texts})", watcher=watcher)


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
    checked: Checked, folder: Path, *, command: str, watcher: "Watcher | None" = None
) -> Result:
    """Execute a checked run in its folder."""
    # They need torch, which the prediction of a file must not wait for.
    from hwsearch.study.coordinator import Run
    from hwsearch.study.progress import Silent

    front = Run(
        checked=checked, folder=folder, command=command, watcher=watcher or Silent()
    ).execute()
    return Result(folder=folder, front=front)


def resume(
    folder: Path,
    *,
    trials: int | None = None,
    time_limit: str | None = None,
    watcher: "Watcher | None" = None,
) -> Result:
    """Continue an interrupted run with the settings stored in its folder.

    Args:
        folder: of the run.
        trials: replaces the stored number.
        time_limit: replaces the stored limit.
        watcher: is told what happens.

    Raises:
        RunError: the folder holds no run, or the data or profile have changed since.
    """
    from hwsearch.study.coordinator import Run
    from hwsearch.study.progress import Silent

    stored = stored_run(folder)
    changes: dict[str, object] = {}
    if trials is not None:
        changes["trials"] = trials
    if time_limit is not None:
        changes["time_limit_s"] = parse_duration_s(time_limit)
    settings = RunSettings.model_validate({**stored["configuration"], **changes})
    work = Run(
        checked=preflight(settings),
        folder=folder,
        command=stored["command"],
        watcher=watcher or Silent(),
        started=datetime.fromisoformat(stored["started"]),
        earlier_wall_s=stored["wall_s"],
    )
    return Result(folder=folder, front=work.execute())
