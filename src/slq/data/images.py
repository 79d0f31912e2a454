"""Opening images of every common kind as plain RGB, and finding them in a folder."""

from __future__ import annotations

import io
import os
import threading
import warnings
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from slq.errors import DataError, ImageError, shorten
from slq.types.images import MAX_PIXELS, as_image, open_file

IMAGE_SUFFIXES = frozenset(".jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .dib .tif .tiff .avif .avifs .heic .heif".split())
OTHER_IMAGE_SUFFIXES = frozenset(  # of images, but of kinds that are not read
    ".svg .svgz .jp2 .j2k .jpx .jxl .jxr .psd .ico .tga .ppm .pgm .pbm .pnm .pcx .eps .exr .hdr .dds .xcf".split()
    + ".dng .cr2 .cr3 .nef .arw .raf .orf .rw2".split()
)

# Only these decoders are tried: Pillow's others include EPS, which runs Ghostscript on whatever the file says.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF")
_REDUCTIONS = (2, 4, 8)  # by which a JPEG's decoder can divide its width and height
_LARGEST_PROGRESSIVE = (
    4  # times the pixels allowed: at any reduction the decoder of a progressive JPEG holds all of it, 3 to 6 bytes a pixel
)
_HEIF_BRANDS = {b"ftypheic", b"ftypheix", b"ftyphevc", b"ftyphevx", b"ftypheim", b"ftypheis", b"ftypmif1", b"ftypmsf1"}
_AVIF_BRANDS = {b"ftypavif", b"ftypavis"}


class _QuietPillow:
    """Silences Pillow's warnings while at least one thread is inside.

    `catch_warnings` restores what it saw on entry, so that two threads leaving in another order than they came would keep each
    other's filters; counting the threads lets the first one set the filter and the last one restore it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters: warnings.catch_warnings[None] | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._filters is not None:
                self._filters.__exit__(None, None, None)


_quiet_pillow = _QuietPillow()


def open_image(image: Any, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the image as a new RGB image, turned as its EXIF says, its transparent parts white.

    Of an animated file the first frame is taken, of an open image the frame it stands on; the open image is left as it is.
    16-bit grey is scaled to 8 bits. The number of pixels is checked from the header, before anything is decoded; a JPEG file of more pixels
    is decoded at a half, a quarter or an eighth of its width and height, which takes the memory of what comes out.

    Args:
        image: in any form that `slq.types.images.as_image` takes.
        max_pixels: width times height at most.

    Raises:
        ImageError: if it is none of these forms, or the file is missing, is not an image, is damaged or has more pixels.
    """
    image = as_image(image)
    with _quiet_pillow:
        if isinstance(image, Image.Image):
            place = shorten(getattr(image, "filename", "") or "the open image")
            _check_size(image, place, max_pixels)
            return _to_rgb(image, place)
        place = shorten(image) if isinstance(image, Path) else f"of {len(image):,} bytes"
        with open_file(image) if isinstance(image, Path) else io.BytesIO(image) as stream:
            opened = _read_header(stream, place, max_pixels)
            _reduce(opened, max_pixels)
            _check_size(opened, place, max_pixels)
            return _to_rgb(opened, place)


def image_pixels(image: Any) -> int:
    """Width times height by the file's header alone.

    Args:
        image: a path, the bytes of a file, or an open image.

    Returns:
        The number of pixels, or some more than are ever decoded; 0 for what cannot be read, whose fault is told when it is opened.
    """
    if isinstance(image, Image.Image):
        return image.width * image.height
    with _quiet_pillow:
        try:
            with open_file(image) if isinstance(image, Path) else io.BytesIO(image) as stream:
                opened = Image.open(stream, formats=_formats())
                return opened.width * opened.height
        except Image.DecompressionBombError:  # has at least twice as many as Pillow warns of
            return 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS)
        except Exception:  # as in _read_header
            return 0


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List the image files below a folder by their suffix, sorted; hidden files and folders are skipped.

    Files of kinds that are not read, such as .svg, are listed too: they are refused with their reason, and not lost in silence.

    Args:
        folder: where to look.

    Raises:
        DataError: if the folder does not exist or is not a folder.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise DataError(f"{shorten(folder)} is not a folder; give the folder that holds the images")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES | OTHER_IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and (path.is_file() or path.is_symlink())  # a link that leads nowhere is told when it is opened
        and not path.is_dir()
    )


def path_from(folder: Path, image: Path) -> str:
    """How a data file names an image, so that `ImageRoot.find` finds it.

    Args:
        folder: of the data file.
        image: path of the image.
    """
    # Links are followed, since `..` behind a linked folder does not lead back.
    return Path(os.path.relpath(image.parent.resolve() / image.name, folder.resolve())).as_posix()


def _formats() -> tuple[str, ...]:
    """The decoders that are tried, with that of the plugin for HEIC where it is installed."""
    return (*_FORMATS, "HEIF") if _reads_heif() else _FORMATS


@cache
def _reads_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _read_header(stream: BinaryIO, place: str, max_pixels: int) -> Image.Image:
    try:
        return Image.open(stream, formats=_formats())
    except Image.DecompressionBombError:
        # Pillow refuses what is far beyond its own limit before it says how large the image is, or how much of it is to be decoded.
        stream.seek(0)
        if stream.read(3) == b"\xff\xd8\xff":
            stream.seek(0)
            return JpegImageFile(stream)
        limit = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
        raise ImageError(f"the image {place} has more than the {limit:,} pixels allowed; scale it down") from None
    except UnidentifiedImageError:
        raise _unknown(stream, place) from None
    except MemoryError:
        raise
    except Exception as error:  # damaged headers make the decoders raise anything from struct.error to IndexError
        raise _damaged(place, error) from None


def _unknown(stream: BinaryIO, place: str) -> ImageError:
    stream.seek(0)
    kind = stream.read(12)[4:12]
    if kind in _HEIF_BRANDS and not _reads_heif():
        return ImageError(f'the image {place} is HEIC, which pillow-heif reads; run: pip install "slq[heif]"')
    if kind in _AVIF_BRANDS and "AVIF" not in Image.registered_extensions().values():
        return ImageError(f"the image {place} is AVIF, which this Pillow was built without; install Pillow's own wheel, or save it as PNG")
    names = ", ".join(_formats())
    return ImageError(f"the image {place} is not an image of a known kind ({names}), or its beginning is damaged; replace or remove it")


def _reduce(image: Image.Image, max_pixels: int) -> None:
    """Have a JPEG of more pixels than are allowed decoded at a smaller size, if there is one that is allowed."""
    width, height = image.size
    if width * height <= max_pixels or not isinstance(image, JpegImageFile):
        return
    if image.info.get("progressive") and width * height > _LARGEST_PROGRESSIVE * max_pixels:
        return
    for reduction in _REDUCTIONS:
        if -(-width // reduction) * -(-height // reduction) <= max_pixels:
            image.draft(None, (max(1, width // reduction), max(1, height // reduction)))
            return


def _check_size(image: Image.Image, place: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height == 0:
        raise ImageError(f"the image {place} has no pixels ({width} x {height}); replace or remove it")
    if width * height > max_pixels:
        raise ImageError(
            f"the image {place} has {width} x {height} pixels, more than the {max_pixels:,} allowed; scale it down, or save it as JPEG, "
            "which is read at a smaller size"
        )


def _to_rgb(image: Image.Image, place: str) -> Image.Image:
    try:
        image.load()
        image = _turned(image)  # from here on it is no one else's
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            image = _grey_of_8_bits(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image if image.mode == "RGB" else image.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # as in _read_header
        raise _damaged(place, error) from None


def _turned(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # unreadable EXIF beside good pixels: the image is shown as stored, as viewers do
        return image.copy()


def _grey_of_8_bits(image: Image.Image) -> Image.Image:
    """Scale deep grey to 8 bits; Pillow's own conversion clips everything above 255 to white.

    Modes I and F do not say what white is: it is the smallest of 1 (F only), 255 and 65535 that no pixel exceeds. Values outside
    all of these are measurements, not shades, and are stretched from their lowest to their highest.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float32))  # (height, width)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16"):
        black, white = 0.0, 65535.0
    elif low < 0 or high > 65535:
        black, white = low, high if high > low else low + 1
    else:
        whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        black, white = 0.0, next(white for white in whites if high <= white)
    scale = 255 / (white - black)
    grey = np.rint(values * scale - black * scale).clip(0, 255).astype(np.uint8)  # in this order float32 cannot overflow
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # a 16-bit PNG may name one shade as transparent
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _damaged(place: str, error: Exception) -> ImageError:
    reason = shorten(" ".join(str(error).split())) or type(error).__name__  # on one line, whatever the decoder wrote
    return ImageError(f"the image {place} is truncated or damaged ({reason}); replace or remove it")
