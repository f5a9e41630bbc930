import pytest
from ladder import Climb, climb_all, ladder_rows

from hwsearch.study.asked.preflight import check


def make_climbs() -> list[Climb]:
    """Rung 0 ranks backwards, rung 1 as the truth does; the free score is the same for all."""
    return [
        Climb(
            backbone="odd" if at % 2 else "even",
            free={"sensitivity": 0.0},
            accuracies=(0.9 - at / 100, 0.5 + at / 100),
            rungs_s=(1.0, 2.0),
            truth=0.6 + at / 100,
            full_s=20.0,
            bound_s=0.25,
        )
        for at in range(10)
    ]


def test_ladder_tells_tau_and_cost_of_each_rung() -> None:
    rows = {str(row["score"]): row for row in ladder_rows(make_climbs(), (12,), 0)}
    assert list(rows) == ["free: sensitivity", "rung 0, 0 steps", "rung 1, 12 steps"]
    assert rows["rung 0, 0 steps"]["kendall_tau"] == pytest.approx(-1)
    assert rows["rung 1, 12 steps"]["kendall_tau"] == pytest.approx(1)
    assert rows["free: sensitivity"]["kendall_tau"] is None
    assert str(rows["rung 0, 0 steps"]["cost_percent_of_full"]) == "5.0"


@pytest.mark.benchmark
def test_ladder_climbs_with_real_networks() -> None:
    checked = check(
        target="jetson-orin-nano", budgets=("1000ms",), data="digits", space="tiny", trials=1,
        time_limit=None, confidence=0.9, seed=0, download=False,
        settings={"backbones": "test_resnet"},
    )  # fmt: skip
    climbs = climb_all(checked, 3, seed=0)
    assert len(climbs) == 3
    for one in climbs:
        assert len(one.accuracies) == len(one.rungs_s) == 3
        assert list(one.rungs_s) == sorted(one.rungs_s)
        assert one.rungs_s[0] > one.bound_s
        assert one.truth > 0.5
