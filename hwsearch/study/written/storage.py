"""The Optuna study of a run: proposals, records and their order. The only truth about trials."""

import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.engine import URL

from hwsearch.errors import HostError, RunError
from hwsearch.hardware.recalibration import Recalibration
from hwsearch.sampler.known_cost import KnownCostSampler
from hwsearch.sampler.priced import Pricer
from hwsearch.space.knobs import Choice, Knobs, knob_choices
from hwsearch.space.search_space import SearchSpace
from hwsearch.study.asked.settings import SamplerName, derived_seed
from hwsearch.study.trials.records import Record
from hwsearch.units import Quantity

STUDY_FILE: Final = "study.db"

#: Samplers as reports name them.
SAMPLERS: Final[dict[SamplerName, str]] = {
    "tpe": "TPESampler(multivariate=True)",
    "known-cost": "KnownCostSampler",
}

#: Knobs that are priced for all proposals, and those beside the front for each. With these, 27
#: trials of the tiny space spent 8.8 s of 280 s on proposals and prices, on a busy core.
_POOL, _BESIDE = 600, 40

#: A trial that was asked for and not yet told.
ProposedTrial = optuna.Trial

_RECORD, _FINAL, _FINGERPRINT, _QUEUE = "record", "final:", "fingerprint", "queue"
_POSITION: Final = "position"
_RECALIBRATION: Final = "recalibration"
_BASES: Final = "bases"
_NAME: Final = "hwsearch"


class StudyStore:
    """Asks for knobs, takes records, and remembers both in the run folder.

    Args:
        folder: of the run.
        space: of the knobs.
        quantities: the costs that are objectives beside accuracy.
        seed: of the run.
        fingerprint: of all that must be equal for the run to be resumed.
        pricer: of knobs, for ``KnownCostSampler``; without one TPE proposes.

    Raises:
        RunError: the folder holds a run of another fingerprint.
        HostError: the study cannot be opened.
    """

    def __init__(
        self,
        folder: Path,
        *,
        space: SearchSpace,
        quantities: Sequence[Quantity],
        seed: int,
        fingerprint: str,
        pricer: Pricer | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._choices = knob_choices(space)
        self._seed = seed
        self._asked: set[int] = set()
        self._known_cost = None if pricer is None else self._make_known_cost(pricer)
        self._study = _open(folder / STUDY_FILE, len(quantities))
        stored = self._study.user_attrs.get(_FINGERPRINT)
        if stored is None:
            self._study.set_user_attr(_FINGERPRINT, fingerprint)
        elif stored != fingerprint:
            raise RunError(
                f"the run in {folder} was made with other settings, data or profile; "
                "start a new run, or put them back"
            )
        self._close_interrupted()

    def records(self) -> list[Record]:
        """Every trial that came to an end, in order."""
        return _records(self._study.get_trials(deepcopy=False))

    def recalibration(self) -> Recalibration | None:
        """What was learned of this machine so far, if anything was."""
        found = self._study.user_attrs.get(_RECALIBRATION)
        return None if found is None else Recalibration.from_json(found)

    def set_recalibration(self, recalibration: Recalibration) -> None:
        """Store what was learned, so that a resumed run prices as it did before."""
        self._study.set_user_attr(_RECALIBRATION, recalibration.to_json())

    def bases(self) -> tuple[dict[str, str], tuple[str, ...]] | None:
        """Keys of the base networks by name, and notes on them; None before they were trained."""
        found = self._study.user_attrs.get(_BASES)
        return None if found is None else (dict(found["keys"]), tuple(found["notes"]))

    def set_bases(self, keys: Mapping[str, str], notes: Sequence[str]) -> None:
        """Store which base networks are searched, so that a resumed run goes on with the same."""
        self._study.set_user_attr(_BASES, {"keys": dict(keys), "notes": list(notes)})

    def enqueue(self, knobs: Sequence[Knobs]) -> None:
        """Have these tried early, if nothing was tried yet.

        Every second proposal is one of them, so that however soon a run ends, half of its trials
        are the sampler's own.
        """
        if self._study.get_trials(deepcopy=False):
            return
        first = {name: options[0] for name, options in self._choices.items()}
        queue = [{**first, **each.to_choices()} for each in knobs]
        self._study.set_user_attr(_QUEUE, queue)

    def ask(self) -> tuple[optuna.Trial, Knobs]:
        """The next proposal; several may be asked for before one is told.

        What is proposed follows from its position among all proposals: that seeds the sampler and
        says which of the queue it is. A proposal that a kill ended leaves its position to the next
        one, so that an interrupted run goes on as it would have.
        """
        position = self._free_position()
        queue = self._study.user_attrs.get(_QUEUE, [])
        # One at a time: Optuna's own queue would put the trial that a kill ended behind the others.
        at, queued = divmod(position, 2)
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if queued and at < len(queue) and not waiting:
            self._study.enqueue_trial(queue[at])
        self._study.sampler = self._sampler(derived_seed(self._seed, "sampler", position))
        trial = self._study.ask()
        trial.set_user_attr(_POSITION, position)
        self._asked.add(trial.number)
        choices: dict[str, Choice] = {}
        for name, options in self._choices.items():
            value = trial.suggest_categorical(name, options)
            if value is None:
                raise RunError(f"the study holds no value for knob '{name}'; start a new run")
            choices[name] = value
        return trial, Knobs.from_choices(choices)

    def tell(
        self,
        trial: optuna.Trial,
        record: Record,
        values: Sequence[float] | None,
        violations: dict[Quantity, float],
    ) -> None:
        """Store the end of a trial.

        Args:
            trial: as ``ask`` gave it.
            record: of its end.
            values: accuracy and costs; None if the candidate was not trained.
            violations: constraints, at most 0 where a budget holds.
        """
        for quantity, violation in violations.items():
            trial.set_constraint(quantity, violation)
        trial.set_user_attr(_RECORD, record.to_json())
        if record.state == "failed":
            self._study.tell(trial, state=TrialState.FAIL)
        elif values is None:
            # Optuna's word for a trial without values; the constraints still teach the sampler.
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, list(values))

    def finals(self) -> dict[str, str]:
        """Stored results of finalization by candidate id."""
        return {
            key.removeprefix(_FINAL): str(text)
            for key, text in self._study.user_attrs.items()
            if key.startswith(_FINAL)
        }

    def set_final(self, candidate_id: str, text: str) -> None:
        """Store a result of finalization."""
        self._study.set_user_attr(f"{_FINAL}{candidate_id}", text)

    def _free_position(self) -> int:
        """The first position that no trial has which was told, or was asked for by this store."""
        told = itertools.count()
        taken = set()
        for trial in self._study.get_trials(deepcopy=False):
            # Runs of older versions were told in the order of asking, and stored no position.
            if _RECORD in trial.user_attrs:
                taken.add(trial.user_attrs.get(_POSITION, next(told)))
            elif trial.number in self._asked:
                taken.add(trial.user_attrs[_POSITION])
        return next(position for position in itertools.count() if position not in taken)

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        if self._known_cost is None:
            return _tpe(seed)
        self._known_cost.reseed(seed)
        return self._known_cost

    def _make_known_cost(self, pricer: Pricer) -> KnownCostSampler:
        # Trials that failed keep a record and are not tried again; those of a kill have none.
        return KnownCostSampler(
            pricer,
            space={
                name: CategoricalDistribution(options) for name, options in self._choices.items()
            },
            pool_size=_POOL,
            fixed_pool=True,
            beside_front=_BESIDE,
            given_up=lambda trial: _RECORD in trial.user_attrs,
            scores=lambda trial: Record.from_json(trial.user_attrs[_RECORD]).accuracies,
            seed=derived_seed(self._seed, "pool"),
        )

    def _close_interrupted(self) -> None:
        """Close trials that a kill left running; ``ask`` will propose their knobs again."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)


def read_records(folder: Path) -> list[Record]:
    """The trials of a run, in order, from its study, which is opened for reading only.

    Raises:
        RunError: the folder has no study, or one of another version of hwsearch.
        HostError: it cannot be read.
    """
    path = folder / STUDY_FILE
    if not path.is_file():
        raise RunError(
            f"{folder} has no {STUDY_FILE}, which holds the channels and bits of the trials; "
            "give the folder of a run, as it was made"
        )
    name = f"file:{quote(str(path.resolve()))}"
    url = URL.create("sqlite", database=name, query={"mode": "ro", "uri": "true"})
    try:
        storage = optuna.storages.RDBStorage(
            url.render_as_string(), skip_compatibility_check=True, skip_table_creation=True
        )
        study = optuna.load_study(study_name=_NAME, storage=storage)
        trials = study.get_trials(deepcopy=False)
    except Exception as error:
        raise _unreadable(path, error) from error
    return _records(trials)


def _records(trials: Sequence[optuna.trial.FrozenTrial]) -> list[Record]:
    return [
        Record.from_json(trial.user_attrs[_RECORD])
        for trial in trials
        if _RECORD in trial.user_attrs and trial.state.is_finished()
    ]


def _open(path: Path, costs: int) -> optuna.Study:
    url = URL.create("sqlite", database=str(path)).render_as_string()
    try:
        storage = optuna.storages.RDBStorage(url)
        return optuna.create_study(
            study_name=_NAME,
            storage=storage,
            directions=[StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * costs],
            sampler=_tpe(0),
            load_if_exists=True,
        )
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> HostError:
    """SQLAlchemy's errors have no common base with sqlite3's; all mean the same to the user."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return HostError(f"{path} cannot be opened as a study ({line}); check disk and file")


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        # Multivariate TPE has been "experimental" since 2020; it is chosen by measurement.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(multivariate=True, n_startup_trials=10, seed=seed)
