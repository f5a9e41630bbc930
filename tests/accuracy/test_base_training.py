"""Training of a base network: whole, then annealed, with the narrow networks inside it."""

import copy
from typing import Any

import pytest
import torch
from tiny_network import OWN, PX, make_data
from training_fixtures import same_weights

from hwsearch.accuracy import training
from hwsearch.accuracy.base_training import BaseTraining
from hwsearch.accuracy.elastic import Widths
from hwsearch.accuracy.training import Progress, Recipe, evaluate, reestimate_batch_norm
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import make_blueprint
from hwsearch.nets.prune import least_important, remove_channels
from hwsearch.space.channel_allocator import allocate_channels

REF = BackboneRef(name=OWN, classes=3)
WIDTHS = Widths(ratios=(0.0, 0.25, 0.5), granularity=4)


def begin(**changes: Any) -> BaseTraining:  # noqa: ANN401 - fields of a recipe
    recipe = Recipe(**{"steps": 60, "batch_size": 20, "seed": 0, **changes})
    model = build(REF, PX, seed=0)
    return BaseTraining(model, make_blueprint(REF, PX), make_data(), recipe)


def narrow_accuracy(work: BaseTraining, ratio: float) -> float:
    """Validation accuracy of the network with a share of all channels removed, untrained."""
    assert work.importance is not None
    blueprint, data = make_blueprint(REF, PX), make_data()
    kept = allocate_channels(WIDTHS.groups(blueprint, work.importance), (ratio,) * 4, 0.0)
    model = copy.deepcopy(work.model)
    remove_channels(model, blueprint.trace, least_important(work.importance, kept))
    reestimate_batch_norm(model, data, PX, batch_size=20)
    return evaluate(model, data.validation, data).accuracy


def test_training_when_cut_into_parts_gives_the_same_weights() -> None:
    whole, parts = begin(), begin()
    whole.train_whole(12)
    for steps in (5, 3, 4):
        parts.train_whole(steps)
        parts.score()  # looks, and changes nothing
    assert same_weights(whole.model, parts.model)
    for work in (whole, parts):
        work.anneal(8, widths=WIDTHS)
    assert same_weights(whole.model, parts.model)


def test_anneal_when_elastic_leaves_narrow_networks_that_work() -> None:
    work, told, before = begin(), list[tuple[int, int]](), torch.get_rng_state()
    work.train_whole(30, on_step=lambda done, of: told.append((done, of)))
    assert told == [(step, 30) for step in range(1, 31)]
    work.anneal(60, widths=WIDTHS)
    assert work.steps == 90
    assert torch.equal(torch.get_rng_state(), before)
    assert narrow_accuracy(work, 0.5) > 0.8
    data = make_data()
    assert evaluate(work.model, data.validation, data).accuracy > 0.9


def test_anneal_when_nothing_can_be_removed_trains_the_whole_network_only() -> None:
    work, plain = begin(), begin()
    work.anneal(6, widths=Widths(ratios=(0.0,), granularity=4))
    plain.anneal(6, widths=None)
    assert work.importance is None
    assert same_weights(work.model, plain.model)


class Clock:
    """Moves by a fixed time whenever it is read."""

    def __init__(self, tick_s: float) -> None:
        self.now_s, self.tick_s = 0.0, tick_s

    def monotonic(self) -> float:
        self.now_s += self.tick_s
        return self.now_s


@pytest.mark.parametrize("tick_s", [0.25, 0.5])
def test_progress_when_the_clock_decides_ends_with_it(
    tick_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "time", Clock(tick_s))
    progress = Progress(10**9, 10.0)
    shares = []
    while (share := progress.share) < 1.0:
        shares.append(share)
        progress.done += 1
    assert shares == sorted(shares)
    assert progress.done == round(10.0 / tick_s) - 1
    assert progress.expected_steps == progress.done


def test_progress_when_steps_decide_counts_them() -> None:
    progress = Progress(4)
    for done in range(4):
        assert progress.share == done / 4
        assert progress.expected_steps == 4
        progress.done += 1
    assert progress.share == 1.0
    assert Progress(0).share == 1.0
    assert Progress(5, 0.0).share == 1.0
