"""Pictures of any kind to square 8-bit RGB arrays.

A picture is turned as its EXIF orientation says, its middle square is cut out, and the square is
resized with an antialiased triangle filter ("bilinear"), which equals resizing the short side and
cropping the centre, but stays cheap for a strip of 1 x 10000 pixels. What has transparent parts is
laid on white, the colour of the page that cut-out pictures are mostly shown on. 16-bit grey is
scaled to 8 bits; floating-point pictures, whose range nobody states, are refused.

Pillow, since torchvision's ``decode_image`` (0.29) reads no BMP, TIFF, PPM and animated WebP, drops
transparency, leaves 16 bits as they are and a WebP as the camera held it; and a JPEG of 2000 x 1500
takes it 22 ms to 32 px, where reducing while decoding takes 6 ms.
"""

import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from hwsearch.errors import DataError, HostError

Pixels = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]

#: Part of the key of cached pictures: raise it whenever the same file would give other pixels.
DECODER_VERSION: Final = 1

#: Only these are tried: other formats of Pillow start outside programs (EPS) or are no pictures.
_FORMATS: Final = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")

#: A picture that still has more pixels after JPEG's built-in reduction is refused.
_MOST_PIXELS: Final = 90_000_000

#: What Pillow raises on files that are broken in one way or another, found by flipping bytes.
BROKEN: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)

#: At most this share of the machine's memory is filled with decoded pictures.
_MEMORY_SHARE: Final = 0.5

_NAMED_IN_MESSAGE: Final = 5


def decode_files(paths: Sequence[Path], px: int, *, progress: Progress | None = None) -> Pixels:
    """Decode picture files in parallel.

    Args:
        paths: of the files.
        px: side of the result.
        progress: called with (pictures done, all pictures) in the calling thread.

    Returns:
        uint8, (N, 3, px, px), in the order of the paths.

    Raises:
        DataError: files that cannot be read, all of them counted and the first ones named.
    """
    return decode_many(len(paths), lambda n: decode_file(paths[n], px), px, progress=progress)


def decode_many(
    count: int, decode: Callable[[int], Pixels], px: int, *, progress: Progress | None = None
) -> Pixels:
    """Run a decoder for 0 .. count - 1 on threads (Pillow works without the interpreter lock).

    Args:
        count: number of pictures.
        decode: from a number to (px, px, 3); raises DataError for a picture that is broken.
        px: side of the result.
        progress: called with (pictures done, all pictures) in the calling thread.

    Returns:
        uint8, (count, 3, px, px).

    Raises:
        DataError: of the first picture that is broken, with the number and names of the others.
    """
    out = np.empty((count, 3, px, px), dtype=np.uint8)

    def work(number: int) -> str | None:
        try:
            out[number] = decode(number).transpose(2, 0, 1)
        except DataError as error:
            return str(error)
        return None

    Image.init()  # loading Pillow's plugins is not safe in threads
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    problems: dict[int, str] = {}
    try:
        with _quiet_pillow():
            numbers = {pool.submit(work, number): number for number in range(count)}
            for done, future in enumerate(as_completed(numbers), start=1):
                problem = future.result()
                if problem is not None:
                    problems[numbers[future]] = problem
                if progress is not None:
                    progress(done, count)
    finally:
        pool.shutdown(cancel_futures=True)
    if problems:
        shown = "; ".join(problems[number] for number in sorted(problems)[:_NAMED_IN_MESSAGE])
        more = len(problems) - _NAMED_IN_MESSAGE
        raise DataError(f"{shown}; and {more} more" if more > 0 else shown)
    return out


def decode_file(path: Path, px: int) -> Pixels:
    """Decode one picture file into (px, px, 3), uint8.

    Raises:
        DataError: the file is missing, empty, truncated, corrupt, too large or of another kind.
    """
    try:
        if path.stat().st_size == 0:
            raise DataError(f"picture '{path}' is an empty file; remove or replace it")
        with Image.open(path, formats=_FORMATS) as image:
            return fit_picture(image, px)
    except DataError:
        raise
    except UnidentifiedImageError:
        reason = f"not a picture of the kinds {', '.join(_FORMATS)}"
    except Image.DecompressionBombError:
        reason = f"it has more than {_MOST_PIXELS:,} pixels"
    except BROKEN as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    raise DataError(f"picture '{path}' cannot be read ({reason}); remove or replace it")


def fit_picture(image: Image.Image, px: int) -> Pixels:
    """Turn an opened picture into a square array (px, px, 3) of 8-bit RGB.

    Raises:
        ValueError: too many pixels, or a kind of pixel whose range is not known.
        OSError: the data are truncated or corrupt.
    """
    short = min(image.size)
    if short > 2 * px:
        # JPEG decodes at 1/2, 1/4 or 1/8 for a fraction of the time. Twice the wanted side stays,
        # so that the filter below still has something to average. Other formats ignore this.
        image.draft(None, (image.width * 2 * px // short, image.height * 2 * px // short))
    if image.width * image.height > _MOST_PIXELS:
        raise ValueError(
            f"{image.width} x {image.height} pixels are more than {_MOST_PIXELS:,}; make it smaller"
        )
    upright = ImageOps.exif_transpose(image)
    width, height = upright.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = _rgb(upright.crop((left, top, left + side, top + side)))
    return np.asarray(square.resize((px, px), Image.Resampling.BILINEAR))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # "I;16" and its kin, or "I", which Pillow also uses for grey of 16 bits.
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("32-bit pixels have no stated range; save it with 8 or 16 bits")
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no stated range; save it with 8 or 16 bits")
    if image.mode in {"RGBA", "RGBa", "LA", "La", "PA"} or "transparency" in image.info:
        cut_out = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(page, cut_out).convert("RGB")
    return image.convert("RGB")


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silence Pillow's remarks on odd metadata; what cannot be decoded raises all the same.

    Set once around all threads: the filters of ``warnings`` are those of the process.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def require_memory(count: int, sides: Sequence[int]) -> None:
    """Check that pictures fit into memory at all their sides; called before they are decoded.

    Raises:
        HostError: they fill more than half of it.
    """
    needed = sum(count * 3 * px * px for px in sides)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory * _MEMORY_SHARE:
        raise HostError(
            f"{count} pictures of {' and '.join(map(str, sides))} px need {needed / 1e9:.1f} GB of "
            f"memory, more than half of this machine's {memory / 1e9:.1f} GB; take smaller or "
            "fewer input sizes, or fewer pictures"
        )
