"""What a study's trials say: evaluated candidates, those under way, and their prices."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from hwsearch.sampler.fidelity import Line
from hwsearch.sampler.parameters import Features, Space, default_features, to_parameters, to_row
from hwsearch.sampler.priced import Bools, Floats, Ints, Priced, Pricer


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Priced candidates of one space; ``keys`` are always there.

    Attributes:
        rows: (candidates, parameters).
        features: groups, (candidates, columns) each.
        costs: (candidates, costs), all going down.
        violation: (candidates,), the worst; at most 0 where every constraint holds.
        prior_mean: (candidates,), going up.
        effort: (candidates,), of a trial.
    """

    rows: Floats
    features: Features
    costs: Floats
    violation: Floats
    keys: tuple[Hashable, ...]
    prior_mean: Floats
    effort: Floats

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: Bools | Ints | Sequence[int]) -> "Candidates":
        """Some of them, by mask or position."""
        at = np.asarray(chosen)
        positions = np.flatnonzero(at) if at.dtype == np.bool_ else at
        return Candidates(
            rows=self.rows[positions],
            features=[group[positions] for group in self.features],
            costs=self.costs[positions],
            violation=self.violation[positions],
            keys=tuple(self.keys[position] for position in positions),
            prior_mean=self.prior_mean[positions],
            effort=self.effort[positions],
        )


def joined(parts: Sequence[Candidates]) -> Candidates:
    """Candidates of several calls in a row; at least one part."""
    return Candidates(
        rows=np.concatenate([part.rows for part in parts]),
        features=[
            np.concatenate(group) for group in zip(*(p.features for p in parts), strict=True)
        ],
        costs=np.concatenate([part.costs for part in parts]),
        violation=np.concatenate([part.violation for part in parts]),
        keys=tuple(key for part in parts for key in part.keys),
        prior_mean=np.concatenate([part.prior_mean for part in parts]),
        effort=np.concatenate([part.effort for part in parts]),
    )


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """Which objective is uncertain, and the signs that make it go up and all costs go down.

    Attributes:
        signs: of all objectives, in the study's order: 1 where the stored number is used as it is.
    """

    uncertain: int
    signs: tuple[int, ...]

    @property
    def known(self) -> list[int]:
        """Positions of the known objectives."""
        return [at for at in range(len(self.signs)) if at != self.uncertain]


class PriceList:
    """Prices rows of a space, and remembers the rows of trials, which come back at every call.

    Args:
        space: of the rows.
        pricer: None where no cost is known.
        objectives: say which way the pricer's costs go.
    """

    def __init__(self, space: Space, pricer: Pricer | None, objectives: Objectives) -> None:
        self._space, self._pricer, self._objectives = space, pricer, objectives
        # One tuple, replaced as a whole: threads that ask at once see the old or the new one.
        self._seen: tuple[dict[bytes, int], Candidates | None] = ({}, None)

    def price(self, rows: Floats) -> Candidates:
        """Prices of rows, none of which is remembered.

        Raises:
            ValueError: the pricer's costs are not those of the known objectives.
        """
        known = self._objectives.known if self._pricer else []
        if self._pricer is None or not len(rows):
            priced = Priced(costs=np.zeros((len(rows), len(known))))
        else:
            priced = self._pricer(to_parameters(self._space, rows))
        if priced.costs.shape != (len(rows), len(known)):
            raise ValueError(
                f"the pricer gave costs of the shape {priced.costs.shape} for {len(rows)} "
                f"candidates and {len(known)} known objectives"
            )
        signs = np.array([self._objectives.signs[at] for at in known], dtype=np.float64)
        features = default_features(self._space, rows)
        if priced.features is not None:
            features += [priced.features[:, [at]] for at in range(priced.features.shape[1])]
        prior = np.zeros(len(rows)) if priced.prior_mean is None else priced.prior_mean
        effort = np.ones(len(rows)) if priced.effort is None else priced.effort
        keys = [row.tobytes() for row in rows] if priced.keys is None else priced.keys
        return Candidates(
            rows=rows,
            features=features,
            costs=priced.costs * signs,
            violation=priced.worst_violation,
            keys=tuple(keys),
            prior_mean=prior * self._objectives.signs[self._objectives.uncertain],
            effort=effort,
        )

    def remembered(self, rows: Sequence[Floats]) -> Candidates | None:
        """Prices of rows, each priced at the first call only; None for no rows."""
        places, known = self._seen
        names = [row.tobytes() for row in rows]
        new = {name: row for name, row in zip(names, rows, strict=True) if name not in places}
        if new:
            priced = self.price(np.array(list(new.values())))
            places = places | {name: len(places) + at for at, name in enumerate(new)}
            known = priced if known is None else joined([known, priced])
            self._seen = (places, known)
        if known is None or not names:
            return None
        return known.take([places[name] for name in names])


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """Evaluated candidates, each once, and those that are being evaluated.

    Attributes:
        evaluated: None if there are none; their costs are those that were told.
        values: (evaluated,) of the uncertain objective, going up; the mean where a candidate was
            evaluated more than once, and what is foretold of one that was stopped early.
        deviation: (evaluated,), standard deviation of what is foretold; 0 for what was observed.
        feasible: (evaluated,), whether no constraint was violated.
        running: None if there are none.
        closed: those that ended without values and are not to be tried again; None for none.
    """

    evaluated: Candidates | None
    values: Floats
    deviation: Floats
    feasible: Bools
    running: Candidates | None
    closed: Candidates | None

    @property
    def count(self) -> int:
        """Candidates that were evaluated or are under way."""
        return sum(len(part) for part in (self.evaluated, self.running) if part is not None)

    @property
    def taken(self) -> list[Hashable]:
        """Keys of all that is not to be proposed."""
        parts = (self.evaluated, self.running, self.closed)
        return [key for part in parts if part is not None for key in part.keys]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Told:
    """A finished trial; the last of its scores is its value."""

    row: Floats
    scores: tuple[float, ...]
    costs: list[float]
    feasible: bool


class TrialReader:
    """Reads the trials of one study, finished ones once.

    Args:
        space: that all rows are of.
        prices: of this space.
        objectives: of the study.
        given_up: which failed trials are not to be tried again.
        scores: of a finished trial at each fidelity that it reached.
    """

    def __init__(
        self,
        space: Space,
        prices: PriceList,
        objectives: Objectives,
        given_up: Callable[[FrozenTrial], bool],
        scores: Callable[[FrozenTrial], Sequence[float]] | None = None,
    ) -> None:
        self._space, self._prices, self._objectives = space, prices, objectives
        self._given_up, self._scores = given_up, scores
        self._finished: dict[int, _Told | None] = {}
        self._closed: dict[int, Floats | None] = {}

    def observe(self, trials: Sequence[FrozenTrial], own: int) -> Observed:
        """Candidates that were evaluated, and those under way.

        Trials without finite values and those of another space are left out; so are failed ones,
        but for those that were given up.

        Args:
            trials: of any state, in the order of their numbers.
            own: number of the trial that is being asked for.
        """
        told: list[_Told] = []
        running: list[Floats] = []
        for trial in trials:
            if trial.state in {TrialState.PRUNED, TrialState.FAIL}:
                self._close(trial)
            elif trial.state == TrialState.COMPLETE:
                if trial.number not in self._finished:
                    self._finished[trial.number] = self._read(trial)
                finished = self._finished[trial.number]
                if finished is not None:
                    told.append(finished)
            elif trial.state == TrialState.RUNNING and trial.number != own:
                row = to_row(self._space, trial.params)
                if row is not None:
                    running.append(row)
        closed = [row for row in self._closed.values() if row is not None]
        return self._merged(told, self._prices.remembered(running), self._prices.remembered(closed))

    def _close(self, trial: FrozenTrial) -> None:
        if trial.number not in self._closed:
            ended = trial.state == TrialState.PRUNED or self._given_up(trial)
            self._closed[trial.number] = to_row(self._space, trial.params) if ended else None

    def _read(self, trial: FrozenTrial) -> _Told | None:
        row = to_row(self._space, trial.params)
        values = trial.values
        if row is None or not all(math.isfinite(value) for value in values):
            return None
        signed = [v * sign for v, sign in zip(values, self._objectives.signs, strict=True)]
        scores = [signed.pop(self._objectives.uncertain)]
        if self._scores is not None:
            # Not the last one of them: what the study was told is what counts.
            sign = self._objectives.signs[self._objectives.uncertain]
            scores = [*(score * sign for score in self._scores(trial)[:-1]), *scores]
        feasible = all(violation <= 0 for violation in trial.constraints.values())
        return _Told(row=row, scores=tuple(scores), costs=signed, feasible=feasible)

    def _merged(
        self, told: Sequence[_Told], running: Candidates | None, closed: Candidates | None
    ) -> Observed:
        priced = self._prices.remembered([one.row for one in told])
        if priced is None:
            none = np.zeros(0)
            return Observed(
                evaluated=None,
                values=none,
                deviation=none,
                feasible=none.astype(bool),
                running=running,
                closed=closed,
            )
        places: dict[Hashable, list[int]] = {}
        for at, key in enumerate(priced.keys):
            places.setdefault(key, []).append(at)
        firsts = [same[0] for same in places.values()]
        costs = np.array([told[at].costs for at in firsts], dtype=np.float64)
        forecasts = _Forecasts(told)
        found = [forecasts.of([told[at] for at in same]) for same in places.values()]
        return Observed(
            evaluated=replace(priced.take(firsts), costs=costs.reshape(len(firsts), -1)),
            values=np.array([value for value, _ in found]),
            deviation=np.array([deviation for _, deviation in found]),
            feasible=np.array([told[at].feasible for at in firsts]),
            running=running,
            closed=closed,
        )


class _Forecasts:
    """What the trials that reached the highest fidelity say of those that did not."""

    def __init__(self, told: Sequence[_Told]) -> None:
        self._top = max(len(one.scores) for one in told)
        highest = [one for one in told if len(one.scores) == self._top]
        high = [one.scores[-1] for one in highest]
        self._lines = [
            Line.fit([one.scores[at] for one in highest], high) for at in range(self._top - 1)
        ]
        # Without a line a low score says as little as the spread of the high ones; of one of those
        # alone there is none.
        self._spread = float(np.std(high)) or abs(high[0]) or 1.0

    def of(self, same: Sequence[_Told]) -> tuple[float, float]:
        """Value and its deviation of a candidate from its trials."""
        reached = max(len(one.scores) for one in same)
        score = fmean(one.scores[-1] for one in same if len(one.scores) == reached)
        if reached == self._top:
            return score, 0.0
        line = self._lines[reached - 1]
        if line is None:
            return score, self._spread
        forecast = line.foretell(score)
        return forecast.mean, forecast.deviation
