"""The dense network that every candidate inherits from: trained once, then read from the cache.

An entry of the cache holds a line of JSON, how the weights came about, and the weights as
safetensors. Its key hashes all that decides them.
"""

import dataclasses
import hashlib
import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from hwsearch.accuracy.base_training import WHOLE_SHARE, BaseTraining
from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.elastic import Importance, Widths
from hwsearch.accuracy.training import Recipe, Score, evaluate
from hwsearch.cache import CacheEntry, UnfitContentError, content_key
from hwsearch.errors import BackboneError, HostError
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import make_blueprint
from hwsearch.nets.trace import trace

_LOG = logging.getLogger(__name__)

WeightsPolicy = Literal["auto", "pretrained", "scratch"]
Source = Literal["trained", "pretrained", "file"]
OnStep = Callable[[int, int], None]

#: Part of every key; grows when training gives other weights from the same recipe.
RECIPE_VERSION: Final = 3

#: What timm's own loader reads from a repository when no other name is given.
_HUB_FILE: Final = "model.safetensors"

_NAMED: Final = 3

#: Names of the tensors in a file that are no weights: importances by group of channels.
_IMPORTANCE: Final = "hwsearch.importance."


@dataclass(frozen=True, kw_only=True, eq=False)
class BaseNetwork:
    """A dense network with the weights that candidates inherit.

    Attributes:
        model: in evaluation mode, on the CPU, in channels-last storage. Copy it before a change.
        key: SHA-256 (hex) of all that decided the weights.
        source: "trained" from random weights, or fine-tuned from pretrained ones or from a file.
        cached: whether it was read rather than trained.
        validation: score on the validation split.
        train_s: how long the training took, whenever that was.
        steps: optimizer steps of it.
        importance: of each channel of each group, the order in which the narrow networks inside
            were taught; None where none were.
    """

    model: nn.Module
    key: str
    source: Source
    cached: bool
    validation: Score
    train_s: float
    steps: int
    importance: Importance | None = None


@dataclass(frozen=True, kw_only=True)
class _Start:
    """The weights that training starts from.

    Attributes:
        path: of a safetensors file; None means random weights.
        required: whether weights that do not fit are an error, rather than left aside.
    """

    source: Source
    path: Path | None = None
    required: bool = True

    def identity(self) -> str:
        if self.path is None:
            return "scratch"
        try:
            with self.path.open("rb") as file:
                return f"{self.source}:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        except OSError as error:
            raise BackboneError(
                f"weights '{self.path}' cannot be read ({error.strerror}); give a safetensors file"
            ) from None


def base_network(
    ref: BackboneRef,
    data: DataSet,
    px: int,
    recipe: Recipe,
    *,
    weights: WeightsPolicy | Path = "auto",
    download: bool = False,
    widths: Widths | None = None,
    on_step: OnStep | None = None,
) -> BaseNetwork:
    """Read a base network from the cache, or train and store it.

    Of several processes that want the same one, the first trains and the others wait and read.

    Args:
        ref: which network; its classes are those of the data.
        data: is trained on and scored with.
        px: side at which the network takes its pictures.
        recipe: of the training; its seed also makes the random weights. What starts from other
            weights is tuned as ``pretrained`` says.
        weights: "scratch" starts from random weights; "pretrained" from timm's, found in the
            local Hugging Face cache; "auto" from those if they are there and fit, otherwise from
            random ones; a path from a safetensors file, whose classifier is left aside when it
            has other classes.
        download: allow the network to be used for pretrained weights that are not there.
        widths: at which the network is to work without training of its own; None for the whole
            one only.
        on_step: is called with the step and the number of steps while training.

    Raises:
        BackboneError: weights do not exist or do not fit, or training diverges.
        HostError: pretrained weights cannot be had here, or the cache cannot be written.
    """
    start = _start(ref, weights, download=download)
    key = _key(ref, data, px, recipe, start, widths)
    entry = _entry(key, ref, px, recipe.seed)
    with entry.locked():
        found = entry.read()
        # A file from an "auto" whose pretrained weights did not fit is no answer to "pretrained":
        # loading them again says why.
        if found is not None and (found.source == start.source or not start.required):
            return found
        training, source = _begun(ref, data, px, recipe, start)
        whole = round(WHOLE_SHARE * recipe.steps)

        def counted_from(before: int) -> OnStep | None:
            return None if on_step is None else lambda done, _: on_step(before + done, recipe.steps)

        training.train_whole(whole, on_step=counted_from(0))
        training.anneal(recipe.steps - whole, widths=widths, on_step=counted_from(whole))
        return _kept(entry, training, source, data, px)


def start_identity(ref: BackboneRef, weights: WeightsPolicy | Path, *, download: bool) -> str:
    """What tells the weights apart that training may start from.

    Arguments and errors are those of ``base_network``.
    """
    return _start(ref, weights, download=download).identity()


def begin_training(
    ref: BackboneRef,
    data: DataSet,
    px: int,
    recipe: Recipe,
    *,
    weights: WeightsPolicy | Path = "auto",
    download: bool = False,
) -> tuple[BaseTraining, Source]:
    """A base network before its first step, from the weights that it starts from.

    Arguments and errors are those of ``base_network``.
    """
    return _begun(ref, data, px, recipe, _start(ref, weights, download=download))


def keep_base(
    key: str,
    training: BaseTraining,
    source: Source,
    ref: BackboneRef,
    data: DataSet,
    px: int,
    recipe: Recipe,
) -> BaseNetwork:
    """Store a base network whose training ended, under a key of the caller's; returns it.

    Raises:
        HostError: the cache cannot be written.
    """
    entry = _entry(key, ref, px, recipe.seed)
    with entry.locked():
        return _kept(entry, training, source, data, px)


def read_base(key: str, ref: BackboneRef, px: int, seed: int) -> BaseNetwork | None:
    """The network that was kept under a key; None where there is none, or it is corrupt."""
    return _entry(key, ref, px, seed).read()


# -- cache ----------------------------------------------------------------------------------------


def _key(
    ref: BackboneRef,
    data: DataSet,
    px: int,
    recipe: Recipe,
    start: _Start,
    widths: Widths | None,
) -> str:
    import timm

    parts = {
        "backbone": ref.identity(),
        "data": data.content_hash,
        "augmentation": dataclasses.asdict(data.augmentation),
        "px": px,
        "recipe": dataclasses.asdict(recipe),
        "start": start.identity(),
        "widths": None if widths is None else dataclasses.asdict(widths),
        "torch": str(torch.__version__),
        "timm": timm.__version__,
        "version": RECIPE_VERSION,
    }
    return content_key(parts)


def _entry(key: str, ref: BackboneRef, px: int, seed: int) -> CacheEntry[BaseNetwork]:
    def decode(content: bytes) -> BaseNetwork:
        about, _, weights = content.partition(b"\n")
        stored = json.loads(about)
        tensors = safetensors.torch.load(weights)
        importance = {
            name.removeprefix(_IMPORTANCE): tensors.pop(name).numpy()
            for name in list(tensors)
            if name.startswith(_IMPORTANCE)
        }
        # The seed also makes buffers that a module does not store, such as a random projection.
        model = build(ref, px, seed=seed)
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:  # what a user's function calls was changed elsewhere
            raise UnfitContentError(str(error)) from None
        return BaseNetwork(
            model=model.to(memory_format=torch.channels_last).eval(),
            key=key,
            source=stored["source"],
            cached=True,
            validation=Score(correct=stored["correct"], total=stored["total"]),
            train_s=stored["train_s"],
            steps=stored["steps"],
            importance=importance or None,
        )

    return CacheEntry(
        kind="base",
        key=key,
        decode=decode,
        named="networks",
        remade="the base network is trained again",
    )


def _begun(
    ref: BackboneRef, data: DataSet, px: int, recipe: Recipe, start: _Start
) -> tuple[BaseTraining, Source]:
    model = build(ref, px, seed=recipe.seed)
    source: Source = "trained"
    if start.path is not None and _load(model, ref, px, start):
        source = start.source
    known = None if source == "trained" else _classifiers(model, ref, px)
    blueprint = make_blueprint(ref, px)
    return BaseTraining(model, blueprint, data, recipe, classifiers=known), source


def _kept(
    entry: CacheEntry[BaseNetwork], training: BaseTraining, source: Source, data: DataSet, px: int
) -> BaseNetwork:
    """Write a network whose lock the caller holds, and read it back."""
    validation = evaluate(training.model, data.at(px).validation, data)
    about = {
        "correct": validation.correct,
        "total": validation.total,
        "source": source,
        "train_s": round(training.train_s, 3),
        "steps": training.steps,
    }
    # Copied one by one: the format takes neither channels-last nor shared storage.
    state = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in training.model.state_dict().items()
    }
    for group, importance in (training.importance or {}).items():
        state[f"{_IMPORTANCE}{group}"] = torch.from_numpy(importance)
    entry.write(json.dumps(about).encode() + b"\n" + safetensors.torch.save(state))
    # What is handed out is always what was read, so that all calls give the same bits.
    made = entry.read()
    if made is None:
        raise HostError(f"'{entry.path}' is corrupt right after it was written; check the disk")
    return dataclasses.replace(made, cached=False)


# -- starting weights -----------------------------------------------------------------------------


def _start(ref: BackboneRef, weights: WeightsPolicy | Path, *, download: bool) -> _Start:
    if isinstance(weights, Path):
        return _Start(source="file", path=weights)
    if weights == "scratch" or (weights == "auto" and ref.own):
        return _Start(source="trained")
    required = weights == "pretrained"
    try:
        path = _pretrained(ref, download=download)
    except (BackboneError, HostError) as error:
        if required:
            raise
        if download:
            _LOG.warning("%s; training starts from random weights", error)
        return _Start(source="trained")
    return _Start(source="pretrained", path=path, required=required)


def _pretrained(ref: BackboneRef, *, download: bool) -> Path:
    """The local file of timm's pretrained weights."""
    import timm

    if ref.own:
        raise BackboneError(
            f"'{ref.name}' is a function of yours and has no pretrained weights; give the path of "
            "a safetensors file, or weights 'scratch'"
        )
    if not timm.is_model(ref.name):
        raise BackboneError(f"timm has no backbone '{ref.name}'; see timm.list_models()")
    try:
        configuration = timm.get_pretrained_cfg(ref.name, allow_unregistered=False)
    except RuntimeError as error:  # an unknown tag: "resnet18.no_such_tag"
        raise BackboneError(
            f"timm has no weights '{ref.name}': {error}; see timm.list_models()"
        ) from None
    if configuration is None or not configuration.hf_hub_id:
        raise BackboneError(
            f"timm has no pretrained weights for '{ref.name}'; use weights 'auto' or 'scratch'"
        )
    wanted = configuration.hf_hub_filename or _HUB_FILE
    return _from_hub(ref.name, configuration.hf_hub_id, wanted, download=download)


def _from_hub(name: str, repository: str, wanted: str, *, download: bool) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    # Pickled weights run code when they are read: only safetensors will do.
    safe = wanted.replace("pytorch_model.bin", _HUB_FILE).replace(".bin", ".safetensors")
    if not safe.endswith(".safetensors"):
        raise BackboneError(
            f"the pretrained weights of '{name}' are no safetensors file but '{wanted}'; "
            "use weights 'auto' or 'scratch'"
        )
    found = huggingface_hub.try_to_load_from_cache(repository, safe)
    if isinstance(found, str):
        return Path(found)
    if not download:
        raise HostError(
            f"the pretrained weights of '{name}' ({repository}) are not in the local Hugging Face "
            "cache and downloads are off; allow the download, give the path of a safetensors file, "
            "or use weights 'auto' or 'scratch'"
        )
    try:
        return Path(huggingface_hub.hf_hub_download(repository, safe))
    except (OSError, ValueError, RuntimeError, HfHubHTTPError, EntryNotFoundError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise HostError(
            f"the pretrained weights of '{name}' ({repository}) cannot be downloaded, the machine "
            f"seems to be offline ({lines[0]}); connect it, give the path of a safetensors file, "
            "or use weights 'scratch'"
        ) from error


def _load(model: nn.Module, ref: BackboneRef, px: int, start: _Start) -> bool:
    """Load the starting weights, but for a classifier of other classes; False if left aside."""
    try:
        state = _fitting_state(model, ref, px, start)
    except BackboneError as error:
        if start.required:
            raise
        _LOG.warning("%s; training starts from random weights", error)
        return False
    model.load_state_dict(state, strict=False)
    return True


def _fitting_state(
    model: nn.Module, ref: BackboneRef, px: int, start: _Start
) -> Mapping[str, Tensor]:
    assert start.path is not None
    try:
        state = safetensors.torch.load_file(start.path)
    except (SafetensorError, OSError) as error:
        raise BackboneError(
            f"weights '{start.path}' cannot be read ({error}); give a safetensors file"
        ) from None
    target = model.state_dict()
    classifiers = _classifiers(model, ref, px)
    problems = _problems(state, target, classifiers)
    convert = _timm_conversion(model, ref)
    if problems and convert is not None:
        # timm's own for another naming, or for a ViT of another input size.
        state = convert(state, model)
        problems = _problems(state, target, classifiers)
    if problems:
        more = f" and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise BackboneError(
            f"weights '{start.path}' do not fit '{ref.name}': "
            f"{', '.join(problems[:_NAMED])}{more}; "
            "give weights of the same network, or use weights 'scratch'"
        )
    return {
        name: tensor
        for name, tensor in state.items()
        if name in target and tensor.shape == target[name].shape
    }


def _problems(
    state: Mapping[str, Tensor], target: Mapping[str, Tensor], classifiers: frozenset[str]
) -> list[str]:
    """Where a file and a network differ, but for the shape of the classifier."""
    problems = []
    for name, tensor in target.items():
        # Files from before torch 0.4.1 lack this counter, which is not used in evaluation.
        if name not in state:
            if not name.endswith("num_batches_tracked"):
                problems.append(f"'{name}' is missing")
        elif name.rpartition(".")[0] not in classifiers and state[name].shape != tensor.shape:
            shapes = f"{tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
            problems.append(f"'{name}' has the shape {shapes}")
    problems += [f"'{name}' is not in the network" for name in state if name not in target]
    return problems


def _classifiers(model: nn.Module, ref: BackboneRef, px: int) -> frozenset[str]:
    """Paths of the layers that make the output."""
    if ref.own:
        return frozenset({trace(build(ref, px, device="meta"), px).classifier})
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    return frozenset({named} if isinstance(named, str) else named)


def _timm_conversion(model: nn.Module, ref: BackboneRef) -> Callable[..., dict[str, Any]] | None:
    """The function of timm from a published state dict to the module's own, if there is one."""
    if ref.own:
        return None
    return getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
