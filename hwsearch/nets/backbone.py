"""Backbones: timm's by name, or a user's own function that makes a module."""

import importlib
import inspect
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hwsearch.errors import BackboneError

#: Pictures have three channels throughout; grey ones are repeated when they are loaded.
IN_CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class BackboneRef:
    """What makes a backbone, except for its weights.

    Attributes:
        name: a timm name, or ``package.module:function``.
        stem_stride: replaces the stride of the first convolution; small pictures need it.
        arguments: extra keyword arguments as canonical JSON (depth and width choices).
        classes: outputs of the classifier.
    """

    name: str
    classes: int
    stem_stride: int | None = None
    arguments: str = "{}"

    @property
    def own(self) -> bool:
        """Whether it is a user's function."""
        return ":" in self.name

    def identity(self) -> dict[str, Any]:
        """What decides the network, for hashing; a user's function adds its source text."""
        parts: dict[str, Any] = {
            "name": self.name,
            "classes": self.classes,
            "stem_stride": self.stem_stride,
            "arguments": json.loads(self.arguments),
        }
        if self.own:
            parts["source"] = _source_text(self.name)
        return parts


def build(ref: BackboneRef, input_px: int, *, device: str = "cpu", seed: int = 0) -> nn.Module:
    """Build a backbone with random weights.

    Args:
        ref: which.
        input_px: networks with a fixed input size (ViT) are built for it; others ignore it.
        device: "meta" gives shapes without memory.
        seed: of the random weights; torch's global generator is left as it was.

    Raises:
        BackboneError: the name is unknown, or the function fails or returns something else.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with torch.device(device):
            model = _own(ref) if ref.own else _timm(ref, input_px)
    if ref.stem_stride is not None:
        stem = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        if stem is None:
            raise BackboneError(f"'{ref.name}' has no convolution to set stem_stride on; remove it")
        stem.stride = (ref.stem_stride, ref.stem_stride)
    return model


def _timm(ref: BackboneRef, input_px: int) -> nn.Module:
    import timm

    arguments = json.loads(ref.arguments)
    if not timm.is_model(ref.name):
        raise BackboneError(f"timm has no backbone '{ref.name}'; see timm.list_models()")
    try:
        configuration = timm.get_pretrained_cfg(ref.name, allow_unregistered=False)
    except RuntimeError as error:  # "resnet18.no_such_tag"
        raise BackboneError(
            f"timm has no weights '{ref.name}': {_first_line(error)}; give the name without its tag"
        ) from error
    if configuration is not None and configuration.fixed_input_size:
        arguments["img_size"] = input_px
    try:
        model = timm.create_model(
            ref.name, pretrained=False, num_classes=ref.classes, in_chans=IN_CHANNELS, **arguments
        )
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise BackboneError(
            f"timm cannot build '{ref.name}' with {arguments}: {_first_line(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise BackboneError(f"timm returned no module for '{ref.name}'")
    return model


def _own(ref: BackboneRef) -> nn.Module:
    factory = _factory(ref.name)
    try:
        model = factory(num_classes=ref.classes, **json.loads(ref.arguments))
    except Exception as error:  # whatever a user's function raises is the user's to read
        raise BackboneError(
            f"'{ref.name}' failed: {type(error).__name__}: {_first_line(error)}; it is called "
            f"with num_classes={ref.classes}"
        ) from error
    if not isinstance(model, nn.Module):
        raise BackboneError(
            f"'{ref.name}' returned {type(model).__name__}; it must return a torch.nn.Module"
        )
    return model


def _factory(name: str) -> Any:  # noqa: ANN401 - a user's function
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        # The installed command does not look where it is run, `python -m` does.
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise BackboneError(
            f"module '{error.name}' of backbone '{name}' is not found from {here}; run from the "
            "folder that holds it, or install it"
        ) from error
    except Exception as error:  # whatever a user's module raises is the user's to read
        raise BackboneError(
            f"module '{module_name}' of backbone '{name}' cannot be imported: "
            f"{type(error).__name__}: {_first_line(error)}"
        ) from error
    factory = getattr(module, function_name, None)
    if not callable(factory):
        raise BackboneError(f"'{module_name}' has no function '{function_name}' ('{name}')")
    return factory


def _source_text(name: str) -> str:
    """The whole file that defines a user's function: helpers beside it decide the network too."""
    factory = _factory(name)
    try:
        source = inspect.getsourcefile(inspect.unwrap(factory))
    except TypeError:  # an instance with __call__, a functools.partial
        source = sys.modules[name.partition(":")[0]].__file__
    if source is None:
        raise BackboneError(f"backbone '{name}' has no source file, so its results have no name")
    return Path(source).read_text(encoding="utf-8")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
