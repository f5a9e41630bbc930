"""What a run says before it begins."""

from study_fixtures import make_bench, make_space
from tiny_network import OWN

from hwsearch.study.plan import dry_run_text, plan_text


def test_plan_when_the_effort_decides_counts_passes_and_trials() -> None:
    bench = make_bench(effort="standard")
    assert plan_text(bench.training, None) == (
        "plan (standard effort): 1 backbone, base networks of 40 passes over 60 pictures "
        "(150 steps of 16), 8 trials, up to 8 finalists of 12 passes"
    )
    assert "thorough effort" in plan_text(make_bench(effort="thorough").training, None)


def test_plan_when_a_limit_decides_shares_out_what_is_left() -> None:
    bench = make_bench(time_limit_s=600.0, trials=None)
    assert plan_text(bench.training, 500.0) == (
        "plan (8m20s left of the limit): 4m10s for base networks of 1 backbone on 60 pictures, "
        "50s for trials, 3m20s for 3 to 8 finalists and their files"
    )
    several = make_bench(space=make_space(backbones=[OWN, "test_resnet"]), time_limit_s=600.0)
    assert "of 2 backbones on 60 pictures" in plan_text(several.training, 500.0)


def test_dry_run_tells_memory_and_the_least_and_largest_cost() -> None:
    bench = make_bench()
    first, memory, latency, size = dry_run_text(bench.pricing, bench.training, None).splitlines()
    assert first == plan_text(bench.training, None)
    pictures = 3 * 16 * 16 * (60 + 30 + 30)
    assert memory.startswith(f"memory: {pictures / 1000:.1f} kB of pictures, up to ")
    assert latency.startswith("predicted latency on round: ")
    assert size.startswith("predicted size on round: ")
    costs = [bench.pricing.plain_cost(knobs) for knobs in bench.pricing.backbones.variants()]
    assert len(costs) == 1
    assert size.endswith("(the largest, dense in fp32)")
    assert f"{costs[0].size_bytes / 1000:.1f} kB (the largest" in size
