"""The few frozen values that cross modules: Item, Pair, Embeddings, Qrels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slq.errors import Failure, ImageError, InputError, TextError
from slq.types.images import MAX_PIXELS, as_image, open_file

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


@dataclass(frozen=True)
class Item:
    """What is encoded: a text, an image, or both. No file is read until it is needed.

    Attributes:
        text: the text, if there is one.
        image: the image, if there is one: given in any form that `slq.types.images.as_image` takes, held as a Path, as the bytes of an
            image file, or as an open image. What is no image is held as it was given, and refused where it is used.
    """

    text: str | None = None
    image: Any = None

    def __post_init__(self) -> None:
        if self.image is not None and not isinstance(self.image, Path):
            with suppress(ImageError):  # one bad item must not keep a list of items from being made
                object.__setattr__(self, "image", as_image(self.image))

    @property
    def content_hash(self) -> str:
        """Hash of what the model will see: equal hashes mean equal embeddings.

        Never equal for different input; equal for equal input as far as that is cheap. An image file counts by its bytes, from which its
        pixels follow, since decoding it costs 20 to 40 times as much as hashing it (640 x 480: 3.7 ms against 0.1 ms as JPEG, 11.5 ms
        against 0.4 ms as PNG): the same pixels in another file have another hash. An open image counts by all that `open_image` reads:
        pixels, palette, transparency and EXIF.

        A file is hashed again when its size or time of change is not what it was. An open image must not be changed once it is in an item.

        Returns:
            sha256 in hexadecimal.

        Raises:
            InputError: if the image cannot be read, or the text is none.
        """
        stamp = _stamp(self.image)
        known = self.__dict__.get("_hashed")
        if known is None or known[0] != stamp:
            known = (stamp, _hash(self.text, self.image))
            object.__setattr__(self, "_hashed", known)  # one assignment, so that threads see both parts or neither
        return known[1]


def content_hash(item: Item | None) -> str | None:
    """An item's hash; None for no item, and for one that cannot be read.

    Args:
        item: what is encoded, or nothing.
    """
    try:
        return None if item is None else item.content_hash
    except InputError:
        return None


def _stamp(image: Any) -> tuple[int, ...]:
    """What tells that a file has changed."""
    if not isinstance(image, Path):
        return ()
    try:
        status = image.stat()
    except (OSError, ValueError):
        return (-1,)  # what is wrong with it is told when it is opened
    return status.st_ino, status.st_size, status.st_mtime_ns


def _hash(text: Any, image: Any) -> str:
    """Every part with its name and its length before it, so that no two ways of cutting the bytes agree."""
    digest = hashlib.sha256(b"slq item 2")

    def add(name: str, content: bytes) -> None:
        digest.update(f"\0{name} {len(content)}\0".encode())
        digest.update(content)

    if isinstance(image, Path):
        with open_file(image) as file:
            add("file", file.read())
    elif isinstance(image, bytes) and image:
        add("file", image)
    elif image is not None:
        _add_open_image(add, image)
    if text is not None:
        if not isinstance(text, str):
            raise TextError(f"a text must be a str, not {type(text).__name__}; convert it first")
        add("text", text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _add_open_image(add: Callable[[str, bytes], None], given: Any) -> None:
    """All of an open image that its pixels as RGB depend on; some of it may make no difference."""
    image: Image = as_image(given)  # type: ignore[assignment]  # or the reason why it is none
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"the open image has {image.width} x {image.height} pixels, more than the {MAX_PIXELS:,} allowed; scale it down")
    try:
        image.load()  # a lazily opened one has its mode and its palette only then
        add("mode", image.mode.encode())
        add("size", repr(image.size).encode())
        add("pixels", image.tobytes())
    except MemoryError:
        raise
    except Exception as error:  # damaged pixels make the decoders raise anything from struct.error to IndexError
        raise ImageError(f"the open image is truncated or damaged ({error or type(error).__name__}); replace or remove it") from None
    if image.palette is not None:
        add("palette", repr(image.palette.mode).encode() + bytes(image.palette.tobytes()))
    for name, value in sorted(image.info.items(), key=lambda entry: str(entry[0])):
        if "transparency" in str(name) or "exif" in str(name).lower() or "xmp" in str(name).lower():
            add(f"info {name}", repr(value).encode())
    try:
        add("exif", image.getexif().tobytes())
    except Exception as error:  # EXIF that cannot be read is passed over where the image is opened
        add("no exif", type(error).__name__.encode())


@dataclass(frozen=True)
class Pair:
    """One training example.

    Attributes:
        query: what is asked.
        positives: what matches it.
        negatives: what is known not to.
        source: where it was read (`captions.jsonl line 7`), for messages.
    """

    query: Item
    positives: tuple[Item, ...]
    negatives: tuple[Item, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Embeddings:
    """Vectors with the ids of their items.

    Attributes:
        ids: of the items.
        vectors: (C, D) float32, each of length 1.
        fingerprint: which encoder made them.
        items: what is known of each id (`{"text": ..., "image": ..., "content_hash": ..., "metadata": {...}}`), in the order of `ids`.
        failures: items that were skipped, with reasons.
        truncated: ids of items of whose text only the beginning was read.
    """

    ids: tuple[str, ...]
    vectors: np.ndarray
    fingerprint: str = ""
    items: tuple[Mapping[str, Any], ...] = ()
    failures: tuple[Failure, ...] = field(default=())
    truncated: tuple[str, ...] = ()


Qrels = Mapping[str, Mapping[str, int]]
"""Judgements: query id -> corpus id -> relevance (0 or absent: not relevant)."""
