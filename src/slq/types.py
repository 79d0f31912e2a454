"""The few frozen values that cross modules: Item, Pair, Embeddings, Qrels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from slq.errors import Failure

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


@dataclass(frozen=True)
class Item:
    """What is embedded: a text, an image (a path or an open image), or both. Nothing is read until it is needed."""

    text: str | None = None
    image: Path | Image | None = None

    @cached_property
    def content_hash(self) -> str:
        """Hash of the item's content: equal keys mean equal embeddings.

        Raises OSError if an image file cannot be read.
        """
        digest = hashlib.sha256()
        if self.image is not None:
            if isinstance(self.image, Path):
                digest.update(b"file" + self.image.read_bytes())
            else:
                digest.update(f"{self.image.mode} {self.image.size}".encode() + self.image.tobytes())
        if self.text is not None:
            digest.update(b"\0text" + self.text.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


@dataclass(frozen=True)
class Pair:
    """One training example: a query, what matches it, and what is known not to.

    `source` says where it was read (`captions.jsonl line 7`), for messages.
    """

    query: Item
    positives: tuple[Item, ...]
    negatives: tuple[Item, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Embeddings:
    """Vectors with the ids of their items.

    vectors: (C, D) float32, each of length 1. fingerprint: which encoder made them. failures: items left out, with reasons.
    items: what to show for each id (`{"text": ..., "image": ...}`), in the order of `ids`.
    """

    ids: tuple[str, ...]
    vectors: np.ndarray
    fingerprint: str = ""
    items: tuple[Mapping[str, str], ...] = ()
    failures: tuple[Failure, ...] = field(default=())


Qrels = Mapping[str, Mapping[str, int]]
"""Judgements: query id -> corpus id -> relevance (0 or absent: not relevant)."""
