"""A hardware profile for people: what it is, how well it predicts, where its numbers are from."""

import math
import textwrap
from collections.abc import Iterator
from typing import Final

from hwsearch.hardware.file_model import Provenance
from hwsearch.hardware.kernels import KernelKind
from hwsearch.hardware.learned.model import Fit, FittedModel
from hwsearch.hardware.profile import HardwareProfile, bits_name

_WIDTH: Final = 100
_LABEL: Final = 16
#: Learned factors that are shown of each quantity.
_FACTORS: Final = 8
#: More pairs of widths than this are shown as a range.
_MOST_BITS: Final = 4


def profile_text(profile: HardwareProfile) -> str:
    """Some paragraphs; the whole content is the profile's YAML."""
    parts = [
        "\n".join(_head(profile)),
        "\n".join(_bits(profile)),
        "\n".join(_errors(profile)),
        *([] if profile.fit is None else ["\n".join(_factors(profile.fit))]),
        "\n".join(_provenance(profile)),
    ]
    return "\n\n".join(parts) + "\n"


def short_bits(profile: HardwareProfile, kind: KernelKind) -> list[str]:
    """The bits that pay for a kind, by the names that people use; many of them as a range."""
    legal = profile.legal_bits(kind)
    if len(legal) <= _MOST_BITS:
        return [bits_name(bits) for bits in legal]
    weights = [bits.weight_bits for bits in legal]
    activations = [bits.activation_bits for bits in legal]
    return [f"W{min(weights)}-{max(weights)}", f"A{min(activations)}-{max(activations)}"]


def _head(profile: HardwareProfile) -> Iterator[str]:
    yield f"{profile.name}: {profile.summary}"
    yield f"hash {profile.profile_hash}"
    yield ""
    yield _line("device", profile.device)
    yield _line("runtime", f"{profile.runtime} {profile.runtime_version}")
    yield _line("power mode", profile.power_mode)
    if profile.power_modes is not None:
        for name, mode in profile.power_modes.by_name.items():
            yield _line("", f"{profile.name}@{name}: {mode.summary}")
    if profile.aliases:
        yield _line("aliases", ", ".join(profile.aliases))
    yield _line("evidence", profile.evidence)
    yield _line("channels", f"in multiples of {profile.channel_granularity}")
    if profile.memory.on_chip_mb is not None:
        yield _line(
            "weights",
            f"past {profile.memory.on_chip_mb:g} MB they travel for every inference, "
            f"at {profile.memory.off_chip_gb_per_s:g} GB/s",
        )
    if profile.energy is None:
        yield _line("energy", "none: there is no evidence, so energy budgets are refused")
    else:
        yield _line(
            "energy",
            f"boundary: {profile.energy.boundary}; baseline {profile.energy.baseline_w:g} W",
        )


def _bits(profile: HardwareProfile) -> Iterator[str]:
    yield "bits that are offered, by kind of kernel"
    for kind in KernelKind:
        legal = ", ".join(short_bits(profile, kind)) or "none"
        other = _not_offered(profile, kind)
        yield _line(kind.value, legal + (f"; {other}" if other else ""))


def _not_offered(profile: HardwareProfile, kind: KernelKind) -> str:
    """What is priced as other bits: "int8 runs as fp16, 1.1 times slower"."""
    found = []
    for bits, rate in profile.kernels.by_kind[kind].items():
        if rate.runs_as is not None:
            slower = "" if rate.slowdown == 1 else f", {rate.slowdown:g} times slower"
            found.append(f"{bits_name(bits)} is priced as {bits_name(rate.runs_as)}{slower}")
    return ", ".join(found)


def _errors(profile: HardwareProfile) -> Iterator[str]:
    fit = profile.fit
    if fit is None:
        latency, energy = profile.interval.latency_sigma_log, profile.interval.energy_sigma_log
        yield "nothing was measured for this profile: its rates are all there is"
        yield _line("latency", f"within a factor of {math.exp(latency):.2g} (one sigma)")
        if profile.energy is not None:
            yield _line("energy", f"within a factor of {math.exp(energy):.2g} (one sigma)")
        return
    yield "networks that the fit had not seen (cross-validation)"
    yield _line("", "nets   mean error   root of mean square   rank correlation   in 90 % interval")
    for name, model in _models(fit):
        checked = model.cross_validation
        yield _line(
            name,
            f"{checked.networks:<7d}{checked.mape_percent:6.1f} %{checked.rmspe_percent:19.1f} %"
            f"{checked.spearman:20.3f}{checked.coverage_percent:17.0f} %",
        )
    for split in dict.fromkeys(model.cross_validation.split for _, model in _models(fit)):
        yield _line("left out", split)
    if fit.noise_floor_percent is not None:
        text = f"two measurements of one network lie {fit.noise_floor_percent:g} % apart (median)"
        yield _line("noise floor", text)


def _factors(fit: Fit) -> Iterator[str]:
    yield "largest learned factors on the rates, with one sigma (the whole: --yaml)"
    for name, model in _models(fit):
        for effect, (best, *samples) in _largest(model):
            sigma = math.sqrt(sum((one - best) ** 2 for one in samples) / len(samples))
            yield _line(
                name, f"{effect:28s} x {math.exp(best):5.2f}  +- {100 * math.expm1(sigma):.0f} %"
            )
            name = ""


def _largest(model: FittedModel) -> list[tuple[str, tuple[float, ...]]]:
    effects = sorted(
        model.coefficients.effects.items(), key=lambda item: (-abs(item[1][0]), item[0])
    )
    return effects[:_FACTORS]


def _models(fit: Fit) -> list[tuple[str, FittedModel]]:
    models = [("latency", fit.latency), ("energy", fit.energy)]
    return [(name, model) for name, model in models if model is not None]


def _provenance(profile: HardwareProfile) -> Iterator[str]:
    yield "where the numbers come from"
    groups: dict[str, Provenance] = {
        "compute": profile.compute.provenance,
        "memory": profile.memory.provenance,
        "kernels": profile.kernels.provenance,
    }
    if profile.energy is not None:
        groups["energy"] = profile.energy.provenance
    groups["interval"] = profile.interval.provenance
    if profile.power_modes is not None:
        groups["power modes"] = profile.power_modes.provenance
    if profile.fit is not None:
        groups |= {f"fit of {name}": model.provenance for name, model in _models(profile.fit)}
    said: dict[str, str] = {}
    for name, one in groups.items():
        text = f"{one.source}, {one.date}: {one.reference}"
        yield _line(name, f"as {said[text]}" if text in said else text)
        said.setdefault(text, name)


def _line(label: str, text: str) -> str:
    """A label with its text, which goes on below itself where it is long."""
    indent = " " * _LABEL
    if len(text) <= _WIDTH - _LABEL:
        return f"{label:{_LABEL}s}{text}".rstrip()
    return textwrap.fill(
        text, _WIDTH, initial_indent=f"{label:{_LABEL}s}", subsequent_indent=indent,
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip
