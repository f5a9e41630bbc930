"""A trained network in one file, from which it can be built again: weights and what it is.

The weights are safetensors; what the network is (backbone, channels, bits, normalization) is
written into the header of the same file, so that a file which was moved still says it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, get_args

from torch import Tensor, nn

from hwsearch.errors import RunError
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import make_blueprint
from hwsearch.nets.quantize import Scheme, quantize
from hwsearch.nets.realize import pruned
from hwsearch.space.candidate import Candidate, canonical_json

#: Key in the header of the file.
_KEY: Final = "hwsearch"
#: Part of the names of tensors with which older versions let a module round as its file does.
_IMITATION: Final = ".output_quantizer."
_SCHEMA_VERSION: Final = 1

Channels = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class NetworkCard:
    """What a network is, beside its weights.

    Attributes:
        scheme: of its quantized activations.
        mean: of the pictures per channel (red, green, blue), on the scale 0..1.
        std: the same; the network takes ``(x / 255 - mean) / std``.
        class_names: in the order of the logits.
    """

    ref: BackboneRef
    candidate: Candidate
    scheme: Scheme
    mean: Channels
    std: Channels
    class_names: tuple[str, ...]

    def to_json(self) -> str:
        """Canonical JSON."""
        return canonical_json(
            {
                "schema_version": _SCHEMA_VERSION,
                "backbone": {
                    "name": self.ref.name,
                    "stem_stride": self.ref.stem_stride,
                    "arguments": self.ref.arguments,
                },
                "candidate": self.candidate.to_json(),
                "scheme": self.scheme,
                "mean": list(self.mean),
                "std": list(self.std),
                "class_names": list(self.class_names),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: anything else.
        """
        try:
            data = json.loads(text)
            if data["schema_version"] != _SCHEMA_VERSION:
                raise ValueError(f"schema_version {data['schema_version']} is another one")
            if data["scheme"] not in get_args(Scheme):
                raise ValueError(f"'{data['scheme']}' is no scheme of quantization")
            names = tuple(str(name) for name in data["class_names"])
            return cls(
                ref=BackboneRef(classes=len(names), **data["backbone"]),
                candidate=Candidate.from_json(data["candidate"]),
                scheme=data["scheme"],
                mean=_channels(data["mean"]),
                std=_channels(data["std"]),
                class_names=names,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None


def network_bytes(model: nn.Module, card: NetworkCard) -> bytes:
    """The content of the file for a network."""
    from safetensors.torch import save

    state = {
        name: tensor.detach().contiguous().clone() for name, tensor in model.state_dict().items()
    }
    return save(state, metadata={_KEY: card.to_json()})


def read_card(path: Path) -> NetworkCard:
    """What a file says about its network, without its weights.

    Raises:
        RunError: it cannot be read, or does not say it.
    """
    return _read(path, weights=False)[0]


def load_network(path: Path) -> tuple[nn.Module, NetworkCard]:
    """Build a network again: pruned, fake-quantized, with its weights, in evaluation mode.

    Raises:
        RunError: the file cannot be read or does not hold such a network.
        BackboneError: its backbone cannot be built here.
    """
    card, state = _read(path, weights=True)
    px = card.candidate.input_px
    blueprint = make_blueprint(card.ref, px)
    sizes = {group.name: group.channels for group in blueprint.graph.groups}
    kept = card.candidate.channel_counts
    if sizes.keys() != kept.keys():
        raise RunError(f"{path} has other groups of channels than '{card.ref.name}' has here")
    # Which ones does not matter: all that is left gets the weights of the file.
    removed = {name: tuple(range(kept[name], size)) for name, size in sizes.items()}
    removed = {name: channels for name, channels in removed.items() if channels}
    model = pruned(build(card.ref, px), blueprint, removed)
    quantize(model, card.candidate.layer_bits, card.scheme)
    try:
        model.load_state_dict(
            {name: tensor for name, tensor in state.items() if _IMITATION not in name}
        )
    except RuntimeError as error:
        raise RunError(
            f"the weights of {path} do not fit '{card.ref.name}' as it is built here "
            f"({' '.join(str(error).split())[:200]}); use the versions named in run.json"
        ) from None
    return model.eval(), card


def _read(path: Path, *, weights: bool) -> tuple[NetworkCard, dict[str, Tensor]]:
    """What a file says about its network, and its weights where they are wanted."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, Any] = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()} if weights else {}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise RunError(f"there is no {path}; the run did not finish this network") from None
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} cannot be read ({error}); take it from a backup") from None
    if _KEY not in header:
        raise RunError(f"{path} does not say which network it is of; make the run again")
    try:
        return NetworkCard.from_json(header[_KEY]), state
    except ValueError as error:
        raise RunError(
            f"{path} does not say which network it is of ({error}); "
            "it was written by another version of hwsearch"
        ) from None


def _channels(values: Any) -> Channels:  # noqa: ANN401 - of a file
    red, green, blue = (float(value) for value in values)
    return red, green, blue
