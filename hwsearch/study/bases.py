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
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from hwsearch.accuracy.base_training import WHOLE_SHARE, BaseTraining
from hwsearch.accuracy.base_weights import (
    RECIPE_VERSION,
    BaseNetwork,
    Source,
    begin_training,
    keep_base,
    read_base,
    start_identity,
)
from hwsearch.accuracy.training import UNLIMITED_STEPS, Recipe, Score
from hwsearch.cache import CacheEntry, content_key
from hwsearch.nets.backbone import BackboneRef
from hwsearch.space.candidate import STAGES, canonical_json
from hwsearch.space.knobs import Knobs
from hwsearch.study.asked.admission import admission
from hwsearch.study.candidates.workbench import Workbench

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
        spent: on training so far, in seconds under a time limit, else in effort.
        scores: (``spent``, score) after each round.
        stopped: why it competes no longer.
    """

    ref: BackboneRef
    px: int
    levels: tuple[Level, ...]
    training: BaseTraining
    source: Source
    step_effort: float
    spent: float = 0.0
    scores: list[tuple[float, Score]] = field(default_factory=list)
    stopped: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What base training led to.

    Attributes:
        bases: by backbone and input size of the base.
        stopped: why the other backbones are not searched, by name.
    """

    bases: Mapping[tuple[BackboneRef, int], BaseNetwork]
    stopped: Mapping[str, str]


def prepare_bases(
    bench: Workbench,
    seconds: float | None,
    *,
    chosen: Mapping[str, str] | None = None,
    on_phase: Callable[[str], None],
    on_step: Callable[[int, int], None],
) -> Outcome:
    """Train the base networks of a run, or read what an earlier run trained for as long.

    Args:
        bench: of the run; its space has the backbones.
        seconds: for all of it; None where the effort of the settings decides.
        chosen: keys by name (``base_names``) of the networks that this run took before it was
            interrupted; it goes on with them and no others.
        on_phase: is told what is trained.
        on_step: is called with each optimizer step.

    Raises:
        BackboneError: a network cannot be built or trained, or weights do not fit.
        HostError: weights cannot be had, or the cache cannot be written.
    """
    begin_s = time.monotonic()
    entrants, over = _entrants(bench, chosen)
    known = _Known(bench, entrants)
    found = known.read(seconds) if chosen is None else _read(bench, entrants, chosen)
    if found is not None:
        return replace(found, stopped={**over, **found.stopped})
    recipe = bench.base_recipe
    contenders = [_contender(bench, entrant, recipe) for entrant in entrants]
    total = _total_effort(contenders, recipe) if seconds is None else seconds
    work = _Work(timed=seconds is not None, begin_s=begin_s, on_phase=on_phase, on_step=on_step)
    if chosen is None:
        _compete(contenders, total, 1 / bench.data.classes, work)
    alive = [one for one in contenders if one.stopped is None]
    bases = {}
    for at, one in enumerate(alive):
        left = work.left(total, contenders)
        work.finish(one, one.spent + left / (len(alive) - at), bench)
        key = known.base_key(one.ref, one.px, total)
        bases[one.ref, one.px] = keep_base(
            key, one.training, one.source, one.ref, bench.data, one.px, recipe
        )
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


def _compete(contenders: Sequence[Contender], total: float, guessing: float, work: "_Work") -> None:
    """Train all for the same time, in rounds, until one is left or it is time to anneal."""
    round_effort = _FIRST_SHARE * total / len(contenders)
    while True:
        alive = [one for one in contenders if one.stopped is None]
        sunk = sum(one.spent for one in contenders if one.stopped is not None)
        end = (total - sunk) / len(alive)
        if len(alive) == 1 or round_effort > WHOLE_SHARE * end:
            return
        for one in alive:
            if one.spent >= round_effort:
                continue  # a single step took longer than this round
            work.train_whole(one, round_effort)
            score = one.training.score()
            one.scores.append((one.spent, score))
            work.on_phase(
                f"base weights of {one.ref.name} at {one.px} px: {100 * score.accuracy:.1f} % on "
                "validation pictures so far"
            )
        # The least accurate first: whoever beats it is still there.
        known = [one for one in alive if len(one.scores) >= _LEAST_SCORES]
        for one in sorted(known, key=lambda other: other.scores[-1][1].accuracy):
            rivals = [other for other in known if other is not one and other.stopped is None]
            one.stopped = cannot_join(one, rivals, end, guessing)
        round_effort *= 2


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Trains contenders by the clock, or by steps whose effort is known.

    Attributes:
        timed: amounts are seconds; else they are efforts.
        begin_s: of all of it, by ``time.monotonic``.
    """

    timed: bool
    begin_s: float
    on_phase: Callable[[str], None]
    on_step: Callable[[int, int], None]

    def left(self, total: float, contenders: Sequence[Contender]) -> float:
        """What is left of the total; the clock counts scores and whatever else took time."""
        if self.timed:
            return max(0.0, total - (time.monotonic() - self.begin_s))
        return total - sum(one.spent for one in contenders)

    def train_whole(self, one: Contender, until: float) -> None:
        """Train on until so much was spent on it."""
        if until <= one.spent:
            return
        self.on_phase(f"base weights of {one.ref.name} at {one.px} px")
        self._spend(one, until - one.spent, one.training.train_whole, 1.0)

    def finish(self, one: Contender, until: float, bench: Workbench) -> None:
        """Train whole for its share, then anneal to the end."""
        self.train_whole(one, WHOLE_SHARE * until)
        self.on_phase(f"base weights of {one.ref.name} at {one.px} px, at all widths")

        def anneal(
            steps: int, seconds: float | None, *, on_step: Callable[[int, int], None]
        ) -> None:
            one.training.anneal(steps, seconds, widths=bench.widths, on_step=on_step)

        self._spend(one, until - one.spent, anneal, _ELASTIC_STEPS)

    def _spend(
        self, one: Contender, amount: float, train: Callable[..., None], factor: float
    ) -> None:
        if self.timed:
            before_s = one.training.train_s
            train(UNLIMITED_STEPS, max(0.0, amount), on_step=self.on_step)
            one.spent += one.training.train_s - before_s
        else:
            train(max(1, round(amount / (factor * one.step_effort))), None, on_step=self.on_step)
            one.spent += amount


@dataclass(frozen=True, kw_only=True)
class _Entrant:
    """A base network that a run may need, with the forms in which it may be on the front."""

    knobs: Knobs
    ref: BackboneRef
    px: int
    levels: tuple[Level, ...]


def _entrants(
    bench: Workbench, chosen: Mapping[str, str] | None
) -> tuple[list[_Entrant], dict[str, str]]:
    """Whose smallest network meets the budgets, or who was chosen before; why the others do not."""
    found: dict[tuple[BackboneRef, int], _Entrant] = {}
    over: dict[str, str] = {}
    for knobs in bench.variants():
        ref, px = bench.base_of(knobs)
        levels = _levels(bench, knobs)
        if chosen is not None and base_name(ref, px) not in chosen:
            over[ref.name] = "it was left out before"
        elif chosen is None and not levels:
            over[ref.name] = "even its smallest network is predicted over the budget"
        elif (ref, px) in found:  # another input size of the same base network
            first = found[ref, px]
            found[ref, px] = replace(first, levels=(*first.levels, *levels))
        else:
            found[ref, px] = _Entrant(knobs=knobs, ref=ref, px=px, levels=levels)
    names = {ref.name for ref, _ in found}
    return list(found.values()), {name: why for name, why in over.items() if name not in names}


def _contender(bench: Workbench, entrant: _Entrant, recipe: Recipe) -> Contender:
    training, source = begin_training(
        entrant.ref,
        bench.data,
        entrant.px,
        recipe,
        weights=bench.weights_of(entrant.ref),
        download=bench.settings.download,
    )
    return Contender(
        ref=entrant.ref,
        px=entrant.px,
        levels=entrant.levels,
        training=training,
        source=source,
        step_effort=bench.step_effort(entrant.knobs),
    )


def _levels(bench: Workbench, knobs: Knobs) -> tuple[Level, ...]:
    """The forms of a backbone that the budgets admit."""
    settings = bench.settings
    levels = []
    for ratio in settings.space.pruning.ratios:
        for saving in (0.0, 1.0):
            form = replace(knobs, prune=(ratio,) * len(STAGES), saving=saving)
            cost = bench.plain_cost(form)
            if admission(cost, settings.budgets, settings.confidence).admitted:
                lost = float(np.interp(ratio, _RATIOS, _LOST))
                levels.append(Level(costs=bench.values(cost), lost=lost))
    return tuple(dict.fromkeys(levels))


def _total_effort(contenders: Sequence[Contender], recipe: Recipe) -> float:
    """What the effort of the settings allows: a whole training for two backbones of mean size."""
    mean = sum(one.step_effort for one in contenders) / len(contenders)
    return min(2, len(contenders)) * recipe.steps * mean


# -- what earlier runs trained --------------------------------------------------------------------


def _read(
    bench: Workbench, entrants: Sequence[_Entrant], keys: Mapping[str, str]
) -> Outcome | None:
    """The kept base networks; None if one of them is gone."""
    bases = {}
    for one in entrants:
        name = base_name(one.ref, one.px)
        if name in keys:
            base = read_base(keys[name], one.ref, one.px, bench.base_recipe.seed)
            if base is None:
                return None
            bases[one.ref, one.px] = base
    return Outcome(bases=bases, stopped={}) if bases else None


class _Known:
    """The outcome of a competition in the cache."""

    def __init__(self, bench: Workbench, entrants: Sequence[_Entrant]) -> None:
        import timm
        import torch

        self._bench, self._entrants = bench, entrants
        download = bench.settings.download
        parts = {
            "entrants": [[one.ref.identity(), one.px] for one in entrants],
            "weights": [
                start_identity(one.ref, bench.weights_of(one.ref), download=download)
                for one in entrants
            ],
            "data": bench.data.content_hash,
            "augmentation": dataclasses.asdict(bench.data.augmentation),
            "recipe": dataclasses.asdict(bench.base_recipe),
            "widths": dataclasses.asdict(bench.widths),
            "budgets": list(bench.settings.budget_texts),
            "target": bench.profile.profile_hash,
            "torch": str(torch.__version__),
            "timm": timm.__version__,
            "version": RECIPE_VERSION,
        }
        self._parts = canonical_json(parts)

    def base_key(self, ref: BackboneRef, px: int, total: float) -> str:
        """The key under which a base network of this competition is kept."""
        parts = [self._parts, ref.identity(), px, f"{total:.6g}"]
        return content_key(parts)

    def read(self, seconds: float | None) -> Outcome | None:
        """The stored outcome, if it was trained for about as long; None if there is none."""
        stored = self._entry(timed=seconds is not None).read()
        if stored is None or (seconds is not None and seconds > _SERVES * stored["total"]):
            return None
        found = _read(self._bench, self._entrants, stored["bases"])
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
