"""What the field's data sets hold as an image, in one of three forms: the path of a file, a file's bytes, or an open image."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from slq.errors import ImageError, shorten

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

MAX_PIXELS = 50_000_000  # of an image; more is taken for a decompression bomb
MAX_FILE_BYTES = 512 * 2**20  # of an image's file: twice what so many pixels take without compression
ACCEPTED = 'a path, an open image (PIL), the bytes of an image file, a file opened for reading, an array, a data URI, or {"bytes", "path"}'

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)  # of two letters or more: one is a drive of Windows
_BASE64 = re.compile(r"(/9j/|iVBORw0KGgo|UklGR|R0lGOD|SUkqA|TU0AK)[A-Za-z0-9+/\s]{56,}={0,2}\s*")  # JPEG, PNG, WebP, GIF, TIFF


def as_image(value: Any) -> Path | bytes | Image:
    """An image in any form that is in use, as a path, bytes, or an open image. No file is opened.

    Args:
        value: a path (str, Path or file:// URI); an open image; the bytes of an image file, or a file object that holds them; a data URI
            or the base64 of an image file; an array or nested list of pixels (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels,
            numpy or torch, of 8 or 16 bits, or floats from 0 to 1 or from 0 to 255; or `{"bytes": ..., "path": ...}`, as the hub's data
            sets have it.

    Returns:
        A Path, bytes, or a PIL image.

    Raises:
        ImageError: for anything else, such as an address on the internet, which is never fetched.

    Example:
        >>> as_image("data:image/png;base64,iVBORw0KGgo=")[1:4]
        b'PNG'
    """
    from PIL import Image

    if isinstance(value, (Path, Image.Image)):
        return value
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _checked(bytes(value))
    if isinstance(value, os.PathLike):
        return Path(os.fsdecode(value))
    if isinstance(value, Mapping):
        return _of_mapping(value)
    if hasattr(value, "read"):
        return _of_stream(value)
    return _of_array(value)


def open_file(path: Path) -> BinaryIO:
    """Open an image's file.

    Args:
        path: the file.

    Raises:
        ImageError: if it is missing, empty, too large, no regular file, or cannot be read.
    """
    name = shorten(path)
    try:
        if path.is_file() and not 0 < path.stat().st_size <= MAX_FILE_BYTES:
            size = path.stat().st_size
            raise ImageError(
                f"the image file {name} has {size:,} bytes, more than the {MAX_FILE_BYTES:,} allowed; scale it down"
                if size
                else f"the image file {name} is empty; replace or remove it"
            )
        if path.exists() and not path.is_file():
            raise ImageError(f"{name} is not a file but {'a folder' if path.is_dir() else 'a device'}; give the path of one image")
        return path.open("rb")
    except FileNotFoundError:
        raise ImageError(f"the image file {name} does not exist; check the path") from None
    except OSError as error:
        raise ImageError(f"the image file {name} cannot be opened ({error.strerror}); check its path and permissions") from None
    except ImageError:
        raise
    except ValueError as error:  # a path with a NUL in it
        raise ImageError(f"the image file {name!r} cannot be opened ({error}); check the path") from None


def _checked(content: bytes) -> bytes:
    if not content:
        raise ImageError("an image is given as no bytes at all; give the content of its file")
    if len(content) > MAX_FILE_BYTES:
        raise ImageError(f"an image is given as more than {MAX_FILE_BYTES:,} bytes; scale it down")
    return content


def _of_text(text: str) -> Path | bytes:
    if not text.strip():
        raise ImageError("an image is given as an empty text; give the path of its file")
    if text[:5].lower() == "data:" and "," in text:
        head, _, content = text.partition(",")
        raw = unquote(content)
        return _decoded(raw) if head.lower().endswith(";base64") else _checked(raw.encode("latin-1", "replace"))
    if match := _SCHEME.match(text):
        if match[1].lower() != "file":
            raise ImageError(f"{shorten(text)!r} is an address, and nothing is fetched; download the image and give the path of its file")
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise ImageError(f"{shorten(text)!r} names a file of another machine; copy the image and give the path of its file")
        return Path(url2pathname(parts.path))
    return _decoded(text) if _BASE64.fullmatch(text) else Path(text)


def _decoded(text: str) -> bytes:
    text = "".join(text.split())
    try:
        return _checked(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
    except (binascii.Error, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"an image is given as base64 that cannot be decoded ({error}); encode its file again") from None


def _of_mapping(value: Mapping[Any, Any]) -> Path | bytes | Image:
    content, path = value.get("bytes"), value.get("path")
    if content is not None and not (isinstance(content, (bytes, bytearray, memoryview)) and not len(content) and path):
        return as_image(content)
    if isinstance(path, (str, os.PathLike)):
        return as_image(path)
    keys = shorten(", ".join(map(str, value)), 100) or "none"
    raise ImageError(f"an image is given as an object with neither 'bytes' nor 'path' filled in (its keys: {keys}); fill in one of them")


def _of_stream(stream: Any) -> bytes:
    try:
        seekable = bool(stream.seekable()) if hasattr(stream, "seekable") else False
        place = stream.tell() if seekable else 0
        if seekable:
            stream.seek(0)  # what was just written stands at its end
        content = stream.read(MAX_FILE_BYTES + 1)
        if seekable:
            stream.seek(place)
    except Exception as error:  # whatever stands behind it may fail in any way
        raise ImageError(f"an image is given as a file object that cannot be read ({shorten(error)}); open it again") from None
    if not isinstance(content, bytes):
        raise ImageError("an image is given as a file opened as text; open it as bytes, with 'rb'")
    return _checked(content)


def _of_array(value: Any) -> Image:
    import numpy as np
    from PIL import Image

    kind = type(value).__name__
    channels_first = hasattr(value, "detach")  # torch's order
    try:
        if channels_first:
            value = value.detach().cpu()
            value = (value.float() if value.is_floating_point() else value).numpy()  # numpy knows no bfloat16
        array = np.asarray(value)
    except Exception:  # a list of lists of unequal length, and whatever another library's array raises
        raise _no_image(kind) from None
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3):
        raise _no_image(kind, f" of shape {shorten(array.shape, 60)} and type {shorten(array.dtype, 60)}" if array.ndim else "")
    if array.ndim == 3:
        is_first, is_last = array.shape[0] in (1, 3, 4), array.shape[2] in (1, 3, 4)
        if not (is_first or is_last):
            raise ImageError(f"an image is given as an array of shape {array.shape}; it must have 1, 3 or 4 channels, first or last")
        array = np.moveaxis(array, 0, -1) if is_first and (channels_first or not is_last) else array
        array = array[..., 0] if array.shape[2] == 1 else array
    if not 0 < array.shape[0] * array.shape[1] <= MAX_PIXELS:
        raise ImageError(f"an image is given as an array of shape {array.shape}; it must have 1 to {MAX_PIXELS:,} pixels")
    return Image.fromarray(np.ascontiguousarray(_of_8_bits(array)))


def _of_8_bits(array: np.ndarray) -> np.ndarray:
    """Pixels from 0 to 255, by what the type and the largest value say of white."""
    import numpy as np

    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    low, high = float(array.min()), float(array.max())
    whites: tuple[float, ...] = (1.0, 255.0) if array.dtype.kind == "f" else (65535.0,) if array.dtype == np.uint16 else (255.0, 65535.0)
    slack = 0.01 if array.dtype.kind == "f" else 0.0  # as much as interpolation overshoots
    white = next((each for each in whites if high <= each * (1 + slack)), None)
    if white is None or not low >= -slack * white:  # also where there are NaN
        given = f"an array of {array.dtype} with values from {low:g} to {high:g}"
        raise ImageError(f"an image is given as {given}; scale them to 0 to 255, or floats to 0 to 1")
    return np.rint(array.astype(np.float64) * (255 / white)).clip(0, 255).astype(np.uint8)


def _no_image(kind: str, more: str = "") -> ImageError:
    return ImageError(f"an image cannot be given as {shorten(kind, 60)}{more}; give {ACCEPTED}")
