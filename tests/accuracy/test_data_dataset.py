import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from hwsearch.accuracy.data import dataset
from hwsearch.accuracy.data.dataset import (
    Augmentation,
    DataSet,
    Split,
    channel_statistics,
    content_hash,
    is_grey,
    make_data_set,
    resized_images,
)
from hwsearch.errors import DataError


def random_split(count: int = 12, px: int = 6, seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, (count, 3, px, px), dtype=np.uint8))
    return Split(images=images, labels=torch.arange(count) % 3)


def three(px: int = 6) -> tuple[Split, Split, Split]:
    return random_split(12, px, 0), random_split(6, px, 1), random_split(3, px, 2)


def make(**changes: object) -> DataSet:
    arguments: dict[str, object] = {
        "name": "x",
        "source": "made up",
        "class_names": ("a", "b", "c"),
        "splits": three(),
        "flip": True,
        "shift_fraction": 0.125,
        **changes,
    }
    return make_data_set(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(3, 4, 4), torch.zeros(3).long(), "images are uint8 and labels int64, not"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.zeros(2).int(), "images are uint8 and labels int64"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.zeros(3).long(), r"2 pictures need .* not \(3,\)"),
        *(
            (
                torch.zeros(shape).byte(),
                torch.zeros(2).long(),
                r"images have the shape \(N, 3, S, S",
            )
            for shape in ((3, 4, 4), (2, 1, 4, 4), (2, 3, 4, 5), (0, 3, 4, 4))
        ),
    ],
)
def test_split_of_another_kind_cannot_be_built(
    images: torch.Tensor, labels: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Split(images=images, labels=labels)


@pytest.mark.parametrize("fraction", [-0.1, 0.5, float("nan")])
def test_augmentation_out_of_range_cannot_be_built(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"is not in 0 <= x < 0\.5"):
        Augmentation(flip=False, shift_fraction=fraction)


@pytest.mark.parametrize(("px", "expected"), [(8, 1), (32, 4), (224, 28), (3, 0)])
def test_shift_in_pixels_follows_the_side(px: int, expected: int) -> None:
    assert Augmentation(flip=False, shift_fraction=1 / 8).shift_px(px) == expected


@pytest.mark.parametrize("chunk_bytes", [1, 500, 10**9])
def test_statistics_are_those_of_numpy(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_CHUNK_BYTES", chunk_bytes)
    images = random_split(20, 7).images
    mean, std = channel_statistics(images)
    scaled = images.numpy() / 255
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 2, 3)), rtol=1e-12)


def test_statistics_of_constant_pictures_stay_usable() -> None:
    mean, std = channel_statistics(torch.full((2, 3, 4, 4), 51, dtype=torch.uint8))
    assert mean == pytest.approx((0.2, 0.2, 0.2))
    assert std == (1 / 255,) * 3


def test_statistics_are_of_the_train_split_only() -> None:
    train, validation, test = three()
    dark = Split(images=test.images * 0, labels=test.labels)
    assert make(splits=(train, validation, dark)).mean == make().mean
    assert make(splits=(dark, validation, test)).mean == (0.0, 0.0, 0.0)


def test_hash_depends_neither_on_the_order_nor_on_storage() -> None:
    train, validation, test = three()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    images = train.images[order].contiguous(memory_format=torch.channels_last)
    shuffled = Split(images=images, labels=train.labels[order])
    assert content_hash((shuffled, validation, test)) == content_hash((train, validation, test))


def test_hash_changes_with_pixel_label_and_split() -> None:
    train, validation, test = three()
    pixel = train.images.clone()
    pixel[3, 1, 2, 2] ^= 1
    label = train.labels.clone()
    label[0] = (label[0] + 1) % 3
    hashes = {
        content_hash((train, validation, test)),
        content_hash((Split(images=pixel, labels=train.labels), validation, test)),
        content_hash((Split(images=train.images, labels=label), validation, test)),
        content_hash((train, test, validation)),
        content_hash(three(px=5)),
    }
    assert len(hashes) == 5
    assert all(len(value) == 64 for value in hashes)


def test_hash_of_known_content_never_changes() -> None:
    split = Split(
        images=torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2), labels=torch.tensor([0, 1])
    )
    # A change here makes every stored run say that its data are other data.
    assert content_hash((split, split, split)).startswith("43cc94d91d60d77e")


def test_grey_means_three_equal_channels() -> None:
    grey = random_split().images[:, :1].repeat(1, 3, 1, 1)
    assert is_grey(grey)
    for channel in range(3):
        coloured = grey.clone()
        coloured[-1, channel, 0, 0] ^= 1
        assert not is_grey(coloured)


@pytest.mark.parametrize("px", [3, 5, 6, 9, 20])
def test_resizing_agrees_with_pillow(px: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_CHUNK_BYTES", 3 * 11 * 11 * 2)
    images = random_split(5, 11).images
    ours = resized_images(images, px)
    assert ours.shape == (5, 3, px, px)
    assert ours.dtype == torch.uint8
    for image, expected in zip(ours, images, strict=True):
        picture = Image.fromarray(expected.permute(1, 2, 0).numpy())
        theirs = np.asarray(picture.resize((px, px), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(image.permute(1, 2, 0).numpy() - theirs).max() <= 1


def test_resizing_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 px is not a size; give at least 1"):
        resized_images(random_split().images, 0)


def test_description_is_plain() -> None:
    described = make(other_sides={5: three(5)}).describe()
    assert json.loads(json.dumps(described)) == described
    assert described["pictures"] == {"train": 12, "validation": 6, "test": 3}
    assert described["pictures_per_class"]["validation"] == [2, 2, 2]
    assert described["sides_px"] == [5, 6]


def test_at_gives_the_same_object_again_and_the_way_back() -> None:
    data = make(other_sides={5: three(5), 9: three(9)})
    assert data.at(6) is data
    assert data.at(5) is data.at(5)
    assert data.at(5).at(6) is data
    assert data.at(5).at(9).train is data.at(9).train


def test_at_a_changed_data_set_keeps_the_change() -> None:
    data = make(other_sides={5: three(5)})
    data.at(5)
    changed = dataclasses.replace(data, augmentation=Augmentation(flip=False, shift_fraction=0.0))
    assert changed.at(5).augmentation is changed.augmentation


def test_at_a_side_that_was_not_loaded_is_refused() -> None:
    with pytest.raises(
        DataError,
        match=r"pictures of 'x' are loaded at 5 and 6 px, not at 7 px; load them at 7 px as well",
    ):
        make(other_sides={5: three(5)}).at(7)


def test_sides_with_other_pictures_cannot_be_built() -> None:
    data = make(other_sides={5: three(5)})
    with pytest.raises(ValueError, match="the pictures of 5 px are not those of 6 px"):
        dataclasses.replace(data, train=random_split(9, 6))
    with pytest.raises(ValueError, match="the pictures of 4 px are not those of 6 px"):
        make(other_sides={4: three(5)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("a",)}, "data set 'x' has 1 class; at least 2 are needed"),
        ({"class_names": ("a", "b")}, "labels 0 to 2 do not fit 2 classes"),
        ({"splits": (*three()[:2], random_split(3, 5))}, r"of different sides: \[5, 6\]"),
    ],
)
def test_data_set_that_contradicts_itself_is_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)
