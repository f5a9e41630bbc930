"""Decoding is tested against pictures whose pixels are known, and against other definitions."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hwsearch.accuracy.data import decode
from hwsearch.accuracy.data.decode import (
    decode_file,
    decode_files,
    decode_many,
    fit_picture,
    require_memory,
)
from hwsearch.errors import DataError, HostError

PX = 16
RED = (200, 30, 40)


def save(path: Path, image: Image.Image, **options: Any) -> Path:  # noqa: ANN401 - as Pillow takes them
    image.save(path, **options)
    return path


def quarters(width: int = 32, height: int = 32) -> Image.Image:
    """Red, green, blue and white quarters: every turn and mirror image looks different."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (255, 255, 255)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tiff", "webp", "gif", "jpg", "jpeg"])
def test_every_format_gives_its_colour_when_uniform(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", Image.new("RGB", (20, 30), RED))
    pixels = decode_file(path, PX)
    assert pixels.shape == (PX, PX, 3)
    assert pixels.dtype == np.uint8
    tolerance = 4 if suffix in {"jpg", "jpeg", "webp"} else 0
    assert np.abs(pixels.astype(int) - RED).max() <= tolerance


def palette() -> Image.Image:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 9, 9, 9])
    return image


@pytest.mark.parametrize(
    ("image", "options", "level"),
    [
        *(
            (Image.new("RGB", (9, 9), "white").convert(mode), {}, 255)
            for mode in ("1", "P", "RGBA")
        ),
        (Image.new("L", (9, 9), 77), {}, 77),
        (Image.new("LA", (9, 9), (77, 255)), {}, 77),
        (Image.new("RGBA", (8, 8), (10, 20, 30, 0)), {}, 255),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 51)), {}, 204),
        (palette(), {}, 9),
        (palette(), {"transparency": 1}, 255),
        (palette(), {"transparency": b"\x80\x00"}, 255),
    ],
)
def test_grey_palettes_and_transparency_give_what_lies_on_white(
    tmp_path: Path, image: Image.Image, options: dict[str, Any], level: int
) -> None:
    assert (decode_files([save(tmp_path / "a.png", image, **options)], PX) == level).all()


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_is_scaled_to_8_bits_not_cut(tmp_path: Path, suffix: str) -> None:
    levels = np.array([0, 128, 129, 257, 25700, 65535], dtype=np.uint16)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(np.tile(levels[:, None], (1, 6))))
    expected = np.rint(levels / 257)
    assert decode_file(path, 6)[:, 0, 0].tolist() == expected.tolist()
    (tmp_path / "a.pgm").write_bytes(b"P5 2 2 65535\n" + b"\xff\xff" * 4)
    assert (decode_file(tmp_path / "a.pgm", 4) == 255).all()


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (
            np.full((4, 4), 70000, dtype=np.int32),
            "32-bit pixels have no stated range; save it with",
        ),
        (np.ones((4, 4), dtype=np.float32), r"a\.tiff' cannot be read \(floating-point pixels"),
    ],
)
def test_pixels_without_a_range_are_refused(
    tmp_path: Path, pixels: np.ndarray, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        decode_file(save(tmp_path / "a.tiff", Image.fromarray(pixels)), PX)


def test_cmyk_jpeg_gives_its_colour(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.new("CMYK", (40, 40), (0, 255, 255, 0)))
    assert np.abs(decode_file(path, PX).astype(int) - (255, 0, 0)).max() <= 4


def test_gif_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (decode_file(path, PX) == (255, 0, 0)).all()


@pytest.mark.parametrize("size", [(1, 20000), (20000, 1), (1, 1), (3, 1)])
def test_a_strip_keeps_its_middle(tmp_path: Path, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "black")
    x, y = (size[0] - 1) // 2, (size[1] - 1) // 2
    image.putpixel((x, y), RED)
    assert (decode_file(save(tmp_path / "a.png", image), PX) == RED).all()


def test_shrinking_is_antialiased_as_torch_does_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float(),
        size=(PX, PX),
        mode="bilinear",
        antialias=True,
    )[0].permute(1, 2, 0)
    assert np.abs(fit_picture(Image.fromarray(pixels), PX) - expected.numpy()).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int) -> None:
    upright = np.asarray(quarters())
    # What a camera would store for an upright scene, from the definition of the tag.
    turned = [upright, upright[:, ::-1], upright[::-1, ::-1], upright[::-1]]
    turned += [turned[at].transpose(1, 0, 2) for at in (0, 1, 2, 3)]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turned[orientation - 1]))
    path = save(tmp_path / "a.png", stored, exif=exif)
    assert np.array_equal(decode_file(path, 32), upright)


def test_broken_exif_does_not_spoil_a_good_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.new("RGB", (32, 32), RED), exif=b"Exif\0\0II*\0garbage")
    assert np.abs(decode_files([path], PX).transpose(0, 2, 3, 1) - np.array(RED)).max() <= 4


def test_large_jpeg_is_reduced_while_decoding_and_looks_the_same(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 640).astype(np.uint8)
    pixels = np.stack([np.tile(ramp, (480, 1))] * 3, axis=-1)
    jpeg = save(tmp_path / "a.jpg", Image.fromarray(pixels), quality=95)
    png = save(tmp_path / "a.png", Image.fromarray(pixels))
    difference = decode_file(jpeg, PX).astype(int) - decode_file(png, PX)
    assert np.abs(difference).max() <= 3
    with Image.open(jpeg) as image:
        fit_picture(image, PX)
        assert min(image.size) < 480
        assert min(image.size) >= 2 * PX


def test_too_many_pixels_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "big.png", Image.new("RGB", (40, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert decode_files([path], PX).shape == (1, 3, PX, PX), "Pillow's warning is none of ours"
    monkeypatch.setattr(decode, "_MOST_PIXELS", 1000)
    with pytest.raises(DataError, match=r"big\.png' cannot be read \(40 x 40 pixels are more"):
        decode_files([path], PX)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(DataError, match=r"big\.png' cannot be read \(it has more than 1,000"):
        decode_files([path], PX)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "tiff", "webp"])
def test_truncated_pictures_are_refused_by_name(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"cut.{suffix}", Image.fromarray(noise))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"cut\.{suffix}' cannot be read .*; remove or replace it"):
        decode_file(path, PX)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no picture at all", r"cannot be read \(.*\); remove or replace it"),
        (b"\xff\xd8\xff", r"cannot be read \(.*\); remove or replace it"),
        (b"\x89PNG\r\n\x1a\n", r"cannot be read \(.*\); remove or replace it"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", r"not a picture of the kinds JPEG, PNG, BMP"),
        (b"", "is an empty file; remove or replace it"),
        (None, r"cannot be read \(No such file or directory\)"),
    ],
)
def test_what_is_no_picture_is_refused_by_full_path(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "bad.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"^picture '{path}' .*{message}"):
        decode_file(path, PX)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_flipped_bytes_give_pixels_or_a_data_error(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.bin"
    quarters().save(path, format=kind)
    content = path.read_bytes()
    for _ in range(60):
        broken = bytearray(content)
        for _ in range(4):
            broken[rng.integers(len(broken))] = rng.integers(256)
        path.write_bytes(broken)
        try:
            result = str(decode_file(path, PX).shape)
        except DataError as error:
            result = str(error)
        assert result == "(16, 16, 3)" or f"picture '{path}' cannot be read (" in result


def test_order_is_kept_and_progress_counts_up(tmp_path: Path) -> None:
    levels = list(range(0, 200, 10))
    paths = [save(tmp_path / f"{n}.png", Image.new("L", (5, 5), n)) for n in levels]
    seen: list[tuple[int, int]] = []
    images = decode_files(paths, PX, progress=lambda done, total: seen.append((done, total)))
    assert images.shape == (20, 3, PX, PX)
    assert images[:, 0, 0, 0].tolist() == levels
    assert seen == [(n, 20) for n in range(1, 21)]


def test_all_broken_pictures_are_reported_at_once(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{n}.png", Image.new("L", (5, 5), n)) for n in range(10)]
    for path in paths[2:9]:
        path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        decode_files(paths, PX)
    message = str(caught.value)
    assert all(str(path) in message for path in paths[2:7])
    assert message.endswith("; and 2 more")
    assert "\n" not in message


def test_an_interruption_stops_the_decoding() -> None:
    started: list[int] = []

    def one(number: int) -> np.ndarray:
        started.append(number)
        time.sleep(0.001)
        return np.zeros((PX, PX, 3), dtype=np.uint8)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_many(2000, one, PX, progress=interrupt)
    assert len(started) < 200


def test_pictures_beyond_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 8000)
    require_memory(2604, [64])
    require_memory(2604, [64 // 2] * 4)
    with pytest.raises(HostError, match=r"2605 pictures of 64 px need 0\.0 GB of memory"):
        require_memory(2605, [64])
    with pytest.raises(HostError, match=r"2604 pictures of 8 and 64 px need .* or fewer pictures"):
        require_memory(2604, [8, 64])
