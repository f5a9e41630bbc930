# ruff: noqa: ANN401 - a fake takes whatever the real function is given
from pathlib import Path
from typing import Any

import joint_truth
import numpy as np
import pytest
import replay_joint
from bench import Bench
from joint_truth import Choice, append_row, bench_of, bit_operations, candidate_of, choices
from predictor_room import Options, Row, spread

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


def test_choices_are_all_and_each_is_another_network(bench: Bench) -> None:
    found = list(choices())
    assert len(found) == 2 * 3**3 * 3**3
    some = found[::37]
    assert len({candidate_of(choice, bench).id for choice in some}) == len(some)


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


def test_a_part_may_be_drawn_and_is_the_same_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_one(choice: Choice, candidate: Candidate, *_: Any) -> dict[str, str | int | float]:
        return fake_row(choice, candidate, bench)

    def trained(path: Path, seed: int | None, *parts: int) -> list[str]:
        for most in parts:
            drawn = None if seed is None else np.random.default_rng(seed)
            joint_truth.train_all(bench, path, 1, ("test_resnet",), most, drawn)
        return [row["candidate"] for row in joint_truth.read_rows(path)]

    monkeypatch.setattr(joint_truth, "train_one", train_one)
    whole = trained(tmp_path / "whole.csv", 0, 6)
    assert trained(tmp_path / "parts.csv", 0, 4, 2) == whole
    assert trained(tmp_path / "other.csv", 1, 6) != whole
    assert trained(tmp_path / "plain.csv", None, 6) != whole
    part = replay_joint.problems(tmp_path / "whole.csv", partly=True)["size_bytes"]
    assert len(part.accuracy_percent) == 6
    assert set(part.choices["backbone"]) == {"test_resnet"}


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


def test_replay_refuses_a_table_that_is_not_complete(truth: Path, tmp_path: Path) -> None:
    lines = truth.read_text("utf-8").splitlines(keepends=True)
    short = tmp_path / "short.csv"
    short.write_text("".join(lines[:-2]), "utf-8")
    with pytest.raises(ValueError, match="lacks 2 networks; go on with"):
        replay_joint.problems(short)
    other = tmp_path / "other.csv"
    changed = lines[1].split(",")
    changed[joint_truth.COLUMNS.index("bit_operations")] = "5"
    other.write_text("".join([lines[0], ",".join(changed), *lines[2:]]), "utf-8")
    with pytest.raises(ValueError, match="was made of other networks"):
        replay_joint.problems(other)


def test_one_backbone_is_searched_without_the_other(truth: Path, tmp_path: Path) -> None:
    lines = truth.read_text("utf-8").splitlines(keepends=True)
    half = tmp_path / "half.csv"
    half.write_text("".join([lines[0], *(s for s in lines if ",test_resnet," in s)]), "utf-8")
    whole = replay_joint.problems(truth)["size_bytes"]
    part = replay_joint.problems(half, ("test_resnet",))["size_bytes"]
    assert len(part.places) == len(whole.places) // 2 == 729
    assert part.accuracy_percent.tolist() == whole.accuracy_percent[:729].tolist()
    with pytest.raises(ValueError, match="lacks 729 networks; go on with"):
        replay_joint.problems(half)


def test_bitfusion_is_faster_with_fewer_bits_and_channels(truth: Path) -> None:
    problem = replay_joint.problems(truth)["bitfusion_latency_ms"]
    latency_ms = {
        tuple(problem.parameters(at).values()): problem.costs[at, 0]
        for at in range(len(problem.places))
    }
    full, half = (0.0,) * 3, (0.5,) * 3
    fp32, int8, w4a8 = (
        latency_ms[("test_resnet", *full, *[bits] * 3)] for bits in ("fp32", "int8", "W4A8")
    )
    assert w4a8 < int8 < fp32
    assert latency_ms[("test_resnet", *half, *["int8"] * 3)] < int8


def test_the_best_stock_sampler_is_looked_for_among_all_of_them() -> None:
    medians = {"random": 90.0, "NSGA-II": 70.0, "TPE multivariate": 60.0, "GPSampler": 30.0}
    rows: list[Row] = [
        {
            "cost": "size_bytes",
            "share_percent": 98,
            "method": name,
            "trials": spread([trials]),
        }
        for name, trials in (medians | {"ours": 15.0}).items()
    ]
    text = replay_joint.told(rows, "size_bytes", 98)
    assert text == "size_bytes, 98 %: ours 15 trials, GPSampler 30, 2.0 x as many"


def test_trials_are_counted_from_one() -> None:
    regrets = np.array([[50.0, 5.0, 2.0], [5.0, 1.0, 1.0], [90.0, 90.0, 90.0]])
    assert replay_joint.trials_to(regrets, 95).tolist() == [2.0, 1.0, np.inf]
    assert replay_joint.trials_to(regrets, 98).tolist() == [3.0, 2.0, np.inf]


def test_rankings_are_of_all_networks_and_of_each_backbone() -> None:
    def row(backbone: str, rung: int, final: int) -> dict[str, str]:
        scores = {"rung0_correct": rung, "rung1_correct": final, "final_correct": final}
        return {
            "backbone": backbone,
            "held_out_correct": str(final),
            **{name: str(value) for name, value in scores.items()},
        }

    rows = [row("a", at, at) for at in range(5)] + [row("b", -at, at) for at in range(5)]
    every, first, second = replay_joint.rankings(rows)
    assert every.startswith("all, 10 networks: ")
    assert "is 1.00 at rung 0, 1.00 at rung 1" in first
    assert "is -1.00 at rung 0, 1.00 at rung 1" in second
