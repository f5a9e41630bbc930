import pytest
from study_fixtures import make_bench, make_knobs
from tiny_network import OWN, PX

from hwsearch.study.asked.admission import upper_of
from hwsearch.study.finals.front import build_front
from hwsearch.study.finals.reachable import no_evidence, reachable, reachable_text


def test_reachable_when_the_budget_is_generous() -> None:
    bench = make_bench()
    least = reachable(bench.pricing)
    cost, _ = bench.pricing.cheapest(make_knobs())
    assert least.admitted
    assert least.least["latency"] == upper_of(cost, "latency", 0.9)
    assert least.least["size"] == cost.size_bytes


@pytest.mark.parametrize(("factor", "admitted"), [(1.001, True), (0.999, False)])
def test_reachable_when_the_least_is_asked_for(factor: float, admitted: bool) -> None:
    limit = reachable(make_bench(budget_texts=("1ms",)).pricing).least["latency"] * factor
    assert reachable(make_bench(budget_texts=(f"{limit}ms",)).pricing).admitted is admitted


def test_empty_front_when_nothing_fits_names_the_closest() -> None:
    bench = make_bench(budget_texts=("1us",))
    least = reachable(bench.pricing)
    front = build_front([], no_evidence(bench.pricing, bench.data, least, []), bench.settings).file
    assert not front.front
    assert not front.baselines
    assert not front.notes
    assert front.closest is not None
    assert (front.closest.backbone, front.closest.input_px) == (OWN, PX)
    assert front.minimum_reachable is not None
    assert front.minimum_reachable["latency"].value == least.least["latency"]
    text = reachable_text(least, bench.settings)
    assert "space 'small' meets 1us on round at confidence 0.9" in text
