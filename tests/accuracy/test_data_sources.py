"""From a specification to a data set: digits and folders (names have their own file)."""

import random
import tarfile
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hwsearch.accuracy.data import decode
from hwsearch.accuracy.data.dataset import DataSet, Split
from hwsearch.accuracy.data.sources import check_data, load_data
from hwsearch.errors import DataError

CIFAR = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cifar10_7k_images.tar.gz"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))


def draw(root: Path, classes: dict[str, int], colour: int = 255, px: int = 10) -> Path:
    """Pictures of one colour for each class, the blue channel counting them."""
    for n, (name, count) in enumerate(sorted(classes.items())):
        (root / name).mkdir(parents=True)
        for k in range(count):
            Image.new("RGB", (px, px), (60 * n, colour, k)).save(root / name / f"{k:03d}.png")
    return root


def levels(images: Tensor) -> set[int]:
    return set(images.flatten().tolist())


def test_digits_are_those_of_scikit_learn_split_60_20_20() -> None:
    from sklearn.datasets import load_digits

    data = load_data(" Digits ", px=8)
    assert data.class_names == tuple("0123456789")
    assert not data.augmentation.flip
    assert data.augmentation.shift_fraction == 1 / 16
    counts = [torch.bincount(s.labels) for s in splits_of(data)]
    shares = torch.stack(counts) / torch.stack(counts).sum(dim=0)
    assert (shares - torch.tensor([[0.6], [0.2], [0.2]])).abs().max() < 0.006
    together = torch.cat([data.train.images, data.validation.images, data.test.images])
    raw = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(image[0].numpy().tobytes() for image in together) == sorted(
        image.tobytes() for image in raw
    )


def splits_of(data: DataSet) -> tuple[Split, Split, Split]:
    return data.train, data.validation, data.test


def require_same(data: DataSet, expected: DataSet) -> None:
    """The same pictures, in the same splits and order, normalized alike."""
    for ours, theirs in zip(splits_of(data), splits_of(expected), strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
    assert data.content_hash == expected.content_hash
    assert (data.mean, data.std) == (expected.mean, expected.std)
    assert data.augmentation == expected.augmentation


@pytest.fixture(params=["digits", "png", "large jpeg"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Pictures of each source; of large JPEGs, less is decoded for a smaller side."""
    if request.param == "digits":
        return "digits"
    rng = np.random.default_rng(0)
    side, suffix = (40, "png") if request.param == "png" else (300, "jpg")
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for n in range(6):
            noise = rng.integers(0, 256, (side, side + 9, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "d" / name / f"{n}.{suffix}")
    return str(tmp_path / "d")


@pytest.mark.parametrize("sides", [(32, 48), (48, 32), (48, 32, 32, 100)])
def test_smallest_side_of_several_is_as_if_it_were_alone(spec: str, sides: tuple[int, ...]) -> None:
    data = load_data(spec, px=sides, seed=3)
    assert data.px == 32
    require_same(data, load_data(spec, px=32, seed=3))
    assert data.content_hash != load_data(spec, px=32, seed=4).content_hash


def test_other_sides_have_the_pixels_and_the_order_of_that_side_alone(spec: str) -> None:
    data = load_data(spec, px=(48, 32, 100), seed=3)
    for px in (48, 100):
        alone = load_data(spec, px=px, seed=3)
        for split, own, expected in zip(
            splits_of(data.at(px)), splits_of(data), splits_of(alone), strict=True
        ):
            assert torch.equal(split.images, expected.images)
            assert torch.equal(split.labels, own.labels)
        assert data.at(px).content_hash == data.content_hash
        assert (data.at(px).mean, data.at(px).std) == (data.mean, data.std)


def test_pictures_are_decoded_once_for_each_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Mock(wraps=decode.decode_file)
    monkeypatch.setattr(decode, "decode_file", spy)
    folder = str(draw(tmp_path / "d", {"a": 5, "b": 5}))
    seen: list[tuple[int, int]] = []
    for px, seed, count in (((8, 16), 0, 20), ((16, 24), 1, 30), ((24,), 0, 30)):
        load_data(folder, px=px, seed=seed, progress=lambda *at: seen.append(at))
        assert spy.call_count == count
    assert seen == [(n, 10) for n in range(1, 11)] * 3


def test_pictures_of_a_folder_keep_their_class(tmp_path: Path) -> None:
    data = load_data(str(draw(tmp_path / "d", {"a": 6, "b": 6, "c": 6})), px=8)
    assert (data.name, data.source) == ("d", f"folder {tmp_path / 'd'}")
    for split in (data.train, data.validation, data.test):
        assert torch.equal(split.images[:, 0, 0, 0].long(), 60 * split.labels)
    blue = torch.cat([s.images[:, 2, 0, 0] for s in (data.train, data.validation, data.test)])
    assert torch.bincount(blue).tolist() == [3] * 6


@pytest.mark.parametrize(("held_out", "remark"), [("test", ""), ("val", "; test is the folder v")])
def test_held_out_folder_is_the_test_split(tmp_path: Path, held_out: str, remark: str) -> None:
    draw(tmp_path / "d" / "train", {"a": 20, "b": 20}, colour=1)
    draw(tmp_path / "d" / held_out, {"a": 2, "b": 2}, colour=2)
    data = load_data(str(tmp_path / "d"), px=8)
    assert levels(data.test.images[:, 1]) == {2}
    assert torch.bincount(data.validation.labels).tolist() == [3, 3]
    for split in (data.train, data.validation):
        assert levels(split.images[:, 1]) == {1}
    assert data.how_split.startswith("test as given; 15 % of each class of train")
    assert remark in data.how_split


def test_three_folders_are_used_as_they_are(tmp_path: Path) -> None:
    for colour, name in enumerate(("train", "val", "test")):
        draw(tmp_path / "d" / name, {"a": 3, "b": 4}, colour=colour)
    data = load_data(str(tmp_path / "d"), px=8)
    for colour, split in enumerate((data.train, data.validation, data.test)):
        assert levels(split.images[:, 1]) == {colour}
        assert torch.bincount(split.labels).tolist() == [3, 4]


def test_folders_that_are_not_read_are_stated(tmp_path: Path) -> None:
    for name in ("train", "test", "masks"):
        draw(tmp_path / "d" / name, {"a": 3, "b": 3})
    (tmp_path / "d" / "train" / "a" / "list.txt").touch()
    data = load_data(str(tmp_path / "d"), px=8)
    assert data.how_split.endswith("; not read: masks/")
    assert data.describe()["ignored_files"] == 1


@pytest.mark.parametrize(("mode", "flips"), [("RGB", True), ("L", False), ("1", False)])
def test_colour_pictures_are_mirrored_and_grey_ones_are_not(
    tmp_path: Path, mode: str, flips: bool
) -> None:
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for k in range(3):
            picture = Image.new("RGB", (8, 8), (80 * k, 20, 30)).convert(mode)
            picture.save(tmp_path / "d" / name / f"{k}.png")
    data = load_data(str(tmp_path / "d"), px=8)
    assert data.augmentation.flip is flips
    assert ("flip" in data.describe()["augmentation"]) is flips
    for flip in (True, False):
        assert load_data(str(tmp_path / "d"), px=8, flip=flip).augmentation.flip is flip


@pytest.mark.parametrize("px", [0, 7, -1, 5000])
def test_impossible_sides_are_refused(px: int) -> None:
    for sides in (px, (32, px)):
        with pytest.raises(DataError, match=f"pictures of {px} px were asked; give 8 to 2048"):
            load_data("digits", px=sides)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("digit", "Did you mean 'digits'?"),
        ("cifar-10", "Did you mean 'cifar10'?"),
        ("Flowers", "Did you mean 'flowers102'?"),
        ("zzz", "nor a known data set. Give a folder"),
        ("", "data '' is neither"),
    ],
)
def test_unknown_data_are_refused_with_a_hint(spec: str, hint: str) -> None:
    for call in (lambda: load_data(spec, px=8), lambda: check_data(spec)):
        with pytest.raises(DataError) as caught:
            call()
        assert hint in str(caught.value)
        assert "is neither a folder nor a known data set" in str(caught.value)


def test_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    draw(tmp_path / "d", {"a": 3, "b": 3})
    check_data("~/d")
    assert len(load_data("~/d", px=8).train) == 2


def test_check_finds_what_loading_would(tmp_path: Path) -> None:
    draw(tmp_path / "d", {"a": 5, "b": 1})
    messages = []
    folder = str(tmp_path / "d")
    for call in (lambda: check_data(folder), lambda: load_data(folder, px=8)):
        with pytest.raises(DataError) as caught:
            call()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "class 'b' has 1 picture in" in messages[0]


def test_loading_leaves_the_global_generators_alone(tmp_path: Path) -> None:
    folder = str(draw(tmp_path / "d", {"a": 5, "b": 5}))
    load_data("digits", px=8)  # importing scikit-learn draws a random number
    before = torch.get_rng_state(), random.getstate()
    for spec in (folder, "digits"):
        load_data(spec, px=8)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR.exists(), reason="the shared CIFAR-10 pictures are not here")
def test_real_pictures_are_loaded_as_torchvision_reads_them(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    with tarfile.open(CIFAR) as archive:
        archive.extractall(tmp_path / "cifar", filter="data")
    data = load_data(str(tmp_path / "cifar"), px=32)
    assert (len(data.train), len(data.validation), len(data.test)) == (4250, 750, 2000)
    theirs = ImageFolder(str(tmp_path / "cifar" / "test"))
    assert data.class_names == tuple(theirs.classes)
    expected = sorted(
        np.asarray(picture).transpose(2, 0, 1).tobytes() + bytes([label])
        for picture, label in theirs
    )
    ours = sorted(
        image.numpy().tobytes() + bytes([int(label)])
        for image, label in zip(data.test.images, data.test.labels, strict=True)
    )
    assert ours == expected
