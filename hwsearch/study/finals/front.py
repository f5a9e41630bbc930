"""The front: which networks no other beats, which of them to pick, and what to say about it.

``build_front`` is the one way from evidence to ``front.json``, whoever gathered the evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hwsearch.hardware.cost import Cost
from hwsearch.report.stored import (
    BaselineEntry,
    ClosestEntry,
    FrontFile,
    ModelEntry,
    VerifiedEntry,
)
from hwsearch.study.asked.admission import Admission, admission
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.finals import front_notes
from hwsearch.study.finals.dominance import never_worse
from hwsearch.study.finals.evidence import Evidence, EvidenceFile
from hwsearch.study.finals.pick import choose
from hwsearch.study.written.output import budget_entries, entry


@dataclass(frozen=True, kw_only=True)
class Front:
    """What a user is given to choose from.

    Attributes:
        file: ``front.json``.
        rejected: trials that are not on the front, each with the reason.
    """

    file: FrontFile
    rejected: tuple[tuple[int, str], ...]


def build_front(
    evidence: Sequence[Evidence],
    about: EvidenceFile,
    settings: RunSettings,
) -> Front:
    """Decide which networks are on the front and which is the pick, and say why.

    The accuracy of a network is that of its file. Its latency is the measured one where it was
    timed on the target. Unless everything was, predictions decide between networks, since a
    measured latency says nothing against a predicted one.

    Args:
        evidence: trials and baselines.
        about: target, data and notes; its ``networks`` are not looked at.
        settings: budgets, confidence and objectives.
    """
    rated = [_Rated.of(one, settings) for one in evidence]
    trials = [one for one in rated if one.evidence.network.trial is not None]
    baselines = [one for one in rated if one.evidence.network.trial is None and one.scored]
    left: dict[int, _Rated] = {}
    rejected: list[tuple[int, str]] = []
    for one in trials:
        reason = one.refusal(settings)
        if reason is None:
            left[one.trial] = one
        else:
            rejected.append((one.trial, reason))

    mixed = len({one.cost.latency_ms.source for one in (*left.values(), *baselines)}) > 1
    kept, beaten = never_worse(
        [one.model(mixed) for one in left.values()],
        [one.baseline(mixed) for one in baselines],
        settings.quantities,
    )
    rejected += [(model.trial, reason) for model, reason in beaten]

    members = [left[model.trial] for model in kept]
    front = sorted(
        (one.model() for one in members), key=lambda model: (model.latency_ms.value, model.trial)
    )
    base = [one.baseline() for one in baselines]
    fitting = [one.admission.admitted for one in baselines]
    choice = choose(front, base, fitting, settings.budgets, settings.quantities)
    nothing = bool(trials) and choice.picked is None and choice.baseline is None
    notes = [
        *about.notes,
        *front_notes.loose_budgets(
            None if choice.picked is None else left[choice.picked.trial].cost, settings
        ),
        *choice.notes,
        *front_notes.pruned_but_slower(front, base),
        *front_notes.unusable_baselines([one.evidence for one in rated]),
        *front_notes.other_precision(
            [one.evidence for one in (*members, *baselines)], about.profile.runtime
        ),
        *front_notes.mixed_sources(mixed),
        *front_notes.extrapolated([one.evidence for one in members], about.profile.name),
        *front_notes.not_on_the_front(rejected),
    ]
    file = FrontFile(
        schema_version=1,
        target=about.target,
        alias=about.alias,
        profile=about.profile,
        budgets=budget_entries(settings),
        data=about.data,
        baselines=tuple(base),
        pick=None if choice.picked is None else choice.picked.trial,
        pick_reason=choice.reason,
        proxy_kendall_tau=about.proxy_kendall_tau,
        proxy_kendall_tau_ci90=about.proxy_kendall_tau_ci90,
        notes=tuple(notes),
        front=tuple(front),
        closest=_closest(trials) if nothing else about.closest,
        minimum_reachable=about.minimum_reachable,
        baseline_pick=choice.baseline,
    )
    return Front(file=file, rejected=tuple(rejected))


@dataclass(frozen=True, kw_only=True)
class _Rated:
    """Evidence at what it costs, held against the budgets."""

    evidence: Evidence
    cost: Cost
    admission: Admission

    @classmethod
    def of(cls, evidence: Evidence, settings: RunSettings) -> "_Rated":
        cost = evidence.cost
        admitted = admission(cost, settings.budgets, settings.confidence)
        return cls(evidence=evidence, cost=cost, admission=admitted)

    @property
    def trial(self) -> int:
        """Its number; it is no baseline."""
        assert self.evidence.network.trial is not None
        return self.evidence.network.trial

    @property
    def scored(self) -> bool:
        return self.evidence.score is not None

    def refusal(self, settings: RunSettings) -> str | None:
        """Why the network cannot be on any front; None where it can."""
        if self.evidence.refusal is not None:
            return self.evidence.refusal
        if self.admission.admitted:
            return None
        return front_notes.missed_budgets(self.cost, self.admission, settings)

    def model(self, by_prediction: bool = False) -> ModelEntry:
        """The entry of a trial; at its predicted latency where that is asked for."""
        return ModelEntry(**self._fields(by_prediction))

    def baseline(self, by_prediction: bool = False) -> BaselineEntry:
        """The same of a baseline."""
        return BaselineEntry(name=self.evidence.network.name, **self._fields(by_prediction))

    def _fields(self, by_prediction: bool = False) -> dict[str, Any]:
        one, cost = self.evidence, self.evidence.predicted if by_prediction else self.cost
        fields = entry(
            one.network.to_candidate(), cost, self.admission, one.score,
            trial=one.network.trial, layers=one.layers,
        )  # fmt: skip
        return fields | {"artefact": one.file.artefact, "verified": _verified(one)}


def _verified(one: Evidence) -> VerifiedEntry | None:
    found = one.file.verified
    if found is None or found.accuracy is None or one.file.artefact is None:
        return None
    measured = found.latency_ms
    return VerifiedEntry(
        accuracy=found.accuracy,
        latency_ms=None if measured is None else measured.value,
        runtime=found.runtime,
        host=found.host if measured is None else measured.device,
    )


def _closest(trials: Sequence[_Rated]) -> ClosestEntry:
    nearest = min(trials, key=lambda one: one.admission.worst)
    return ClosestEntry(**nearest._fields())
