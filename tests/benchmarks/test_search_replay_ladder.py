from pathlib import Path

import joint_truth
import numpy as np
import optuna
import pytest
from bench import Bench
from joint_truth import append_row, bench_of, candidate_of, choices
from problem import Truth
from replay_joint import problems
from replay_ladder import Way, networks, search

from hwsearch.study.asked.effort import MOST_FINALISTS


@pytest.fixture(scope="module")
def bench() -> Bench:
    return bench_of("digits", 0)


@pytest.fixture(scope="module")
def truths(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Short and full training of a part of the space: accuracy goes by MACs, short ones lower."""
    folder = tmp_path_factory.mktemp("ladder")
    short, full = folder / "short.csv", folder / "search_joint-truth_made-up.csv"
    for at, choice in enumerate(list(choices())[::24]):
        candidate = candidate_of(choice, bench)
        network = bench.pricing.backbones.describe(candidate)
        right = int(300 + 40 * np.log10(network.macs) + 10 * np.log10(network.size_bytes))
        row: dict[str, str | int | float] = dict.fromkeys(joint_truth.COLUMNS, 1)
        row |= {
            "candidate": candidate.id,
            "size_bytes": network.size_bytes,
            "bit_operations": joint_truth.bit_operations(network),
            "validation": 750,
            "rung0_correct": right // 4,
            "rung1_correct": right // 3,
            "final_correct": right // 2 - 20,
            "held_out": 2000,
            "held_out_correct": right,
            "rung0_s": 1.0,
            "rung1_s": 2.2,
            "final_s": 5.0,
        }
        if at:  # the short table has more networks than the full one
            append_row(full, row | {"final_correct": right // 2, "final_s": 20.0})
        append_row(short, row)
    return short, full


def test_networks_have_the_seconds_of_their_rungs(truths: tuple[Path, Path]) -> None:
    found = networks(*truths)
    assert len(found) == len(joint_truth.read_rows(truths[1])) == 60
    one = found[0]
    assert one.seconds == pytest.approx((1.0, 2.2, 2.2 + 28 * 0.1))
    assert one.full_s == 20.0
    assert [score.total for score in one.scores] == [750] * 3
    assert one.scores[2].correct == one.full.correct - 20
    with pytest.raises(ValueError, match="lacks network"):
        networks(truths[1], truths[0])


def test_a_search_pays_for_what_it_trained(truths: tuple[Path, Path]) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problem = problems(truths[1], partly=True)["size_bytes"]
    trained, truth = networks(*truths), Truth.of(problem)
    full = list(search(Way(sampler="ours", ladder=False), problem, trained, truth, 0, 30))
    assert [end.seconds for end in full] == pytest.approx([20.0 * n for n in range(1, 31)])
    assert (np.diff([end.regret for end in full]) < 1e-9).all()
    ladder = list(search(Way(sampler="ours", ladder=True), problem, trained, truth, 0, 30))
    assert {end.trials for end in ladder} <= set(range(1, 31))
    for end in ladder:
        assert 1 <= end.trained_fully <= min(end.trials, MOST_FINALISTS)
        climbed_s = end.seconds - 20.0 * end.trained_fully
        assert end.trials * 1.0 <= climbed_s <= end.trials * 5.0 + 1e-9
    last = ladder[-1]
    # Accuracy follows from cost almost without noise here, so hopeless ones are seen early.
    assert (last.stopped_percent > 0) == (last.seconds - 20.0 * last.trained_fully < 150)
