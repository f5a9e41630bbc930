"""How a base network is trained: whole at first, then elastic and annealed to the end.

At first the whole network alone is trained, at a constant rate, for as long as is asked: backbones
compete meanwhile, and whoever is left goes on from where it is. Then the rate falls to zero, and
the narrow networks inside are taught (``elastic``). In a minute of one core on pictures of CIFAR-10
test_resnet loses nothing by that as a whole (66.2 % to 66.4 %), and with half of its channels it
has 59.8 % at once, where a dense one has 57.3 % after two more passes
(``benchmarks/training/elastic.py``).

A network that starts from pretrained weights is tuned as ``pretrained`` says, by the same clock; no
narrow networks are taught then, and it never ends below its linear probe.
"""

import copy
import logging
import math
import time
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.elastic import ElasticNetwork, Importance, Widths
from hwsearch.accuracy.pretrained import (
    RATE,
    Probe,
    anchor_batch_norm,
    layer_groups,
    start_from_probe,
    train_with_frozen_statistics,
)
from hwsearch.accuracy.training import (
    Progress,
    Recipe,
    Score,
    backward,
    evaluate,
    label_loss,
    make_optimizer,
    mixed,
    reestimate_batch_norm,
    set_rate,
    take_step,
    training_batches,
)
from hwsearch.errors import BackboneError
from hwsearch.nets.blueprint import Blueprint

_LOG = logging.getLogger(__name__)

#: Share of a training in which the whole network alone is trained.
WHOLE_SHARE: Final = 0.4
#: Steps over which the rate rises at the beginning; fewer in a short training.
_WARM_UP_STEPS: Final = 66
#: Weights of about this share of the steps so far are averaged for a score before annealing.
_AVERAGED_SHARE: Final = 0.1
_AVERAGE_EVERY: Final = 4

#: From this pass over the pictures on, every second batch is of mixed pictures: the same recipe
#: without them knows the training pictures by heart after 90 passes. In 150 s on CIFAR-10, 70
#: passes, test_resnet has 69.5 % whole and 65.1 % with half of its channels; without them 68.0 and
#: 63.6 % (``benchmarks/training/elastic.py``).
_MIXED_FROM_PASS: Final = 20
_MIXED_SHARE: Final = 0.5

OnStep = Callable[[int, int], None]


class BaseTraining:
    """A base network in training.

    Args:
        model: to be trained in place.
        blueprint: of it.
        data: whose training split is used.
        recipe: batch size, rate and seed; its steps are those of a whole training, by which the
            warm-up is bounded.
        classifiers: paths of the layers that make the output of a network with pretrained weights;
            None where the weights are random.

    Raises:
        BackboneError: pretrained weights give no finite features, or the classifier is not one
            linear layer.

    Attributes:
        model: in evaluation mode between calls.
        probe: the linear probe that pretrained weights start from; None where they are random.
        importance: the order of channels that the narrow networks were taught in; None before
            ``anneal``, and where no narrow network was.
        steps: optimizer steps so far.
        train_s: seconds of training so far.
    """

    def __init__(
        self,
        model: nn.Module,
        blueprint: Blueprint,
        data: DataSet,
        recipe: Recipe,
        *,
        classifiers: frozenset[str] | None = None,
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last).eval()
        self.importance: Importance | None = None
        self.train_s = 0.0
        self._blueprint, self._data, self._recipe = blueprint, data, recipe
        self._px = blueprint.trace.input_px
        self.probe: Probe | None = None
        if classifiers is None:
            self._optimizer, self._peak = make_optimizer(model, recipe.learning_rate)
        else:
            self.probe = start_from_probe(model, data, self._px, classifiers=classifiers)
            self._frozen = copy.deepcopy(model.state_dict())
            self._optimizer = torch.optim.AdamW(layer_groups(model), lr=0.0)
            self._peak = RATE * recipe.learning_rate
        self._batches = training_batches(data, self._px, recipe)
        self._mixed_from = _MIXED_FROM_PASS * len(data.train) / recipe.batch_size
        self._warm_up = max(1, min(_WARM_UP_STEPS, round(0.1 * recipe.steps)))
        self.steps = 0
        self._averaged: nn.Module | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self._random_state = torch.get_rng_state()

    def train_whole(
        self, steps: int, seconds: float | None = None, *, on_step: OnStep | None = None
    ) -> None:
        """Train the whole network on at a constant rate.

        Args:
            steps: optimizer steps; at most so many where the clock decides.
            seconds: after which it ends; None where the steps decide.
            on_step: is called with the step and the number of steps.

        Raises:
            BackboneError: the loss is not finite.
        """
        self._train(steps, seconds, lambda _: 1.0, None, on_step)

    def anneal(
        self,
        steps: int,
        seconds: float | None = None,
        *,
        widths: Widths | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        """Train on to the end: the rate falls to zero, and narrow networks are taught.

        Args:
            steps: optimizer steps; at most so many where the clock decides.
            seconds: after which it ends; None where the steps decide.
            widths: at which the network is to work; None teaches the whole network only.
            on_step: is called with the step and the number of steps.

        Raises:
            BackboneError: the loss is not finite.
        """
        begin = time.monotonic()
        elastic = None
        if widths is not None and self.probe is None:
            elastic = self._elastic(widths)
        if seconds is not None:
            seconds -= time.monotonic() - begin
        fall = lambda share: 0.5 * (1 + math.cos(math.pi * share))  # noqa: E731
        self._train(steps, seconds, fall, elastic, on_step)
        self._settle()

    def score(self) -> Score:
        """Validation score of the weights averaged over the last steps.

        At a constant rate the last weights alone say little: averaged ones score about as they
        would if the training were annealed here.
        """
        if self._averaged is None:
            return self._validation(self.model)
        model = copy.deepcopy(self._averaged)
        if self.probe is None:
            reestimate_batch_norm(model, self._data, self._px, batch_size=self._recipe.batch_size)
        return self._validation(model)

    def _validation(self, model: nn.Module) -> Score:
        return evaluate(model, self._data.at(self._px).validation, self._data)

    def _settle(self) -> None:
        """Bring the statistics of batch norm up to date; keep the probe where tuning lost by it."""
        if self.probe is None:
            reestimate_batch_norm(
                self.model, self._data, self._px, batch_size=self._recipe.batch_size
            )
            return
        anchor_batch_norm(self.model, self._data, self._px)
        if self._validation(self.model).correct < self.probe.validation.correct:
            self.model.load_state_dict(self._frozen)

    def _elastic(self, widths: Widths) -> ElasticNetwork | None:
        if widths.ratios[-1] == 0.0 or not self._blueprint.graph.groups:
            return None
        try:
            elastic = ElasticNetwork(self.model, self._blueprint, widths, seed=self._recipe.seed)
        except BackboneError as error:
            _LOG.warning(
                "%s is trained without its narrow forms: %s", self._blueprint.ref.name, error
            )
            return None
        self.importance = elastic.importance
        return elastic

    def _train(
        self,
        steps: int,
        seconds: float | None,
        rate: Callable[[float], float],
        elastic: ElasticNetwork | None,
        on_step: OnStep | None,
    ) -> None:
        progress = Progress(steps, seconds)
        begin = time.monotonic()
        if self.probe is None:
            self.model.train()
        else:
            train_with_frozen_statistics(self.model)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random_state)
            # Even where the clock leaves no time, one step is taken.
            while progress.share < 1.0 or progress.done < min(1, steps):
                rise = min(1.0, (self.steps + 1) / self._warm_up)
                set_rate(self._optimizer, self._peak * rise * rate(progress.share))
                self._step(*next(self._batches), elastic)
                progress.done += 1
                if on_step is not None:
                    on_step(progress.done, progress.expected_steps)
            self._random_state = torch.get_rng_state()
        self.model.eval()
        self.train_s += time.monotonic() - begin

    def _step(self, images: Tensor, labels: Tensor, elastic: ElasticNetwork | None) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        others, share = labels, 1.0
        if self.probe is None and self.steps >= self._mixed_from and torch.rand(()) < _MIXED_SHARE:
            images, others, share = mixed(images, labels)
        outputs = self.model(images)
        loss = label_loss(outputs, labels)
        if share < 1.0:
            loss = share * loss + (1 - share) * label_loss(outputs, others)
        backward(loss)
        if elastic is not None:
            elastic.teach(images, outputs)
        take_step(self.model, self._optimizer)
        self.steps += 1
        if elastic is None and self.steps % _AVERAGE_EVERY == 0:
            self._average()

    def _average(self) -> None:
        """Move the averaged weights towards the present ones, by the steps that count."""
        if self._averaged is None:
            self._averaged = copy.deepcopy(self.model)
        share = min(1.0, _AVERAGE_EVERY / max(1.0, _AVERAGED_SHARE * self.steps))
        with torch.no_grad():
            for mean, now in zip(self._averaged.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(now, share)
