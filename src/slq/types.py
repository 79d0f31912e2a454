"""The few frozen values that cross modules: Item, Pair, Embeddings, Qrels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slq.errors import Failure

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


@dataclass(frozen=True)
class Item:
    """What is encoded: a text, an image, or both. Nothing is read until it is needed.

    Attributes:
        text: the text, if there is one.
        image: the path of an image file, or an open image, if there is one.
    """

    text: str | None = None
    image: Path | Image | None = None

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
            OSError: if an image file cannot be read.
        """
        stamp = _stamp(self.image)
        known = self.__dict__.get("_hashed")
        if known is None or known[0] != stamp:
            known = (stamp, _hash(self.text, self.image))
            object.__setattr__(self, "_hashed", known)  # one assignment, so that threads see both parts or neither
        return known[1]


def content_hash(item: Item | None) -> str | None:
    """An item's hash; None for no item, and for one whose image cannot be read.

    Args:
        item: what is encoded, or nothing.
    """
    try:
        return None if item is None else item.content_hash
    except OSError:
        return None


def _stamp(image: Path | Image | None) -> tuple[int, ...]:
    """What tells that a file has changed."""
    if not isinstance(image, os.PathLike):
        return ()
    status = os.stat(image)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _hash(text: str | None, image: Path | Image | None) -> str:
    """Every part with its name and its length before it, so that no two ways of cutting the bytes agree."""
    digest = hashlib.sha256(b"slq item 2")
    parts: list[tuple[str, bytes]] = []
    if isinstance(image, os.PathLike):
        parts.append(("file", Path(image).read_bytes()))
    elif image is not None:
        parts += _parts_of_image(image)
    if text is not None:
        parts.append(("text", text.encode("utf-8", "surrogatepass")))
    for name, content in parts:
        digest.update(f"\0{name} {len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _parts_of_image(image: Image) -> list[tuple[str, bytes]]:
    """All of an open image that its pixels as RGB depend on; some of it may make no difference."""
    image.load()  # a lazily opened one has its mode and its palette only then
    parts = [("mode", image.mode.encode()), ("size", repr(image.size).encode()), ("pixels", image.tobytes())]
    if image.palette is not None:
        parts.append(("palette", repr(image.palette.mode).encode() + bytes(image.palette.tobytes())))
    for name, value in sorted(image.info.items(), key=lambda entry: str(entry[0])):
        if "transparency" in str(name) or "exif" in str(name).lower() or "xmp" in str(name).lower():
            parts.append((f"info {name}", repr(value).encode()))
    try:
        parts.append(("exif", image.getexif().tobytes()))
    except Exception as error:  # EXIF that cannot be read is passed over where the image is opened
        parts.append(("no exif", type(error).__name__.encode()))
    return parts


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
    """

    ids: tuple[str, ...]
    vectors: np.ndarray
    fingerprint: str = ""
    items: tuple[Mapping[str, Any], ...] = ()
    failures: tuple[Failure, ...] = field(default=())


Qrels = Mapping[str, Mapping[str, int]]
"""Judgements: query id -> corpus id -> relevance (0 or absent: not relevant)."""
