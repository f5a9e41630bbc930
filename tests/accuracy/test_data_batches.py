"""Batches are tested against plain definitions, and augmentation by its statistics."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from hwsearch.accuracy.data.batches import augmented, endless, iterate, normalized
from hwsearch.accuracy.data.dataset import Augmentation, Split

MEAN = (0.4, 0.5, 0.6)
STD = (0.2, 0.25, 0.3)
PLAIN = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # normalization that changes nothing


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int, px: int = 4) -> Split:
    """Pictures whose pixels and label are their number."""
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, px, px)
    return Split(images=images, labels=torch.arange(count))


def noise(count: int, px: int) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, px, px), dtype=np.uint8))


def shifted(image: np.ndarray, dy: int, dx: int, flip: bool) -> np.ndarray:
    """The definition: pad by repeating the edge, cut out, mirror. (3, S, S)."""
    px = image.shape[-1]
    most = max(abs(dy), abs(dx))
    padded = np.pad(image, ((0, 0), (most, most), (most, most)), mode="edge")
    cut = padded[:, most - dy : most - dy + px, most - dx : most - dx + px]
    return cut[:, :, ::-1] if flip else cut


def test_normalized_follows_its_formula() -> None:
    images = noise(5, 7)
    expected = (images.double() / 255 - torch.tensor(MEAN).view(1, 3, 1, 1).double()) / (
        torch.tensor(STD).view(1, 3, 1, 1).double()
    )
    before = images.clone()
    result = normalized(images, MEAN, STD)
    assert torch.equal(images, before)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)


def test_iterate_without_generator_keeps_the_order() -> None:
    batches = list(iterate(numbered(10), batch_size=4, mean=PLAIN[0], std=PLAIN[1]))
    assert [labels.tolist() for _, labels in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    for images, labels in batches:
        assert images.shape == (len(labels), 3, 4, 4)
        assert images.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(images[:, 0, 0, 0], labels.float())


def test_iterate_with_generator_shuffles_and_gives_each_once() -> None:
    split = numbered(50)
    seen = []
    for seed in (1, 1, 2):
        batches = iterate(split, batch_size=8, mean=PLAIN[0], std=PLAIN[1], generator=seeded(seed))
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        torch.testing.assert_close(images[:, 2, 3, 1], labels.float())
        seen.append(labels)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], torch.arange(50))
    assert torch.equal(seen[0].sort().values, torch.arange(50))


@pytest.mark.parametrize(("count", "batches"), [(10, 2), (8, 2), (3, 0)])
def test_drop_last_leaves_out_what_is_not_full(count: int, batches: int) -> None:
    sizes = [
        len(labels)
        for _, labels in iterate(numbered(count), batch_size=4, mean=MEAN, std=STD, drop_last=True)
    ]
    assert sizes == [4] * batches


@pytest.mark.parametrize("batch_size", [0, -3])
def test_batch_size_below_one_is_refused_at_the_call(batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size {batch_size} is not at least 1"):
        iterate(numbered(3), batch_size=batch_size, mean=MEAN, std=STD)
    with pytest.raises(ValueError, match=f"batch_size {batch_size} is not at least 1"):
        endless(numbered(3), batch_size=batch_size, mean=MEAN, std=STD, generator=seeded())


def test_augmentation_without_generator_is_refused_at_the_call() -> None:
    change = Augmentation(flip=True, shift_fraction=0)
    with pytest.raises(ValueError, match="an augmentation is random: give a generator"):
        iterate(numbered(3), batch_size=2, mean=MEAN, std=STD, augmentation=change)


def test_endless_goes_on_with_full_batches_and_new_orders() -> None:
    batches = endless(numbered(10), batch_size=4, mean=MEAN, std=STD, generator=seeded())
    labels = [y for _, y in itertools.islice(batches, 8)]
    assert [len(y) for y in labels] == [4] * 8
    rounds = [torch.cat(labels[n : n + 2]).tolist() for n in range(0, 8, 2)]
    assert all(len(set(seen)) == 8 for seen in rounds)
    assert len({tuple(seen) for seen in rounds}) == 4


def test_endless_gives_a_small_split_as_one_batch() -> None:
    batches = endless(numbered(3), batch_size=64, mean=MEAN, std=STD, generator=seeded())
    assert [sorted(y.tolist()) for _, y in itertools.islice(batches, 3)] == [[0, 1, 2]] * 3


@pytest.mark.parametrize("flip", [False, True])
def test_every_result_is_one_of_the_defined_shifts_and_all_occur_alike(flip: bool) -> None:
    image = noise(1, 8)
    change = Augmentation(flip=flip, shift_fraction=0.25)
    images = image.repeat(2500 * (1 + flip), 1, 1, 1)
    results = augmented(images, change, seeded())
    assert bool((images == image).all()), "the input is left alone"
    names = {
        shifted(image[0].numpy(), dy, dx, mirror).tobytes(): (dy, dx, mirror)
        for dy in range(-2, 3)
        for dx in range(-2, 3)
        for mirror in ([False, True] if flip else [False])
    }
    assert len(names) == 25 * (1 + flip)
    seen = [names[result.numpy().tobytes()] for result in results]
    # 100 expected of each, deviation 10.
    assert all(abs(seen.count(name) - 100) < 50 for name in names.values())


def test_augmentation_reaches_the_batches() -> None:
    split = Split(images=noise(40, 8), labels=torch.arange(40))
    change = Augmentation(flip=True, shift_fraction=0)
    batches = iterate(
        split, batch_size=7, mean=PLAIN[0], std=PLAIN[1], generator=seeded(), augmentation=change
    )
    mirrored = 0
    for images, labels in batches:
        for image, label in zip(images.round().to(torch.uint8), labels, strict=True):
            original = split.images[label]
            mirrored += int(torch.equal(image, original.flip(2)))
            assert torch.equal(image, original) or torch.equal(image, original.flip(2))
    assert 5 < mirrored < 35
