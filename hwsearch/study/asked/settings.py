"""What a run was asked to do, in a form that is stored, compared and resumed."""

import hashlib
import re
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hwsearch.space.candidate import canonical_json
from hwsearch.space.search_space import SearchSpace
from hwsearch.study.asked.effort import LENGTHS, Effort, Lengths
from hwsearch.units import Budget, Quantity, parse_budgets

#: What proposes knobs; see ``hwsearch.study.written.storage``.
SamplerName = Literal["known-cost", "tpe"]


class RunSettings(BaseModel):
    """Everything that decides what a run computes, and nothing else.

    Attributes:
        target: name of the profile, or the path of one.
        alias: what the user typed, where that was an alias.
        budget_texts: as the user wrote them.
        confidence: at which the budgets must hold.
        objectives: costs that the search brings down, beside those with a budget.
        trials: number of trials, None for as many as the time limit or the effort allows.
        time_limit_s: for the whole run; None for no limit.
        effort: how long networks are trained where no time limit decides.
        weights: where base weights start.
        sampler: what proposes the knobs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str
    alias: str | None = None
    budget_texts: tuple[str, ...]
    confidence: float = Field(default=0.9, gt=0.0, lt=1.0)
    objectives: tuple[Quantity, ...] = ()
    data: str = "digits"
    data_root: str | None = None
    flip: bool | None = None
    space: SearchSpace
    trials: int | None = Field(default=None, ge=1)
    time_limit_s: float | None = Field(default=None, gt=0)
    effort: Effort = "standard"
    seed: int = 0
    weights: Literal["auto", "pretrained", "scratch"] = "auto"
    sampler: SamplerName = "known-cost"
    download: bool = False

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The budgets, read."""
        return parse_budgets(self.budget_texts)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What the search brings down: the objectives, and whatever else has a budget."""
        asked = (budget.quantity for budget in self.budgets)
        return tuple(dict.fromkeys([*self.objectives, *asked]))

    @property
    def trial_count(self) -> int | None:
        """How many trials end the search; None when only time does."""
        if self.trials is None and self.time_limit_s is None:
            return max(1, round(self.lengths.trials * self.space.trials))
        return self.trials

    @property
    def lengths(self) -> Lengths:
        """How long networks are trained where no time limit decides."""
        return LENGTHS[self.effort]

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``run.json``."""
        return self.model_dump(mode="json")

    def fingerprint(self, *, profile_hash: str, data_hash: str) -> str:
        """SHA-256 over what must be equal for a run to be resumed.

        How long it may go on (trials, time limit) may change, and a download once allowed makes no
        difference afterwards.
        """
        parts = self.to_json()
        for name in ("trials", "time_limit_s", "download"):
            del parts[name]
        parts |= {"profile_hash": profile_hash, "data_hash": data_hash}
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()

    def folder_name(self, now: datetime) -> str:
        """``<date>_<target>_<budget>_seed<n>``, free of characters that a shell would read."""
        target = Path(self.target).stem if self.target.endswith((".yaml", ".yml")) else self.target
        budget = "_".join(self.budget_texts)
        name = f"{now:%Y-%m-%d_%H%M%S}_{target}_{budget}_seed{self.seed}"
        return re.sub(r"[^A-Za-z0-9._@-]+", "-", name)


def derived_seed(*parts: object) -> int:
    """A seed of 31 bits from a run's seed and what it is for; equal parts give equal seeds."""
    text = canonical_json([str(part) for part in parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF
