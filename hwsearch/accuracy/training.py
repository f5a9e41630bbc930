"""Training, batch-norm re-estimation and scoring, for a laptop's few cores.

Networks and pictures are channels-last, which is 1.5 to 2 times faster for these networks on a CPU.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from hwsearch.accuracy.data.batches import endless, iterate
from hwsearch.accuracy.data.dataset import DataSet, Split
from hwsearch.errors import BackboneError

#: Share of the training over which the learning rate rises.
_WARM_UP: Final = 0.1
#: Share of the target that is spread over all classes. The outsiders' recipe has it too.
LABEL_SMOOTHING: Final = 0.1
_WEIGHT_DECAY: Final = 5e-4
#: Batches from which statistics are re-estimated: 8 and 32 ranked candidates alike on digits.
STATISTICS_BATCHES: Final = 8
_LARGEST_GRADIENT_NORM: Final = 5.0
_BATCH_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d)


#: For trainings that a clock ends: more steps than it allows.
UNLIMITED_STEPS: Final = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how to train.

    Attributes:
        steps: optimizer steps; at most so many where the clock decides.
        batch_size: pictures in each step.
        learning_rate: the highest, for SGD at batch 64; networks without batch norm are trained
            with AdamW at a fiftieth of it.
        seed: of the order of the pictures and their augmentation.
        seconds: that the training may take, by ``time.monotonic``. The schedule follows the clock,
            so that the network is annealed to the end however fast its steps are. None: the steps
            decide, and one seed gives the same weights again.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 0.05
    seed: int = 0
    seconds: float | None = None


class Progress:
    """How much of a training is done, by its steps or by the clock.

    Args:
        steps: of the whole training.
        seconds: that it may take; None where the steps decide.
    """

    def __init__(self, steps: int, seconds: float | None = None) -> None:
        self._steps, self._seconds = steps, seconds
        self._begin = time.monotonic()
        self.done = 0

    @property
    def share(self) -> float:
        """From 0 to 1."""
        share = self.done / self._steps if self._steps else 1.0
        if self._seconds is not None:
            elapsed = time.monotonic() - self._begin
            share = max(share, elapsed / self._seconds if self._seconds > 0 else 1.0)
        return min(1.0, share)

    @property
    def expected_steps(self) -> int:
        """Steps of the whole training at the pace so far; at least what is done."""
        if self._seconds is None or self.done == 0:
            return self._steps
        return max(self.done, min(self._steps, round(self.done / max(self.share, 1e-9))))


@dataclass(frozen=True, kw_only=True)
class Score:
    """Right answers out of all."""

    correct: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.total or self.total == 0:
            raise ValueError(f"{self.correct} right of {self.total} is no score")

    @property
    def accuracy(self) -> float:
        """Share of right answers, from 0 to 1."""
        return self.correct / self.total

    @property
    def standard_error(self) -> float:
        """Of the accuracy; with one answer added on either side so that it is never zero."""
        share = (self.correct + 1) / (self.total + 2)
        return math.sqrt(share * (1 - share) / self.total)

    @property
    def ci95(self) -> tuple[float, float]:
        """Wilson's 95 % interval (Wilson 1927, doi:10.2307/2276774), which stays within 0 to 1."""
        z, n, share = 1.959964, self.total, self.accuracy
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return max(0.0, min(middle - reach, share)), min(1.0, max(middle + reach, share))


def train(
    model: nn.Module,
    data: DataSet,
    px: int,
    recipe: Recipe,
    *,
    on_step: Callable[[int, int], None] | None = None,
) -> None:
    """Train on the training split, in place; warm-up, then a cosine to zero.

    SGD with momentum converges faster than AdamW for networks with batch norm here; the others
    (ViT, ConvNeXt) do not train with it.

    Args:
        model: left in evaluation mode.
        data: whose training split is used, with its augmentation.
        px: side of the pictures.
        recipe: how long, how fast, from which seed.
        on_step: is called with the step and the number of steps.

    Raises:
        BackboneError: the loss is not finite.
    """
    optimizer, peak = make_optimizer(model, recipe.learning_rate)
    batches = training_batches(data, px, recipe)
    progress = Progress(recipe.steps, recipe.seconds)
    model.to(memory_format=torch.channels_last).train()
    with seeded(recipe.seed):
        while progress.share < 1.0:
            set_rate(optimizer, peak * _schedule(progress))
            images, labels = next(batches)
            optimizer.zero_grad(set_to_none=True)
            backward(label_loss(model(images), labels))
            take_step(model, optimizer)
            progress.done += 1
            if on_step is not None:
                on_step(progress.done, progress.expected_steps)
    model.eval()


def training_batches(data: DataSet, px: int, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented batches of the training split without end, drawn from the seed of the recipe."""
    return endless(
        data.at(px).train,
        batch_size=recipe.batch_size,
        mean=data.mean,
        std=data.std,
        generator=torch.Generator().manual_seed(recipe.seed),
        augmentation=data.augmentation,
    )


def reestimate_batch_norm(model: nn.Module, data: DataSet, px: int, *, batch_size: int) -> None:
    """Recompute the running statistics of batch norm as the plain mean over some batches.

    Pruning and quantization shift activations, so inherited statistics are stale. Only batch norm
    runs in training mode meanwhile. Networks without batch norm are left as they are.
    """
    norms = [module for module in model.modules() if isinstance(module, _BATCH_NORMS)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # None: cumulative mean
        norm.train()
    try:
        with torch.no_grad():
            for images, _ in _first_batches(data, px, batch_size, STATISTICS_BATCHES):
                model(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()


def evaluate(model: nn.Module, split: Split, data: DataSet) -> Score:
    """Score a model on a split of its input side; it is left in evaluation mode.

    Raises:
        BackboneError: an output is not finite.
    """
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for images, labels in iterate(split, batch_size=256, mean=data.mean, std=data.std):
            outputs = model(images)
            if not torch.isfinite(outputs).all():
                raise BackboneError("the network's outputs are not finite; its training diverged")
            correct += int((outputs.argmax(1) == labels).sum())
            total += len(labels)
    return Score(correct=correct, total=total)


def calibration_batches(data: DataSet, px: int, *, batch_size: int, count: int) -> list[Tensor]:
    """The first pictures of the training split, normalized, for choosing activation scales."""
    return [images for images, _ in _first_batches(data, px, batch_size, count)]


def _first_batches(
    data: DataSet, px: int, batch_size: int, count: int
) -> Iterator[tuple[Tensor, Tensor]]:
    # The order within a split is shuffled and stratified already, so the first ones are fair.
    split = data.at(px).train
    first = Split(
        images=split.images[: batch_size * count], labels=split.labels[: batch_size * count]
    )
    # A batch of one has no variance to estimate.
    whole = len(first) >= 2 * batch_size
    yield from iterate(first, batch_size=batch_size, mean=data.mean, std=data.std, drop_last=whole)


def label_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy against smoothed labels.

    Args:
        outputs: logits, (N, classes).
        labels: int64, (N,).
    """
    return nn.functional.cross_entropy(outputs, labels, label_smoothing=LABEL_SMOOTHING)


def mixed(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, float]:
    """Blend each picture of a batch with another one (mixup, arXiv:1710.09412).

    Drawn by torch's global generator.

    Args:
        images: (N, 3, px, px).
        labels: int64, (N,).

    Returns:
        The blended pictures, the labels of the other ones, and the share that the first ones keep,
        uniform in 0..1 and one for the whole batch. The loss is blended in the same shares.
    """
    order, share = torch.randperm(len(images)), float(torch.rand(()))
    return torch.lerp(images[order], images, share), labels[order], share


def backward(loss: Tensor) -> None:
    """Add the gradients of a loss.

    Raises:
        BackboneError: the loss is not finite.
    """
    if not torch.isfinite(loss):
        raise BackboneError("the loss is not finite; the network's training diverged")
    loss.backward()  # type: ignore[no-untyped-call]


def take_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Change the weights by the gradients, which are clipped."""
    torch.nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_GRADIENT_NORM)
    optimizer.step()


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters; a group with a ``share`` gets that of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)


def make_optimizer(model: nn.Module, learning_rate: float) -> tuple[torch.optim.Optimizer, float]:
    """Optimizer and highest learning rate; scales and biases are not decayed."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": _WEIGHT_DECAY},
        {"params": plain, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if any(isinstance(module, _BATCH_NORMS) for module in model.modules()):
        return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True), learning_rate
    return torch.optim.AdamW(groups, lr=0.0), learning_rate / 50


def _schedule(progress: Progress) -> float:
    """Share of the highest rate: a rise, then half a cosine to zero."""
    share = progress.share
    rise = min(1.0, (progress.done + 1) / max(1.0, _WARM_UP * progress.expected_steps))
    if share < _WARM_UP:
        return min(rise, 1.0)
    return 0.5 * (1 + math.cos(math.pi * (share - _WARM_UP) / (1 - _WARM_UP)))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator (dropout, stochastic depth), and put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
