"""What a network costs on a target: as JSON for programs, as lines and rows for people.

The models here are the single definition of the output of ``hwsearch predict --json``; the shipped
``predict.schema.json`` is its JSON schema.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from hwsearch.bits import LayerBits
from hwsearch.errors import UserError
from hwsearch.hardware.cost import Bound
from hwsearch.hardware.kernels import KernelKind, NetworkDesc
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile, bits_name
from hwsearch.report.stored import SCHEMA_VERSION, Amount, CostEntry, Count
from hwsearch.report.view import NOTHING, digits, one_line
from hwsearch.units import format_quantity

#: Frames per second of the cameras that are counted.
CAMERA_FPS: Final = 30
#: Kernels that the table names; the others are one row.
MOST_KERNELS: Final = 10
#: The value of ``bits`` where the layers differ.
MIXED: Final = "mixed"

KERNEL_COLUMNS: Final = ("kernel", "kind", "bits", "MACs", "traffic", "ms", "share", "bound by")
SUMMARY_COLUMNS: Final = ("", "kernels", "MACs", "traffic", "ms", "share")
COMPARISON_COLUMNS: Final = (
    "target", "evidence", "latency ms", "interval", "fps", "cameras", "energy mJ", "interval",
    "boundary", "mostly",
)  # fmt: skip

_BOUNDS: Final[tuple[Bound, ...]] = ("compute", "memory", "floor")

Row = tuple[str, ...]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class KernelEntry(_Frozen):
    """One fused kernel. ``bound`` is what most of its time goes to."""

    name: str
    kind: KernelKind
    macs: Count
    bytes: Amount
    bits: Annotated[str, Field(pattern=r"^W\d+A\d+$")]
    latency_ms: Amount
    bound: Bound


class ModelPrediction(_Frozen):
    """A network on a target at batch 1.

    Attributes:
        target: name of the profile.
        model: as it was given.
        bits: of the layers with weights, as in "W8A8"; "mixed" where they differ.
        energy_mj: None where the profile has no evidence.
        cameras_at_30fps: how many cameras the latency sustains, one frame after the other.
        kernels: in the order in which they run. Their latencies add up to the whole but for what
            an inference takes beside its kernels.
    """

    schema_version: Literal[1]
    target: str
    model: str
    input_px: Annotated[int, Field(gt=0)]
    bits: Annotated[str, Field(pattern=r"^(W\d+A\d+|mixed)$")]
    latency_ms: CostEntry
    energy_mj: CostEntry | None
    macs: Count
    size_bytes: Count
    frames_per_second: Amount
    cameras_at_30fps: Count
    kernels: tuple[KernelEntry, ...]

    @property
    def overhead_ms(self) -> float:
        """What an inference takes beside its kernels."""
        return self.latency_ms.value - math.fsum(kernel.latency_ms for kernel in self.kernels)


@dataclass(frozen=True, kw_only=True)
class Priced:
    """A prediction with what people should know about it.

    Attributes:
        bits: how many layers with weights have which bits.
        unoffered: how many of them are in bits that the target does not gain from.
        extrapolated: the network is unlike those that the profile was fitted to.
    """

    profile: HardwareProfile
    prediction: ModelPrediction
    bits: Counter[LayerBits]
    unoffered: int
    extrapolated: bool


def check_confidence(confidence: float) -> None:
    """Refuse a confidence that is no probability.

    Raises:
        UserError: it is not strictly between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise UserError(f"confidence {confidence:g} is not between 0 and 1; give one such as 0.9")


def price(profile: HardwareProfile, network: NetworkDesc, *, confidence: float = 0.9) -> Priced:
    """Predict what a network costs on a target.

    Args:
        profile: the target.
        network: with the bits of each kernel.
        confidence: of the central intervals.

    Raises:
        UserError: a confidence that is not between 0 and 1.
        TargetError: a kernel that the target cannot run in its bits; the message says in which it
            can.
    """
    check_confidence(confidence)
    predictor = CostPredictor(profile, confidence)
    cost = predictor.predict(network)
    bits = Counter(kernel.bits for kernel in network.weighted)
    fps = 1e3 / cost.latency_ms.value
    prediction = ModelPrediction(
        schema_version=SCHEMA_VERSION,
        target=profile.name,
        model=network.name,
        input_px=network.input_px,
        bits=str(next(iter(bits))) if len(bits) == 1 else MIXED,
        latency_ms=CostEntry.of(cost.latency_ms),
        energy_mj=None if cost.energy_mj is None else CostEntry.of(cost.energy_mj),
        macs=cost.macs,
        size_bytes=cost.size_bytes,
        frames_per_second=fps,
        cameras_at_30fps=_cameras(fps),
        kernels=tuple(
            KernelEntry(
                name=kernel.name,
                kind=kernel.kind,
                macs=kernel.macs,
                bytes=kernel.bytes,
                bits=str(kernel.bits),
                latency_ms=kernel.latency_ms,
                bound=kernel.bound,
            )
            for kernel in predictor.kernels(network)
        ),
    )
    return Priced(
        profile=profile,
        prediction=prediction,
        bits=bits,
        unoffered=sum(k.bits not in profile.legal_bits(k.kind) for k in network.weighted),
        extrapolated=cost.latency_ms.extrapolated,
    )


# -- for programs ----------------------------------------------------------------------------------


def predictions_json(predictions: Sequence[ModelPrediction]) -> str:
    """The JSON text: an object for one prediction, a list for several."""
    contents = [prediction.model_dump(mode="json") for prediction in predictions]
    return json.dumps(contents[0] if len(contents) == 1 else contents, indent=1) + "\n"


def prediction_schema_text() -> str:
    """The JSON schema (draft 2020-12) of that text, as it ships with the package."""
    adapter: TypeAdapter[object] = TypeAdapter(ModelPrediction | list[ModelPrediction])
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hwsearch predict --json",
        **adapter.json_schema(),
    }
    return json.dumps(schema, indent=1) + "\n"


# -- for people ------------------------------------------------------------------------------------


def headline(priced: Priced) -> list[str]:
    """The prediction in a few lines, and what to know about it."""
    profile, prediction = priced.profile, priced.prediction
    latency = prediction.latency_ms
    confidence = f"at {100 * latency.confidence:g} % confidence"
    fps_low, fps_high = 1e3 / latency.high, 1e3 / latency.low
    lines = [
        f"{one_line(prediction.model)} at {prediction.input_px} px in {_bits_text(priced.bits)} "
        f"on {profile.name} ({profile.runtime} {profile.runtime_version}, {profile.power_mode})",
        f"latency  {digits(latency.value)} ms, {_interval(latency)} {confidence}; "
        f"{latency.source}, evidence: {profile.evidence}",
        f"rate     {digits(prediction.frames_per_second)} frames/s, "
        f"{digits(fps_low)} to {digits(fps_high)}; sustains "
        f"{prediction.cameras_at_30fps} cameras of {CAMERA_FPS} fps, "
        f"{_cameras(fps_low)} to {_cameras(fps_high)}",
        f"energy   {_energy_text(priced)}",
        f"network  {macs_text(prediction.macs)}MACs, "
        f"{format_quantity('size', prediction.size_bytes)} of weights, "
        f"{len(prediction.kernels)} fused kernels",
    ]
    return lines + _notes(priced)


def comparison_headline(several: Sequence[Priced]) -> list[str]:
    """What the targets are compared on, and what to know about some of them."""
    prediction = several[0].prediction
    confidence = 100 * prediction.latency_ms.confidence
    first = (
        f"{one_line(prediction.model)} at {prediction.input_px} px in "
        f"{_bits_text(several[0].bits)}: {macs_text(prediction.macs)}MACs, "
        f"{format_quantity('size', prediction.size_bytes)} of weights; "
        f"intervals at {confidence:g} % confidence"
    )
    return [first, *(note for priced in several for note in _notes(priced))]


def kernel_rows(prediction: ModelPrediction, most: int = MOST_KERNELS) -> list[Row]:
    """The costliest kernels, then all others and the overhead as a row each."""
    ranked = sorted(prediction.kernels, key=lambda kernel: -kernel.latency_ms)
    total_ms = prediction.latency_ms.value
    rows: list[Row] = [
        (
            one_line(kernel.name),
            kernel.kind.value,
            bits_name(LayerBits.parse(kernel.bits)),
            macs_text(kernel.macs),
            format_quantity("size", kernel.bytes),
            digits(kernel.latency_ms),
            _share(kernel.latency_ms, total_ms),
            kernel.bound,
        )
        for kernel in ranked[:most]
    ]
    if rest := ranked[most:]:
        _, macs, traffic, ms, share = _summed(rest, total_ms)
        rows.append((f"{len(rest)} others", "", "", macs, traffic, ms, share, ""))
    return [*rows, ("overhead", "", "", "", "", *_overhead(prediction), "")]


def bound_rows(prediction: ModelPrediction) -> list[Row]:
    """Where the time goes by what binds: one row for each bound, and the overhead."""
    rows = _grouped(prediction, _BOUNDS, lambda kernel: kernel.bound)
    return [*rows, ("overhead", "", "", "", *_overhead(prediction))]


def kind_rows(prediction: ModelPrediction) -> list[Row]:
    """Where the time goes by kind of kernel, the costliest first, and the overhead."""
    kinds = dict.fromkeys(kernel.kind.value for kernel in prediction.kernels)
    spent_ms = {
        kind: math.fsum(k.latency_ms for k in prediction.kernels if k.kind.value == kind)
        for kind in kinds
    }
    ranked = sorted(kinds, key=lambda kind: (-spent_ms[kind], kind))
    rows = _grouped(prediction, ranked, lambda kernel: kernel.kind.value)
    return [*rows, ("overhead", "", "", "", *_overhead(prediction))]


def comparison_rows(several: Sequence[Priced]) -> list[Row]:
    """One row for each target, in the order given."""
    return [_comparison_row(priced) for priced in several]


def macs_text(macs: int) -> str:
    """Three significant digits with a prefix: "1.81 G", "442 k"; the word MACs follows."""
    for prefix, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if macs >= factor:
            return f"{digits(macs / factor)} {prefix}"
    return f"{macs} "


def _comparison_row(priced: Priced) -> Row:
    prediction, profile = priced.prediction, priced.profile
    latency, energy = prediction.latency_ms, prediction.energy_mj
    spent = {
        bound: math.fsum(k.latency_ms for k in prediction.kernels if k.bound == bound)
        for bound in _BOUNDS
    }
    mostly = max(_BOUNDS, key=lambda bound: spent[bound])
    return (
        profile.name,
        profile.evidence + (", extrapolated" if priced.extrapolated else ""),
        digits(latency.value),
        _interval(latency),
        digits(prediction.frames_per_second),
        str(prediction.cameras_at_30fps),
        NOTHING if energy is None else digits(energy.value),
        NOTHING if energy is None else _interval(energy),
        NOTHING if profile.energy is None else profile.energy.boundary,
        f"{mostly} {_share(spent[mostly], latency.value)}",
    )


def _notes(priced: Priced) -> list[str]:
    notes = []
    layers = priced.bits.total()
    if priced.unoffered:
        notes.append(
            f"Note: {priced.unoffered} of {layers} layers are in bits that {priced.profile.name} "
            "does not gain from; they are priced as it runs them."
        )
    if priced.extrapolated:
        notes.append(
            "Note: the network is unlike those that the profile was fitted to; "
            "the interval is widened for that."
        )
    return notes


def _energy_text(priced: Priced) -> str:
    energy, evidence = priced.prediction.energy_mj, priced.profile.energy
    if energy is None or evidence is None:
        return f"not known: {priced.profile.name} has no energy model"
    return (
        f"{digits(energy.value)} mJ, {_interval(energy)} at {100 * energy.confidence:g} % "
        f"confidence; {energy.source}, boundary: {evidence.boundary}"
    )


def _grouped(
    prediction: ModelPrediction, groups: Sequence[str], group_of: Callable[[KernelEntry], str]
) -> list[Row]:
    total_ms = prediction.latency_ms.value
    return [
        (group, *_summed([k for k in prediction.kernels if group_of(k) == group], total_ms))
        for group in groups
    ]


def _summed(kernels: Sequence[KernelEntry], total_ms: float) -> tuple[str, str, str, str, str]:
    """Count, MACs, traffic, time and share of it."""
    spent_ms = math.fsum(kernel.latency_ms for kernel in kernels)
    return (
        str(len(kernels)),
        macs_text(sum(kernel.macs for kernel in kernels)),
        format_quantity("size", math.fsum(kernel.bytes for kernel in kernels)),
        digits(spent_ms),
        _share(spent_ms, total_ms),
    )


def _overhead(prediction: ModelPrediction) -> tuple[str, str]:
    overhead_ms = prediction.overhead_ms
    return digits(overhead_ms), _share(overhead_ms, prediction.latency_ms.value)


def _cameras(fps: float) -> int:
    return math.floor(fps / CAMERA_FPS)


def _interval(cost: CostEntry) -> str:
    return f"{digits(cost.low)} to {digits(cost.high)}"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"


def _bits_text(bits: Counter[LayerBits]) -> str:
    """As in "int8", or how many layers have which: "int8 x 20, fp32 x 1"."""
    if len(bits) == 1:
        return bits_name(next(iter(bits)))
    return ", ".join(f"{bits_name(width)} x {layers}" for width, layers in bits.most_common())
