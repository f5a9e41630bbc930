import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench import Bench
from scipy.stats import spearmanr
from study_fixtures import make_bench, make_knobs, make_space

from hwsearch.space.knobs import Knobs, knob_choices
from hwsearch.study.candidates.pricing import KnobPricer


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))


def some_knobs(count: int) -> list[Knobs]:
    choices = knob_choices(make_space())
    drawn = random.Random(0)
    return [
        Knobs.from_choices({name: drawn.choice(options) for name, options in choices.items()})
        for _ in range(count)
    ]


def described(bench: Bench, knobs: Knobs) -> tuple[float, ...]:
    """Costs with the channels and bits of all stages allocated at once."""
    network = bench.pricing.backbones.blueprint(knobs).describe(
        bench.pricing.plain_channels(knobs), bench.pricing.plain_bits(knobs)
    )
    return bench.pricing.values(bench.pricing.predictor.predict(network))


def test_prices_are_those_of_the_plainly_allocated_network() -> None:
    bench = make_bench()
    knobs = some_knobs(12)
    priced = KnobPricer(bench.pricing)([one.to_choices() for one in knobs])
    expected = np.array([described(bench, one) for one in knobs])
    assert priced.costs == pytest.approx(expected)
    assert len(np.unique(priced.costs[:, 0])) > 5


def test_pricing_needs_no_weights_and_repeats() -> None:
    bench = make_bench()
    asked = [one.to_choices() for one in some_knobs(5)]
    pricer = KnobPricer(bench.pricing)
    first, again = pricer(asked), KnobPricer(make_bench().pricing)(asked[::-1])
    assert not bench.bases
    assert first.costs.tolist() == again.costs[::-1].tolist()
    assert pricer(asked).costs.tolist() == first.costs.tolist()


def test_prices_are_near_those_of_the_trial() -> None:
    bench = make_bench()
    knobs = some_knobs(60)  # ranks of fewer are a matter of luck
    priced = KnobPricer(bench.pricing)([one.to_choices() for one in knobs])
    truth = np.array(
        [bench.pricing.values(bench.pricing.price(bench.expand(one))) for one in knobs]
    )
    # Four layers, of which each bit counts much: 8 % in the median.
    assert np.median(np.abs(np.log(priced.costs / truth))) < 0.15
    for plain, exact in zip(priced.costs.T, truth.T, strict=True):
        assert spearmanr(plain, exact).statistic > 0.9


def test_violations_are_those_of_admission() -> None:
    bench = make_bench(budget_texts=("0.4ms", "20kB"))
    knobs = make_knobs(saving=0.5)
    priced = KnobPricer(bench.pricing)([knobs.to_choices()])
    network = bench.pricing.backbones.blueprint(knobs).describe(
        bench.pricing.plain_channels(knobs), bench.pricing.plain_bits(knobs)
    )
    cost = bench.pricing.predictor.predict(network)
    held = bench.pricing.admit(cost)
    assert priced.violations is not None
    assert priced.violations[0].tolist() == pytest.approx(list(held.violations.values()))


def test_features_fall_with_channels_and_bits() -> None:
    plain, pruned, saved = (
        make_knobs(), make_knobs(prune=(0.5,) * 4), make_knobs(saving=1.0, protect_edges=False),
    )  # fmt: skip
    priced = KnobPricer(make_bench().pricing)([one.to_choices() for one in (plain, pruned, saved)])
    assert priced.features is not None
    macs, size, weight_bits, activation_bits = priced.features.T
    assert macs[1] < macs[0] == macs[2]
    assert size[1] < size[0] > size[2]
    assert weight_bits[2] < weight_bits[0] == 5.0 >= activation_bits[0]


def test_keys_join_knobs_that_end_in_the_same_network() -> None:
    plain = make_knobs()
    same = [replace(plain, spread=1.0), replace(plain, protect_edges=False)]
    other = [
        replace(plain, saving=0.5),
        replace(plain, saving=0.5, protect_edges=False),
        replace(plain, prune=(0.5,) * 4),
        replace(plain, prune=(0.5,) * 4, spread=1.0),
    ]
    asked = [one.to_choices() for one in (plain, *same, *other)]
    keys = KnobPricer(make_bench().pricing)(asked).keys
    assert keys is not None
    assert keys[0] == keys[1] == keys[2]
    assert len(set(keys)) == 5
