"""What a stored candidate costs on a target, or why it has no cost there.

A run stores channels and bits, and a network's kernels follow from them and from its backbone. The
backbone is therefore traced again, on the meta device: no weights, no data, well under a second.
"""

from collections.abc import Collection
from dataclasses import dataclass

from hwsearch.bits import LayerBits
from hwsearch.errors import BackboneError
from hwsearch.hardware.cost import Cost
from hwsearch.hardware.kernels import WEIGHTED_KINDS, NetworkDesc
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile, bits_name
from hwsearch.space.candidate import Candidate
from hwsearch.study.candidates.backbones import Backbones


@dataclass(frozen=True, kw_only=True)
class Priced:
    """A candidate as a target runs it.

    Attributes:
        cost: None where the target does not run it.
        refusal: why not.
        odd_layers: layers whose bits the target gains nothing from.
        odd_groups: pruned groups of channels that are no multiple of the target's block.
        groups: pruned groups in all.
    """

    cost: Cost | None
    refusal: str | None = None
    odd_layers: int = 0
    odd_groups: int = 0
    groups: int = 0


def price(
    candidate: Candidate, macs: int, backbones: Backbones, predictor: CostPredictor
) -> Priced:
    """Price a candidate.

    Args:
        candidate: of a run.
        macs: what it had there, by which a backbone that has changed since is noticed.
        backbones: of the run.
        predictor: of the target.

    Raises:
        BackboneError: its backbone cannot be traced here, or is not the one of the run any more.
    """
    blueprint = backbones.blueprint(candidate)
    try:
        network = backbones.describe(candidate)
    except ValueError as error:  # other layers, other groups
        raise _changed(candidate) from error
    if network.macs != macs:
        raise _changed(candidate)
    profile = predictor.profile
    refused = _not_run(network, profile)
    if refused:
        return Priced(cost=None, refusal=_refusal_text(refused, profile))
    dense = {group.name: group.channels for group in blueprint.graph.groups}
    pruned = [kept for name, kept in candidate.channels if kept < dense[name]]
    return Priced(
        cost=predictor.predict(network),
        odd_layers=sum(k.bits not in profile.legal_bits(k.kind) for k in network.weighted),
        odd_groups=sum(kept % profile.channel_granularity > 0 for kept in pruned),
        groups=len(pruned),
    )


def _changed(candidate: Candidate) -> BackboneError:
    return BackboneError(
        f"'{candidate.backbone}' is another network than when the run was made; put it back as it "
        "was (the versions are in run.json), or start a new run"
    )


def _not_run(network: NetworkDesc, profile: HardwareProfile) -> list[LayerBits]:
    """Bits that the target has no kernels for, or runs in fewer: the accuracy would be another."""
    found = set()
    for kernel in network.kernels:
        rate = profile.kernels.by_kind[kernel.kind].get(kernel.bits)
        runs_as = None if rate is None else rate.runs_as or kernel.bits
        weighted = kernel.kind in WEIGHTED_KINDS
        if runs_as is None or (weighted and _narrower(runs_as, kernel.bits)):
            found.add(kernel.bits)
    return sorted(found, reverse=True)


def _narrower(one: LayerBits, other: LayerBits) -> bool:
    return one.weight_bits < other.weight_bits or one.activation_bits < other.activation_bits


def _refusal_text(bits: Collection[LayerBits], profile: HardwareProfile) -> str:
    return f"{profile.name} does not run {', '.join(bits_name(one) for one in bits)}"
