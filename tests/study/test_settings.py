import re
from datetime import datetime
from typing import get_args

import pytest
from pydantic import ValidationError
from study_fixtures import make_settings, make_space

from hwsearch.study.asked.effort import Effort, full_steps
from hwsearch.study.asked.settings import RunSettings, derived_seed

NOW = datetime(2025, 3, 4, 5, 6, 7)
SEED_OF_BASE = 517365728


def fingerprint(settings: RunSettings, *, profile: str = "p", data: str = "d") -> str:
    return settings.fingerprint(profile_hash=profile, data_hash=data)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"budget_texts": ("2ms", "1MB")},
        {"confidence": 0.8},
        {"target": "jetson-nano"},
        {"data": "pictures"},
        {"flip": True},
        {"weights": "auto"},
        {"sampler": "tpe"},
        {"space": make_space(input_px=[16, 24])},
        {"space": make_space(training={"base_steps": 5})},
    ],
    ids=str,
)
def test_fingerprint_when_something_that_matters_changes(changes: dict[str, object]) -> None:
    assert fingerprint(make_settings(**changes)) != fingerprint(make_settings())


@pytest.mark.parametrize(
    "changes", [{"trials": 99}, {"time_limit_s": 60.0}, {"download": True}], ids=str
)
def test_fingerprint_when_only_the_length_changes(changes: dict[str, object]) -> None:
    assert fingerprint(make_settings(**changes)) == fingerprint(make_settings())


def test_fingerprint_when_profile_or_data_change() -> None:
    settings = make_settings()
    texts = {
        fingerprint(settings),
        fingerprint(settings, profile="q"),
        fingerprint(settings, data="e"),
    }
    assert len(texts) == 3
    assert all(re.fullmatch("[0-9a-f]{64}", text) for text in texts)


def test_settings_when_written_and_read() -> None:
    settings = make_settings(trials=3, time_limit_s=5.0, alias="jetson")
    again = RunSettings.model_validate(settings.to_json())
    assert again == settings
    assert fingerprint(again) == fingerprint(settings)


@pytest.mark.parametrize(
    "changes",
    [{"trials": 0}, {"time_limit_s": 0.0}, {"confidence": 1.0}, {"confidence": 0.0}, {"sed": 1}],
    ids=str,
)
def test_settings_when_a_value_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))):
        make_settings(**changes)


@pytest.mark.parametrize(
    ("least", "pictures", "steps"),
    [
        (240, 1079, 240),  # twelve passes over digits are 203 steps: the space's number stands
        (240, 4250, 797),  # 12 * 4250 / 64 = 796.9, rounded up
        (240, 50_000, 9375),
    ],
)
def test_full_steps_when_data_are_small_and_large(least: int, pictures: int, steps: int) -> None:
    assert full_steps(least, pictures, 64, passes=12) == steps


def test_full_steps_when_the_batch_grows_falls() -> None:
    steps = [full_steps(1, 4250, batch, passes=4) for batch in (16, 32, 64, 128)]
    assert steps == sorted(steps, reverse=True)
    assert all(steps[at] * batch >= 4 * 4250 for at, batch in enumerate((16, 32, 64, 128)))


def test_effort_when_greater_trains_longer_and_tries_more() -> None:
    found = [make_settings(effort=effort, trials=None) for effort in get_args(Effort)]
    for what in ("base_passes", "final_passes", "finalists"):
        values = [getattr(settings.lengths, what) for settings in found]
        assert values == sorted(set(values))
    counts = [settings.trial_count or 0 for settings in found]
    assert counts == sorted(set(counts))
    assert counts[1] == found[1].space.trials


def test_quantities_when_latency_has_no_budget() -> None:
    assert make_settings(budget_texts=("1MB", "3mJ")).quantities == ("size", "energy")
    asked = make_settings(budget_texts=("1MB", "3mJ"), objectives=("latency",))
    assert asked.quantities == ("latency", "size", "energy")


@pytest.mark.parametrize(
    ("trials", "limit", "count"), [(None, None, 8), (5, None, 5), (None, 9.0, None), (5, 9.0, 5)]
)
def test_trial_count_when_limits_are_given(
    trials: int | None, limit: float | None, count: int | None
) -> None:
    assert make_settings(trials=trials, time_limit_s=limit).trial_count == count


def test_folder_name_when_written_by_hand() -> None:
    settings = make_settings(target="jetson-nano@maxn", budget_texts=("10ms",), seed=3)
    assert settings.folder_name(NOW) == "2025-03-04_050607_jetson-nano@maxn_10ms_seed3"


@pytest.mark.parametrize("target", ["../../etc/my board;$(x).yaml", "a b/c'd\".yml"])
def test_folder_name_when_the_target_is_a_path_with_odd_characters(target: str) -> None:
    name = make_settings(target=target, budget_texts=("10 ms", " 5mJ")).folder_name(NOW)
    assert re.fullmatch(r"[A-Za-z0-9._@-]+", name)
    assert not name.startswith(".")
    assert ".yaml" not in name
    assert "etc" not in name


def test_derived_seed_when_computed_once_stays_the_same() -> None:
    # First four bytes of the SHA-256 of '["0","base"]', without the top bit.
    assert derived_seed(0, "base") == SEED_OF_BASE
    assert derived_seed("0", "base") == SEED_OF_BASE


def test_derived_seed_when_parts_differ() -> None:
    seeds = {derived_seed(0, "ab", "c"), derived_seed(0, "a", "bc"), derived_seed(1, "ab", "c")}
    assert len(seeds) == 3
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_settings_when_the_space_lists_bits_are_written_without_a_warning() -> None:
    settings = make_settings(space=make_space(weight_bits=[8], activation_bits=[8]))
    assert RunSettings.model_validate(settings.to_json()) == settings
