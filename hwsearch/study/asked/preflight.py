"""Checks that need neither torch nor data in memory, so that a mistake is answered at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from hwsearch.accuracy.data.sources import check_data
from hwsearch.errors import RunError
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.targets import load_profile, resolve
from hwsearch.space.search_space import SearchSpace, apply_settings, load_space
from hwsearch.study.asked.admission import check_energy
from hwsearch.study.asked.effort import Effort
from hwsearch.study.asked.settings import RunSettings, SamplerName
from hwsearch.units import Quantity, parse_budgets, parse_duration_s

Weights = Literal["auto", "pretrained", "scratch"]

#: Settings of ``--set`` that are not of the search space.
_OWN_SETTINGS: Final = ("weights", "data_root", "flip", "objectives", "sampler")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Settings that passed, with the profile that they name."""

    settings: RunSettings
    profile: HardwareProfile


def check(
    *,
    target: str,
    budgets: tuple[str, ...],
    data: str,
    space: str | Path,
    trials: int | None,
    time_limit: str | None,
    effort: Effort | None = None,
    confidence: float,
    seed: int,
    download: bool,
    settings: Mapping[str, str],
) -> Checked:
    """Read and check what was asked for; takes no torch, no data in memory, no folder.

    Raises:
        UserError: something given cannot be used.
    """
    parse_budgets(budgets)
    own = {key: text for key, text in settings.items() if key in _OWN_SETTINGS}
    of_space = {key: text for key, text in settings.items() if key not in own}
    if not 0 < confidence < 1:
        raise RunError(f"confidence {confidence:g} is not between 0 and 1; give one such as 0.9")
    if time_limit is not None and effort is not None:
        raise RunError(
            "--effort is for runs without a time limit, which decides how long networks are "
            "trained; give --effort or --time-limit"
        )
    if trials is not None and trials < 1:
        raise RunError(f"{trials} trials is too few; give at least 1")
    name, by_alias = resolve(target)
    made = RunSettings(
        target=target if target.endswith((".yaml", ".yml")) else name,
        alias=target if by_alias else None,
        budget_texts=budgets,
        confidence=confidence,
        objectives=_objectives(own.get("objectives")),
        data=data,
        data_root=own.get("data_root"),
        flip=_flag("flip", own.get("flip")),
        space=apply_settings(load_space(space), of_space),
        trials=trials,
        time_limit_s=None if time_limit is None else parse_duration_s(time_limit),
        effort=effort or "standard",
        seed=seed,
        weights=_weights(own.get("weights", "auto")),
        sampler=_sampler(own.get("sampler", "known-cost")),
        download=download,
    )
    return preflight(made)


def preflight(settings: RunSettings) -> Checked:
    """Check settings against the profile and what is on disk.

    Raises:
        UserError: a budget, target, bit-width, data set or weights file that cannot be used.
    """
    budgets = settings.budgets
    profile = load_profile(settings.target)
    check_energy(profile, budgets, settings.objectives)
    check_space_bits(settings.space, profile)
    root = None if settings.data_root is None else Path(settings.data_root)
    check_data(settings.data, root, download=settings.download)
    return Checked(settings=settings, profile=profile)


def check_space_bits(space: SearchSpace, profile: HardwareProfile) -> None:
    """Refuse widths that a space asks for by number and that the target does not offer.

    Raises:
        TargetError: naming what is legal.
    """
    if space.weight_bits == "target" and space.activation_bits == "target":
        return
    offered = {bits for kind in profile.kernels.by_kind for bits in profile.legal_bits(kind)}
    weights = space.weight_bits
    activations = space.activation_bits
    profile.check_bits(
        {bits.weight_bits for bits in offered} if weights == "target" else set(weights),
        {bits.activation_bits for bits in offered} if activations == "target" else set(activations),
    )


def _weights(text: str) -> Weights:
    for policy in get_args(Weights):
        if text == policy:
            return policy  # type: ignore[no-any-return]
    raise RunError(
        f"weights '{text}' is not auto, pretrained or scratch; a file goes into the space: "
        "weights: PATH of a backbone"
    )


def _sampler(text: str) -> SamplerName:
    for name in get_args(SamplerName):
        if text == name:
            return name  # type: ignore[no-any-return]
    raise RunError(f"sampler '{text}' is not {' or '.join(get_args(SamplerName))}")


def _objectives(text: str | None) -> tuple[Quantity, ...]:
    """Costs that are asked for beside those with a budget; none where nothing is given."""
    chosen: list[Quantity] = []
    if text is None:
        return ()
    for word in text.split(","):
        quantity = next((known for known in get_args(Quantity) if known == word.strip()), None)
        if quantity is None or quantity in chosen:
            raise RunError(
                f"objectives '{text}' are not a choice of latency, energy and size, each once; "
                "write objectives=latency,size"
            )
        chosen.append(quantity)
    return tuple(chosen)


def _flag(name: str, text: str | None) -> bool | None:
    if text is None:
        return None
    if text not in {"true", "false"}:
        raise RunError(f"{name}={text} is not true or false")
    return text == "true"
