"""Encoders that were tried: what can be done with trained adapters afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from slq.data.items import as_item
from slq.encoders.base import Encoder
from slq.models import PreparedBatch
from slq.types import Embeddings, Item


class Ensemble(Encoder):
    """Several adapters over one model, whose vectors stand one after the other: the mean of their cosines.

    Only their own parts run twice: a prefix is the same for all of them.
    """

    def __init__(self, parts: Sequence[Encoder]):
        self.parts, self.model, self.pooling = parts, parts[0].model, parts[0].pooling

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """Of one embedding."""
        return (sum(part.vector_shape[0] for part in self.parts),)

    @property
    def fingerprint(self) -> str:
        """Of all parts."""
        return "-".join(part.fingerprint for part in self.parts)

    def describe(self) -> dict[str, Any]:
        """The parts, as results tell of them."""
        return {"kind": "ensemble", "parts": [dict(part.describe()) for part in self.parts]}

    def states_of(self, prepared: PreparedBatch) -> Tensor:
        """Each part has states of its own, which are pooled apart."""
        raise NotImplementedError("an ensemble is scored, not trained")

    def encode(self, items: Sequence[Any], ids: Sequence[str] | None = None, *options: Any, **more: Any) -> Embeddings:
        """The parts' vectors, one after the other, at length 1."""
        found = [part.encode(items, ids, *options, **more) for part in self.parts]
        joined = np.concatenate([each.vectors for each in found], axis=1) / len(found) ** 0.5
        return replace(found[0], vectors=joined.astype(np.float32), fingerprint=self.fingerprint)


class Centred(Encoder):
    """An adapter whose vectors of images and of texts are moved so that both kinds have the same mean.

    Args:
        inner: the adapter.
        items: whose means are taken, of both kinds; what it was trained on will do.
    """

    def __init__(self, inner: Encoder, items: Sequence[Item]):
        self.inner, self.model, self.pooling = inner, inner.model, inner.pooling
        vectors = inner.encode(items).vectors
        has_image = np.array([item.image is not None for item in items])
        means = [vectors[has_image == kind].mean(axis=0) for kind in (False, True)]
        self._moves = np.stack([mean - (means[0] + means[1]) / 2 for mean in means])

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """Of one embedding."""
        return self.inner.vector_shape

    @property
    def fingerprint(self) -> str:
        """Of the adapter, and that it is moved."""
        return f"{self.inner.fingerprint}-centred"

    def describe(self) -> dict[str, Any]:
        """The adapter, as results tell of it."""
        return {"kind": "centred", "of": self.inner.describe()}

    def states_of(self, prepared: PreparedBatch) -> Tensor:
        """Only embeddings are moved."""
        raise NotImplementedError("a centred encoder is scored, not trained")

    def encode(self, items: Sequence[Any], ids: Sequence[str] | None = None, *options: Any, **more: Any) -> Embeddings:
        """The adapter's vectors, moved, at length 1."""
        found = self.inner.encode(items, ids, *options, **more)
        names = tuple(str(i) for i in range(len(items))) if ids is None else tuple(ids)
        has_image = {name: int(as_item(item).image is not None) for name, item in zip(names, items, strict=True)}
        moved = found.vectors - self._moves[[has_image[name] for name in found.ids]]
        vectors = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        return replace(found, vectors=vectors.astype(np.float32), fingerprint=self.fingerprint)
