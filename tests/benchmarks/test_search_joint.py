# ruff: noqa: ANN401 - a fake takes whatever the real function is given
from pathlib import Path
from typing import Any

import joint_truth
import numpy as np
import pytest
import replay_joint
from bench import Bench
from joint_truth import Choice, append_row, bench_of, bit_operations, candidate_of, choices
from predictor_room import Options

from hwsearch.bits import FP32, INT8
from hwsearch.space.candidate import Candidate


@pytest.fixture(scope="module")
def bench() -> Bench:
    return bench_of("digits", 0)


def fake_row(choice: Choice, candidate: Candidate, bench: Bench) -> dict[str, str | int | float]:
    """More bits and channels are better, by little."""
    network = bench.pricing.backbones.describe(candidate)
    right = int(300 + 40 * np.log10(network.macs) + 10 * np.log10(network.size_bytes))
    row: dict[str, str | int | float] = dict.fromkeys(joint_truth.COLUMNS, 1)
    return row | {
        "candidate": candidate.id,
        "backbone": choice.backbone,
        "size_bytes": network.size_bytes,
        "bit_operations": bit_operations(network),
        "validation": 750,
        "final_correct": right // 2,
        "held_out": 2000,
        "held_out_correct": right,
    }


def test_a_choice_decides_bits_and_channels_of_its_stage(bench: Bench) -> None:
    choice = Choice(backbone="test_resnet", ratios=(0.0, 0.0, 0.5), bits=("fp32", "int8", "W4A8"))
    candidate = candidate_of(choice, bench)
    assert candidate.pruning == (0.0, 0.0, 0.0, 0.5)
    bits = candidate.layer_bits
    assert bits["conv1.0"] == bits["layer2.0.conv1"] == FP32
    assert bits["layer3.0.conv2"] == INT8
    assert (bits["layer4.0.conv1"].weight_bits, bits["layer4.0.conv1"].activation_bits) == (4, 8)
    kept = candidate.channel_counts
    assert kept["conv1.0"] == 16
    assert kept["layer4.0.conv1"] == 48


def test_bit_operations_of_one_precision_are_macs_times_bits(bench: Bench) -> None:
    choice = Choice(backbone="test_resnet", ratios=(0.0,) * 3, bits=("int8",) * 3)
    network = bench.pricing.backbones.describe(candidate_of(choice, bench))
    weighted = sum(layer.macs for layer in network.weighted)
    assert bit_operations(network) == 64 * weighted


def test_training_goes_on_where_it_stopped(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def train_one(choice: Choice, candidate: Candidate, *_: Any) -> dict[str, str | int | float]:
        trained.append(candidate.id)
        return fake_row(choice, candidate, bench)

    monkeypatch.setattr(joint_truth, "train_one", train_one)
    path = tmp_path / "truth.csv"
    joint_truth.train_all(bench, path, 1, ("test_resnet",), 3)
    with path.open("a", encoding="utf-8") as file:
        file.write("cut off,test_resnet")
    assert len(joint_truth.read_rows(path)) == 3
    joint_truth.train_all(bench, path, 1, ("test_resnet",), 2)
    assert len(trained) == len(set(trained)) == len(joint_truth.read_rows(path)) == 5


@pytest.fixture(scope="module")
def truth(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("joint") / "truth.csv"
    for choice in choices():
        append_row(path, fake_row(choice, candidate_of(choice, bench), bench))
    return path


def test_replay_counts_trials_until_most_of_the_front(truth: Path, tmp_path: Path) -> None:
    made = replay_joint.problems(truth)
    assert set(made) == {"size_bytes", "bitfusion_latency_ms"}
    options = Options(data=truth, seeds=1, quick=True, out=tmp_path)
    rows, curves = replay_joint.table(made["size_bytes"], "size_bytes", options, 12)
    by_method = {row["method"]: row for row in rows if row["share_percent"] == 95}
    assert set(by_method) == set(curves)
    assert {"random", "NSGA-II", "TPE multivariate", "ours"} <= set(by_method)
    assert {row["most_trials"] for row in by_method.values()} == {12}
    text = replay_joint.told(rows, "size_bytes", 95)
    assert text.startswith("size_bytes, 95 %: ours ")


def test_trials_are_counted_from_one() -> None:
    regrets = np.array([[50.0, 5.0, 2.0], [5.0, 1.0, 1.0], [90.0, 90.0, 90.0]])
    assert replay_joint.trials_to(regrets, 95).tolist() == [2.0, 1.0, np.inf]
    assert replay_joint.trials_to(regrets, 98).tolist() == [3.0, 2.0, np.inf]
