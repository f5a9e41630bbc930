"""Data sets by name, in small imitations of their real formats on disk."""

from pathlib import Path
from unittest.mock import Mock
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from torchvision.datasets import MNIST

from hwsearch.accuracy.data import decode
from hwsearch.accuracy.data.named import NAMED_SETS, data_root
from hwsearch.accuracy.data.sources import check_data, load_data
from hwsearch.errors import DataError, HostError


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HWSEARCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def write_idx(path: Path, array: np.ndarray) -> None:
    """The IDX format of MNIST: magic number with type (8 = bytes) and rank, sizes, bytes."""
    header = (0x0800 + array.ndim).to_bytes(4, "big")
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + sizes + array.astype(np.uint8).tobytes())


def fake_mnist(root: Path, folder: str = "MNIST") -> dict[str, np.ndarray]:
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        "train-images": rng.integers(0, 256, (200, 28, 28), dtype=np.uint8),
        "train-labels": np.arange(200) % 10,
        "t10k-images": rng.integers(0, 256, (30, 28, 28), dtype=np.uint8),
        "t10k-labels": np.arange(30) % 10,
    }
    for name, array in arrays.items():
        write_idx(raw / f"{name}-idx{array.ndim}-ubyte", array)
    return arrays


def fake_eurosat(root: Path) -> None:
    for n, name in enumerate(("Forest", "River")):
        folder = root / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for k in range(20):
            Image.new("RGB", (64, 64), (100 * n, k, 7)).save(folder / f"{name}_{k}.png")


def fake_gtsrb(root: Path) -> None:
    base = root / "gtsrb"
    test = base / "GTSRB" / "Final_Test" / "Images"
    test.mkdir(parents=True)
    rows = ["Filename;Width;Height;ClassId"]
    for n in range(3):
        folder = base / "GTSRB" / "Training" / f"{n:05d}"
        folder.mkdir(parents=True)
        for k in range(10):
            Image.new("RGB", (30 + k, 25), (80 * n, k, 0)).save(folder / f"{k}.ppm")
        Image.new("RGB", (20, 20), (80 * n, 99, 0)).save(test / f"{n:05d}.ppm")
        rows.append(f"{n:05d}.ppm;20;20;{n}")
    (base / "GT-final_test.csv").write_text("\n".join(rows) + "\n")


def fake_dtd(root: Path) -> None:
    labels = root / "dtd" / "dtd" / "labels"
    labels.mkdir(parents=True)
    for offset, split in enumerate(("train", "val", "test")):
        lines = []
        for n, name in enumerate(("banded", "dotted")):
            folder = root / "dtd" / "dtd" / "images" / name
            folder.mkdir(parents=True, exist_ok=True)
            for k in range(2):
                file = f"{name}_{offset}{k}.jpg"
                Image.new("RGB", (40, 30), (90 * n, 60 * offset, k)).save(folder / file)
                lines.append(f"{name}/{file}")
        (labels / f"{split}1.txt").write_text("\n".join(lines) + "\n")


def pairs(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    return sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


@pytest.mark.parametrize(
    ("spec", "folder"),
    [("MNIST", "MNIST"), ("FashionMNIST", "FashionMNIST"), ("kmnist", "KMNIST")],
)
def test_idx_files_are_read_as_they_are(tmp_path: Path, spec: str, folder: str) -> None:
    arrays = fake_mnist(tmp_path / "data", folder)
    data = load_data(spec, px=28)
    assert data.name == spec.lower()
    assert data.classes == 10
    assert (len(data.train), len(data.validation), len(data.test)) == (170, 30, 30)
    assert data.source == f"torchvision's {folder}"
    assert data.how_split.startswith("test as given; 15 % of each class of train for validation")
    assert torch.bincount(data.validation.labels).tolist() == [3] * 10
    assert not data.augmentation.flip
    for part, splits in (("train", (data.train, data.validation)), ("t10k", (data.test,))):
        images = torch.cat([split.images[:, 0] for split in splits]).numpy()
        labels = torch.cat([split.labels for split in splits]).numpy()
        assert pairs(images, labels) == pairs(arrays[f"{part}-images"], arrays[f"{part}-labels"])


def test_second_loading_decodes_what_has_changed_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Mock(wraps=decode.decode_many)
    monkeypatch.setattr(decode, "decode_many", spy)
    fake_mnist(tmp_path)
    first, again = (load_data("mnist", px=16, root=tmp_path) for _ in range(2))
    assert (spy.call_count, again.content_hash) == (2, first.content_hash)
    write_idx(tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte", np.zeros((30, 28, 28)))
    assert int(load_data("mnist", px=16, root=tmp_path).test.images.max()) == 0


def test_sides_of_a_set_are_those_of_each_alone(tmp_path: Path) -> None:
    fake_mnist(tmp_path)
    data = load_data("mnist", px=(28, 16), root=tmp_path)
    for px in (16, 28):
        alone = load_data("mnist", px=px, root=tmp_path)
        assert torch.equal(data.at(px).train.images, alone.train.images)
        assert torch.equal(data.at(px).test.labels, alone.test.labels)
    assert data.content_hash == load_data("mnist", px=16, root=tmp_path).content_hash


def test_set_without_an_official_split_is_divided_and_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_eurosat(tmp_path)
    monkeypatch.setattr(torchvision.datasets.EuroSAT, "download", lambda _: pytest.fail("asked"))
    data = load_data("EuroSAT", px=16, root=tmp_path)
    assert data.class_names == ("Forest", "River")
    assert (len(data.train), len(data.validation), len(data.test)) == (28, 6, 6)
    assert data.augmentation.flip
    assert torch.equal(data.train.images[:, 0, 0, 0], (100 * data.train.labels).byte())


def test_set_without_class_names_is_numbered(tmp_path: Path) -> None:
    fake_gtsrb(tmp_path)
    data = load_data("gtsrb", px=16, root=tmp_path)
    assert data.class_names == ("0", "1", "2")
    assert (len(data.train), len(data.validation), len(data.test)) == (24, 6, 3)
    assert bool((data.test.images[:, 1] == 99).all())
    assert not data.augmentation.flip


def test_three_official_splits_are_kept(tmp_path: Path) -> None:
    fake_dtd(tmp_path)
    data = load_data("dtd", px=16, root=tmp_path)
    assert data.how_split == "train, validation and test as given"
    for offset, split in enumerate((data.train, data.validation, data.test)):
        assert (split.images[:, 1].int() - 60 * offset).abs().max() <= 4
        assert torch.bincount(split.labels).tolist() == [2, 2]


def test_broken_picture_in_a_set_is_named_by_number(tmp_path: Path) -> None:
    fake_eurosat(tmp_path)
    (tmp_path / "eurosat" / "2750" / "River" / "River_3.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"picture \d+ in all of 'eurosat' in .* cannot be read"):
        load_data("eurosat", px=16, root=tmp_path)


def test_damaged_set_is_reported(tmp_path: Path) -> None:
    fake_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"'mnist' in .* is incomplete or corrupt .*; remove MNIST"):
        load_data("mnist", px=16, root=tmp_path)


@pytest.mark.parametrize("name", sorted(NAMED_SETS))
def test_set_that_is_not_there_says_what_to_do(tmp_path: Path, name: str) -> None:
    root = tmp_path / "nothing"
    assert hasattr(torchvision.datasets, NAMED_SETS[name].torchvision_class)
    for call in (lambda: load_data(name, px=16, root=root), lambda: check_data(name, root)):
        with pytest.raises(DataError) as caught:
            call()
        message = str(caught.value)
        assert message.startswith(f"data set '{name}' is not in '{root}': there is no '{root}/")
        assert "set HWSEARCH_DATA to the folder that holds it, or allow its download" in message


def test_folder_of_the_same_name_is_hinted_at(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    with pytest.raises(DataError, match=r"\(for the folder 'mnist' here, write \./mnist\)"):
        check_data("mnist")


@pytest.mark.parametrize("error", [URLError("no network"), RuntimeError("Error downloading")])
def test_failed_download_is_the_hosts_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def offline(self: MNIST) -> None:
        raise error

    monkeypatch.setattr(MNIST, "download", offline)
    check_data("mnist", tmp_path, download=True)
    with pytest.raises(HostError, match=r"'mnist' could not be downloaded into .*; check the net"):
        load_data("mnist", px=16, root=tmp_path, download=True)


def test_download_prints_nothing_on_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(self: MNIST) -> None:
        print("Downloading")  # noqa: T201 - as torchvision does
        if not (tmp_path / "MNIST").exists():
            fake_mnist(tmp_path)

    monkeypatch.setattr(MNIST, "download", download)
    assert len(load_data("mnist", px=16, root=tmp_path, download=True).test) == 30
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Downloading" in captured.err


def test_root_is_as_given_or_from_the_environment_or_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert data_root(None) == Path("data")
    monkeypatch.setenv("HWSEARCH_DATA", "elsewhere")
    assert data_root(None) == Path("elsewhere")
    assert data_root(Path("here")) == Path("here")
