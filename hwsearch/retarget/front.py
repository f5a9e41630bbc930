"""The front of a run at the costs of another target: the same networks and accuracies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hwsearch.hardware.profile import HardwareProfile
from hwsearch.report.stored import FrontFile
from hwsearch.retarget.pricing import Priced
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.finals.evidence import (
    Evidence,
    EvidenceFile,
    FileState,
    StoredNetwork,
)
from hwsearch.study.finals.front import build_front
from hwsearch.study.written.output import profile_entry

#: More trials than this are counted in a note, not listed.
_MOST_LISTED: Final = 6


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A network that was trained to the end, and what it costs on the target.

    Attributes:
        file: of the run.
    """

    network: StoredNetwork
    file: FileState
    priced: Priced

    def evidence(self) -> Evidence | None:
        """What is known of it on the target; None where it has no cost there.

        The accuracy is that of the file of the run. The file itself, and what it was timed at, are
        for another target.
        """
        if self.priced.cost is None:
            return None
        verified = self.file.verified
        if verified is not None:
            verified = verified.model_copy(update={"latency_ms": None})
        return Evidence(
            network=self.network,
            predicted=self.priced.cost,
            file=FileState(verified=verified, refused=self.file.refused),
        )


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a run is priced again for.

    Attributes:
        settings: of the run, with the other target and its budgets.
        searched_for: name of the profile that the run was made for.
        same: whether that is the very profile.
    """

    settings: RunSettings
    profile: HardwareProfile
    searched_for: str
    same: bool


def repriced_front(
    searched: EvidenceFile, scored: Sequence[Scored], asked: Asked, more_notes: Sequence[str]
) -> FrontFile:
    """Front, baselines and pick under the budgets; accuracies are those of the run.

    Args:
        searched: of the run.
        scored: models and baselines, in its order.
        asked: target and budgets.
        more_notes: what else the user should know.
    """
    known = [(one, found) for one in scored if (found := one.evidence()) is not None]
    about = searched.model_copy(
        update={
            "target": asked.settings.target,
            "alias": asked.settings.alias,
            "profile": profile_entry(asked.profile),
            "notes": (*_origin_notes(asked), *_left_out(scored), *more_notes),
        }
    )
    evidence = [found for _, found in known]
    front = build_front(evidence, about, asked.settings).file
    members = {model.trial for model in front.front}
    fit = _fit_notes([one for one, _ in known if one.network.trial in members], asked)
    return front.model_copy(update={"notes": (*front.notes, *fit)})


# -- what the user should know -------------------------------------------------------------------


def _origin_notes(asked: Asked) -> list[str]:
    name = asked.profile.name
    if asked.same:
        return [f"these are the predicted costs of the run, made for {name}"]
    budgets = " ".join(f"--budget {text}" for text in asked.settings.budget_texts)
    return [
        f"nothing was searched for {name}: networks and accuracies are those of a run for "
        f"{asked.searched_for}, and only their costs are predicted anew; better ones may be found "
        f"with: hwsearch run --target {name} {budgets}"
    ]


def _left_out(scored: Sequence[Scored]) -> list[str]:
    """Why fully trained networks have no cost on the target, and how many of them."""
    names: dict[tuple[str, str], list[str]] = {}
    for one in scored:
        if one.priced.refusal is not None:
            kind = "baseline" if one.network.trial is None else "trial"
            key = (kind, one.priced.refusal)
            names.setdefault(key, []).append(_short_name(one.network))
    texts = []
    for (kind, refusal), listed in names.items():
        others = " and others" if len(listed) > _MOST_LISTED else ""
        which = ", ".join(listed[:_MOST_LISTED]) + others
        plural = "" if len(listed) == 1 else "s"
        texts.append(f"{len(listed)} {kind}{plural} left out ({which}): {refusal}")
    return texts


def _short_name(network: StoredNetwork) -> str:
    return network.label.removeprefix("trial ")


def _fit_notes(offered: Sequence[Scored], asked: Asked) -> list[str]:
    """Where channels or bits suit the device of the run, not this one."""
    name, block = asked.profile.name, asked.profile.channel_granularity
    bits = [one for one in offered if one.priced.odd_layers]
    channels = [one for one in offered if one.priced.odd_groups]
    texts = []
    if bits:
        listed = ", ".join(
            f"{_short_name(one.network)} ({one.priced.odd_layers} layers)" for one in bits
        )
        texts.append(
            f"bits were chosen by what they save on {asked.searched_for}; {name} gains nothing "
            f"from those of trial {listed}"
        )
    if channels:
        listed = ", ".join(
            f"{_short_name(one.network)} ({one.priced.odd_groups} of {one.priced.groups})"
            for one in channels
        )
        texts.append(
            f"pruned channels were rounded for {asked.searched_for}; {name} computes in blocks of "
            f"{block}, which these groups of trial {listed} do not fill"
        )
    return texts
