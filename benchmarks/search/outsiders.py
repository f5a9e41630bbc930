"""What people run in place of hwsearch: small networks trained plainly, then a stock tool.

::

    python benchmarks/search/outsiders.py SPLIT.npz FOLDER --arms quantize-static,nncf --minutes 8
    python benchmarks/search/outsiders.py SPLIT.npz FOLDER --arms torch-pruning,modelopt --minutes 8

===============  =================================================================================
arm              what it does within its minutes
===============  =================================================================================
quantize-static  trains three networks; int8 by ONNX Runtime's ``quantize_static``
nncf             the same three; int8 by NNCF's quantization of the ONNX file
torch-pruning    trains three networks in half of the time, prunes the best one at five ratios by
                 group magnitude, fine-tunes each in what is left; int8 by ``quantize_static``
modelopt         the same, pruned by NVIDIA ModelOpt's FastNAS at four shares of the operations
===============  =================================================================================

Nothing of hwsearch is imported. Minutes are processor time of one thread, from when the pictures
are read: what importing the tools takes is free. Arms of one call share the networks that both
start from, and each is charged for all of them: ``outcome.json`` says what the call spent on others
alone. The fp32 networks count as files of each arm.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

OUTCOME_FILE: Final = "outcome.json"
#: Arms that share their training.
GROUPS: Final = (("quantize-static", "nncf"), ("torch-pruning", "modelopt"))
#: What to install for an arm, and what is imported then.
PACKAGES: Final[Mapping[str, tuple[str, str]]] = {
    "quantize-static": ("timm onnx onnxruntime", "timm, onnx, onnxruntime.quantization"),
    "nncf": ("timm onnx onnxruntime nncf", "timm, onnx, nncf"),
    "torch-pruning": ("timm onnx onnxruntime torch-pruning", "timm, onnx, torch_pruning"),
    # FastNAS counts operations with torchprofile, and ModelOpt 0.47 imports requests unasked.
    "modelopt": (
        "timm onnx onnxruntime nvidia-modelopt torchprofile==0.0.4 requests",
        "timm, onnx, torchprofile, modelopt.torch.prune",
    ),
}

#: The recipe: SGD with Nesterov momentum, warm-up and a cosine to the end, label smoothing, no
#: decay on norms and biases; fine-tuning begins at a lower rate.
_BATCH, _RATE, _FINE_TUNING_RATE = 64, 0.05, 0.03
_MOMENTUM, _WEIGHT_DECAY, _SMOOTHING, _WARM_UP_STEPS = 0.9, 5e-4, 0.1, 66
#: Pictures are shifted by up to an eighth of their side, as is usual for CIFAR-10.
_SHIFT: Final = 1 / 8
_CALIBRATION_PICTURES: Final = 256
_OPSET: Final = 17
#: What exporting and quantizing one network is taken to take before it was seen; later it is what
#: the last one took: 0.6 s with ``quantize_static``, 3.5 s with NNCF.
_FIRST_FILES_S: Final = 5.0
#: Of an arm that prunes: the share of its time in which the networks to start from are trained.
_BASES_SHARE: Final = 0.5
_RATIOS: Final = (0.25, 0.5, 0.625, 0.75, 0.85)
#: The tightest first: what is out of reach of a network leaves its time to the others.
_FLOPS_PERCENT: Final = (10, 20, 35, 60)
#: Channels of what is pruned: odd counts lose the gain on ONNX Runtime.
_CHANNEL_STEP: Final = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """The pictures of all arms, normalized.

    Attributes:
        train: float32, (N, 3, S, S), channels last.
        train_labels: int64, (N,).
        validation: as ``train``.
        validation_labels: as ``train_labels``.
        flip: training pictures may be mirrored.
    """

    train: Tensor
    train_labels: Tensor
    validation: Tensor
    validation_labels: Tensor
    flip: bool

    @property
    def px(self) -> int:
        """The side of a picture."""
        return int(self.train.shape[-1])

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(self.train_labels.max()) + 1

    def calibration(self) -> list[np.ndarray]:
        """Training pictures one by one, float32, (1, 3, S, S)."""
        some = self.train[:_CALIBRATION_PICTURES].contiguous().numpy()
        return [some[at : at + 1] for at in range(len(some))]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a call is asked for.

    Attributes:
        limit_s: processor time of each arm.
        nets: timm names.
        folder: of the files.
    """

    arms: tuple[str, ...]
    limit_s: float
    nets: tuple[str, ...]
    seed: int
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one arm made.

    Attributes:
        files: names within the folder.
        others_s: processor time of the call that is not this arm's.
    """

    files: tuple[str, ...]
    others_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("split", type=Path, help="npz file of end_to_end.py")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arms", required=True, help="those of one group")
    parser.add_argument("--minutes", type=float, required=True, help="processor time of each arm")
    parser.add_argument("--nets", default="resnet10t,test_resnet,test_efficientnet")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    arms = tuple(given.arms.split(","))
    if not any(set(arms) <= set(group) for group in GROUPS):
        parser.error(f"arms {given.arms} are none that share a training; pick from {GROUPS}")
    torch.set_num_threads(1)
    for arm in arms:
        import_tools(arm)
    begin = time.process_time()
    task = Task(
        arms=arms,
        limit_s=60 * given.minutes,
        nets=tuple(given.nets.split(",")),
        seed=given.seed,
        folder=given.folder,
    )
    given.folder.mkdir(parents=True, exist_ok=True)
    run = quantize_networks if arms[0] in GROUPS[0] else prune_best_network
    outcomes = run(task, read_pictures(given.split), begin)
    text = {arm: {"files": one.files, "others_s": one.others_s} for arm, one in outcomes.items()}
    (given.folder / OUTCOME_FILE).write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


def import_tools(arm: str) -> None:
    """Import the tools of an arm before its time begins."""
    import importlib

    for name in PACKAGES[arm][1].split(", "):
        importlib.import_module(name)


def read_pictures(path: Path) -> Pictures:
    """The training and validation pictures of a split, as ``end_to_end.py`` writes it."""
    with np.load(path) as split:
        mean, std = (
            torch.from_numpy(split[name]).to(torch.float32).view(1, 3, 1, 1)
            for name in ("mean", "std")
        )
        train, validation = (
            ((torch.from_numpy(split[f"{part}_images"]).to(torch.float32) / 255 - mean) / std)
            .contiguous(memory_format=torch.channels_last)
            for part in ("train", "validation")
        )  # fmt: skip
        return Pictures(
            train=train,
            train_labels=torch.from_numpy(split["train_labels"]),
            validation=validation,
            validation_labels=torch.from_numpy(split["validation_labels"]),
            flip=bool(split["flip"]),
        )


# -- arms -----------------------------------------------------------------------------------------


def quantize_networks(task: Task, pictures: Pictures, begin: float) -> dict[str, Outcome]:
    """Train every network for an equal share of the time, and quantize each with each tool."""
    files: dict[str, list[str]] = {arm: [] for arm in task.arms}
    own_s = dict.fromkeys(task.arms, 0.0)
    files_s = _FIRST_FILES_S
    for number, name in enumerate(task.nets):
        shared_s = time.process_time() - begin - sum(own_s.values())
        left_s = task.limit_s - shared_s - max(own_s.values())
        model = build(name, pictures, task.seed)
        fit(
            model,
            pictures,
            left_s / (len(task.nets) - number) - files_s,
            rate=_RATE,
            seed=task.seed,
        )
        report(name, model, pictures, begin)
        exported = time.process_time()
        fp32 = export(model, task.folder / f"{name}_fp32.onnx", pictures.px)
        export_s = time.process_time() - exported
        slowest_s = 0.0
        for arm in task.arms:
            started = time.process_time()
            int8 = _QUANTIZERS[arm](fp32, task.folder / f"{name}_{arm}_int8.onnx", pictures)
            took_s = time.process_time() - started
            own_s[arm] += took_s
            slowest_s = max(slowest_s, took_s)
            files[arm] += [fp32.name, int8.name]
        files_s = export_s + slowest_s
    return _outcomes(files, own_s)


def prune_best_network(task: Task, pictures: Pictures, begin: float) -> dict[str, Outcome]:
    """Train the networks, prune the best one in several ways, fine-tune what comes out."""
    best, best_name, best_percent = None, "", -1.0
    for number, name in enumerate(task.nets):
        left_s = _BASES_SHARE * task.limit_s - (time.process_time() - begin)
        model = build(name, pictures, task.seed)
        fit(model, pictures, left_s / (len(task.nets) - number), rate=_RATE, seed=task.seed)
        percent = report(name, model, pictures, begin)
        if percent > best_percent:
            best, best_name, best_percent = model, name, percent
    assert best is not None
    exported = time.process_time()
    bases = export_pair(best, f"{best_name}_dense", task.folder, pictures)
    dense_files_s = time.process_time() - exported
    shared_s = time.process_time() - begin
    files, own_s = {arm: [*bases] for arm in task.arms}, dict.fromkeys(task.arms, 0.0)
    for arm in task.arms:
        prune, ways = _PRUNERS[arm]
        started, files_s = time.process_time(), dense_files_s
        for number, (name, narrow) in enumerate(prune(best, pictures, task.folder)):
            if narrow is None:
                print(f"{best_name} {name} is out of reach", flush=True)
                continue
            left_s = task.limit_s - shared_s - (time.process_time() - started)
            share_s = left_s / (ways - number) - files_s
            fit(narrow, pictures, share_s, rate=_FINE_TUNING_RATE, seed=task.seed)
            report(f"{best_name} {name}", narrow, pictures, begin)
            exported = time.process_time()
            files[arm] += export_pair(narrow, f"{best_name}_{name}", task.folder, pictures)
            files_s = time.process_time() - exported
        own_s[arm] = time.process_time() - started
    return _outcomes(files, own_s)


def _outcomes(files: Mapping[str, Sequence[str]], own_s: Mapping[str, float]) -> dict[str, Outcome]:
    total_s = sum(own_s.values())
    return {arm: Outcome(files=tuple(files[arm]), others_s=total_s - own_s[arm]) for arm in files}


def prune_by_magnitude(
    base: nn.Module, pictures: Pictures, _: Path
) -> Iterator[tuple[str, nn.Module | None]]:
    """Torch-Pruning's group magnitude at each ratio, the classifier left alone."""
    import torch_pruning

    example = torch.zeros(1, 3, pictures.px, pictures.px)
    for ratio in _RATIOS:
        model = copy.deepcopy(base)
        classifier = model.get_classifier()  # type: ignore[operator]
        torch_pruning.pruner.MagnitudePruner(
            model, example, importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio, ignored_layers=[classifier], round_to=_CHANNEL_STEP,
        ).step()  # fmt: skip
        yield f"torch-pruning{100 * ratio:g}", model


def prune_by_fastnas(
    base: nn.Module, pictures: Pictures, folder: Path
) -> Iterator[tuple[str, nn.Module | None]]:
    """ModelOpt's FastNAS at each limit of operations; they share its table of sensitivities."""
    from modelopt.torch import prune

    some = range(0, 16 * _BATCH, _BATCH)
    batches = [
        (pictures.train[at : at + _BATCH], pictures.train_labels[at : at + _BATCH]) for at in some
    ]
    shares = tuple(step / 8 for step in range(1, 9))
    mode = [
        (
            "fastnas",
            {
                "nn.Conv2d": {"*": {"channel_divisor": _CHANNEL_STEP, "channels_ratio": shares}},
                "nn.BatchNorm2d": {
                    "*": {"feature_divisor": _CHANNEL_STEP, "features_ratio": shares}
                },
            },
        )
    ]
    # It refuses weights in channels-last storage.
    base = copy.deepcopy(base).to(memory_format=torch.contiguous_format)
    for percent in _FLOPS_PERCENT:
        try:
            model, _ = prune.prune(
                copy.deepcopy(base),
                mode=mode,
                constraints={"flops": f"{percent}%"},
                dummy_input=torch.zeros(1, 3, pictures.px, pictures.px),
                config={
                    "data_loader": batches,
                    "score_func": lambda narrow: accuracy_percent(narrow, pictures),
                    "checkpoint": str(folder / "sensitivities.pth"),
                    "collect_func": lambda batch: batch[0],
                },
            )
        except ValueError as error:
            if "constraints can be satisfied" not in str(error):
                raise
            model = None
        yield f"modelopt{percent}", model


# -- the recipe -----------------------------------------------------------------------------------


def build(name: str, pictures: Pictures, seed: int) -> nn.Module:
    """A network of timm with new weights."""
    import timm

    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=pictures.classes)
    assert isinstance(model, nn.Module)
    return model


def fit(model: nn.Module, pictures: Pictures, seconds: float, *, rate: float, seed: int) -> int:
    """Train for a processor time; the rate follows the clock and ends at zero.

    Returns:
        The number of steps; one at least.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model.to(memory_format=torch.channels_last).train()
    weights = [one for one in model.parameters() if one.ndim > 1]
    others = [one for one in model.parameters() if one.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": _WEIGHT_DECAY},
        {"params": others},
    ]
    optimizer = torch.optim.SGD(
        groups, lr=rate, momentum=_MOMENTUM, nesterov=True,
    )  # fmt: skip
    begin, steps = time.process_time(), 0
    order = np.empty(0, dtype=np.int64)
    while (share := (time.process_time() - begin) / max(seconds, 1e-9)) < 1 or steps == 0:
        if len(order) < _BATCH:  # the last pictures of a pass that fill no batch are left out
            order = rng.permutation(len(pictures.train))
        batch, order = torch.from_numpy(order[:_BATCH]), order[_BATCH:]
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        for group in optimizer.param_groups:
            group["lr"] = rate * cosine * min(1.0, (steps + 1) / _WARM_UP_STEPS)
        images = augmented(pictures.train[batch], rng, flip=pictures.flip)
        optimizer.zero_grad(set_to_none=True)
        logits = model(images)
        labels = pictures.train_labels[batch]
        loss = functional.cross_entropy(logits, labels, label_smoothing=_SMOOTHING)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        steps += 1
    model.eval()
    return steps


def augmented(images: Tensor, rng: np.random.Generator, *, flip: bool) -> Tensor:
    """Pictures shifted at random, the edges reflected, and mirrored at random if they may be."""
    count, channels, height, width = images.shape
    pad = round(_SHIFT * width)
    padded = functional.pad(images.contiguous(), (pad,) * 4, mode="reflect")
    down, right = rng.integers(0, 2 * pad + 1, (2, count, 1))
    mirrored = (rng.random((count, 1)) < 0.5) & flip
    rows = down + np.arange(height)
    columns = right + np.where(mirrored, np.arange(width)[::-1], np.arange(width))
    at = torch.from_numpy(rows[:, :, None] * (width + 2 * pad) + columns[:, None, :])
    flat = padded.view(count, channels, -1)
    moved = flat.gather(2, at.view(count, 1, -1).expand(-1, channels, -1)).view(images.shape)
    return moved.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy_percent(model: nn.Module, pictures: Pictures) -> float:
    """Share of the validation pictures that a network is right about."""
    model.eval()
    parts = zip(
        torch.split(pictures.validation, 4 * _BATCH),
        torch.split(pictures.validation_labels, 4 * _BATCH),
        strict=True,
    )
    right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in parts)
    return 100 * right / len(pictures.validation_labels)


def report(name: str, model: nn.Module, pictures: Pictures, begin: float) -> float:
    """Print the validation accuracy of a network, and give it."""
    percent = accuracy_percent(model, pictures)
    now_s = time.process_time() - begin
    print(f"{now_s:7.1f} s: {name}, validation accuracy {percent:.1f} %", flush=True)
    return percent


# -- files ----------------------------------------------------------------------------------------


def export(model: nn.Module, path: Path, px: int) -> Path:
    """Write a network as an ONNX file that takes one normalized picture."""
    still = copy.deepcopy(model).eval().to(memory_format=torch.contiguous_format)
    torch.onnx.export(
        still, (torch.zeros(1, 3, px, px),), str(path), input_names=["input"],
        output_names=["logits"], dynamo=False, opset_version=_OPSET,
    )  # fmt: skip
    return path


def export_pair(model: nn.Module, name: str, folder: Path, pictures: Pictures) -> list[str]:
    """Write a network in fp32 and in int8; the names of both files."""
    fp32 = export(model, folder / f"{name}_fp32.onnx", pictures.px)
    int8 = quantize_with_onnxruntime(fp32, folder / f"{name}_int8.onnx", pictures)
    return [fp32.name, int8.name]


def quantize_with_onnxruntime(fp32: Path, out: Path, pictures: Pictures) -> Path:
    """ONNX Runtime's static quantization: Q/DQ pairs, weights by channel, ranges from minima."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Hands out one picture after the other."""

        def __init__(self) -> None:
            self._rest = iter(pictures.calibration())

        def get_next(self) -> dict[str, np.ndarray] | None:
            """The next one, or None."""
            one = next(self._rest, None)
            return None if one is None else {"input": one}

    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(fp32), str(prepared))
    quantization.quantize_static(
        str(prepared), str(out), Reader(), quant_format=quantization.QuantFormat.QDQ,
        per_channel=True, activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
    )  # fmt: skip
    prepared.unlink()
    return out


def quantize_with_nncf(fp32: Path, out: Path, pictures: Pictures) -> Path:
    """NNCF's quantization of an ONNX file with its default settings."""
    import nncf
    import onnx

    pictures_in = nncf.Dataset(pictures.calibration(), lambda one: {"input": one})
    quantized = nncf.quantize(onnx.load(str(fp32)), pictures_in, subset_size=_CALIBRATION_PICTURES)
    onnx.save(quantized, str(out))
    return out


_Pruner = Callable[[nn.Module, Pictures, Path], Iterator[tuple[str, nn.Module | None]]]
_QUANTIZERS: Final[Mapping[str, Callable[[Path, Path, Pictures], Path]]] = {
    "quantize-static": quantize_with_onnxruntime,
    "nncf": quantize_with_nncf,
}
#: With the number of networks that come out.
_PRUNERS: Final[Mapping[str, tuple[_Pruner, int]]] = {
    "torch-pruning": (prune_by_magnitude, len(_RATIOS)),
    "modelopt": (prune_by_fastnas, len(_FLOPS_PERCENT)),
}

if __name__ == "__main__":
    main()
