"""Backbones compete for the time of base training, and whoever is left gets its base network.

All are trained for the same time, which doubles from round to round (successive halving). After a
round those stop that can no longer join the front at any of their costs, however much they may
still learn; the others go on from where they are, and share what those leave. A backbone is never
stopped for a slow start alone: of what it gained with the last doubling of its time, three quarters
are granted for the next one and so on, but half to its rivals.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from hwsearch.accuracy.base_training import WHOLE_SHARE
from hwsearch.accuracy.base_weights import RECIPE_VERSION, read_base, start_identity
from hwsearch.accuracy.training import UNLIMITED_STEPS, Recipe, Score
from hwsearch.cache import CacheEntry, content_key
from hwsearch.nets.backbone import BackboneRef
from hwsearch.space.candidate import STAGES, canonical_json
from hwsearch.space.knobs import Knobs
from hwsearch.study.candidates.pricing_context import PricingContext
from hwsearch.study.candidates.training_context import Base, TrainingContext
from hwsearch.study.clock import Clock
from hwsearch.study.executor.base import Executor, event_value
from hwsearch.study.jobs.base import Finish, TrainBase, Trained, TrainOn

#: Of the time that a backbone would get if all stayed, what it gets in the first round.
_FIRST_SHARE: Final = 0.1
#: What pruning is expected to cost of the accuracy above guessing, by the ratio in each stage.
#: After 100 s on CIFAR-10 test_resnet had lost 6 and 11 % with half and three quarters of its
#: channels gone, test_efficientnet 9 and 13 %.
_RATIOS, _LOST = (0.0, 0.5, 0.75), (0.0, 0.08, 0.12)
#: What a doubling of the time gains is so much of what the one before did, for a backbone that is
#: hoped for and for its rivals. From 28 s on CIFAR-10 resnet10t, at 54.7 %, hopes for 69.6 % after
#: 155 s and then had 68.1 %; test_efficientnet, at 60.0 %, for 67.2 % and had 66.1 %; test_resnet,
#: at 65.5 %, is taken to reach 70.2 % and had 69.5 % (a plain script's, annealed).
_HOPED, _SURE = 0.75, 0.5
#: Standard errors of a score that are allowed for on either side. Not more: a backbone that stays
#: in vain takes from the others about what a doubling of their time gains, 2 to 4 points.
_ERRORS: Final = 0.25
#: A gain is the difference of two.
_LEAST_SCORES: Final = 2
#: A step that teaches narrow networks costs about as much as so many of the whole one.
_ELASTIC_STEPS: Final = 2.0
#: A stored outcome serves a time limit that allows at most so much more.
_SERVES: Final = 1.1


@dataclass(frozen=True, kw_only=True)
class Level:
    """A form of a backbone in which it might be on the front.

    Attributes:
        costs: predicted, all going down.
        lost: share of the accuracy above guessing that it is expected to lose in it.
    """

    costs: tuple[float, ...]
    lost: float


@dataclass(kw_only=True)
class Contender:
    """A backbone that competes.

    Attributes:
        step_effort: of a step of the whole network, in MACs; for runs that no clock ends.
        job: number of its training.
        spent: on training so far, in seconds of one slot under a time limit, else in effort.
        scores: (``spent``, score) after each round.
        stopped: why it competes no longer.
    """

    ref: BackboneRef
    px: int
    levels: tuple[Level, ...]
    step_effort: float
    job: int
    spent: float = 0.0
    scores: list[tuple[float, Score]] = field(default_factory=list)
    stopped: str | None = None


#: Base networks by backbone and the input size at which they are trained.
Bases = Mapping[tuple[BackboneRef, int], Base]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What base training led to.

    Attributes:
        bases: those that are searched.
        stopped: why the other backbones are not searched, by name.
    """

    bases: Bases
    stopped: Mapping[str, str]


def prepare_bases(
    pricing: PricingContext,
    training: TrainingContext,
    executor: Executor,
    clock: Clock,
    seconds: float | None,
    *,
    chosen: Mapping[str, str] | None = None,
) -> Outcome:
    """Train the base networks of a run, or read what an earlier run trained for as long.

    Args:
        pricing: of the run; its space has the backbones.
        training: of the run.
        executor: runs the trainings.
        clock: of the run.
        seconds: for all of it; None where the effort of the settings decides.
        chosen: keys by name (``base_names``) of the networks that this run took before it was
            interrupted; it goes on with them and no others.

    Raises:
        BackboneError: a network cannot be built or trained, or weights do not fit.
        HostError: weights cannot be had, or the cache cannot be written.
    """
    entrants, over = _entrants(pricing, chosen)
    slots = min(executor.slots, len(entrants))
    total = (
        _total_effort([one.step_effort for one in entrants], training.base_recipe)
        if seconds is None
        else seconds * slots
    )
    known = _Known(pricing, training, entrants)
    if chosen is None:
        found = known.read(total if seconds is not None else None)
    else:
        found = _read(training, entrants, chosen)
    if found is not None:
        return replace(found, stopped={**over, **found.stopped})
    contenders = [
        Contender(
            ref=one.ref,
            px=one.px,
            levels=one.levels,
            step_effort=one.step_effort,
            job=executor.start(
                TrainBase(ref=one.ref, px=one.px, key=known.base_key(one.ref, one.px, total))
            ),
        )
        for one in entrants
    ]
    _values(executor, len(contenders))
    trainer = _Trainer(executor, clock, total, seconds, clock.spent_s)
    if chosen is None:
        _compete(contenders, total, 1 / training.data.classes, trainer)
    bases = trainer.finish(contenders)
    names = {ref.name for ref, _ in bases}
    stopped = {
        one.ref.name: one.stopped
        for one in contenders
        if one.stopped is not None and one.ref.name not in names
    }
    outcome = Outcome(bases=bases, stopped=stopped)
    if chosen is None:
        known.keep(outcome, total, timed=seconds is not None)
    return replace(outcome, stopped={**over, **stopped})


def base_name(ref: BackboneRef, px: int) -> str:
    """A name of a base network that is unique in a space."""
    return f"{ref.name} {ref.arguments} {px}"


def base_names(outcome: Outcome) -> dict[str, str]:
    """The key of each base network in the cache, by its name."""
    return {base_name(ref, px): base.key for (ref, px), base in outcome.bases.items()}


def cannot_join(
    contender: Contender, rivals: Sequence[Contender], end: float, guessing: float
) -> str | None:
    """Why a backbone cannot be on the front at any of its costs; None if it may.

    Args:
        contender: with at least two scores.
        rivals: that still compete, with as many.
        end: what would be spent on each in the end, in the unit of ``spent``; the rivals would get
            what this one leaves.
        guessing: accuracy of it.

    Returns:
        One clause for the user.
    """
    margin = _ERRORS * contender.scores[-1][1].standard_error
    whole = _forecast(contender, end, _HOPED) + margin
    freed = end if not rivals else end + (end - contender.spent) / len(rivals)
    beaten_by = []
    for level in contender.levels:
        hope = guessing + (1 - level.lost) * (whole - guessing)
        better = next(
            (rival for rival in rivals if _reached(rival, level.costs, freed, guessing) >= hope),
            None,
        )
        if better is None:
            return None
        beaten_by.append(better)
    names = " and ".join(dict.fromkeys(rival.ref.name for rival in beaten_by))
    return (
        f"{100 * contender.scores[-1][1].accuracy:.1f} % on validation pictures after equal "
        f"training; at lower cost, {names} will stay ahead whatever it may still gain"
    )


def _reached(rival: Contender, costs: tuple[float, ...], end: float, guessing: float) -> float:
    """The accuracy that a rival is sure to have at these costs; 0 if it costs more."""
    sure = _forecast(rival, end, _SURE) - _ERRORS * rival.scores[-1][1].standard_error
    return max(
        (
            guessing + (1 - level.lost) * (sure - guessing)
            for level in rival.levels
            if all(a <= b for a, b in zip(level.costs, costs, strict=True))
        ),
        default=0.0,
    )


def _forecast(contender: Contender, end: float, ratio: float) -> float:
    """Accuracy in the end if each doubling of the time gains so much of what the last one did."""
    gains = [
        max(0.0, score.accuracy - lower.accuracy) / math.log2(now / before)
        for (before, lower), (now, score) in itertools.pairwise(contender.scores[-3:])
    ]
    # The last one counts twice: a single difference of two scores is noisy.
    gain = (gains[0] + 2 * gains[-1]) / 3
    now, score = contender.scores[-1]
    doublings = max(0.0, math.log2(end / now))
    # The sum of ratio + ratio**2 + ... over a number of doublings that need not be whole.
    return score.accuracy + gain * ratio * (1 - float(ratio**doublings)) / (1 - ratio)


def _compete(
    contenders: Sequence[Contender], total: float, guessing: float, trainer: "_Trainer"
) -> None:
    """Train all for the same time, in rounds, until one is left or it is time to anneal."""
    round_effort = _FIRST_SHARE * total / len(contenders)
    while True:
        alive = [one for one in contenders if one.stopped is None]
        end = trainer.most_for_one(contenders)
        if len(alive) == 1 or round_effort > WHOLE_SHARE * end:
            return
        # A single step of some may have taken longer than this round.
        trainer.train_whole([one for one in alive if one.spent < round_effort], round_effort)
        # The least accurate first: whoever beats it is still there.
        known = [one for one in alive if len(one.scores) >= _LEAST_SCORES]
        for one in sorted(known, key=lambda other: other.scores[-1][1].accuracy):
            rivals = [other for other in known if other is not one and other.stopped is None]
            one.stopped = cannot_join(one, rivals, end, guessing)
            if one.stopped is not None:
                trainer.executor.end(one.job)
        round_effort *= 2


@dataclass(frozen=True)
class _Trainer:
    """Trains contenders by the clock, or by steps whose effort is known.

    With one slot they take turns. With more they train side by side and share the cores, so that
    all are finished together, whatever their number.

    Attributes:
        total: seconds of all slots together under a time limit, else effort.
        limit_s: seconds after which all must be finished; None where steps decide.
        begin_s: ``Clock.spent_s`` at the beginning.
    """

    executor: Executor
    clock: Clock
    total: float
    limit_s: float | None
    begin_s: float

    def most_for_one(self, contenders: Sequence[Contender]) -> float:
        """What is spent on each in the end, if all that are left stay."""
        alive = sum(one.stopped is None for one in contenders)
        sunk = sum(one.spent for one in contenders if one.stopped is not None)
        share = (self.total - sunk) / alive
        # No process is faster than the clock, however many slots are free.
        return share if self.limit_s is None else min(share, self.limit_s)

    def train_whole(self, contenders: Sequence[Contender], until: float) -> None:
        """Train each on until so much was spent on it, and score it."""
        for batch in self._batches(contenders):
            for one in batch:
                command = self._amount(one, until - one.spent, 1.0, beside=len(batch))
                self.executor.answer(one.job, command, beside=len(batch))
            values = _values(self.executor, len(batch))
            for one in batch:
                told: Trained = values[one.job]
                if self.limit_s is None:
                    one.spent = until
                else:
                    one.spent += told.seconds / self._slowed(len(batch))
                one.scores.append((one.spent, told.score))

    def finish(self, contenders: Sequence[Contender]) -> dict[tuple[BackboneRef, int], Base]:
        """Train those that are left for their shares, anneal and keep them."""
        alive = [one for one in contenders if one.stopped is None]
        bases: dict[tuple[BackboneRef, int], Base] = {}
        batches = self._batches(alive)
        for at, batch in enumerate(batches):
            left = self._left(contenders, len(batches) - at, len(batch))
            for one in batch:
                until = one.spent + left
                whole = max(0.0, WHOLE_SHARE * until - one.spent)
                command = Finish(
                    whole=self._amount(one, whole, 1.0, beside=len(batch)) if whole else None,
                    anneal=self._amount(one, left - whole, _ELASTIC_STEPS, beside=len(batch)),
                )
                self.executor.answer(one.job, command, beside=len(batch))
                one.spent = until
            values = _values(self.executor, len(batch))
            bases |= {(one.ref, one.px): values[one.job] for one in batch}
        return bases

    def _batches(self, contenders: Sequence[Contender]) -> list[Sequence[Contender]]:
        if self.executor.slots > 1:
            return [contenders] if contenders else []
        return [[one] for one in contenders]

    def _left(self, contenders: Sequence[Contender], batches: int, size: int) -> float:
        """What is left for each of the next batch; the clock counts all that took time."""
        if self.limit_s is not None:
            left_s = self.begin_s + self.limit_s - self.clock.spent_s
            return max(0.0, left_s) / batches / self._slowed(size)
        spent = sum(one.spent for one in contenders)
        return (self.total - spent) / (batches * size)

    def _slowed(self, beside: int) -> float:
        """How much longer each takes where so many share the slots."""
        return max(1.0, beside / self.executor.slots)

    def _amount(self, one: Contender, amount: float, factor: float, *, beside: int) -> TrainOn:
        if self.limit_s is not None:
            seconds = max(0.0, amount) * self._slowed(beside)
            return TrainOn(steps=UNLIMITED_STEPS, seconds=seconds)
        return TrainOn(steps=max(1, round(amount / (factor * one.step_effort))), seconds=None)


def _values(executor: Executor, count: int) -> dict[int, Any]:
    """What so many jobs say when all of them have paused or ended, by their numbers."""
    values: dict[int, Any] = {}
    while len(values) < count:
        event = executor.wait()
        values[event.job] = event_value(event)
    return values


@dataclass(frozen=True, kw_only=True)
class _Entrant:
    """A base network that a run may need, with the forms in which it may be on the front."""

    ref: BackboneRef
    px: int
    levels: tuple[Level, ...]
    step_effort: float


def _entrants(
    pricing: PricingContext, chosen: Mapping[str, str] | None
) -> tuple[list[_Entrant], dict[str, str]]:
    """Whose smallest network meets the budgets, or who was chosen before; why the others do not."""
    found: dict[tuple[BackboneRef, int], _Entrant] = {}
    over: dict[str, str] = {}
    for knobs in pricing.backbones.variants():
        ref, px = pricing.backbones.base_of(knobs)
        levels = _levels(pricing, knobs)
        if chosen is not None and base_name(ref, px) not in chosen:
            over[ref.name] = "it was left out before"
        elif chosen is None and not levels:
            over[ref.name] = "even its smallest network is predicted over the budget"
        elif (ref, px) in found:  # another input size of the same base network
            first = found[ref, px]
            found[ref, px] = replace(first, levels=(*first.levels, *levels))
        else:
            found[ref, px] = _Entrant(
                ref=ref, px=px, levels=levels, step_effort=pricing.step_effort(knobs)
            )
    names = {ref.name for ref, _ in found}
    return list(found.values()), {name: why for name, why in over.items() if name not in names}


def _levels(pricing: PricingContext, knobs: Knobs) -> tuple[Level, ...]:
    """The forms of a backbone that the budgets admit."""
    levels = []
    for ratio in pricing.settings.space.pruning.ratios:
        for saving in (0.0, 1.0):
            cost = pricing.plain_cost(replace(knobs, prune=(ratio,) * len(STAGES), saving=saving))
            if pricing.admit(cost).admitted:
                lost = float(np.interp(ratio, _RATIOS, _LOST))
                levels.append(Level(costs=pricing.values(cost), lost=lost))
    return tuple(dict.fromkeys(levels))


def _total_effort(step_efforts: Sequence[float], recipe: Recipe) -> float:
    """What the effort of the settings allows: a whole training for two backbones of mean size."""
    mean = sum(step_efforts) / len(step_efforts)
    return min(2, len(step_efforts)) * recipe.steps * mean


# -- what earlier runs trained --------------------------------------------------------------------


def _read(
    training: TrainingContext, entrants: Sequence[_Entrant], keys: Mapping[str, str]
) -> Outcome | None:
    """The kept base networks; None if one of them is gone."""
    bases = {}
    for one in entrants:
        name = base_name(one.ref, one.px)
        if name in keys:
            network = read_base(keys[name], one.ref, one.px, training.base_recipe.seed)
            if network is None:
                return None
            base = bases[one.ref, one.px] = Base.of(network, one.ref, one.px)
            training.keep(network, base)
    return Outcome(bases=bases, stopped={}) if bases else None


class _Known:
    """The outcome of a competition in the cache."""

    def __init__(
        self, pricing: PricingContext, training: TrainingContext, entrants: Sequence[_Entrant]
    ) -> None:
        import timm
        import torch

        self._training, self._entrants = training, entrants
        settings = pricing.settings
        parts = {
            "entrants": [[one.ref.identity(), one.px] for one in entrants],
            "weights": [
                start_identity(one.ref, training.weights_of(one.ref), download=settings.download)
                for one in entrants
            ],
            "data": training.data.content_hash,
            "augmentation": dataclasses.asdict(training.data.augmentation),
            "recipe": dataclasses.asdict(training.base_recipe),
            "widths": dataclasses.asdict(training.widths),
            "budgets": list(settings.budget_texts),
            "target": pricing.profile.profile_hash,
            "torch": str(torch.__version__),
            "timm": timm.__version__,
            "version": RECIPE_VERSION,
        }
        self._parts = canonical_json(parts)

    def base_key(self, ref: BackboneRef, px: int, total: float) -> str:
        """The key under which a base network of this competition is kept."""
        parts = [self._parts, ref.identity(), px, f"{total:.6g}"]
        return content_key(parts)

    def read(self, total_s: float | None) -> Outcome | None:
        """The stored outcome, if it was trained for about as long; None if there is none.

        Args:
            total_s: seconds of all slots together; None where the effort decides.
        """
        stored = self._entry(timed=total_s is not None).read()
        if stored is None or (total_s is not None and total_s > _SERVES * stored["total"]):
            return None
        found = _read(self._training, self._entrants, stored["bases"])
        return None if found is None else replace(found, stopped=stored["stopped"])

    def keep(self, outcome: Outcome, total: float, *, timed: bool) -> None:
        """Store an outcome whose base networks are kept."""
        content = {
            "total": total,
            "bases": base_names(outcome),
            "stopped": dict(outcome.stopped),
        }
        entry = self._entry(timed=timed)
        with entry.locked():
            entry.write(canonical_json(content).encode())

    def _entry(self, *, timed: bool) -> CacheEntry[dict[str, Any]]:
        return CacheEntry(
            kind="competition",
            key=content_key(["seconds" if timed else "steps", self._parts]),
            decode=json.loads,
            named="networks",
            remade="base networks are trained again",
        )
