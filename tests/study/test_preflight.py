# ruff: noqa: ANN401 - fakes take whatever the real function is given
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from study_fixtures import make_picture_folder, make_profile, make_space

from hwsearch.errors import DataError, RunError, TargetError, UnitError
from hwsearch.study.asked.preflight import Checked, check, check_space_bits


def ask(**changes: Any) -> Checked:
    plain: dict[str, Any] = {
        "target": "jetson-orin-nano", "budgets": ("10ms",), "data": "digits", "space": "tiny",
        "trials": None, "time_limit": None, "confidence": 0.9, "seed": 0, "download": False,
        "settings": {},
    }  # fmt: skip
    return check(**(plain | changes))


def test_check_when_all_is_well(tmp_path: Path) -> None:
    folder = str(make_picture_folder(tmp_path / "pictures"))
    checked = ask(
        data=folder,
        time_limit="2m",
        settings={"trials": "3", "flip": "false", "weights": "scratch"},
    )
    settings = checked.settings
    assert checked.profile.name == settings.target == "jetson-orin-nano"
    assert (settings.time_limit_s, settings.space.trials, settings.flip) == (120.0, 3, False)
    assert settings.alias is None
    assert settings.weights == "scratch"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"budgets": ("10",)}, UnitError, "has no unit"),
        ({"confidence": 1.0}, RunError, "confidence 1 is not between 0 and 1"),
        ({"trials": 0}, RunError, "0 trials is too few"),
        ({"target": "jetsom"}, TargetError, "jetsom"),
        ({"data": "no-such-folder"}, DataError, "neither a folder nor a known data set"),
        ({"settings": {"weights": "best"}}, RunError, "weights 'best' is not auto"),
        ({"settings": {"flip": "yes"}}, RunError, "flip=yes is not true or false"),
        ({"settings": {"sampler": "gp"}}, RunError, "sampler 'gp' is not known-cost or tpe"),
        ({"settings": {"objectives": "speed"}}, RunError, "not a choice of latency, energy and"),
        ({"settings": {"objectives": "size,size"}}, RunError, "each once"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_check_when_something_cannot_be_used(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ask(**changes)


def test_check_space_bits_when_the_target_does_not_offer_them() -> None:
    check_space_bits(make_space(), make_profile())
    with pytest.raises(TargetError):
        check_space_bits(make_space(weight_bits=[3]), make_profile())


def test_preflight_when_imported_takes_no_torch() -> None:
    code = "import sys, hwsearch.study.asked.preflight; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_check_when_a_sampler_is_chosen() -> None:
    assert ask(settings={}).settings.sampler == "known-cost"
    assert ask(settings={"sampler": "tpe"}).settings.sampler == "tpe"


def test_check_when_objectives_are_chosen() -> None:
    assert ask().settings.quantities == ("latency",), "what has a budget"
    assert ask(budgets=("1MB",)).settings.quantities == ("size",)
    assert ask(settings={"objectives": "latency,size"}).settings.quantities == ("latency", "size")
    assert ask(settings={"objectives": "latency"}).settings.quantities == ("latency",)
    chosen = ask(settings={"objectives": "size"}, budgets=("10ms", "1mJ")).settings
    assert chosen.quantities == ("size", "latency", "energy")


def test_check_when_effort_and_time_limit_are_given_refuses() -> None:
    assert ask(effort="quick").settings.effort == "quick"
    assert ask().settings.effort == "standard"
    with pytest.raises(RunError, match=r"--effort is for runs without a time limit.*give --effort"):
        ask(effort="quick", time_limit="5m")
