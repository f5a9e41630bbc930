"""Base networks that start from weights which were trained on other pictures.

Such a network is not trained as one with random weights is. In this order:

1. The normalization that its weights expect is folded into its first convolution.
2. Batch norm is anchored: it keeps its function, and holds the statistics of the pictures at hand.
3. A linear probe, a logistic regression on the frozen features, gives the classifier.
4. All layers are tuned from there with the statistics frozen, the first ones at a tenth of the rate
   of the last one. Where that has made the validation score worse, the probe stays.

Each step is there for what it gave EfficientNet-Lite0 with its ImageNet weights, on 340 pictures of
CIFAR-10 at 64 px (percent of held-out pictures right):

* Trained as random weights are, at a fifth of the rate: 40.3 after 240 steps. A linear probe of the
  frozen features: 49.8.
* What spoils it is batch norm in training mode. Statistics of these few, blurred pictures instead
  of ImageNet's cost the frozen features 12 to 14 points before the first step (those of the last
  three stages, whose maps are 4 and 2 px wide). From the probe, 100 steps give 45.0 with them and
  57.6 with the statistics frozen; AdamW with rates by layer gives 58.6.
* A network that was tuned so falls to 15.2 when its statistics are re-estimated, which every
  candidate's are; anchored, it falls to 56.8.
* Pictures in the normalization that the weights expect: 2 to 3 points for the probe.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from hwsearch.accuracy.data.batches import iterate
from hwsearch.accuracy.data.dataset import DataSet, Split
from hwsearch.accuracy.training import Score
from hwsearch.errors import BackboneError

#: Pictures that a probe is fitted to at most; below half of it, mirrored copies are added.
PROBE_PICTURES: Final = 4000
#: Inverse strengths of the regularization (scikit-learn's C, for features of unit deviation).
_STRENGTHS: Final = (0.001, 0.01, 0.1, 1.0)
_MOST_ITERATIONS: Final = 300
_BATCH: Final = 256
#: Pictures that the statistics of batch norm are taken from.
_STATISTICS_PICTURES: Final = 512

#: AdamW's for the last layer, as a share of the rate of a recipe, which is one for SGD: 0.002.
#: After 100 steps EfficientNet-Lite0 has 53.4 and 58.6 % with 0.0003 and 0.001; folded and anchored
#: it has 61.2 and 62.8 % with 0.001 and 0.003 (one seed).
RATE: Final = 1 / 25
#: Rate of the first layer as a share of the last one's; between them it grows geometrically.
_FIRST_LAYER_SHARE: Final = 0.1
_WEIGHT_DECAY: Final = 0.01

_BATCH_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """A classifier for frozen features.

    Attributes:
        weight: float32, (classes, features).
        bias: float32, (classes,).
        validation: score of the network with it on the validation split.
    """

    weight: Tensor
    bias: Tensor
    validation: Score


def start_from_probe(
    model: nn.Module, data: DataSet, px: int, *, classifiers: frozenset[str]
) -> Probe:
    """Make a network with pretrained weights ready for tuning, in place: the first three steps.

    Args:
        model: its classifier may be random; it is left in evaluation mode.
        data: is fitted to, and scored with.
        px: side at which the network takes its pictures.
        classifiers: paths of the layers that make the output.

    Raises:
        BackboneError: the classifier is not one linear layer, or the features are not finite.
    """
    model.to(memory_format=torch.channels_last)
    fold_normalization(model, data)
    anchor_batch_norm(model, data, px)
    return linear_probe(model, data, px, classifiers=classifiers)


def linear_probe(model: nn.Module, data: DataSet, px: int, *, classifiers: frozenset[str]) -> Probe:
    """Fit the classifier to the frozen features, and put it in place.

    A multinomial logistic regression with scikit-learn's LBFGS. Its regularization is the one of
    four that scores best on the validation split, the strongest of those that tie. Of many pictures
    the first 4,000 are used; where there are fewer than 2,000, their mirror images are as well if
    the data set is mirrored in training. A class that is not among them is never the answer.

    Args:
        model: left in evaluation mode, with the probe as its classifier.
        data: whose training split the probe is fitted to.
        px: side at which the network takes its pictures.
        classifiers: paths of the layers that make the output; one linear layer is supported.

    Raises:
        BackboneError: the classifier is not one linear layer, or the features are not finite.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    layer = _linear_layer(model, classifiers)
    data = data.at(px)
    model.eval()
    pictures = _first(data.train, PROBE_PICTURES)
    features, labels = _features(model, layer, pictures, data), pictures.labels
    if data.augmentation.flip and 2 * len(pictures) <= PROBE_PICTURES:
        mirrored = _features(model, layer, pictures, data, mirror=True)
        features, labels = torch.cat([features, mirrored]), torch.cat([labels, labels])
    held_out = _features(model, layer, data.validation, data)
    scale = float(features.std()) or 1.0
    best: tuple[int, Tensor, Tensor] | None = None
    for strength in _STRENGTHS:
        regression = LogisticRegression(C=strength, max_iter=_MOST_ITERATIONS)
        with warnings.catch_warnings():
            # Ended early it is a little more regularized, and is scored as what it is.
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression.fit((features / scale).numpy(), labels.numpy())
        weight, bias = _classifier_of(regression, data.classes)
        weight = weight / scale
        # In the batches of a score, so that the network gives the very same answers.
        outputs = [
            nn.functional.linear(some, weight, bias) for some in torch.split(held_out, _BATCH)
        ]
        correct = int((torch.cat(outputs).argmax(1) == data.validation.labels).sum())
        if best is None or correct > best[0]:
            best = correct, weight, bias
    assert best is not None
    correct, weight, bias = best
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    validation = Score(correct=correct, total=len(data.validation))
    return Probe(weight=weight, bias=bias, validation=validation)


def anchor_batch_norm(model: nn.Module, data: DataSet, px: int) -> None:
    """Let batch norm hold the statistics of these pictures, without a change of its function.

    Scale and shift are set so that the network computes what it did. Afterwards a re-estimation
    gives nearly the same statistics, where it would otherwise replace those of the pictures that
    the weights were trained on. Networks without batch norm are left as they are.
    """
    norms = [
        m
        for m in model.modules()
        if isinstance(m, _BATCH_NORMS) and m.affine and m.track_running_stats
    ]
    if not norms:
        return
    moments: dict[nn.Module, Tensor] = {}

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0]
        dims = [dim for dim in range(values.dim()) if dim != 1]
        variance, mean = (part.double() for part in torch.var_mean(values, dims, correction=0))
        here = torch.stack([torch.ones_like(mean), mean, variance + mean.square()])
        moments[norm] = moments.get(norm, 0) + here * (values.numel() / values.shape[1])

    model.eval()
    with _hooked(norms, add), torch.no_grad():
        some = _first(data.at(px).train, _STATISTICS_PICTURES)
        for images, _ in _batches(some, data):
            model(images)
    with torch.no_grad():
        for norm in norms:
            if norm in moments:
                count, first, second = moments[norm]
                _anchor(norm, first / count, (second / count - (first / count) ** 2).clamp_min_(0))


def fold_normalization(model: nn.Module, data: DataSet) -> None:
    """Let a network whose weights expect pictures in another normalization take those of the data.

    With the pictures ``z = (x - m) / s`` of the data where ``(x - M) / S = a z + b`` is expected,
    the first convolution is multiplied by ``a`` per input channel, and what ``b`` adds to its
    output goes into its bias or into the mean of the batch norm after it. At the border, where
    zeros are padded, that is not exact, and costs nothing: the probe of EfficientNet-Lite0 has 53.6
    and 61.9 % at 64 and 96 px so, 53.4 and 61.9 % with pictures in its own normalization, and 50.6
    and 60.0 % with neither (340 pictures of CIFAR-10, means of two draws).

    M and S are those of timm's ``pretrained_cfg``. A network that has none is left as it is, and
    one whose first convolution has neither a bias nor a batch norm keeps its ``b``.
    """
    configuration = getattr(model, "pretrained_cfg", None) or {}
    stem = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if stem is None or stem.in_channels != 3 or not {"mean", "std"} <= set(configuration):
        return
    wanted_mean, wanted_std = (torch.tensor(configuration[name]) for name in ("mean", "std"))
    factor = torch.tensor(data.std) / wanted_std
    offset = (torch.tensor(data.mean) - wanted_mean) / wanted_std
    with torch.no_grad():
        added = stem.weight.sum((2, 3)) @ offset
        stem.weight.mul_(factor.view(1, 3, 1, 1))
        norm = _following_norm(model, stem)
        if stem.bias is not None:
            stem.bias.add_(added)
        elif norm is not None and norm.running_mean is not None:
            norm.running_mean.sub_(added)


def train_with_frozen_statistics(model: nn.Module) -> None:
    """Set training mode everywhere but in batch norm, whose scale and shift are trained still."""
    model.train()
    for module in model.modules():
        if isinstance(module, _BATCH_NORMS):
            module.eval()


def layer_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer, each with the ``share`` of the rate that it gets.

    The share grows geometrically with the place of a layer among all, in the order in which the
    module defines them. Scales and biases are not decayed.
    """
    layers: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            layers.setdefault(name.rpartition(".")[0], []).append(parameter)
    last = max(1, len(layers) - 1)
    return [
        {
            "params": [parameter],
            "share": _FIRST_LAYER_SHARE ** (1 - at / last),
            "weight_decay": _WEIGHT_DECAY if parameter.dim() > 1 else 0.0,
        }
        for at, parameters in enumerate(layers.values())
        for parameter in parameters
    ]


def _anchor(norm: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """Give a batch norm other statistics, and the scale and shift that make up for them."""
    assert isinstance(norm, _BATCH_NORMS)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    deviation = (norm.running_var.double() + norm.eps).sqrt()
    norm.bias.add_(norm.weight * (mean - norm.running_mean) / deviation)
    norm.weight.mul_((variance + norm.eps).sqrt() / deviation)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def _following_norm(model: nn.Module, layer: nn.Conv2d) -> nn.BatchNorm2d | None:
    """The batch norm that is defined right after a convolution."""
    modules = list(model.modules())
    norm = next(iter(modules[modules.index(layer) + 1 :]), None)
    if isinstance(norm, nn.BatchNorm2d) and norm.num_features == layer.out_channels:
        return norm
    return None


def _linear_layer(model: nn.Module, classifiers: frozenset[str]) -> nn.Linear:
    layers = [model.get_submodule(path) for path in sorted(classifiers)]
    if len(layers) == 1 and isinstance(layers[0], nn.Linear) and layers[0].bias is not None:
        return layers[0]
    kinds = ", ".join(
        f"'{path}' ({type(layer).__name__})"
        for path, layer in zip(sorted(classifiers), layers, strict=True)
    )
    raise BackboneError(
        f"pretrained weights need one linear layer with a bias as the classifier, not "
        f"{kinds or 'none'}; use weights 'scratch' or another backbone"
    )


def _classifier_of(regression: Any, classes: int) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Weight (classes, features) and bias (classes,) of a fitted regression, in float32."""
    coefficients = torch.from_numpy(regression.coef_).float()
    intercepts = torch.from_numpy(regression.intercept_).float()
    if len(regression.classes_) == 2:  # one row: that of the second class against the first
        coefficients = torch.cat([-coefficients, coefficients]) / 2
        intercepts = torch.cat([-intercepts, intercepts]) / 2
    seen = torch.from_numpy(regression.classes_)
    weight = torch.zeros(classes, coefficients.shape[1])
    bias = torch.full((classes,), float(intercepts.min()) - 10)
    weight[seen], bias[seen] = coefficients, intercepts
    return weight, bias


def _features(
    model: nn.Module,
    layer: nn.Linear,
    split: Split,
    data: DataSet,
    *,
    mirror: bool = False,
) -> Tensor:
    """What reaches the classifier, (N, features) in float32."""
    found: list[Tensor] = []

    def keep(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0].flatten(1))

    with _hooked([layer], keep), torch.no_grad():
        for images, _ in _batches(split, data):
            model(images.flip(3) if mirror else images)
    features = torch.cat(found)
    if not torch.isfinite(features).all():
        raise BackboneError(
            "the features of the pretrained network are not finite; give other weights, or use "
            "weights 'scratch'"
        )
    return features


def _first(split: Split, count: int) -> Split:
    # The order within a split is shuffled and stratified already, so the first ones are fair.
    return Split(images=split.images[:count], labels=split.labels[:count])


def _batches(split: Split, data: DataSet) -> Iterator[tuple[Tensor, Tensor]]:
    return iterate(split, batch_size=_BATCH, mean=data.mean, std=data.std)


@contextmanager
def _hooked(
    modules: Sequence[nn.Module], hook: Callable[[nn.Module, tuple[Tensor, ...]], None]
) -> Iterator[None]:
    """Let a function see the inputs of some modules."""
    handles = [module.register_forward_pre_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
