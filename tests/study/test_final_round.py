"""A network that is a baseline and a trial has one folder, whichever it was first."""

from dataclasses import replace
from pathlib import Path

import pytest
from study_fixtures import make_bench, make_knobs, make_space
from tiny_network import OWN

from hwsearch.bits import INT8
from hwsearch.study.candidates.workbench import Workbench
from hwsearch.study.finals.evidence import EvidenceFile
from hwsearch.study.finals.final_round import FinalRound
from hwsearch.study.trials.progress import Silent
from hwsearch.study.trials.records import Record
from hwsearch.study.trials.trial import Trial
from hwsearch.study.written.storage import StudyStore

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def bench() -> Workbench:
    return make_bench()


def make_round(folder: Path, bench: Workbench) -> FinalRound:
    folder.mkdir(exist_ok=True)
    store = StudyStore(
        folder, space=make_space(), quantities=("latency", "size"), seed=0, fingerprint="0"
    )
    return FinalRound(
        bench=bench,
        store=store,
        folder=folder,
        watcher=Silent(),
        left_s=None,
    )


def trials(bench: Workbench) -> tuple[Record, Record]:
    """A pruned network, and one that is the uniform int8 baseline."""
    work = Trial(number=0, bench=bench, history=(), on_step=lambda _done, _total: None)
    pruned = work.run(make_knobs(prune=(0.5,) * 4))
    int8 = bench.baseline(make_knobs(), INT8)
    return pruned, replace(pruned, trial=1, candidate=int8, cost=bench.price(int8))


def folders(evidence: EvidenceFile, run: Path) -> list[str]:
    """The folder of each trial and baseline, all of which have weights."""
    found = [network.folder for network in evidence.networks]
    assert all((run / "models" / name / "model.safetensors").is_file() for name in found)
    return found


DENSE, UNIFORM = (
    f"baseline_{name}_{OWN.replace(':', '.')}" for name in ("dense-fp32", "uniform-int8")
)


def test_trial_that_is_a_baseline_shares_its_folder(tmp_path: Path, bench: Workbench) -> None:
    both = trials(bench)
    evidence = make_round(tmp_path / "run", bench).run(both, ())
    models = ["trial_0000", "trial_0001"]
    assert folders(evidence, tmp_path / "run") == [*models, DENSE, "trial_0001"]
    by_name = {network.name: network for network in evidence.networks}
    assert by_name["uniform-int8"].candidate == evidence.networks[1].candidate


def test_baseline_that_becomes_a_trial_stays_in_its_folder(
    tmp_path: Path, bench: Workbench
) -> None:
    pruned, int8 = trials(bench)
    work = make_round(tmp_path / "run", bench)
    first = work.run([pruned], ())
    assert folders(first, tmp_path / "run") == ["trial_0000", DENSE, UNIFORM]
    before = work.store.finals()
    second = work.run([pruned, int8], ())
    assert folders(second, tmp_path / "run") == ["trial_0000", UNIFORM, DENSE, UNIFORM]
    assert work.store.finals() == before


def test_thin_limit_is_said_first_and_trains_three_finalists(
    tmp_path: Path, bench: Workbench
) -> None:
    pruned, _ = trials(bench)
    chosen = [
        replace(
            pruned,
            trial=at,
            candidate=replace(pruned.candidate, channels=tuple((n, c - at) for n, c in channels)),
        )
        for channels in [pruned.candidate.channels if pruned.candidate else ()]
        for at in range(5)
        if pruned.candidate is not None
    ]
    chosen = [
        replace(one, cost=bench.price(one.candidate)) for one in chosen if one.candidate is not None
    ]
    work = replace(make_round(tmp_path / "run", bench), left_s=lambda: 6.0)
    evidence = work.run(chosen, ("before",))
    assert len(evidence.trials) == 3
    assert evidence.notes[0] == "before"
    assert "the time limit leaves each finalist" in evidence.notes[1]
    assert "the time limit left no time to train trial" in evidence.notes[2]
