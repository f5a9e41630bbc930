"""Backbones compete for the time of base training, and whoever is left gets its base network.

All are trained for the same time, which doubles from round to round (successive halving). After a
round those stop that can no longer join the front at any of their costs, however much they may
still learn; the others go on from where they are, and share what those leave. A backbone is never
stopped for a slow start alone: of what it gained with the last doubling of its time, three quarters
are granted for the next one and so on, but half to its rivals.
"""

import dataclasses
import hashlib
import itertools
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from hwsearch.accuracy.base_training import WHOLE_SHARE, BaseTraining
from hwsearch.accuracy.base_weights import (
    RECIPE_VERSION,
    BaseNetwork,
    Source,
    begin_training,
    keep_base,
    read_base,
)
from hwsearch.accuracy.training import Recipe, Score
from hwsearch.errors import HostError
from hwsearch.files import cache_folder, write_atomically
from hwsearch.nets.backbone import BackboneRef
from hwsearch.space.candidate import STAGES, canonical_json
from hwsearch.space.knobs import Knobs
from hwsearch.study.asked.admission import admission
from hwsearch.study.candidates.workbench import Workbench

_LOG = logging.getLogger(__name__)

#: Of the time that a backbone would get if all stayed, what it gets in the first round.
_FIRST_SHARE: Final = 0.1
#: What pruning is expected to cost at most of the accuracy above guessing: of the whole network,
#: half of each stage and the largest ratios. Elastic networks lost 1 to 9 % on CIFAR-10.
_LOST: Final = (0.0, 0.06, 0.10)
#: What a doubling of the time gains is so much of what the one before did, for a backbone that is
#: hoped for and for its rivals. On CIFAR-10 it was 0.6 to 0.8 while networks learned.
_HOPED, _SURE = 0.75, 0.5
#: Standard errors of a score that are allowed for on either side. Scores share their pictures, so
#: their difference is less uncertain than either.
_ERRORS: Final = 0.5
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
        lost: share of the accuracy above guessing that rivals are expected to lose in it; what a
            backbone may hope for loses half of that.
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
    only: Sequence[str] | None = None,
    on_phase: Callable[[str], None],
    on_step: Callable[[int, int], None],
) -> Outcome:
    """Train the base networks of a run, or read what an earlier run trained for as long.

    Args:
        bench: of the run; its space has the backbones.
        seconds: for all of it; None where the effort of the settings decides.
        only: backbones that a run chose before it was interrupted; none of these stops.
        on_phase: is told what is trained.
        on_step: is called with each optimizer step.

    Raises:
        BackboneError: a network cannot be built or trained, or weights do not fit.
        HostError: weights cannot be had, or the cache cannot be written.
    """
    entrants, over = _entrants(bench)
    if only is not None:
        over |= {
            ref.name: "it was left out before" for _, ref, _, _ in entrants if ref.name not in only
        }
        entrants = [one for one in entrants if one[1].name in only]
    known = _Known(bench, [(ref, px) for _, ref, px, _ in entrants])
    found = known.read(seconds)
    if found is not None:
        return replace(found, stopped={**over, **found.stopped})
    recipe = bench.base_recipe
    contenders = []
    for knobs, ref, px, levels in entrants:
        path = bench.settings.space.backbone(ref.name).weights
        training, source = begin_training(
            ref, bench.data, px, recipe,
            weights=bench.settings.weights if path is None else Path(path),
            download=bench.settings.download,
        )  # fmt: skip
        contenders.append(
            Contender(
                ref=ref,
                px=px,
                levels=levels,
                training=training,
                source=source,
                step_effort=bench.step_effort(knobs),
            )
        )
    total = _total_effort(contenders, recipe) if seconds is None else seconds
    work = _Work(timed=seconds is not None, on_phase=on_phase, on_step=on_step)
    guessing = 1 / bench.data.classes
    if only is None:
        _compete(contenders, total, guessing, work)
    alive = [one for one in contenders if one.stopped is None]
    left = total - sum(one.spent for one in contenders if one.stopped is not None)
    bases = {}
    for one in alive:
        work.finish(one, left / len(alive), bench)
        bases[one.ref, one.px] = keep_base(
            known.base_key(one.ref, one.px, total), one.training, one.source, one.ref, bench.data,
            one.px, recipe,
        )  # fmt: skip
    names = {ref.name for ref, _ in bases}
    stopped = {
        one.ref.name: one.stopped
        for one in contenders
        if one.stopped is not None and one.ref.name not in names
    }
    outcome = Outcome(bases=bases, stopped=stopped)
    known.keep(outcome, total, timed=seconds is not None)
    return replace(outcome, stopped={**over, **stopped})


def cannot_join(
    contender: Contender, rivals: Sequence[Contender], end: float, guessing: float
) -> str | None:
    """Why a backbone cannot be on the front at any of its costs; None if it may.

    Args:
        contender: with at least two scores.
        rivals: that still compete, with as many.
        end: what would be spent on each in the end, in the unit of ``spent``.
        guessing: accuracy of it.

    Returns:
        One clause for the user.
    """
    margin = _ERRORS * contender.scores[-1][1].standard_error
    whole = _forecast(contender, end, _HOPED) + margin
    beaten_by = []
    for level in contender.levels:
        hope = guessing + (1 - level.lost / 2) * (whole - guessing)
        better = next(
            (rival for rival in rivals if _reached(rival, level.costs, end, guessing) >= hope),
            None,
        )
        if better is None:
            return None
        beaten_by.append(better)
    names = " and ".join(dict.fromkeys(rival.ref.name for rival in beaten_by))
    return (
        f"{100 * contender.scores[-1][1].accuracy:.1f} % on validation pictures after as much "
        f"training as {names}, which costs less and is ahead by more than it may still gain"
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
    """

    timed: bool
    on_phase: Callable[[str], None]
    on_step: Callable[[int, int], None]

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
            train(_MANY_STEPS, max(0.0, amount), on_step=self.on_step)
            one.spent += one.training.train_s - before_s
        else:
            train(max(1, round(amount / (factor * one.step_effort))), None, on_step=self.on_step)
            one.spent += amount


#: More steps than any clock allows.
_MANY_STEPS: Final = 1_000_000_000


def _entrants(
    bench: Workbench,
) -> tuple[list[tuple[Knobs, BackboneRef, int, tuple[Level, ...]]], dict[str, str]]:
    """Who may compete: whatever some budget-meeting form has; and why the others may not."""
    found: dict[tuple[BackboneRef, int], tuple[Knobs, BackboneRef, int, tuple[Level, ...]]] = {}
    over: dict[str, str] = {}
    for knobs in bench.variants():
        levels = _levels(bench, knobs)
        ref, px = bench.base_of(knobs)
        if not levels:
            over.setdefault(ref.name, "even its smallest network is predicted over the budget")
            continue
        key = (ref, px)
        if key in found:  # another input size of the same base network
            levels = (*found[key][3], *levels)
            knobs = found[key][0]
        found[key] = (knobs, ref, px, levels)
    names = {ref.name for ref, _ in found}
    return list(found.values()), {n: why for n, why in over.items() if n not in names}


def _levels(bench: Workbench, knobs: Knobs) -> tuple[Level, ...]:
    """The forms of a backbone that the budgets admit."""
    settings = bench.settings
    ratios = settings.space.pruning.ratios
    forms = [
        (replace(knobs, prune=(ratio,) * len(STAGES), saving=saving), lost)
        for ratio, lost in zip((0.0, ratios[len(ratios) // 2], ratios[-1]), _LOST, strict=True)
        for saving in (0.0, 1.0)
    ]
    levels = []
    for form, lost in forms:
        cost = bench.plain_cost(form)
        if admission(cost, settings.budgets, settings.confidence).admitted:
            levels.append(Level(costs=bench.values(cost), lost=lost))
    return tuple(dict.fromkeys(levels))


def _total_effort(contenders: Sequence[Contender], recipe: Recipe) -> float:
    """What the effort of the settings allows: a whole training for two backbones of mean size."""
    mean = sum(one.step_effort for one in contenders) / len(contenders)
    return min(2, len(contenders)) * recipe.steps * mean


# -- what earlier runs trained --------------------------------------------------------------------


class _Known:
    """The outcome of a competition in the cache: a JSON file beside the base networks."""

    def __init__(self, bench: Workbench, entrants: Sequence[tuple[BackboneRef, int]]) -> None:
        import timm
        import torch

        self._bench = bench
        self._entrants = tuple(entrants)
        space = bench.settings.space
        parts = {
            "entrants": [[ref.identity(), px] for ref, px in self._entrants],
            "weights": [
                str(space.backbone(ref.name).weights or bench.settings.weights)
                for ref, _ in self._entrants
            ],
            "data": bench.data.content_hash,
            "augmentation": dataclasses.asdict(bench.data.augmentation),
            "recipe": dataclasses.asdict(bench.base_recipe),
            "widths": dataclasses.asdict(bench.widths),
            "budgets": list(bench.settings.budget_texts),
            "torch": str(torch.__version__),
            "timm": timm.__version__,
            "version": RECIPE_VERSION,
        }
        self._parts = canonical_json(parts)

    def base_key(self, ref: BackboneRef, px: int, total: float) -> str:
        """The key under which a base network of this competition is kept."""
        parts = [self._parts, ref.identity(), px, f"{total:.6g}"]
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()

    def read(self, seconds: float | None) -> Outcome | None:
        """The stored outcome, if it was trained for about as long; None if there is none."""
        path = self._path(timed=seconds is not None)
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if seconds is not None and seconds > _SERVES * float(stored["total"]):
                return None
            bases = {}
            for ref, px in self._entrants:
                name = self._name(ref, px)
                if name in stored["bases"]:
                    base = read_base(stored["bases"][name], ref, px, self._bench.base_recipe.seed)
                    if base is None:
                        return None
                    bases[ref, px] = base
            stopped = {str(name): str(why) for name, why in stored["stopped"].items()}
        except FileNotFoundError:
            return None
        except (OSError, KeyError, TypeError, ValueError) as error:
            _LOG.warning("'%s' is corrupt (%s); base networks are trained again", path, error)
            return None
        return Outcome(bases=bases, stopped=stopped) if bases else None

    def keep(self, outcome: Outcome, total: float, *, timed: bool) -> None:
        """Store an outcome whose base networks are kept."""
        path = self._path(timed=timed)
        content = {
            "total": total,
            "bases": {self._name(ref, px): base.key for (ref, px), base in outcome.bases.items()},
            "stopped": dict(outcome.stopped),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, canonical_json(content).encode())
        except OSError as error:
            raise HostError(
                f"'{path}' cannot be written ({error.strerror or error}); free some space there or "
                "set HWSEARCH_CACHE to another folder"
            ) from error

    def _path(self, *, timed: bool) -> Path:
        kind = "seconds" if timed else "steps"
        digest = hashlib.sha256(f"{kind}:{self._parts}".encode()).hexdigest()
        return cache_folder() / "base" / f"competition-{digest}.json"

    @staticmethod
    def _name(ref: BackboneRef, px: int) -> str:
        return f"{ref.name} {ref.arguments} {px}"
