"""Training, batch-norm re-estimation and scoring, for a laptop's few cores.

Networks and pictures are channels-last, which is 1.5 to 2 times faster for these networks on a CPU.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from hwsearch.accuracy.data.batches import endless, iterate
from hwsearch.accuracy.data.dataset import DataSet, Split
from hwsearch.errors import BackboneError

#: Steps over which the learning rate rises, as a share of all steps.
_WARM_UP: Final = 0.1
_WEIGHT_DECAY: Final = 5e-4
#: Batches from which statistics are re-estimated: 8 and 32 ranked candidates alike on digits.
STATISTICS_BATCHES: Final = 8
_LARGEST_GRADIENT_NORM: Final = 5.0
_BATCH_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how to train.

    Attributes:
        steps: optimizer steps.
        learning_rate: the highest, for SGD at batch 64; networks without batch norm are trained
            with AdamW at a fiftieth of it.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 0.05
    seed: int = 0


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
    if recipe.steps < 1:
        return
    model.to(memory_format=torch.channels_last)
    optimizer, peak = _optimizer(model, recipe)
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = endless(
        data.at(px).train,
        batch_size=recipe.batch_size,
        mean=data.mean,
        std=data.std,
        generator=generator,
        augmentation=data.augmentation,
    )
    model.train()
    with _seeded(recipe.seed):
        for step in range(recipe.steps):
            for group in optimizer.param_groups:
                group["lr"] = peak * _schedule(step, recipe.steps)
            images, labels = next(batches)
            _step(model, optimizer, images, labels)
            if on_step is not None:
                on_step(step + 1, recipe.steps)
    model.eval()


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


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss = nn.functional.cross_entropy(model(images), labels)
    if not torch.isfinite(loss):
        raise BackboneError("the loss is not finite; the network's training diverged")
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_GRADIENT_NORM)
    optimizer.step()


def _optimizer(model: nn.Module, recipe: Recipe) -> tuple[torch.optim.Optimizer, float]:
    """Optimizer and highest learning rate; scales and biases are not decayed."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": _WEIGHT_DECAY},
        {"params": plain, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if any(isinstance(module, _BATCH_NORMS) for module in model.modules()):
        return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True), recipe.learning_rate
    return torch.optim.AdamW(groups, lr=0.0), recipe.learning_rate / 50


def _schedule(step: int, steps: int) -> float:
    warm_up = max(1, round(_WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator (dropout, stochastic depth), and put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
