"""A target as text: a device, its runtime and its power mode, with a source for every number.

The file model of ``hw_profiles/*.yaml``. The numbers that belong together share one provenance;
``CostPredictor`` (``hwsearch.hardware.predictor``) says how they become a latency and an energy.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.errors import TargetError
from hwsearch.hardware.file_model import (
    BitsText,
    FileModel,
    Fraction,
    Name,
    Positive,
    Provenance,
    Text,
)
from hwsearch.hardware.kernels import WEIGHTED_KINDS, KernelKind
from hwsearch.hardware.learned.model import Fit

#: What this version reads and writes; a file of a newer one is refused.
SCHEMA_VERSION: Final = 1

ModeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
TargetName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*(@[A-Za-z0-9][A-Za-z0-9_.-]*)?$")
]

_RUNTIME_NAMES: Final = {FP32: "fp32", FP16: "fp16", INT8: "int8"}


class ComputeRate(FileModel):
    """How fast the device multiplies at one pair of widths.

    Attributes:
        peak_gmac_per_s: dense peak, in 1e9 multiply-accumulates per second (TFLOP/s x 500).
        channel_block: the runtime pads channel counts up to a multiple of it.
    """

    peak_gmac_per_s: Positive
    channel_block: Annotated[int, Field(ge=1, le=256, strict=True)]


class ComputeRates(FileModel):
    """Peak rates by bits."""

    provenance: Provenance
    by_bits: Annotated[Mapping[BitsText, ComputeRate], Field(min_length=1)]


class Memory(FileModel):
    """The memory that weights and activations travel through, at 1e9 bytes per GB.

    Attributes:
        on_chip_mb: where a device keeps the weights of a network in a memory of its own: its size,
            at 1e6 bytes per MB. What does not fit travels anew for every inference.
        off_chip_gb_per_s: how fast that goes, as seen; slower than the rest of the traffic.
    """

    provenance: Provenance
    bandwidth_gb_per_s: Positive
    on_chip_mb: Positive | None = None
    off_chip_gb_per_s: Positive | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.on_chip_mb is None) != (self.off_chip_gb_per_s is None):
            raise ValueError("on_chip_mb and off_chip_gb_per_s go together")
        return self


class KernelRate(FileModel):
    """What one kind of kernel makes of one pair of widths; exactly one of the first two is given.

    Attributes:
        compute_efficiency: the share of the peak that this kind reaches. The bits are offered.
        runs_as: the runtime has no faster kernel and runs these bits in those other ones. They
            are priced (a baseline needs a price) but not offered.
        slowdown: factor on the latency of ``runs_as``.
    """

    compute_efficiency: Fraction | None = None
    runs_as: BitsText | None = None
    slowdown: Annotated[float, Field(ge=1, allow_inf_nan=False, strict=True)] = 1.0

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.compute_efficiency is None) == (self.runs_as is None):
            raise ValueError("give compute_efficiency, or runs_as for bits that do not pay")
        if self.runs_as is None and self.slowdown != 1.0:
            raise ValueError("slowdown goes with runs_as; lower compute_efficiency instead")
        return self


class Kernels(FileModel):
    """What the runtime makes of the device.

    Attributes:
        network_overhead_us: once per inference: synchronization, input and output.
        floor_us: what a kernel takes at least: launch, and filling and draining the device.
        bandwidth_fraction: the share of the memory bandwidth that kernels reach.
        unhidden_fraction: share of the shorter of compute and memory time that the longer one
            does not hide; 1 adds them up. Above 0, so that whatever is pruned pays a little.
        narrower_never_slower: the runtime takes a wider kernel where that is faster, so that a
            kernel whose rate is no lower in fewer bits never costs more in them, whatever a fit to
            few networks says of networks unlike them.
        fuses_clips_only: the runtime takes no activation into the kernel before it but clips (ReLU,
            ReLU6), and no conversion between integers and floats: the others are kernels of their
            own, activations in floats.
        blocks_within_groups: the runtime fills its blocks of channels within each group of a
            grouped convolution, so that narrow groups leave most of a block empty.
        by_kind: for every kind, its rate by bits.
    """

    provenance: Provenance
    network_overhead_us: Positive
    floor_us: Positive
    bandwidth_fraction: Fraction
    unhidden_fraction: Fraction
    narrower_never_slower: bool = False
    fuses_clips_only: bool = False
    blocks_within_groups: bool = False
    by_kind: Mapping[KernelKind, Annotated[Mapping[BitsText, KernelRate], Field(min_length=1)]]

    @field_validator("by_kind")
    @classmethod
    def _all_kinds(
        cls, by_kind: Mapping[KernelKind, Mapping[LayerBits, KernelRate]]
    ) -> Mapping[KernelKind, Mapping[LayerBits, KernelRate]]:
        missing = [kind.value for kind in KernelKind if kind not in by_kind]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}; a kernel without a rate has no price")
        for kind, rates in by_kind.items():
            for bits, rate in rates.items():
                meant = rate.runs_as
                if meant is not None and (meant not in rates or rates[meant].runs_as is not None):
                    raise ValueError(
                        f"{kind}.{bits} runs as {meant}, which has no compute_efficiency there"
                    )
        return by_kind


class Energy(FileModel):
    """Energy of one inference = baseline power x latency + active energy.

    Attributes:
        boundary: what the energy is drawn by; figures of two boundaries do not compare.
        baseline_w: power while an inference waits for nothing but its floor.
        active_pj_per_mac: by bits, on top of the baseline.
        active_pj_per_byte: of memory traffic, on top of the baseline.
    """

    provenance: Provenance
    boundary: Literal["GPU rail", "module", "board", "wall", "simulated chip"]
    baseline_w: Positive
    active_pj_per_mac: Mapping[BitsText, Positive]
    active_pj_per_byte: Positive


class Interval(FileModel):
    """How wrong the predictor is: log(measured / predicted) is normal around 0.

    Attributes:
        latency_sigma_log: standard deviation of it for latency.
        energy_sigma_log: the same for energy.
    """

    provenance: Provenance
    latency_sigma_log: Positive
    energy_sigma_log: Positive


class PowerMode(FileModel):
    """A power mode of the same device, by its shares of the mode that the profile describes.

    Attributes:
        summary: clocks and what is switched off.
        clock_share: of the processor's clock.
        unit_share: of its compute units.
        memory_share: of the memory bandwidth.
        baseline_w: power while an inference waits; only a profile without energy may lack it.
        active_share: of the active energy per multiply-accumulate, which falls with the voltage.
    """

    summary: Text
    clock_share: Fraction
    unit_share: Fraction
    memory_share: Fraction
    baseline_w: Positive | None = None
    active_share: Fraction = 1.0


class PowerModes(FileModel):
    """Other power modes, each a target of its own: ``jetson-agx-orin@15W``.

    Attributes:
        scaling_sigma_log: what scaling by clocks adds to how wrong the predictor is.
    """

    provenance: Provenance
    scaling_sigma_log: Positive
    by_name: Annotated[Mapping[ModeName, PowerMode], Field(min_length=1)]


class HardwareProfile(FileModel):
    """One (device, runtime, power mode).

    Attributes:
        name: equal to the stem of the file; with "@" and the name of a power mode behind it for
            what ``hwsearch.hardware.power_modes`` derives.
        aliases: other words for it; "jetson" is the current default board of its family.
        evidence: the weakest source that the predictions rest on.
        channel_granularity: pruning keeps channel counts to multiples of it.
        activation_quantization: of integers; TensorRT is symmetric (no zero point).
        energy: None where there is no evidence.
        power_modes: other modes of the same device; None where no clocks of them are known.
        fit: what was learned from measured networks; None where the rates are all there is.
    """

    schema_version: Annotated[int, Field(strict=True)]
    name: TargetName
    summary: Text
    device: Text
    family: Name
    aliases: tuple[Name, ...] = ()
    runtime: Text
    runtime_version: Text
    power_mode: Text
    evidence: Literal["measured", "derived", "spec sheet", "simulated", "declared"]
    channel_granularity: Annotated[int, Field(ge=1, le=256, strict=True)]
    activation_quantization: Literal["symmetric", "affine"]
    compute: ComputeRates
    memory: Memory
    kernels: Kernels
    energy: Energy | None
    interval: Interval
    power_modes: PowerModes | None = None
    fit: Fit | None = None

    @model_validator(mode="before")
    @classmethod
    def _known_schema(cls, data: object) -> object:
        version = data.get("schema_version") if isinstance(data, Mapping) else None
        if isinstance(version, int) and version != SCHEMA_VERSION:
            raise ValueError(
                f"schema_version {version} is not the {SCHEMA_VERSION} that this hwsearch reads; "
                + ("update hwsearch" if version > SCHEMA_VERSION else "the first one is 1")
            )
        return data

    @model_validator(mode="after")
    def _tables_agree(self) -> Self:
        problems = []
        used = {
            bits
            for rates in self.kernels.by_kind.values()
            for bits, rate in rates.items()
            if rate.runs_as is None
        }
        for bits in sorted(used - set(self.compute.by_bits)):
            problems.append(f"kernels use {bits} but compute.by_bits has no peak for it")
        if self.energy is not None:
            for bits in sorted(used - set(self.energy.active_pj_per_mac)):
                problems.append(f"kernels use {bits} but energy.active_pj_per_mac lacks it")
        if self.fit is not None and self.fit.energy is not None and self.energy is None:
            problems.append("fit.energy needs the energy section, which says what it is drawn by")
        problems += [*self._memory_problems(), *self._mode_problems()]
        if self.name in self.aliases:
            problems.append(f"'{self.name}' is its own alias")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _memory_problems(self) -> Iterator[str]:
        reached = self.memory.bandwidth_gb_per_s * self.kernels.bandwidth_fraction
        slow = self.memory.off_chip_gb_per_s
        if slow is not None and slow > reached:
            yield (
                f"memory.off_chip_gb_per_s {slow:g} is faster than the {reached:g} that kernels "
                "reach of the memory itself"
            )

    def _mode_problems(self) -> Iterator[str]:
        if self.energy is None or self.power_modes is None:
            return
        for name, mode in self.power_modes.by_name.items():
            if mode.baseline_w is None:
                yield f"power mode {name} needs a baseline_w, since there is an energy section"
            elif mode.baseline_w > self.energy.baseline_w:
                yield f"power mode {name} has a higher baseline_w than the profile's own mode"

    @cached_property
    def profile_hash(self) -> str:
        """SHA-256 of the canonical JSON: equal for equal content, whatever the comments."""
        canonical = json.dumps(
            self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        return hashlib.sha256(canonical.encode()).hexdigest()

    def legal_bits(self, kind: KernelKind) -> tuple[LayerBits, ...]:
        """The bits that pay for a kind of kernel, widest first; may be empty."""
        rates = self.kernels.by_kind[kind]
        offered = (bits for bits, rate in rates.items() if rate.runs_as is None)
        return tuple(sorted(offered, reverse=True))

    def check_bits(
        self, weight_widths: Collection[int], activation_widths: Collection[int]
    ) -> None:
        """Refuse widths that no weighted kernel gains from on this target.

        Raises:
            TargetError: a width that is not offered, or two collections without a common pair;
                the message names what is legal.
        """
        legal = sorted({b for kind in WEIGHTED_KINDS for b in self.legal_bits(kind)}, reverse=True)
        weights = {bits.weight_bits for bits in legal}
        activations = {bits.activation_bits for bits in legal}
        odd = sorted((set(weight_widths) - weights) | (set(activation_widths) - activations))
        paired = any(
            b.weight_bits in weight_widths and b.activation_bits in activation_widths for b in legal
        )
        if not odd and paired:
            return
        runs = _listed([bits_name(bits) for bits in legal])
        if not weight_widths or not activation_widths:
            why = "no widths were asked for"
        elif odd:
            why = "; ".join(self._why_not(width) for width in odd)
        else:
            why = (
                f"no layer has weights of {_listed(weight_widths, 'or')} bits "
                f"with activations of {_listed(activation_widths, 'or')} bits there"
            )
        raise TargetError(
            f"{self.name} runs {runs}; {why}. "
            f"Pick widths from {_listed(sorted(weights | activations))}, or another target"
        )

    def _why_not(self, width: int) -> str:
        named = {16: "fp16", 32: "fp32"}.get(width, f"int{width}")
        emulated = any(
            rate.runs_as is not None and width in (bits.weight_bits, bits.activation_bits)
            for kind in WEIGHTED_KINDS
            for bits, rate in self.kernels.by_kind[kind].items()
        )
        return f"{named} is slower there" if emulated else f"{named} has no kernels there"


def bits_name(bits: LayerBits) -> str:
    """What people call a pair of widths: fp32, fp16, int8, else the form W4A8."""
    return _RUNTIME_NAMES.get(bits, str(bits))


def _listed(words: Collection[object], last: str = "and") -> str:
    texts = [str(word) for word in words]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} {last} {texts[-1]}"
